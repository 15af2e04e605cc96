"""The (1 − alarm rate) quantile of the series' own last surprises: a decayed histogram, beyond its 98 % an
exponential tail.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import Floats, Ints
from detectors.stages.tail_calibration import TailCalibration


class Quantile:
    """State: 144 bytes a series."""

    def __init__(self, level: float) -> None:
        self.level = np.float32(level)
        self.tail = TailCalibration((0.98,), 32)

    def initial(self, n: int) -> State:
        return {f"threshold.{name}": array for name, array in self.tail.initial(n).items()}

    def run(self, state: State, slot: Ints, raw: Floats) -> Floats:
        own = {
            name.removeprefix("threshold."): array
            for name, array in state.items()
            if name.startswith("threshold.")
        }
        _, levels = self.tail.run(own, slot, raw[:, None], 0, float(self.level))
        return np.where(np.isnan(levels), self.level, levels)
