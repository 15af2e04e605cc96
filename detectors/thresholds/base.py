"""What every threshold is: how much surprise a series must show before it is an alarm.

One file each; ``THRESHOLDS`` names them.
"""

from __future__ import annotations

from typing import Protocol

from detectors.base import State
from detectors.channel_batch import Floats, Ints


class Threshold(Protocol):
    """The level of each row is known before the row.

    ``state`` holds only arrays whose names begin with "threshold.".
    """

    def initial(self, n: int) -> State: ...

    def run(self, state: State, slot: Ints, raw: Floats) -> Floats:
        """Surprises of rows in order (N,) → the surprise that would have been an alarm at each (N,); advances
        the state in place.
        """
        ...
