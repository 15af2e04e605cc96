"""SIGTERM and SIGINT as an event, from the first moment of a process on."""

from __future__ import annotations

import signal
import threading

_early: threading.Event | None = None


def catch_early_signals() -> None:
    """Keep signals that arrive while the process imports its code. Main thread only."""
    global _early
    _early = _install(threading.Event())


def stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set. Main thread only.

    It is set already if a signal arrived since ``catch_early_signals``.
    """
    global _early
    stopping, _early = _early or threading.Event(), None
    return _install(stopping)


def _install(stopping: threading.Event) -> threading.Event:
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda number, frame: stopping.set())
    return stopping
