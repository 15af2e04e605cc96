"""The supervisor of the worker processes of a daemon.

It starts the members of the group on this machine. It scores nothing and owns no partition. It replaces a
worker that ends, serves the health and the metrics of all at one port, checks a changed config before they
read it, and stops them in order. If it is killed, its workers are killed with it, and another start continues
from the committed positions.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from pipeline.config.schema import Config
from pipeline.core.errors import ForewatchError
from pipeline.core.service_manager import report_ready, report_stopping
from pipeline.core.stop_signals import stop_on_signals
from pipeline.daemon.background_service import BackgroundService, PublicService
from pipeline.daemon.config_changes import require_same_process
from pipeline.daemon.operating_server import operating_server
from pipeline.daemon.reload import Reloader
from pipeline.daemon.restart_delay import RestartDelay
from pipeline.daemon.worker_faults import WorkerFaults
from pipeline.daemon.worker_metrics import WorkerMetrics
from pipeline.daemon.worker_process import WorkerProcess
from pipeline.observability.watchdog import Watchdog

log = structlog.get_logger(__name__)

TURN_SECONDS = 0.1
#: Time without a status after which a worker is not ready.
SILENT_SECONDS = 10.0
#: Longest start of a worker, in times of the watchdog.
MAX_START_LIMITS = 10
#: Exit codes after which another attempt would fail, too: a config or a database that cannot be used.
FINAL_EXIT_CODES = frozenset({2, 4})


class WorkerRefused(ForewatchError):
    """A worker ended with an error that another attempt would not change."""

    def __init__(self, number: int, exit_code: int) -> None:
        """Take the number of the worker and its exit code."""
        super().__init__(
            f"worker {number} ended with exit code {exit_code}; its last log line has the reason"
        )
        self.exit_code = exit_code


@dataclass(slots=True)
class _Place:
    """Place of a worker: its process, and when the next one is started."""

    number: int
    process: WorkerProcess | None = None
    start_at: float = 0.0
    delay: RestartDelay = field(default_factory=RestartDelay)
    death: str = ""  # of the last process, until its successor is ready


class Supervisor:
    """The workers of a config. One thread calls ``turn`` repeatedly."""

    def __init__(self, path: Path, config: Config, count: int) -> None:
        """Start nothing yet.

        Args:
            path: The config file.
            config: Its content.
            count: Number of workers.
        """
        self._path = path
        self._config = config
        self._places = [_Place(number) for number in range(count)]
        self._watchdog = Watchdog(config.engine.watchdog.total_seconds())
        self._turned_at = time.monotonic()
        self._reported = False
        self._faults = WorkerFaults(config)
        self.services: list[BackgroundService] = [self._faults]
        self.metrics = WorkerMetrics(self._running)

    # ------------------------------------------------------------------------------------------ health

    def alive(self) -> bool:
        """Return whether the loop turns; workers whose loops do not are replaced."""
        return self._watchdog.idle() < self._watchdog.limit / 2

    def idle(self) -> float:
        """Return the seconds since its last turn."""
        return self._watchdog.idle()

    def waiting(self) -> dict[str, str]:
        """Return the pending conditions of all workers; empty means that all are ready."""
        found: dict[str, str] = {}
        for place in self._places:
            name, process = f"worker {place.number}", place.process
            if process is None:
                found[name] = place.death or "is starting"
                continue
            silent = time.monotonic() - process.channel.heard_at
            if silent > SILENT_SECONDS and process.status.started:
                found[name] = f"does not answer for {silent:.0f} s"
            found |= {f"{name}: {what}": why for what, why in process.status.waiting.items()}
        return found

    # -------------------------------------------------------------------------------------------- loop

    def run(self, stopping: threading.Event, reload: Callable[[], None]) -> int:
        """Run until ``stopping`` is set, then stop all workers; return the exit code.

        Raises:
            WorkerRefused: A worker cannot use the config or the database; all workers are stopped.
        """
        with self._watchdog, ExitStack() as stack:
            for service in self.services:
                service.start()
                stack.callback(service.stop)
            try:
                while not stopping.is_set():
                    self.turn()
                    reload()
                    stopping.wait(TURN_SECONDS)
            finally:
                report_stopping()
                clean = self.stop_workers()
        return 0 if clean else 1

    def turn(self) -> None:
        """Replace workers that ended, and take the status of the others.

        Raises:
            WorkerRefused: A worker cannot use the config or the database.
        """
        self._watchdog.beat()
        self._forgive_frozen_time()
        for place in self._places:
            self._look_after(place)
        self._faults.set_dead("; ".join(place.death for place in self._places if place.death))
        if not self._reported and all(one.process and one.process.status.started for one in self._places):
            self._reported = True
            report_ready(f"{len(self._places)} workers, {len(self._config.streams)} streams")

    def use_config(self, config: Config) -> None:
        """Let all workers read the config file again.

        Raises:
            ConfigError: The config cannot be applied; the running one stays in force.
        """
        require_same_process(self._config, config)
        self._config = config
        for process in self._running():
            process.send(signal.SIGHUP)
        for service in self.services:
            service.use_config(config)

    def stop_workers(self) -> bool:
        """Ask all workers to end, and wait for them; return whether each ended in order."""
        running = self._running()
        log.info("stopping the workers", workers=len(running))
        for process in running:
            process.send(signal.SIGTERM)
        clean = True
        for process in running:
            while (code := process.exit_code()) is None:
                self._watchdog.beat()
                self._forgive_frozen_time()
                self._end_silent(process)
                time.sleep(TURN_SECONDS / 2)
            if code != 0 and (code != -signal.SIGTERM or process.status.started):
                clean = False
                log.error("worker did not stop in order", worker=process.number, exit_code=code)
            process.close()
        return clean

    # ---------------------------------------------------------------------------------------- one worker

    def _running(self) -> list[WorkerProcess]:
        return [place.process for place in self._places if place.process is not None]

    def _look_after(self, place: _Place) -> None:
        process = place.process
        if process is None:
            if time.monotonic() >= place.start_at:
                self._start(place)
            return
        if (code := process.exit_code()) is not None:
            self._ended(place, process, code)
            return
        self._end_silent(process)
        if place.death and not process.status.waiting:
            place.death = ""
        heard = time.monotonic() - process.channel.heard_at < SILENT_SECONDS
        self.metrics.instruments.up.labels(place.number).set(heard)

    def _start(self, place: _Place) -> None:
        place.process = WorkerProcess(place.number, self._path)
        log.info("worker started", worker=place.number, worker_pid=place.process.pid)

    def _ended(self, place: _Place, process: WorkerProcess, code: int) -> None:
        place.process = None
        process.close()
        self.metrics.instruments.up.labels(place.number).set(0)
        if code in FINAL_EXIT_CODES:
            raise WorkerRefused(place.number, code)
        self.metrics.instruments.restarts.labels(place.number).inc()
        place.start_at = place.delay.next_attempt()
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        place.death = (
            f"worker {place.number} (process {process.pid}) {how} and is started again; the other workers "
            f"score its partitions meanwhile. Its last log lines have the reason"
        )
        log.error(
            "worker ended; it is started again",
            worker=place.number,
            worker_pid=process.pid,
            exit_code=code,
            pause_seconds=round(place.start_at - time.monotonic(), 1),
        )

    def _end_silent(self, process: WorkerProcess) -> None:
        """Kill a worker that was silent for the time of the watchdog.

        One that still starts is not silent while it uses CPU, unless that takes too long.
        """
        process.channel.read_status()
        now, limit = time.monotonic(), self._watchdog.limit
        silent = now - process.channel.heard_at
        if silent <= limit:
            return
        if now - process.started_at < MAX_START_LIMITS * limit and process.works_at_its_start():
            process.channel.heard_at = now
        else:
            log.error(
                "worker does not answer; it is killed",
                worker=process.number,
                worker_pid=process.pid,
                silent_seconds=round(silent),
            )
            process.send(signal.SIGKILL)
            process.channel.heard_at = time.monotonic()  # it takes a moment to end

    def _forgive_frozen_time(self) -> None:
        """Leave out the time in which the whole machine or this process was frozen."""
        now = time.monotonic()
        frozen = now - self._turned_at
        self._turned_at = now
        if frozen > SILENT_SECONDS:
            for process in self._running():
                process.channel.heard_at += frozen


def run_supervisor(
    path: Path,
    config: Config,
    count: int,
    watch: bool = False,
    more_services: Sequence[PublicService] = (),
) -> int:
    """Run ``count`` workers until SIGTERM or SIGINT, and return the exit code.

    Args:
        path: The config file.
        config: Its content.
        count: Number of workers.
        watch: Reload the file when it changes.
        more_services: Services of which a machine needs one, such as the dashboard.

    Raises:
        ForewatchError: A part cannot start, or a worker cannot use the config or the database.
    """
    stopping = stop_on_signals()
    supervisor = Supervisor(path, config, count)
    supervisor.services += more_services
    reloader = Reloader(path, config, supervisor.use_config, watch=watch, outcome=lambda result: None)
    reloader.install()
    with operating_server(config, supervisor, supervisor.metrics.exposition):
        return supervisor.run(stopping, reloader.poll)
