"""A constant level for all series: −log10 of the alarm rate.

It has no state, so an incident cannot change it.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import Floats, Ints


class StaticThreshold:
    """A constant level. No state."""

    def __init__(self, level: float) -> None:
        self.level = np.float32(level)

    def initial(self, n: int) -> State:
        return {}

    def run(self, state: State, slot: Ints, raw: Floats) -> Floats:
        return np.full(len(slot), self.level, np.float32)
