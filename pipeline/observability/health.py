"""What the daemon knows of its own fitness: written by the engine, read by ``/healthz`` and ``/readyz``."""

from __future__ import annotations

import threading

from pipeline.observability.watchdog import Watchdog


class Health:
    """Alive: the loops turn. Ready: nothing is waited for.

    Not ready from the start; the one who knows calls ``ready("daemon")`` once every stream has said what it
    waits for.
    """

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self._lock = threading.Lock()
        self._waiting = {"daemon": "is starting"}

    def wait(self, what: str, why: str) -> None:
        """Not ready because of ``what`` (``stream plant``, ``database``): ``why`` says what is missing."""
        with self._lock:
            self._waiting[what] = why

    def ready(self, what: str) -> None:
        """``what`` is no longer waited for."""
        with self._lock:
            self._waiting.pop(what, None)

    def waiting(self) -> dict[str, str]:
        """What is waited for, and why; empty: ready."""
        with self._lock:
            return dict(self._waiting)

    def alive(self) -> bool:
        """Every loop turned within half of the time after which the watchdog ends the process."""
        return self._watchdog.idle() < self._watchdog.limit / 2

    def idle(self) -> float:
        """Seconds since the loop that stands still for longest turned."""
        return self._watchdog.idle()
