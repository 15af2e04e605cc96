"""The (1 − alarm rate) quantile of the recent surprises of a series.

The surprises are kept in a decaying histogram. Its tail beyond the 98 % quantile is exponential.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import Floats, Ints
from detectors.stages.tail_calibration import TailCalibration

TAIL_QUANTILE = 0.98
HISTOGRAM_BINS = 32


class QuantileThreshold:
    """A quantile per series. State: 144 bytes per series."""

    def __init__(self, level: float) -> None:
        self.level = np.float32(level)
        self.tail = TailCalibration((TAIL_QUANTILE,), HISTOGRAM_BINS)

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
