"""Event time of a partition that is silent, by the clock of the machine.

No record moves the watermark of a partition whose records have all stopped. While it is silent, its event
time goes on as fast as the clock of the machine, from its last record, so that its intervals end all the same.
What was ended so is part of the state and of the committed watermark: a replay ends the same intervals.

Records that come together after a silence, such as those of an upload, were not missing. The longest such
delay is known, and intervals are ended only when a silence has lasted for longer.
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.windows.aggregation_kernels import NEVER


class SilentTime:
    """Event time of one partition while it is silent, ns."""

    def __init__(self, delay_ns: int, *, closed_ns: int = NEVER) -> None:
        """Begin before the first silence.

        Args:
            delay_ns: Longest delay of records that are not missing.
            closed_ns: End of the intervals that were ended by the clock of the machine.
        """
        self.delay_ns = delay_ns
        self.closed_ns = closed_ns
        #: A silence of this process begins there, where one of a process before ended; it is not stored.
        self._begins_ns = NEVER if closed_ns == NEVER else closed_ns + delay_ns

    def reached(self, watermark_ns: int, silent_ns: int) -> int:
        """Return the time up to which the records that are missing would have come.

        Args:
            watermark_ns: Watermark of the records.
            silent_ns: Length of the silence.
        """
        return max(watermark_ns, self._begins_ns) + silent_ns - self.delay_ns

    def end_silence(self) -> None:
        """Note that records came."""
        self._begins_ns = NEVER

    def note_arrival(self, clock_ns: int, times: NDArray[np.int64], silent_ns: int) -> None:
        """Learn from the records after a silence how late the first one came.

        Args:
            clock_ns: Event time of the partition before them.
            times: Their event times.
            silent_ns: Length of the silence.
        """
        if len(times):
            self.delay_ns = max(self.delay_ns, clock_ns + silent_ns - int(times.min()))

    def to_array(self) -> NDArray[np.int64]:
        """Return the state for a snapshot; ``stored`` is the inverse."""
        return np.array([self.delay_ns, self.closed_ns], np.int64)

    def stored(self, state: NDArray[np.int64] | None) -> Self:
        """Return a stored state; ``state`` is None if an earlier version wrote it."""
        if state is None:
            return type(self)(self.delay_ns)
        delay, closed = state.tolist()
        return type(self)(max(delay, self.delay_ns), closed_ns=closed)
