"""The period of a series: the lag at which it repeats itself best.

The measure is the mean |x_t − x_(t−p)|, the "average magnitude difference function" (Ross et al. 1974).
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detectors.jit import kernel

MIN_PERIOD_STEPS: Final = 4  # not below the last horizon, so that the season ahead is already known

Array = NDArray[Any]


@njit(cache=True, nogil=True, fastmath=True)
def _difference(x: Array, lag: int, out_of: int) -> np.float32:
    total = np.float32(0.0)
    for i in range(lag, out_of):
        total += abs(x[i] - x[i - lag])
    return np.float32(total / (out_of - lag))


@kernel
def find_period(past: Array, n: int) -> int:
    """Return the period in steps, 0 if there is none.

    It is the shortest lag that repeats about as well as any, and clearly better than a shorter lag.
    """
    size = min(n, len(past))
    x = np.empty(size, np.float32)
    for i in range(size):
        x[i] = past[(n - size + i) & (len(past) - 1)]
    longest = size // 2
    curve = np.empty(longest + 1, np.float32)
    mean, lowest = 0.0, np.inf
    for lag in range(1, longest + 1):
        curve[lag] = _difference(x, lag, size)
        mean += curve[lag] / longest
        if MIN_PERIOD_STEPS <= lag < longest:
            lowest = min(lowest, curve[lag])
    enough = min(1.2 * lowest + 0.02 * mean, 0.75 * mean)
    highest = curve[1]
    for lag in range(2, longest):
        highest = max(highest, curve[lag])
        dip = curve[lag] <= curve[lag - 1] and curve[lag] <= curve[lag + 1] and curve[lag] < 0.7 * highest
        if lag >= MIN_PERIOD_STEPS and dip and curve[lag] <= enough:
            return lag
    return 0
