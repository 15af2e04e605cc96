"""A batch flattened to channel slots.

Each kernel sees series of one channel only.
A channel slot is one channel of one series. The number ``series slot * channels + channel`` is its row in
every state array whose first two axes (series, channels) are flattened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.base import Points

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass(slots=True)
class ChannelBatch:
    """M = N · C rows, the channels of a point side by side.

    The first five columns are given. The stages fill the others in place.

    slot    (M,) int32    channel slot: row of the state
    x       (M,) float64  value in working units (see ``detectors.composite.presets``), NaN: missing
    time    (M,) int64    event time, ns
    missed  (M,) int32    cadence steps without a point just before this one
    every   (M,) int64    cadence, ns (0: unknown)
    v       (M,) float32  x less the first value of its channel slot: the scale on which distances are taken
    near    (M,) float32  v, clipped to a fixed number of scales around the level: the value that is stored
    z       (M,) float32  robust z-score of x (the last one where x is missing)
    unit    (M,) float32  robust scale of x before this row
    step    (M,) float32  robust size of a step of x before this row
    period  (M,) int32    rows of one period as known before this row (0: none found)
    cycle   (M,) int32    rows of one period in the latest rows only (0: none found)
    season  (M,) float32  v one period ago (NaN: unknown)
    split   (M,) float64  sum of the stock splits up to this row, which x is without
    """

    slot: Ints
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
    split: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        m = len(self.slot)
        self.v, self.near, self.z, self.unit, self.step, self.season = (
            np.empty(m, np.float32) for _ in range(6)
        )
        self.split = np.zeros(m)
        self.period, self.cycle = np.zeros(m, np.int32), np.zeros(m, np.int32)

    def __len__(self) -> int:
        return len(self.slot)


def flatten_channels(points: Points, x: NDArray[np.float64]) -> ChannelBatch:
    """Flatten ``points`` with working-unit values ``x`` (N, C), row by row."""
    c = x.shape[1]
    if c == 1:
        return ChannelBatch(points.slot, x.ravel(), points.time, points.missed, points.every)
    slots = points.slot[:, None] * np.int32(c) + np.arange(c, dtype=np.int32)
    return ChannelBatch(
        slots.ravel().astype(np.int32, copy=False),
        x.ravel(),
        np.repeat(points.time, c),
        np.repeat(points.missed, c),
        np.repeat(points.every, c),
    )


def over_channels(reduce: Callable[..., NDArray[Any]], x: NDArray[Any]) -> NDArray[Any]:
    """Return ``reduce`` over the channels of ``x`` (N, C), such as a maximum.

    The result is a view for one channel: a reduction over an axis of length 1 takes as long as ten passes over the array.
    """
    return x[:, 0] if x.shape[1] == 1 else reduce(x, axis=1)


def of_channel(x: NDArray[Any], channel: NDArray[np.intp]) -> NDArray[Any]:
    """Return one channel of each point (N,) of ``x`` (N, C)."""
    return x[:, 0] if x.shape[1] == 1 else x[np.arange(len(x)), channel]
