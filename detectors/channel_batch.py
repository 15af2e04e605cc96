"""A batch as *lanes*: every channel of every series is one lane, so that each kernel sees one-channel series
only.

Lane ``slot * channels + channel`` is also the row of each per-lane state array once its first two axes are
flattened.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from detectors.base import Points

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass(slots=True)
class Lanes:
    """M = N · C rows, the channels of a point beside each other; what later stages add starts out empty.

    lane    (M,) int32    row of the per-lane state
    x       (M,) float64  value in working units (see ``detectors.composite.presets``), NaN: missing
    time    (M,) int64    event time, ns
    missed  (M,) int32    cadence steps without a point just before this one
    every   (M,) int64    cadence, ns (0: unknown)
    v       (M,) float32  x less the first value of its lane: what distances are taken on
    near    (M,) float32  v, but no farther from where the lane lies than so many scales: what is remembered
    z       (M,) float32  robust z-score of x (the last one where x is missing)
    unit    (M,) float32  robust scale of x before this row
    step    (M,) float32  robust size of a step of x before this row
    period  (M,) int32    rows of one period as known before this row (0: none found)
    cycle   (M,) int32    the same by the latest rows only
    season  (M,) float32  v one period ago (NaN: unknown)
    """

    lane: Ints
    x: NDArray[np.float64]
    time: NDArray[np.int64]
    missed: Ints
    every: NDArray[np.int64]
    v: Floats = field(init=False)
    near: Floats = field(init=False)
    z: Floats = field(init=False)
    unit: Floats = field(init=False)
    step: Floats = field(init=False)
    period: Ints = field(init=False)
    cycle: Ints = field(init=False)
    season: Floats = field(init=False)

    def __post_init__(self) -> None:
        m = len(self.lane)
        self.v, self.near, self.z, self.unit, self.step, self.season = (
            np.empty(m, np.float32) for _ in range(6)
        )
        self.period, self.cycle = np.zeros(m, np.int32), np.zeros(m, np.int32)

    def __len__(self) -> int:
        return len(self.lane)


def to_lanes(points: Points, x: NDArray[np.float64]) -> Lanes:
    """Flatten ``points`` with working-unit values ``x`` (N, C), row by row."""
    c = x.shape[1]
    if c == 1:
        return Lanes(points.slot, x.ravel(), points.time, points.missed, points.every)
    lane = (
        (points.slot[:, None] * np.int32(c) + np.arange(c, dtype=np.int32))
        .ravel()
        .astype(np.int32, copy=False)
    )
    return Lanes(
        lane, x.ravel(), np.repeat(points.time, c), np.repeat(points.missed, c), np.repeat(points.every, c)
    )
