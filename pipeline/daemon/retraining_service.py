"""Retraining in the daemon: scheduler, model swap, and a runner process on demand.

One thread polls the database.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

import structlog

from pipeline.config.schema import Config, Stream
from pipeline.core.cron import CronSchedule, Schedule
from pipeline.core.durations import to_nanoseconds
from pipeline.core.errors import StorageError
from pipeline.core.extras import missing_for_training
from pipeline.core.types import Partition, Power
from pipeline.daemon.model_swap import ModelSwap
from pipeline.engine.engine import Engine
from pipeline.engine.sink import Sink
from pipeline.jobs.metrics import JobMetrics
from pipeline.jobs.requests import request_training, trainable
from pipeline.jobs.runner_process import RunnerProcess
from pipeline.jobs.scheduler import TrainingScheduler
from pipeline.monitoring.detection_power import PowerSink
from pipeline.monitoring.drift_sink import DriftEvidence, DriftSink
from pipeline.monitoring.write_behind import WriteBehind
from pipeline.observability.metrics import Metrics, PowerMetrics
from pipeline.scoring.stream_scorer import StreamScorer
from storage.model_store import jobs, monitor_state
from storage.sql.database import Database

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0


class RetrainingService:
    """The part of retraining that runs in the daemon's process."""

    def __init__(self, config: Config, database: Database, metrics: Metrics, *, trains: bool = True) -> None:
        """Start nothing yet; without ``trains`` another process runs the jobs."""
        self._config = config
        self._database = database
        self._trains = trains
        self._runner = RunnerProcess()
        self._scheduler = TrainingScheduler(self._queue)
        self._watch = ModelSwap(database, metrics, self._history)
        self._metrics, self._job_metrics = metrics, JobMetrics(metrics)
        self._keeper = WriteBehind(database)
        self._outdated = False  # the runner has the config of before
        self._lacks: str | None = None  # why no runner can be started here
        self._asked: set[str] = set()  # streams whose files of past points were looked at
        self._drifts: deque[DriftEvidence] = deque()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retraining", daemon=True)

    def start(self) -> None:
        self._warn_if_training_is_impossible()
        self._scheduler.set_schedules(_schedules(self._config))
        self._scheduler.start()
        self._thread.start()

    def use_config(self, config: Config) -> None:
        """Continue with another config."""
        for name in self._config.streams:
            self._watch.forget(name)
        self._config = config
        self._scheduler.set_schedules(_schedules(config))
        self._outdated, self._asked = True, set()
        self._warn_if_training_is_impossible()

    def stop(self) -> None:
        """Stop the scheduler and the runner; a second call has no effect.

        The runner returns its jobs to the queue.
        """
        self._stop.set()
        self._scheduler.stop()
        if self._thread.is_alive():
            self._thread.join(10)
        self._runner.stop()
        with suppress(StorageError):  # it is only measured again
            self._keeper.flush()

    def _history(self) -> str | None:
        return self._config.history_path if self._config.storage.history else None

    def apply(self, engines: Mapping[str, Engine]) -> None:
        """Replace models by promoted versions; called by the loop between two batches."""
        self._watch.apply(engines)

    def drifted(self, evidence: DriftEvidence) -> None:
        """Queue a drift report; called by the loop, so it does not block."""
        self._drifts.append(evidence)

    def monitors(self, name: str, stream: Stream, scorer: StreamScorer) -> list[Sink]:
        """Return the stream's monitors with their stored state: detection power and drift."""
        sinks: list[Sink] = []
        with self._database.read() as connection:
            power = monitor_state.power(connection, name, scorer.provenance.model_version)
            drift = monitor_state.drift(connection, name)
        if stream.power and not stream.of_events:

            def keep(series: str, found: list[Power]) -> None:
                by, now_ns = scorer.provenance.model_version, time.time_ns()
                self._keeper.put(
                    (name, series),
                    partial(
                        monitor_state.save_power, stream=name, found=found, model_version=by, found_ns=now_ns
                    ),
                )

            sinks.append(PowerSink(scorer, PowerMetrics(self._metrics, name), keep=keep, kept=power))
        if stream.retraining.on_drift and trainable(stream) and not stream.of_events:

            def keep_drift(partition: Partition, state: Callable[[], monitor_state.DriftState]) -> None:
                self._keeper.put(
                    (name, partition), lambda connection: monitor_state.save_drift(connection, state())
                )

            cool_down_ns = to_nanoseconds(stream.retraining.min_interval)
            sinks.append(DriftSink(scorer, cool_down_ns, self.drifted, keep_drift, drift))
        return sinks

    def _run(self) -> None:
        self._catch_up()
        while not self._stop.wait(LOOK_SECONDS):
            try:
                self._watch.prepare_promotions(self._config.streams)
                self._ask_for_drifts()
                self._ask_for_past()
                self._keeper.flush()
                self._check_jobs()
            except StorageError as error:
                log.debug("cannot read jobs and promotions", error=str(error))
            except Exception:
                # What counts is in rows; a thread that ended would leave them unread for good.
                log.exception("the check of jobs and promotions failed; trying again")

    def _ask_for_drifts(self) -> None:
        """Request a training for each drift, unless one was made a short time ago."""
        while self._drifts:
            evidence, now_ns = self._drifts[0], time.time_ns()
            stream, detail, number = (
                self._config.streams.get(evidence.stream),
                {"drift": evidence.as_dict()},
                None,
            )
            if stream is not None:
                with self._database.begin() as connection:
                    number = request_training(
                        connection,
                        evidence.stream,
                        stream,
                        now_ns,
                        trigger="drift",
                        author="drift",
                        now_ns=now_ns,
                        detail=detail,
                    )
            self._drifts.popleft()  # not before it is written
            self._job_metrics.count_drift(evidence.stream)
            names = [one["series"] for one in evidence.series[:3]]
            log.info(
                "drift", stream=evidence.stream, statistics=evidence.statistics, series=names, job=number
            )

    def _ask_for_past(self) -> None:
        """A stream that names files of past points is trained on them at once, not at the next tick of the
        clock; once, unless they change.

        Their time of change is when the training was due, so that any number of daemons and starts ask for
        one.
        """
        for name, stream in self._config.streams.items():
            if stream.warm_start is None or name in self._asked or not trainable(stream):
                continue
            now_ns = time.time_ns()
            try:
                due_ns = min(stream.warm_start.stat().st_mtime_ns, now_ns)
            except OSError as error:
                log.warning(
                    "warm-start files cannot be read",
                    stream=name,
                    warm_start=str(stream.warm_start),
                    error=error.strerror,
                )
            else:
                with self._database.begin() as connection:
                    number = request_training(
                        connection, name, stream, due_ns, trigger="history", author="start", now_ns=now_ns
                    )
                if number is not None:
                    log.info("training queued", job=number, stream=name, warm_start=str(stream.warm_start))
            self._asked.add(name)

    def _check_jobs(self) -> None:
        """Start the runner if a job is due or its process died."""
        with self._database.read() as connection:
            live = jobs.query(connection, states=jobs.LIVE_STATES)
            ended = jobs.query(connection, states=jobs.ENDED_STATES, limit=50)
        self._job_metrics.update(self._config.streams, live, ended, time.time_ns())
        if self._outdated:
            self._outdated = False
            self._runner.stop()  # the next job starts one with the new config
        mine = [job for job in live if job.stream in self._config.streams]
        due = any(job.state == "running" or job.due_ns <= time.time_ns() for job in mine)
        # a daemon that cannot train leaves it to another on the same database
        if due and self._trains and self._lacks is None:
            self._runner.ensure(self._config)

    def _warn_if_training_is_impossible(self) -> None:
        if not self._trains:
            return
        self._lacks = missing_for_training(on_this_machine=self._config.cluster.scheduler is None)
        if self._lacks and (
            names := [name for name, stream in self._config.streams.items() if trainable(stream)]
        ):
            log.warning("models are not trained by this daemon", reason=self._lacks, streams=names)

    def _queue(self, stream: str, due_ns: int) -> None:
        with self._database.begin() as connection:
            found = self._config.streams[stream]
            number = request_training(
                connection, stream, found, due_ns, trigger="schedule", author="clock", now_ns=time.time_ns()
            )
        if number is not None:
            log.info("training queued", job=number, stream=stream)

    def _catch_up(self) -> None:
        """Request the trainings that became due while no daemon ran.

        A stream without any scheduled training waits for its first due time.
        """
        for name in _schedules(self._config):
            try:
                with self._database.read() as connection:
                    last = [
                        job
                        for job in jobs.query(connection, stream=name, kind="train", limit=20)
                        if job.trigger == "schedule"
                    ]
            except StorageError as error:
                log.warning("cannot look up missed trainings", stream=name, error=str(error))
                return
            if last:
                self._scheduler.catch_up(name, last[0].due_ns)


def _schedules(config: Config) -> dict[str, Schedule]:
    return {
        name: CronSchedule(stream.retraining.schedule, _zone_of(stream))
        for name, stream in config.streams.items()
        if stream.retraining.schedule is not None and trainable(stream)
    }


def _zone_of(stream: Stream) -> str:
    """Return the time zone of the schedule: its own, else that of the stream."""
    own = stream.retraining.timezone
    return own if "timezone" in stream.retraining.model_fields_set else stream.local_timezone or own
