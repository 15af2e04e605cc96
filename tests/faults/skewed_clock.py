"""Clock of a member that a test sets wrong.

The import replaces ``time.time`` and ``time.time_ns`` of this process. The server of the members imports
this module before others, because some of them keep the function as a default. The monotonic clock stays
right, as it does when an operator sets the clock. libfaketime 0.9.10 cannot be used: with a true monotonic
clock it makes ``time.sleep`` of Python 3.11 fail with EINVAL.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

REREAD_SECONDS = 0.5

_true_time_ns = time.time_ns


class SkewedClock:
    """The true time and the seconds that stand in a file, which is read again now and then."""

    def __init__(self) -> None:
        self.file: Path | None = None
        self._offset_ns = 0
        self._read_at = -REREAD_SECONDS

    def time_ns(self) -> int:
        if self.file is not None and time.monotonic() - self._read_at > REREAD_SECONDS:
            self._read_at = time.monotonic()
            with suppress(OSError, ValueError):
                self._offset_ns = round(float(self.file.read_text()) * 1e9)
        return _true_time_ns() + self._offset_ns

    def time(self) -> float:
        return self.time_ns() / 1e9


CLOCK = SkewedClock()


def install() -> None:
    """Replace the clock of this process. It is right until ``CLOCK.file`` is set."""
    time.time_ns, time.time = CLOCK.time_ns, CLOCK.time


install()
