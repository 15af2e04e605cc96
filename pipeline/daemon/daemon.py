"""The daemon: all streams of a config in one thread, until SIGTERM."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import structlog

from detectors.composite.warmup import compile_kernels
from pipeline.alerts.outbox import outbox_of
from pipeline.alerts.service import AlertService
from pipeline.config.loader import load_config
from pipeline.config.schema import Config
from pipeline.core.errors import InputError, SourceError, StorageUnavailable
from pipeline.core.interpreter import reduce_garbage_collection, take_turns_often
from pipeline.core.service_manager import report_ready, report_stopping
from pipeline.core.stop_signals import stop_on_signals
from pipeline.core.types import FaultKind
from pipeline.daemon.background_service import BackgroundService, PublicService
from pipeline.daemon.config_audit import record_config_change
from pipeline.daemon.config_changes import changed_engines, require_same_process
from pipeline.daemon.failed_streams import FailedStreams
from pipeline.daemon.process_role import ALONE, ProcessRole
from pipeline.daemon.reload import Reloader
from pipeline.daemon.retraining_service import RetrainingService
from pipeline.daemon.revision_service import RevisionService, revisions_of
from pipeline.daemon.source_options import source_options
from pipeline.daemon.start_guard import StartGuard
from pipeline.database import (
    StoppedWhileStarting,
    open_database_when_available,
    owner_name,
    retry_until_available,
)
from pipeline.engine.engine import Engine
from pipeline.engine.factory import build_engine
from pipeline.engine.warm_start import read_warm_start
from pipeline.models.registry import remove_unneeded_versions
from pipeline.monitoring.forecaster_usage import ForecasterUsageSink
from pipeline.observability.health import Health
from pipeline.observability.metrics import Metrics, StreamMetrics
from pipeline.observability.watchdog import Watchdog
from pipeline.outputs.factory import make_outputs
from pipeline.sources import make_source
from pipeline.sources.kafka.offset_range import second_reader
from storage.history.writer import HistoryWriter
from storage.retention import prune, prune_history
from storage.sql.database import Database

log = structlog.get_logger(__name__)

#: Time that an idle loop waits for records, all streams together.
IDLE_SECONDS = 0.1
PRUNE_INTERVAL_SECONDS = 3600.0


class Daemon:
    """The engines of all streams, which run in turn."""

    def __init__(
        self,
        config: Config,
        database: Database,
        metrics: Metrics,
        health: Health,
        stopping: threading.Event,
        role: ProcessRole = ALONE,
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._health = health
        self._config = config
        self._first = role.first
        self._prune_at = time.monotonic()
        self._retraining = RetrainingService(config, database, metrics, trains=role.first)
        self._revisions = RevisionService()
        #: Started in this order and stopped in the reverse order.
        self._services: list[BackgroundService] = [
            AlertService(config, database, metrics),
            self._retraining,
            self._revisions,
        ]
        self._stopping = stopping
        self._engines: dict[str, Engine] = {}
        self._failed = FailedStreams()
        #: Streams that are still reading their warm-start files.
        self._warm_starts: dict[str, Iterator[int]] = {}
        built = retry_until_available(
            lambda: self._built(list(config.streams)), stopping, partial(health.wait, "database")
        )
        health.ready("database")
        self._begin(built)
        for service in self._services:
            service.start()
        health.ready("daemon")

    def add_service(self, service: BackgroundService) -> None:
        """Start a service, and stop it before the others."""
        self._services.append(service)
        service.start()

    def stop(self) -> None:
        """Request the end: the current turn is committed, the group is left."""
        self._stopping.set()

    def reloaded(self, result: str) -> None:
        """Count a changed config file as ``taken`` or ``refused``."""
        self._metrics.operation.config_reloads.labels(result).inc()

    def use_config(self, config: Config) -> None:
        """Apply another config: streams that changed restart from their committed positions.

        Raises:
            ConfigError: The config cannot be applied; the running one stays in force.
        """
        require_same_process(self._config, config)
        old, self._config = self._config, config
        changed = changed_engines(old, config)
        try:
            built = self._built([name for name in config.streams if name in changed])
        except BaseException:
            self._config = old
            raise
        for name in changed & self._engines.keys():
            self._end(name)
        for name in changed.intersection(self._failed.names()):
            self._failed.forget(name)
            self._health.ready(f"stream {name}")
        self._begin(built)
        for service in self._services:
            service.use_config(config)
        if self._first:
            record_config_change(self._database, old, config)

    def run(self, reload: Callable[[], None]) -> None:
        """Run until ``stop`` is called; ``reload`` is called between two turns."""
        reduce_garbage_collection()
        take_turns_often()
        while not self._stopping.is_set():
            for name, engine in list(self._engines.items()):
                self._turn(name, engine)
            for name in self._failed.due():
                if name not in self._engines:
                    self._start_again(name)
            if not self._engines:
                self._stopping.wait(IDLE_SECONDS)
            self._health.beat()
            reload()
            self._retraining.apply(self._engines)
            self._revisions.follow(self._engines)
            if self._first and time.monotonic() >= self._prune_at:
                self._prune_at = time.monotonic() + PRUNE_INTERVAL_SECONDS
                threading.Thread(target=self._prune, name="retention", daemon=True).start()

    def _turn(self, name: str, engine: Engine) -> None:
        """Turn one engine. An error that the engine does not handle itself stops its stream only."""
        try:
            if name in self._warm_starts:
                self._advance_warm_start(name)
                return
            engine.turn(IDLE_SECONDS / len(self._engines))
            self._revisions.apply(engine)
            self._report(name, engine)
        except Exception as error:
            self._warm_starts.pop(name, None)
            del self._engines[name]
            self._health.wait(f"stream {name}", self._failed.add(name, engine, error))
        else:
            self._failed.forget(name)

    def _start_again(self, name: str) -> None:
        """Build the engine of a failed stream."""
        try:
            built = self._built([name])
        except Exception as error:
            log.error("failed stream cannot be started yet", stream=name, error=str(error))
            self._failed.postpone(name)
        else:
            self._begin(built)

    def _prune(self) -> None:
        try:
            prune(self._database, self._config.storage)
            if self._config.storage.history:
                prune_history(self._config.history_path, self._config.retention)
            remove_unneeded_versions(
                self._database,
                self._config.models_path,
                self._config.streams,
                self._config.storage.keep_models,
            )
        except (StorageUnavailable, OSError) as error:
            log.warning("cannot delete expired rows; the next attempt is in an hour", error=str(error))

    def close(self) -> None:
        for name in self._failed.names():
            self._failed.forget(name)
        for name in list(self._engines):
            self._end(name)
        for service in reversed(self._services):
            service.stop()

    def _built(self, names: Sequence[str]) -> dict[str, Engine]:
        """Build engines that have not polled yet, so that errors appear before a running engine is closed."""
        with ExitStack() as unwind:
            engines = {}
            for name in names:
                engines[name] = self._build(name)
                unwind.callback(engines[name].close)
            unwind.pop_all()
        return engines

    def _build(self, name: str) -> Engine:
        config = self._config
        stream = config.streams[name]
        with ExitStack() as unwind:
            options = source_options(name, config, self._metrics)
            source = make_source(name, stream.source, stream.format, **options)
            unwind.callback(source.close)
            writer = None
            if config.storage.history:
                writer = HistoryWriter(config.history_path, name, self._history_failed)
                unwind.callback(writer.close)
            engine = build_engine(
                name,
                config,
                self._database,
                source,
                StreamMetrics(self._metrics, name),
                make_sinks=lambda scorer: [
                    ForecasterUsageSink(self._metrics, name),
                    *self._retraining.monitors(name, stream, scorer),
                    *revisions_of(config, name, self._database, scorer, writer, self._metrics),
                ],
                make_outputs=lambda scorer: make_outputs(stream, scorer, self._metrics),
                history_writer=writer,
                on_changes=outbox_of(config, name),
            )
            # This comes before the group is joined, because the first compilation takes longer than the session
            # timeout.
            compile_kernels(engine.parts.scorer.detector)
            unwind.pop_all()
        log.info("stream started", stream=name)
        return engine

    @staticmethod
    def _history_failed(error: Exception) -> None:
        log.warning("cannot write recorded history; scoring continues", error=str(error))

    def _begin(self, engines: dict[str, Engine]) -> None:
        self._engines |= engines
        for name, engine in engines.items():
            stream = self._config.streams[name]
            peek = partial(second_reader, name, stream.source, stream.format)
            self._health.wait(f"stream {name}", "is starting")
            self._warm_starts[name] = read_warm_start(
                self._database, owner_name(), name, engine.parts.scorer, peek
            )

    def _advance_warm_start(self, name: str) -> None:
        """Read a small part of the warm-start files, so that the other streams continue."""
        try:
            rows = next(self._warm_starts[name], None)
        except (InputError, SourceError) as error:
            log.error(
                "warm-start files cannot be read; series start without them", stream=name, error=str(error)
            )
            rows = None
        if rows is None:
            del self._warm_starts[name]
        else:
            self._health.wait(f"stream {name}", f"reading warm-start files, {rows:,} rows so far")

    def _end(self, name: str) -> None:
        self._warm_starts.pop(name, None)
        self._engines.pop(name).close()
        self._health.ready(f"stream {name}")
        log.info("stream stopped", stream=name)

    def _report(self, name: str, engine: Engine) -> None:
        faults = engine.parts.faults.current
        down = [f.message for f in faults if f.kind in (FaultKind.DATABASE_DOWN, FaultKind.SOURCE_DOWN)]
        reason = "; ".join(down) or engine.waits_for or engine.stopped_by
        if reason:
            self._health.wait(f"stream {name}", reason)
        else:
            self._health.ready(f"stream {name}")


@contextmanager
def daemon(
    config: Config,
    stopping: threading.Event,
    more_services: Sequence[PublicService] = (),
    role: ProcessRole = ALONE,
) -> Iterator[Daemon]:
    """Yield a daemon with its database, its watchdog, and what it exposes to operators.

    ``run`` ends when ``stopping`` is set. Waits while the database does not answer.

    Args:
        config: The configuration.
        stopping: Ends the daemon.
        more_services: Services beside alerts and retraining.
        role: Role of this process.

    Raises:
        StoppedWhileStarting: ``stopping`` was set before the database answered.
        ForewatchError: A part of the daemon cannot start.
    """
    metrics = Metrics()
    with ExitStack() as stack:
        watchdog = stack.enter_context(Watchdog(config.engine.watchdog.total_seconds()))
        health = Health(watchdog)
        stack.enter_context(role.exposure(config, health, metrics))
        for service in more_services:
            stack.callback(service.stop)
            service.announce()
        database = stack.enter_context(
            open_database_when_available(config, stopping, partial(health.wait, "database"))
        )
        running = Daemon(config, database, metrics, health, stopping, role)
        stack.callback(running.close)
        for service in more_services:
            running.add_service(service)
        yield running


def run_daemon(
    path: Path,
    watch: bool = False,
    more_services: Callable[[Config], Sequence[PublicService]] = lambda config: (),
    role: ProcessRole = ALONE,
) -> int:
    """Run until SIGTERM or SIGINT, and return the exit code.

    Args:
        path: The config file.
        watch: Reload the file when it changes.
        more_services: Makes services beside alerts and retraining.
        role: Role of this process.

    Raises:
        ForewatchError: A part of the daemon cannot start.
    """
    stopping = stop_on_signals()
    with suppress(StoppedWhileStarting), StartGuard(stopping) as guard:
        config = load_config(path)
        with daemon(config, stopping, more_services(config), role) as running:
            guard.started()
            report_ready(f"{len(config.streams)} streams")
            reloader = Reloader(path, config, running.use_config, watch=watch, outcome=running.reloaded)
            reloader.install()
            running.run(reloader.poll)
            report_stopping()
    return 0
