"""The threshold contract: the surprise at which a point of a series is an alarm.

Each algorithm has its own module. ``detectors.thresholds.THRESHOLDS`` lists them.
"""

from __future__ import annotations

from typing import Protocol

from detectors.base import State
from detectors.channel_batch import Floats, Ints


class Threshold(Protocol):
    """A rule that sets the level of each row from earlier rows of its series.

    The names of its state arrays begin with "threshold.".
    """

    def initial(self, n: int) -> State:
        """Return the state of ``n`` new series."""
        ...

    def run(self, state: State, slot: Ints, raw: Floats) -> Floats:
        """Return the level of each row (N,) and advance ``state`` in place.

        Args:
            state: the arrays of ``initial``.
            slot: series of each row (N,).
            raw: surprise of each row (N,), in the order of the rows.
        """
        ...
