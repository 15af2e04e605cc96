"""A thread that ends the process when a loop has stopped.

Some blocking calls of client libraries have no timeout.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from types import TracebackType

import structlog

from pipeline.core.service_manager import heartbeat_seconds, send_heartbeat

EXIT_CODE = 70
#: Longest wait for the last log line.
LOG_SECONDS = 2.0

log = structlog.get_logger(__name__)


class Watchdog:
    """Monitor of the loops of a process.

    Each loop calls ``beat``. When one has not called it for ``limit`` seconds, all stacks are written to
    stderr and the process exits with code 70. A supervisor restarts it, which the fence in the database makes
    safe at any time.

    The thread also sends the heartbeats that systemd expects (``WatchdogSec``). They end if the interpreter
    itself stands still, for example in a library that keeps its lock.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._heartbeat_seconds = heartbeat_seconds()
        self._tick = min(1.0, limit / 4, self._heartbeat_seconds or 1.0)
        self._lock = threading.Lock()
        self._beats: dict[str, float] = {}
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def beat(self, loop: str = "engine") -> None:
        """Record a turn of ``loop``; the first call registers it."""
        with self._lock:
            self._beats[loop] = time.monotonic()

    def forget(self, loop: str = "engine") -> None:
        """Unregister ``loop``, which has ended as intended."""
        with self._lock:
            self._beats.pop(loop, None)

    def idle(self) -> float:
        """Return the seconds since the last turn of the slowest loop; 0 without loops."""
        return self._slowest_loop()[1]

    def _slowest_loop(self) -> tuple[str, float]:
        now = time.monotonic()
        with self._lock:
            return max(
                ((loop, now - beat) for loop, beat in self._beats.items()),
                key=lambda one: one[1],
                default=("", 0.0),
            )

    def __enter__(self) -> Watchdog:
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self) -> None:
        before = time.monotonic()
        heartbeat_at = before
        while not self._stopped.wait(self._tick):
            # While the whole process is frozen (SIGSTOP, a suspended machine), no loop can turn. That time does
            # not count.
            now = time.monotonic()
            frozen = now - before - self._tick
            before = now
            if self._heartbeat_seconds is not None and now >= heartbeat_at:
                heartbeat_at = now + self._heartbeat_seconds
                send_heartbeat()
            if frozen > self._tick:
                with self._lock:
                    self._beats = {loop: beat + frozen for loop, beat in self._beats.items()}
            loop, still = self._slowest_loop()
            if still > self.limit:
                self._end(loop, still)

    def _end(self, loop: str, still: float) -> None:
        # In a thread, because the stopped loop may hold the lock of the log.
        line = threading.Thread(target=_log_end, args=(loop, still), daemon=True)
        line.start()
        line.join(LOG_SECONDS)
        faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr, all_threads=True)
        os._exit(EXIT_CODE)


def _log_end(loop: str, still: float) -> None:
    log.error(
        "the watchdog ends the process, because a loop does not turn; its stacks follow",
        loop=loop,
        idle_seconds=round(still),
        exit_code=EXIT_CODE,
    )
