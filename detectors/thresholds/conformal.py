"""Online conformal quantile tracking: the long-run share of alarms is the alarm rate.

This holds for any distribution of the surprises. Gibbs & Candès, "Adaptive conformal inference under distribution shift" (NeurIPS 2021); Angelopoulos et al.,
"Conformal PID control" (NeurIPS 2023), eq. 4: θ ← θ + η (1{u ≥ θ} − α). The share of alarms in n rows is at
most α + O(1 / (η n)), for any sequence.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import Floats, Ints
from detectors.jit import kernel

LEVEL_RISE_DECADES = 1.0  # by which one alarm raises the level
MIN_LEVEL_SHARE = 0.5  # of the static level


class ConformalThreshold:
    """A tracked level per series. State: 4 bytes per series."""

    def __init__(self, level: float) -> None:
        self.level = np.float32(level)

    def initial(self, n: int) -> State:
        return {"threshold.level": np.full(n, self.level, np.float32)}

    def run(self, state: State, slot: Ints, raw: Floats) -> Floats:
        levels = np.empty(len(slot), np.float32)
        _conformal(
            state["threshold.level"],
            np.float32(10.0) ** -self.level,
            self.level * np.float32(MIN_LEVEL_SHARE),
            slot,
            raw,
            levels,
        )
        return levels


@kernel
def _conformal(theta, alpha, min_level, slot, raw, levels):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(slot)):
        levels[i] = theta[slot[i]]
        theta[slot[i]] = max(
            levels[i] + np.float32(LEVEL_RISE_DECADES) * ((1 if raw[i] >= levels[i] else 0) - alpha),
            min_level,
        )
