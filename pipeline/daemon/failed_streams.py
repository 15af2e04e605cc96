"""Streams whose engine failed: each is built again after a while, and the others go on."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass

import structlog

from pipeline.core.types import FaultKind
from pipeline.daemon.restart_delay import RestartDelay
from pipeline.engine.engine import Engine
from pipeline.engine.fault_log import FaultLog

log = structlog.get_logger(__name__)

SYNCHRONISE_SECONDS = 5.0


@dataclass(slots=True)
class _Failed:
    """Stream that waits for its next attempt. Its fault stays open until the next engine has turned."""

    faults: FaultLog
    message: str
    retry_at: float
    synchronised_at: float


class FailedStreams:
    """Streams of a daemon that failed, with the time of the next attempt."""

    def __init__(self) -> None:
        self._failed: dict[str, _Failed] = {}
        self._delays: defaultdict[str, RestartDelay] = defaultdict(RestartDelay)

    def add(self, name: str, engine: Engine, error: Exception) -> str:
        """Close a failed engine, open a fault, and return its message."""
        # A traceback is for the developers: such an error is not one of the source or the database.
        log.error("stream failed; it is started again", stream=name, error=repr(error), exc_info=error)
        message = f"stream {name} failed and is started again: {type(error).__name__}: {error}"
        faults = engine.parts.faults
        faults.open(FaultKind.STUCK_STREAM, message)
        engine.abandon()
        self._failed[name] = _Failed(faults, message, 0.0, time.monotonic())
        self.postpone(name)
        return message

    def postpone(self, name: str) -> None:
        """Wait twice as long as before for the next attempt."""
        self._failed[name].retry_at = self._delays[name].next_attempt()

    def due(self) -> list[str]:
        """Return the streams that are to be built now; the leases of the other faults are renewed."""
        now = time.monotonic()
        for failed in self._failed.values():
            if now - failed.synchronised_at >= SYNCHRONISE_SECONDS:
                failed.synchronised_at = now
                failed.faults.synchronise()
        return [name for name, failed in self._failed.items() if now >= failed.retry_at]

    def forget(self, name: str) -> None:
        """End the fault of a stream that runs again, or that the config no longer has."""
        if (failed := self._failed.pop(name, None)) is not None:
            failed.faults.end_all()

    def names(self) -> list[str]:
        return list(self._failed)
