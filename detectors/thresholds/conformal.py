"""A level that keeps the long-run share of alarms at the alarm rate, whatever the surprises' distribution:
online conformal quantile tracking.

Gibbs & Candès, "Adaptive conformal inference under distribution shift" (NeurIPS 2021); Angelopoulos et al.,
"Conformal PID control" (NeurIPS 2023), eq. 4: θ ← θ + η (1{u ≥ θ} − α). The share of alarms in n rows is at
most α + O(1 / (η n)), for any sequence.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import Floats, Ints
from detectors.jit import kernel

RATE = 1.0  # decades by which one alarm raises the level
LEAST = 0.5  # of the static level


class Conformal:
    """State: 4 bytes a series."""

    def __init__(self, level: float) -> None:
        self.level = np.float32(level)

    def initial(self, n: int) -> State:
        return {"threshold.level": np.full(n, self.level, np.float32)}

    def run(self, state: State, slot: Ints, raw: Floats) -> Floats:
        levels = np.empty(len(slot), np.float32)
        _conformal(
            state["threshold.level"],
            np.float32(10.0) ** -self.level,
            self.level * np.float32(LEAST),
            slot,
            raw,
            levels,
        )
        return levels


@kernel
def _conformal(theta, alpha, least, slot, raw, levels):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(slot)):
        levels[i] = theta[slot[i]]
        theta[slot[i]] = max(
            levels[i] + np.float32(RATE) * ((1 if raw[i] >= levels[i] else 0) - alpha), least
        )
