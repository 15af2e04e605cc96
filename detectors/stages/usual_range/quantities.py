"""The quantities of a channel slot whose usual ranges are learned, and where their state is kept.

    VALUE     the value
    LEVEL     mean of the last ``LEVEL_ROWS`` rows
    STEP      change from the previous row
    NOISE     log2 of the mean size of the last ``LEVEL_ROWS`` steps
    RELATION  residual on the other channels of the series, mean of ``RELATION_ROWS`` rows
    HIGHEST   highest value of the last hours; too low is the absence of a peak
    LOWEST    lowest value of the last hours; too high is the absence of a trough
    STILL     log2 of 1 + the rows for which the value has been repeated
    FORECAST  residual of the forecast
    TREND     of a price, in the place of LEVEL: sum of the steps, each ``TREND_ROWS`` rows later by a factor
              of e smaller, which is the distance of a price without jumps from the mean of those rows

A range has three models: all phases pooled, the time of day, and the time of day on this kind of day (Monday
to Friday, or weekend).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.base import CAUSES

Q_VALUE, Q_LEVEL, Q_STEP, Q_NOISE, Q_RELATION, Q_HIGHEST, Q_LOWEST, Q_STILL, Q_FORECAST = range(9)
QUANTITIES = 9
Q_TREND = 9  # in results; it has no place of its own
MODEL_POOLED, MODEL_DAILY, MODEL_WEEKLY = range(3)
MODELS = 3
SIDE_DOWN, SIDE_UP = range(2)
KINDS_OF_DAY = 2  # Monday to Friday, weekend or holiday
#: Sides (down, up) on which a quantity can be unusual. Less noise, a shorter standstill, a higher peak and a
#: deeper trough are either no anomaly or that of another quantity.
SIDES = np.array([[1, 1], [1, 1], [1, 1], [0, 1], [1, 1], [1, 0], [0, 1], [0, 1], [1, 1]], np.bool_)
#: Half width in octaves of the quantities that are logarithms. Only their upper end is learned: the width of
#: a range of logarithms does not depend on the size of the numbers.
OCTAVES_NOISE, OCTAVES_STILL = np.float32(0.75), np.float32(1.0)
#: Index into ``detectors.base.CAUSES`` of each quantity.
CAUSE_OF_QUANTITY = np.array(
    [
        CAUSES.index(word)
        for word in (
            "unusual_value", "unusual_level", "unusual_step", "unusual_noise", "relation",
            "absence", "absence", "flatline", "forecast", "trend",
        )
    ],
    np.uint8,
)  # fmt: skip
#: Whether the direction of the deviation is that of the value. Noise and standstills have none.
HAS_DIRECTION = np.array([1, 1, 1, 0, 1, 1, 1, 0, 1, 1], np.bool_)


class Layout(NamedTuple):
    """Places of the J used quantities in the state arrays; −1 marks what is not kept.

    quantity  (J,)       int64  the quantities; those with phases first
    number    (J, 2)     int64  place of the lower and upper end in a bin of the profile
    track     (J, 3)     int64  place of the counts of blocks by model
    entry     (J, 3, 2)  int64  place of the limit by model and side
    numbers   int  ends in a bin of the profile
    tracks    int  pairs of a quantity and a model
    entries   int  limits
    phased    int  quantities with phases
    bins      int  bins of a day
    """

    quantity: NDArray[np.int64]
    number: NDArray[np.int64]
    track: NDArray[np.int64]
    entry: NDArray[np.int64]
    numbers: int
    tracks: int
    entries: int
    phased: int
    bins: int


def make_layout(quantities: tuple[int, ...], phased: tuple[int, ...], bins: int) -> Layout:
    """Return the layout of ``quantities``, of which ``phased`` have ranges by the time of day.

    ``bins`` is the number of bins of a day.
    """
    used = np.array([*sorted(phased), *sorted(set(quantities) - set(phased))], np.int64)
    number, track = np.full((len(used), 2), -1, np.int64), np.full((len(used), MODELS), -1, np.int64)
    entry = np.full((len(used), MODELS, 2), -1, np.int64)
    numbers = tracks = entries = 0
    for j, k in enumerate(used):
        for end in range(2):
            if k in phased and not (k == Q_NOISE and end == 0):
                number[j, end], numbers = numbers, numbers + 1
        for model in range(MODELS):
            # The absence of a peak has a meaning only at a time of day.
            absent = k in (Q_HIGHEST, Q_LOWEST) if model == MODEL_POOLED else k not in phased
            if absent:
                continue
            track[j, model], tracks = tracks, tracks + 1
            for side in np.flatnonzero(SIDES[k]):
                entry[j, model, side], entries = entries, entries + 1
    return Layout(used, number, track, entry, numbers, tracks, entries, len(phased), bins)
