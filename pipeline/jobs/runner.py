"""The lease loop: claims jobs, submits them to Dask and publishes the results.

    claim ─► submit ─► heartbeat, heartbeat, … ─► publish (one transaction: the job ends, versions and
                                                  promotions appear)

Every write names the token of the claim. The loop runs in its own process beside the daemon
(``pipeline.jobs.runner_process``); any number of machines may run one.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from pipeline.config.schema import Config
from pipeline.core.errors import ConfigError, ForewatchError, InputError, NotInstalled, StorageUnavailable
from pipeline.jobs.dask_workers import ClusterUnavailable, DaskWorkers
from pipeline.jobs.metrics import NO_GPU_WORKER
from pipeline.jobs.results import publish, task_of
from pipeline.jobs.task_types import Task, TaskResult
from storage.model_store import jobs
from storage.model_store.jobs import Job, JobState, LeaseLost
from storage.model_store.models import ChampionChanged
from storage.sql.database import Database

log = structlog.get_logger(__name__)

TURN_SECONDS = 0.2
#: Jobs claimed at a time, including those that wait for a worker.
MAX_CLAIMED_JOBS = 8
HEARTBEATS_PER_LEASE = 5
#: Lease of a job whose stream is not in the config.
DEFAULT_LEASE_SECONDS = 60.0


@dataclass(slots=True)
class Execution:
    """One claimed job.

    ``reason`` says why it waits; ``outcome`` is a result that is not published yet.
    """

    job: Job
    task: Task
    since: float = field(default_factory=time.monotonic)
    beat_at: float = 0.0
    future: Any = None
    progress: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    cancelling: bool = False
    outcome: TaskResult | None = None
    error: BaseException | None = None

    @property
    def ran_on(self) -> str | None:
        return self.progress.get("device")


class Runner:
    """The job loop of one process and one config; the caller repeats ``turn``."""

    def __init__(self, config: Config, database: Database, owner: str, workers: DaskWorkers) -> None:
        self._config = config
        self._database = database
        self._owner = owner
        self._workers = workers
        self._claimed: dict[int, Execution] = {}
        # job → token, beat, and the time at which both were first observed
        self._observed: dict[int, tuple[int, int, float]] = {}

    @property
    def busy(self) -> bool:
        """Return whether any job is claimed."""
        return bool(self._claimed)

    @property
    def _has_submitted(self) -> bool:
        return any(execution.future is not None for execution in self._claimed.values())

    def run(
        self, stop: threading.Event, idle_seconds: float, orphaned: Callable[[], bool] = lambda: False
    ) -> None:
        """Repeat ``turn`` until ``stop`` is set or no job came for ``idle_seconds``.

        An orphaned runner finishes the submitted jobs, returns the others to the queue and ends.

        Args:
            stop: set to end the loop.
            idle_seconds: time without jobs after which the loop ends.
            orphaned: returns whether the parent process is gone.
        """
        worked_at = time.monotonic()
        try:
            while not stop.wait(TURN_SECONDS) and not (orphaned() and not self._has_submitted):
                if self.turn(claim=not orphaned()):
                    worked_at = time.monotonic()
                elif time.monotonic() - worked_at >= idle_seconds:
                    return
        finally:
            self._release_claimed_jobs()

    def turn(self, claim: bool = True) -> bool:
        """Advance every claimed job once.

        Return False if no job is claimed here and no other process runs one.
        """
        watching = False
        try:
            watching = self._reclaim_expired_leases()
            while claim and len(self._claimed) < MAX_CLAIMED_JOBS and (job := self._claim()) is not None:
                self._prepare(job)
                log.info("job started", job=job.id, kind=job.kind, stream=job.stream, attempt=job.attempt)
        except StorageUnavailable as error:
            # A lease that could not be observed must not expire.
            self._observed.clear()
            log.warning("cannot read the jobs", error=str(error))
        for execution in list(self._claimed.values()):
            self._advance_or_end(execution)
        if not self._claimed:
            self._workers.close()
        return self.busy or watching

    # ------------------------------------------------------------------------------------------------ rows

    def _claim(self) -> Job | None:
        with self._database.begin() as connection:
            return jobs.claim(connection, self._owner, time.time_ns(), streams=self._config.streams)

    def _prepare(self, job: Job) -> None:
        try:
            with self._database.read() as connection:
                self._claimed[job.id] = Execution(job, task_of(connection, self._config, job))
        except InputError as error:  # the version that the task needs was removed
            with self._database.begin() as connection:
                jobs.finish(connection, job, JobState.FAILED, str(error), time.time_ns(), error=str(error))

    def _reclaim_expired_leases(self) -> bool:
        """Return jobs whose owner was silent for a whole lease to the queue.

        Return True if another process has claimed a job.
        """
        with self._database.read() as connection:
            others = [
                job
                for job in jobs.query(connection, states=[JobState.RUNNING])
                if job.id not in self._claimed
            ]
        now, observed = time.monotonic(), self._observed
        self._observed = {}
        for job in others:
            token, beat, since = observed.get(job.id, (job.token, job.beat, now))
            if (token, beat) != (job.token, job.beat):
                since = now
            self._observed[job.id] = (job.token, job.beat, since)
            if now - since >= self._lease_seconds(job):
                with self._database.begin() as connection:
                    state = jobs.reclaim_expired_lease(connection, job, time.time_ns())
                log.warning("the lease of a job expired", job=job.id, owner=job.owner, new_state=state)
        return bool(others)

    def _lease_seconds(self, job: Job) -> float:
        stream = self._config.streams.get(job.stream)
        return stream.retraining.lease.total_seconds() if stream is not None else DEFAULT_LEASE_SECONDS

    # ------------------------------------------------------------------------------------------------ one job

    def _advance_or_end(self, execution: Execution) -> None:
        try:
            if execution.outcome is None and execution.error is None:
                self._advance(execution)
            if execution.outcome is not None or execution.error is not None:
                self._publish(execution)
            elif (
                time.monotonic() - execution.beat_at
                >= self._lease_seconds(execution.job) / HEARTBEATS_PER_LEASE
            ):
                self._heartbeat(execution)
                self._requeue_if_gpu_lost(execution)
        except (StorageUnavailable, ChampionChanged) as error:
            log.warning("cannot write a job; trying again", job=execution.job.id, error=str(error))
        except LeaseLost as error:
            log.warning("the lease of a job is lost", job=execution.job.id, error=str(error))
            self._forget(execution)

    def _advance(self, execution: Execution) -> None:
        """Submit the job once a suitable worker is there; fetch the result once done."""
        try:
            if execution.future is None:
                self._submit(execution)
            elif not self._workers.alive() or execution.future.status in ("cancelled", "lost"):
                raise ClusterUnavailable("the connection to the Dask scheduler was lost during the job")
        except ClusterUnavailable as error:
            if execution.future is not None:
                self._workers.close()
                execution.error = error
            execution.reason = str(error)
            return
        if execution.future is not None and execution.future.done():
            execution.error = execution.future.exception()
            if execution.error is None:
                execution.outcome = execution.future.result()

    def _submit(self, execution: Execution) -> None:
        """Submit to a GPU worker where one is wanted and there, otherwise to a CPU worker.

        A job that wants a GPU waits for one for as long as the config says.
        """
        wanted, after = execution.job.device, self._config.streams[execution.job.stream].retraining.cpu_after
        gpu = wanted != "cpu" and self._workers.gpus() > 0
        if wanted == "gpu" and not gpu:
            waited = time.monotonic() - execution.since
            if after is None or waited < after.total_seconds():
                fallback = (
                    f"; uses the CPU in {after.total_seconds() - waited:.0f} s" if after is not None else ""
                )
                execution.reason = f"{NO_GPU_WORKER} (forewatch worker --scheduler ADDRESS --gpu){fallback}"
                return
        execution.reason = ""
        execution.task = replace(execution.task, gpu=gpu)
        execution.future = self._workers.submit(execution.task, execution.progress.update)

    def _requeue_if_gpu_lost(self, execution: Execution) -> None:
        """Wait for a GPU again if the last worker with one has gone.

        The waiting time of the config starts again.
        """
        if (
            execution.future is not None
            and execution.task.gpu
            and self._workers.alive()
            and not self._workers.gpus()
        ):
            execution.future.cancel()
            execution.future, execution.since = None, time.monotonic()

    def _heartbeat(self, execution: Execution) -> None:
        execution.beat_at = time.monotonic()
        with self._database.begin() as connection:
            cancel = jobs.heartbeat(
                connection, execution.job, dict(execution.progress), execution.reason, execution.ran_on
            )
        if cancel and not execution.cancelling:
            execution.cancelling = True
            if not execution.progress:
                if execution.future is not None:
                    execution.future.cancel()
                execution.outcome = TaskResult(JobState.CANCELLED, "cancelled before it started")
            else:
                self._workers.cancel(execution.task)

    def _publish(self, execution: Execution) -> None:
        """Publish the result; the next turn tries again if the database is unavailable."""
        job, error = execution.job, execution.error
        with self._database.begin() as connection:
            if error is None:
                assert execution.outcome is not None
                jobs.heartbeat(connection, job, dict(execution.progress), ran_on=execution.ran_on)
                publish(connection, self._config, job, execution.task, execution.outcome, time.time_ns())
            elif _is_transient(error) and job.attempt < jobs.MAX_ATTEMPTS:
                jobs.release(
                    connection,
                    job,
                    f"attempt {job.attempt}: {_first_line(error)}",
                    error=_first_line(error),
                    traceback=_text(error),
                )
            else:
                first_line = _first_line(error)
                jobs.finish(
                    connection,
                    job,
                    JobState.FAILED,
                    first_line,
                    time.time_ns(),
                    cost={"attempts": job.attempt},
                    error=first_line,
                    traceback=_text(error),
                )
        log.info(
            "job ended",
            job=job.id,
            reason=execution.outcome.reason if execution.outcome else _first_line(error),
        )
        self._forget(execution)

    def _forget(self, execution: Execution) -> None:
        self._claimed.pop(execution.job.id, None)
        if execution.future is not None and not execution.future.done() and self._workers.alive():
            self._workers.cancel(execution.task)
            execution.future.cancel()

    def _release_claimed_jobs(self) -> None:
        """Return unfinished jobs to the queue when this process ends."""
        for execution in list(self._claimed.values()):
            try:
                with self._database.begin() as connection:
                    jobs.release(connection, execution.job, f"{self._owner} was stopped", stopped=True)
            except (StorageUnavailable, LeaseLost) as error:
                log.warning(
                    "cannot return a job to the queue; its lease will expire",
                    job=execution.job.id,
                    error=str(error),
                )
        self._workers.close()


def _is_transient(error: BaseException) -> bool:
    """Return whether the worker or the connection failed, and not the task itself."""
    return isinstance(error, ClusterUnavailable) or type(error).__module__.split(".")[0] == "distributed"


def _first_line(error: BaseException | None) -> str:
    if error is None:
        return ""
    text = str(error).strip().splitlines()
    line = text[0] if text else type(error).__name__
    return line if isinstance(error, ForewatchError) else f"{type(error).__name__}: {line}"


def _text(error: BaseException) -> str:
    """Return the trace of an error, empty for a wrong input or config."""
    if isinstance(error, InputError | ConfigError | NotInstalled):
        return ""
    return "".join(traceback.format_exception(error))
