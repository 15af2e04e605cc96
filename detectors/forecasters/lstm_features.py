"""What the shared LSTM sees of a point: a causal kernel with a few values of state a series, the same in
training and live.

    x ─► running robust normaliser ─► simple experts (naive, seasonal, adaptive AR) ─► F inputs, all
    dimensionless

Lengths of differences are in ``unit`` (the running mean of |x_t − x_(t−1)|), lengths of levels in ``scale``
(the running mean of |x − level|); both are bounded-influence averages over the last ``WINDOW`` points. The
period is the lag at which the series best repeats itself (smallest mean |x_t − x_(t−p)|, the "average
magnitude difference function", Ross et al. 1974), looked for again from time to time in the remembered
points. The AR expert is recursive least squares with forgetting (Haykin, Adaptive Filter Theory, ch. 10) on
the last differences, the distance to the level and the last two seasons.

Everything depends on points ≤ t only, and a series' rows do not depend on how its points are cut into
batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

#: Names of the inputs, in order. A change of name, number or meaning must raise VERSION: weights are tied to
#: it.
NAMES: Final = (
    "level", "step", "turn", "roughness", "volatility", "recent_level", "recent_gap",
    "season_error", "season_next", "season_later", "season_skill", "season_known", "phase_sin", "phase_cos", "period",
    "ar_error", "ar_next", "ar_later", "ar_skill", "age", "missing", "ties",
)  # fmt: skip
VERSION: Final = 1
FEATURES: Final = len(NAMES)
HORIZONS: Final = (1, 4)  # the steps ahead of *_next and *_later
SEASON_NEXT, SEASON_LATER, AR_NEXT, AR_LATER = (
    NAMES.index(name) for name in ("season_next", "season_later", "ar_next", "ar_later")
)

MEMORY: Final = 1024  # remembered points a series; the longest period is half of it
WINDOW: Final = 2000.0
SHORTEST: Final = 4  # of a period; not below the last horizon, so that the season ahead is already known

# Columns of "running".
ANCHOR, LAST, D1, D2, LEVEL, SCALE, UNIT, FAST, RECENT, TIES, SEASON_ERROR, AR_ERROR, AR_GUESS = range(13)
RUNNING: Final = 13
# regressors of the AR expert: three differences, distance to the level, two seasons, last seasonal error
ORDER: Final = 7
FORGET: Final = 0.998
TINY: Final = 1e-30
LARGEST: Final = 1e30  # of a value; differences still fit in float32
LIMIT: Final = 1000.0  # of an expert's forecast and of every error, in units


Array = NDArray[Any]


@dataclass(slots=True)
class FeatureRows:
    """What ``advance`` says of N points, in their order.

    features (N, F) float32  inputs of the LSTM
    tail     (N, L) float32  (x_(t−l) − x_t) / unit for l = 1…L; 0 where there is no such point or x_t is missing
    z        (N,)   float32  (x_t − level) / scale, NaN where x_t is missing
    unit     (N,)   float64  units of the input in one unit of ``tail`` and of the LSTM's forecasts
    last     (N,)   float64  x_t, or the last value that was there; a forecast is last + unit · f; NaN: no point yet
    period   (N,)   int32    period in steps, 0 while none is known
    """

    features: NDArray[np.float32]
    tail: NDArray[np.float32]
    z: NDArray[np.float32]
    unit: NDArray[np.float64]
    last: NDArray[np.float64]
    period: NDArray[np.int32]


def initial(n: int, memory: int = MEMORY) -> dict[str, NDArray[Any]]:
    """State of n series of which nothing is known; ``memory`` (a power of two) points are remembered of each."""
    if memory < 64 or memory & (memory - 1):
        raise ValueError(f"memory must be a power of two from 64 on, not {memory}")
    covariance = np.zeros((n, ORDER, ORDER), np.float32)
    covariance[:] = np.eye(ORDER, dtype=np.float32)
    return {
        "count": np.zeros(n, np.int64),
        "past": np.zeros((n, memory), np.float32),
        "running": np.zeros((n, RUNNING), np.float64),
        "ar": np.zeros((n, ORDER), np.float32),
        "covariance": covariance,
        "period": np.zeros(n, np.int32),
        "due": np.full(n, 24, np.int64),
    }


def advance(
    state: dict[str, NDArray[Any]],
    slot: NDArray[np.int32],
    value: NDArray[np.float64],
    missed: NDArray[np.int32],
    tail: int = 0,
) -> FeatureRows:
    """Take in N points of one channel (slots may interleave, each slot in time order); the state is changed
    in place.

    ``value`` (N,) may hold NaN (a missing value); ``missed`` (N,) is the number of cadence steps without a
    point just before.
    """
    n = len(slot)
    out = FeatureRows(
        np.empty((n, FEATURES), np.float32),
        np.zeros((n, tail), np.float32),
        np.empty(n, np.float32),
        np.empty(n, np.float64),
        np.empty(n, np.float64),
        np.empty(n, np.int32),
    )
    _advance(
        state["count"], state["past"], state["running"], state["ar"], state["covariance"], state["period"], state["due"],
        slot, value, missed, out.features, out.tail, out.z, out.unit, out.last, out.period,
    )  # fmt: skip
    return out


@njit(cache=True, nogil=True)
def _advance(
    count: Array,
    past: Array,
    running: Array,
    ar: Array,
    covariance: Array,
    period: Array,
    due: Array,
    slot: Array,
    value: Array,
    missed: Array,
    out: Array,
    tail: Array,
    z: Array,
    unit: Array,
    last: Array,
    season: Array,
) -> None:
    regressors = np.empty(ORDER)
    for i in range(len(slot)):
        s = slot[i]
        n, p, r, x = count[s], period[s], running[s], value[i]
        if abs(x) > LARGEST and math.isfinite(x):
            x = math.copysign(LARGEST, x)
        gap = min(missed[i], past.shape[1]) if n > 0 else 0
        for _ in range(gap):
            past[s][n & (past.shape[1] - 1)] = _expected(past[s], n, p)
            n += 1
        if math.isfinite(x):
            _observe(past[s], n, p, r, ar[s], covariance[s], regressors, x)
            _normalise(n, r, x)
            _inputs(past[s], n, p, r, ar[s], regressors, x, out[i])
            z[i] = (x - r[LEVEL]) / r[SCALE]
            for lag in range(1, min(tail.shape[1], n) + 1):
                tail[i, lag - 1] = _bounded((_back(past[s], n, lag) - _back(past[s], n, 0)) / r[UNIT])
            out[i, 20] = math.log1p(gap)
        else:
            if n > 0:
                past[s][n & (past.shape[1] - 1)] = _expected(past[s], n, p)
            else:
                n -= 1  # a series begins with its first value
            out[i] = 0.0
            out[i, 20] = 1.0 + math.log1p(gap)
            z[i] = math.nan
        n += 1
        count[s] = n
        unit[i], last[i], season[i] = r[UNIT], (r[LAST] if n > 0 else math.nan), p
        if n >= due[s]:
            shift = _rebase(past[s], n)
            r[ANCHOR] += shift
            period[s] = _find_period(past[s], n)
            due[s] = n + min(n // 2, past.shape[1])


@njit(cache=True, nogil=True)
def _bounded(x: float) -> float:
    return min(max(x, -LIMIT), LIMIT)


@njit(cache=True, nogil=True)
def _back(past: Array, n: int, lag: int) -> float:
    """x_(t−lag) − anchor, where t is the point of number n (from 0), already pushed."""
    return float(past[(n - lag) & (len(past) - 1)])


@njit(cache=True, nogil=True)
def _expected(past: Array, n: int, p: int) -> float:
    """What stands in for a missing point number n: the last season, or the last value."""
    return _back(past, n, p) if 0 < p <= n else _back(past, n, 1)


@njit(cache=True, nogil=True)
def _observe(
    past: Array, n: int, p: int, r: Array, ar: Array, covariance: Array, regressors: Array, x: float
) -> None:
    """Let point number n judge the experts' forecasts of it, and remember it."""
    if n == 0:
        r[ANCHOR] = r[LAST] = r[LEVEL] = r[RECENT] = x
        r[SCALE] = r[UNIT] = r[FAST] = TINY
    unit = r[UNIT]
    step = x - r[LAST]
    if n > 1:
        error = _bounded((x - r[AR_GUESS]) / unit)
        _regressors(past, n - 1, p, r, regressors)
        _learn(ar, covariance, regressors, _bounded(step / unit))
        rate = max(1.0 / n, 0.02)
        r[AR_ERROR] += rate * (min(abs(error), 10.0) - r[AR_ERROR])
        if 0 < p <= n:
            error = _bounded((x - r[ANCHOR] - _back(past, n, p)) / unit)
            r[SEASON_ERROR] += rate * (min(abs(error), 10.0) - r[SEASON_ERROR])
    past[n & (len(past) - 1)] = x - r[ANCHOR]


@njit(cache=True, nogil=True)
def _regressors(past: Array, n: int, p: int, r: Array, out: Array) -> None:
    """What the AR expert sees at point number n when it forecasts the next one; in units, relative to x_n."""
    now = _back(past, n, 0)
    for lag in range(3):
        out[lag] = (_back(past, n, lag) - _back(past, n, lag + 1)) / r[UNIT] if n > lag else 0.0
    out[3] = (r[LEVEL] - r[ANCHOR] - now) / r[UNIT]
    out[4] = (_back(past, n, p - 1) - now) / r[UNIT] if 0 < p <= n else 0.0
    out[5] = (_back(past, n, 2 * p - 1) - now) / r[UNIT] if 0 < 2 * p <= n else out[4]
    out[6] = (now - _back(past, n, p)) / r[UNIT] if 0 < p <= n else 0.0
    for j in range(ORDER):
        out[j] = min(max(out[j], -30.0), 30.0)


@njit(cache=True, nogil=True)
def _learn(weights: Array, covariance: Array, regressors: Array, target: float) -> None:
    """One step of recursive least squares with forgetting; an outlier moves the weights no more than an
    error of 6 units.
    """
    gain = np.empty(ORDER)
    norm, guess, trace = FORGET, 0.0, 0.0
    for j in range(ORDER):
        total = 0.0
        for k in range(ORDER):
            total += covariance[j, k] * regressors[k]
        gain[j] = total
        norm += total * regressors[j]
        guess += weights[j] * regressors[j]
        trace += covariance[j, j]
    if norm < 0.5 * FORGET:  # rounding has made the covariance indefinite: begin again, keep the weights
        covariance[:] = 0.0
        for j in range(ORDER):
            covariance[j, j] = 1.0
        return
    error = min(max(target - guess, -6.0), 6.0)
    grow = 1.0 / FORGET if trace < 10.0 * ORDER else 1.0  # no wind-up where nothing excites a regressor
    for j in range(ORDER):
        weights[j] += gain[j] * error / norm
        for k in range(j + 1):
            covariance[j, k] = (covariance[j, k] - gain[j] * gain[k] / norm) * grow
            covariance[k, j] = covariance[j, k]
        covariance[j, j] = max(covariance[j, j], np.float32(1e-7))


@njit(cache=True, nogil=True)
def _ahead(past: Array, n: int, p: int, r: Array, weights: Array, regressors: Array, steps: int) -> float:
    """The AR expert's forecast ``steps`` after point number n, iterated; in units, relative to x_n."""
    now = _back(past, n, 0)
    ahead = 0.0
    a, b, c = regressors[0], regressors[1], regressors[2]
    home = (r[LEVEL] - r[ANCHOR] - now) / r[UNIT]
    behind = regressors[6]
    for step in range(1, steps + 1):
        move = (
            weights[0] * a
            + weights[1] * b
            + weights[2] * c
            + weights[3] * (home - ahead)
            + weights[6] * behind
        )
        if 0 < p <= n:
            first = (_back(past, n, p - step) - now) / r[UNIT]
            second = (_back(past, n, 2 * p - step) - now) / r[UNIT] if 2 * p <= n else first
            move += weights[4] * (first - ahead) + weights[5] * (second - ahead)
            behind = ahead + move - first
        move = min(max(move, -30.0), 30.0)
        a, b, c = move, a, b
        ahead += move
    return ahead


@njit(cache=True, nogil=True)
def _inputs(
    past: Array, n: int, p: int, r: Array, weights: Array, regressors: Array, x: float, out: Array
) -> None:
    """The row of inputs at point number n, after experts and normaliser have seen it."""
    unit, scale = r[UNIT], r[SCALE]
    out[0] = math.asinh(_bounded((x - r[LEVEL]) / scale))
    out[1] = math.asinh(_bounded(r[D1] / unit))
    out[2] = math.asinh(_bounded((r[D1] - r[D2]) / unit))
    out[3] = min(max(math.log(unit / scale), -6.0), 6.0)
    out[4] = min(math.log((r[FAST] + 1e-3 * unit) / unit), 6.0)
    out[5] = math.asinh(_bounded((r[RECENT] - r[LEVEL]) / scale))
    out[6] = math.asinh(_bounded((x - r[RECENT]) / unit))
    _season_inputs(past, n, p, r, out)
    _regressors(past, n, p, r, regressors)
    out[15] = math.asinh(_bounded((x - r[AR_GUESS]) / unit)) if n > 1 else 0.0
    out[16] = math.asinh(_bounded(_ahead(past, n, p, r, weights, regressors, HORIZONS[0])))
    out[17] = math.asinh(_bounded(_ahead(past, n, p, r, weights, regressors, HORIZONS[1])))
    out[18] = math.log(r[AR_ERROR] + 0.01)
    out[19] = math.log1p(n) / 8.0
    out[21] = r[TIES]
    r[AR_GUESS] = x + unit * math.sinh(out[16])


@njit(cache=True, nogil=True)
def _season_inputs(past: Array, n: int, p: int, r: Array, out: Array) -> None:
    out[7:15] = 0.0
    if not 0 < p <= n:
        return
    now, unit = _back(past, n, 0), r[UNIT]
    out[7] = math.asinh(_bounded((now - _back(past, n, p)) / unit))
    out[8] = math.asinh(_bounded((_back(past, n, p - HORIZONS[0]) - now) / unit))
    out[9] = math.asinh(_bounded((_back(past, n, p - HORIZONS[1]) - now) / unit))
    out[10] = math.log(r[SEASON_ERROR] + 0.01)
    out[11] = 1.0
    angle = 2.0 * math.pi * (n % p) / p
    out[12], out[13] = math.sin(angle), math.cos(angle)
    out[14] = math.log(p) / 4.0


@njit(cache=True, nogil=True)
def _normalise(n: int, r: Array, x: float) -> None:
    """Let x move level, scale and unit, each no further than a bounded deviation allows."""
    rate = max(1.0 / (n + 1), 1.0 / WINDOW)
    step = x - r[LAST]
    floor = max(1e-7 * abs(x), TINY)  # below it, differences are rounding
    far = x - r[LEVEL]
    bound = 10.0 if n > 16 else 1e300
    r[LEVEL] += rate * min(max(far, -bound * r[SCALE]), bound * r[SCALE])
    if n > 0:
        start = max(1.0 / n, 1.0 / WINDOW)
        if r[UNIT] <= floor:  # flat so far: the first step sets the unit at once
            r[UNIT] = r[SCALE] = max(abs(step), floor)
        r[SCALE] = max(r[SCALE] + start * (min(abs(far), bound * r[SCALE]) - r[SCALE]), floor)
        r[UNIT] = max(r[UNIT] + start * (min(abs(step), bound * r[UNIT]) - r[UNIT]), floor)
        r[FAST] += max(1.0 / n, 1.0 / 16.0) * (abs(step) - r[FAST])
        r[TIES] += max(1.0 / n, 1.0 / 128.0) * ((1.0 if step == 0.0 else 0.0) - r[TIES])
    r[RECENT] += max(1.0 / (n + 1), 1.0 / 16.0) * (x - r[RECENT])
    r[D2], r[D1] = r[D1], step
    r[LAST] = x


@njit(cache=True, nogil=True)
def _rebase(past: Array, n: int) -> float:
    """Move the anchor to the last point, so that float32 keeps the digits that matter on a series that
    wanders off.
    """
    shift = past[(n - 1) & (len(past) - 1)]
    for i in range(len(past)):
        past[i] -= shift
    return float(shift)


@njit(cache=True, nogil=True, fastmath=True)
def _difference(x: Array, lag: int, out_of: int) -> np.float32:
    total = np.float32(0.0)
    for i in range(lag, out_of):
        total += abs(x[i] - x[i - lag])
    return np.float32(total / (out_of - lag))


@njit(cache=True, nogil=True)
def _find_period(past: Array, n: int) -> int:
    """The shortest lag that repeats about as well as any and clearly better than a shorter lag; 0: none."""
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
        if SHORTEST <= lag < longest:
            lowest = min(lowest, curve[lag])
    enough = min(1.2 * lowest + 0.02 * mean, 0.75 * mean)
    highest = curve[1]
    for lag in range(2, longest):
        highest = max(highest, curve[lag])
        dip = curve[lag] <= curve[lag - 1] and curve[lag] <= curve[lag + 1] and curve[lag] < 0.7 * highest
        if lag >= SHORTEST and dip and curve[lag] <= enough:
            return lag
    return 0
