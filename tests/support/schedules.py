"""A schedule that is due often enough for a test to wait for it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EverySeconds:
    """Due at every multiple of ``seconds`` since 1970."""

    def __init__(self, seconds: int) -> None:
        self._step = timedelta(seconds=seconds)

    def next_due(self, after: datetime) -> datetime:
        return self.last_due(after) + self._step

    def last_due(self, now: datetime) -> datetime:
        return _EPOCH + (now - _EPOCH) // self._step * self._step
