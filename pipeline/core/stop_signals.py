"""Signals from the first moment of a process on.

SIGTERM and SIGINT are an event, SIGHUP is kept for later.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_early: threading.Event | None = None


def catch_early_signals() -> None:
    """Keep signals that arrive while the process imports its code. Main thread only."""
    global _early
    _early = _install(threading.Event())


def hold_reloads() -> None:
    """Keep a SIGHUP that arrives before ``release_reloads``.

    Without a handler it would end the process. Main thread only.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def release_reloads() -> None:
    """Deliver the SIGHUP that was kept. Main thread only."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


@contextmanager
def reloads_held() -> Iterator[None]:
    """Hold SIGHUP inside the block, also in a process that is started there."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
