"""The end of a process that is asked to stop while it starts."""

from __future__ import annotations

import os
import threading
from types import TracebackType

import structlog

log = structlog.get_logger(__name__)

#: Time that a start may take after a request to stop. The first compilation of kernels takes a minute, and a
#: connection attempt to a vanished server 5 s.
PATIENCE_SECONDS = 3.0


class StartGuard:
    """Ends the process with exit code 0 if a start goes on for too long after ``stopping`` was set.

    Until ``started`` the process owns no partition, so that it can end at any moment.
    """

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._started = threading.Event()

    def started(self) -> None:
        """End the watch: from now on a stop takes its usual way."""
        self._started.set()

    def __enter__(self) -> StartGuard:
        threading.Thread(target=self._watch, name="start", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._started.set()

    def _watch(self) -> None:
        while not self._started.wait(0.2):
            if self._stopping.is_set() and not self._started.wait(PATIENCE_SECONDS):
                log.info("process stopped while it was starting", exit_code=0)
                os._exit(0)
