"""Pauses between attempts to start something that failed."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Time until the next attempt: the first, and the longest.
FIRST_SECONDS, MAX_SECONDS = 1.0, 60.0
#: Time without a failure after which the pause is the first one again.
FORGET_SECONDS = 600.0


class RestartDelay:
    """Pause that doubles with each failure."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Have no failure yet; ``monotonic`` is a clock in seconds."""
        self._monotonic = monotonic
        self._pause = 0.0
        self._failed_at = 0.0

    def next_attempt(self) -> float:
        """Count a failure, and return the time of the next attempt on the monotonic clock."""
        now = self._monotonic()
        forgotten = now - self._failed_at > FORGET_SECONDS
        self._pause = FIRST_SECONDS if forgotten or not self._pause else min(2 * self._pause, MAX_SECONDS)
        self._failed_at = now
        return now + self._pause
