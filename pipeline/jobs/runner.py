"""The lease loop: claims jobs, has them done by a Dask worker, shows that it lives, and publishes what came
of them under its token.

    claim ─► submit ─► beat, beat, … ─► publish (one transaction: the job ends, versions and promotions
    appear)

It runs in a process of its own beside the daemon (``pipeline.jobs.runner_process``); any number of machines
may run one.
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
from pipeline.core.errors import ForewatchError, InputError, StorageUnavailable
from pipeline.jobs.dask_workers import ClusterAway, Workers
from pipeline.jobs.results import publish, task_of
from pipeline.jobs.task_types import Outcome, Task
from storage.model_store import jobs
from storage.model_store.jobs import Job, Lost
from storage.model_store.models import Overtaken
from storage.sql.database import Database

log = structlog.get_logger(__name__)

TURN_SECONDS = 0.2
#: Jobs in hand at once; those that wait for a worker count too.
MOST = 8
BEATS = 5  # within a lease


@dataclass(slots=True)
class Execution:
    """One job in hand. ``reason`` says why it waits; ``outcome`` is what could not be published yet."""

    job: Job
    task: Task
    since: float = field(default_factory=time.monotonic)
    beat_at: float = 0.0
    future: Any = None
    progress: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    cancelling: bool = False
    outcome: Outcome | None = None
    error: BaseException | None = None

    @property
    def ran_on(self) -> str | None:
        return self.progress.get("device")


class Runner:
    """Everything that one process does for the jobs of one config. ``turn`` is called again and again."""

    def __init__(self, config: Config, database: Database, owner: str, workers: Workers) -> None:
        self._config = config
        self._database = database
        self._owner = owner
        self._workers = workers
        self._hands: dict[int, Execution] = {}
        self._seen: dict[int, tuple[int, int, float]] = {}  # job → token, beat, since when both stand still

    @property
    def busy(self) -> bool:
        return bool(self._hands)

    @property
    def _under_way(self) -> bool:
        return any(execution.future is not None for execution in self._hands.values())

    def run(
        self, stop: threading.Event, idle_seconds: float, orphaned: Callable[[], bool] = lambda: False
    ) -> None:
        """Turn until ``stop`` is set or nothing was to do for ``idle_seconds``; an orphan finishes what is
        under way, gives back what waits, and ends.
        """
        worked_at = time.monotonic()
        try:
            while not stop.wait(TURN_SECONDS) and not (orphaned() and not self._under_way):
                if self.turn(claim=not orphaned()):
                    worked_at = time.monotonic()
                elif time.monotonic() - worked_at >= idle_seconds:
                    return
        finally:
            self._leave()

    def turn(self, claim: bool = True) -> bool:
        """One look at everything; False: there is nothing to do, and nobody else's job to watch."""
        watching = False
        try:
            watching = self._bury()
            while claim and len(self._hands) < MOST and (job := self._claim()) is not None:
                self._begin(job)
                log.info("job begun", job=job.id, kind=job.kind, stream=job.stream, attempt=job.attempt)
        except StorageUnavailable as error:
            self._seen.clear()  # who could not be watched did not stand still
            log.warning("jobs cannot be read", error=str(error))
        for execution in list(self._hands.values()):
            self._look(execution)
        if not self._hands:
            self._workers.close()
        return self.busy or watching

    # ------------------------------------------------------------------------------------------------ rows

    def _claim(self) -> Job | None:
        with self._database.begin() as connection:
            return jobs.claim(connection, self._owner, time.time_ns(), streams=self._config.streams)

    def _begin(self, job: Job) -> None:
        try:
            with self._database.read() as connection:
                self._hands[job.id] = Execution(job, task_of(connection, self._config, job))
        except InputError as error:  # the version that it is about is gone
            with self._database.begin() as connection:
                jobs.finish(connection, job, "failed", str(error), time.time_ns(), error=str(error))

    def _bury(self) -> bool:
        """Jobs of owners that are silent for a whole lease go back into the queue.

        True: somebody has one in hand.
        """
        with self._database.read() as connection:
            others = [job for job in jobs.query(connection, states=["running"]) if job.id not in self._hands]
        now, seen = time.monotonic(), self._seen
        self._seen = {}
        for job in others:
            token, beat, since = seen.get(job.id, (job.token, job.beat, now))
            if (token, beat) != (job.token, job.beat):
                since = now
            self._seen[job.id] = (job.token, job.beat, since)
            if now - since >= self._lease(job):
                with self._database.begin() as connection:
                    state = jobs.bury(connection, job, time.time_ns())
                log.warning("the owner of a job is silent", job=job.id, owner=job.owner, now=state)
        return bool(others)

    def _lease(self, job: Job) -> float:
        stream = self._config.streams.get(job.stream)
        return stream.retraining.lease.total_seconds() if stream is not None else 60.0

    # ------------------------------------------------------------------------------------------------ one job

    def _look(self, execution: Execution) -> None:
        try:
            if execution.outcome is None and execution.error is None:
                self._advance(execution)
            if execution.outcome is not None or execution.error is not None:
                self._end(execution)
            elif time.monotonic() - execution.beat_at >= self._lease(execution.job) / BEATS:
                self._beat(execution)
                self._mind_gpu(execution)
        except (StorageUnavailable, Overtaken) as error:
            log.warning("a job cannot be written yet", job=execution.job.id, error=str(error))
        except Lost as error:
            log.warning("a job was lost", job=execution.job.id, error=str(error))
            self._drop(execution)

    def _advance(self, execution: Execution) -> None:
        """Submit it once a worker of its kind is there, and see whether it is done."""
        try:
            if execution.future is None:
                self._submit(execution)
            elif not self._workers.alive() or execution.future.status in ("cancelled", "lost"):
                raise ClusterAway("the Dask scheduler went away with the job")
        except ClusterAway as error:
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
        """A GPU where it is wanted and there; the CPU where it may be, or after the wait that the config
        allows."""
        wanted, after = execution.job.device, self._config.streams[execution.job.stream].retraining.cpu_after
        gpu = wanted != "cpu" and self._workers.gpus() > 0
        if wanted == "gpu" and not gpu:
            waited = time.monotonic() - execution.since
            if after is None or waited < after.total_seconds():
                then = (
                    f"; takes the CPU in {after.total_seconds() - waited:.0f} s" if after is not None else ""
                )
                execution.reason = (
                    f"no worker offers a GPU (forewatch worker --scheduler ADDRESS --gpu){then}"
                )
                return
        execution.reason = ""
        execution.task = replace(execution.task, gpu=gpu)
        execution.future = self._workers.submit(execution.task, execution.progress.update)

    def _mind_gpu(self, execution: Execution) -> None:
        """The last worker with a GPU went away: wait for the next one anew, and no longer than the config
        allows.
        """
        if (
            execution.future is not None
            and execution.task.gpu
            and self._workers.alive()
            and not self._workers.gpus()
        ):
            execution.future.cancel()
            execution.future, execution.since = None, time.monotonic()

    def _beat(self, execution: Execution) -> None:
        execution.beat_at = time.monotonic()
        with self._database.begin() as connection:
            cancel = jobs.beat(
                connection, execution.job, dict(execution.progress), execution.reason, execution.ran_on
            )
        if cancel and not execution.cancelling:
            execution.cancelling = True
            if not execution.progress:
                if execution.future is not None:
                    execution.future.cancel()
                execution.outcome = Outcome("cancelled", "cancelled before it began")
            else:
                self._workers.cancel(execution.task)

    def _end(self, execution: Execution) -> None:
        """Publish what came of it; the next turn tries again where the database is away."""
        job, error = execution.job, execution.error
        with self._database.begin() as connection:
            if error is None:
                assert execution.outcome is not None
                jobs.beat(connection, job, dict(execution.progress), ran_on=execution.ran_on)
                publish(connection, self._config, job, execution.task, execution.outcome, time.time_ns())
            elif _worth_again(error) and job.attempt < jobs.ATTEMPTS:
                jobs.give_back(
                    connection,
                    job,
                    f"attempt {job.attempt}: {_first_line(error)}",
                    error=_first_line(error),
                    traceback=_text(error),
                )
            else:
                cost = {"attempts": job.attempt}
                why = _first_line(error)
                jobs.finish(
                    connection,
                    job,
                    "failed",
                    why,
                    time.time_ns(),
                    cost=cost,
                    error=why,
                    traceback=_text(error),
                )
        log.info(
            "job ended",
            job=job.id,
            reason=execution.outcome.reason if execution.outcome else _first_line(error),
        )
        self._drop(execution)

    def _drop(self, execution: Execution) -> None:
        self._hands.pop(execution.job.id, None)
        if execution.future is not None and not execution.future.done() and self._workers.alive():
            self._workers.cancel(execution.task)
            execution.future.cancel()

    def _leave(self) -> None:
        """Our own end: what is not done yet is for others, at once."""
        for execution in list(self._hands.values()):
            try:
                with self._database.begin() as connection:
                    jobs.give_back(connection, execution.job, f"{self._owner} was stopped", stopped=True)
            except (StorageUnavailable, Lost) as error:
                log.warning(
                    "a job could not be given back; its lease ends by itself",
                    job=execution.job.id,
                    error=str(error),
                )
        self._workers.close()


def _worth_again(error: BaseException) -> bool:
    """The worker or the way to it died; an error of ours would only come again."""
    return isinstance(error, ClusterAway) or type(error).__module__.split(".")[0] == "distributed"


def _first_line(error: BaseException | None) -> str:
    if error is None:
        return ""
    text = str(error).strip().splitlines()
    line = text[0] if text else type(error).__name__
    return line if isinstance(error, ForewatchError) else f"{type(error).__name__}: {line}"


def _text(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
