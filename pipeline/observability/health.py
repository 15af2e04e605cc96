"""Health of the daemon: written by the engine, read by ``/healthz`` and ``/readyz``."""

from __future__ import annotations

import threading

from pipeline.observability.watchdog import Watchdog


class Health:
    """Liveness and readiness of a process.

    The process is alive while its loops turn, and ready while no condition is pending. It starts with the
    pending condition ``daemon``, which is cleared once every stream has registered its own conditions.
    """

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self._lock = threading.Lock()
        self._waiting = {"daemon": "is starting"}

    def wait(self, what: str, why: str) -> None:
        """Register a pending condition: ``what`` is, for example, ``stream plant``; ``why`` says what is missing."""
        with self._lock:
            self._waiting[what] = why

    def ready(self, what: str) -> None:
        """Clear the pending condition ``what``."""
        with self._lock:
            self._waiting.pop(what, None)

    def waiting(self) -> dict[str, str]:
        """Return the pending conditions with their reasons; empty means ready."""
        with self._lock:
            return dict(self._waiting)

    def beat(self) -> None:
        """Record a turn of the main loop."""
        self._watchdog.beat()

    def alive(self) -> bool:
        """Return whether every loop has turned within half of the limit of the watchdog."""
        return self._watchdog.idle() < self._watchdog.limit / 2

    def idle(self) -> float:
        """Return the seconds since the last turn of the slowest loop."""
        return self._watchdog.idle()
