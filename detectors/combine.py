"""Many surprises → one: groups of tracks are summed, scaled, and the largest group speaks for the lane.

Calibrated tracks of a series are far from independent, so a sum is not itself a surprise: ``scale`` brings each group back to
−log10 of a tail probability, chosen on half of the open series (``docs/accuracy.md``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.kernel import kernel
from detectors.lanes import Floats


@dataclass(frozen=True, slots=True)
class Group:
    """``scale`` · Σ weight · min(surprise of the track, ``cap``)."""

    tracks: tuple[str, ...]
    scale: float
    cap: float = 10.0


class Combiner:
    def __init__(self, groups: tuple[Group, ...], tracks: tuple[str, ...]) -> None:
        self.weights = np.zeros((len(groups), len(tracks)), np.float32)
        for g, group in enumerate(groups):
            for name in group.tracks:
                self.weights[g, tracks.index(name)] = group.scale
        self.caps = np.array([group.cap for group in groups], np.float32)

    def run(self, surprises: Floats) -> NDArray[np.float32]:
        """(M, K) → (M,)."""
        out = np.zeros(len(surprises), np.float32)
        _combine(self.weights, self.caps, surprises, out)
        return out


@kernel
def _combine(weights, caps, surprises, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(out)):
        for g in range(len(weights)):
            total = np.float32(0)
            for k in range(surprises.shape[1]):
                total += weights[g, k] * min(surprises[i, k], caps[g])
            out[i] = max(out[i], total)
