"""Input features of the shared LSTM: a causal kernel for training and live use.

    x ─► running robust normaliser ─► simple experts (naive, seasonal, adaptive AR) ─► F inputs, all
    dimensionless

Lengths of differences are in ``unit`` (the running mean of |x_t − x_(t−1)|), lengths of levels in ``scale``
(the running mean of |x − level|). Both are bounded-influence averages over the last ``WINDOW_ROWS`` points.
The period is the lag at which the series repeats itself best (smallest mean |x_t − x_(t−p)|, the "average
magnitude difference function", Ross et al. 1974). It is searched again from time to time in the kept points.
The AR expert is recursive least squares with forgetting (Haykin, Adaptive Filter Theory, ch. 10) on the last
differences, the distance to the level and the last two seasons.

Everything depends on points ≤ t only. The features of a series do not depend on how its points are cut into
batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.forecasters.ar_expert import AR_REGRESSORS, INITIAL_COVARIANCE, learn
from detectors.forecasters.period_search import find_period
from detectors.jit import asinh, log, row_kernel

#: Names of the inputs, in order. A change of name, number or meaning must raise VERSION, because weights
#: depend on it.
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

#: Names of the arrays of a state, as stored; the fields of ``_StateArrays`` in order.
STATE_NAMES: Final = ("count", "past", "running", "ar", "covariance", "period", "due")
KEPT_POINTS: Final = 1024  # of each series; the longest period is half of it
WINDOW_ROWS: Final = 2000.0

# Columns of "running".
COL_ANCHOR, COL_LAST, COL_D1, COL_D2, COL_LEVEL, COL_SCALE, COL_UNIT, COL_FAST, COL_RECENT, COL_TIES = range(
    10
)
COL_SEASON_ERROR, COL_AR_ERROR, COL_AR_GUESS = range(10, 13)
RUNNING_COLUMNS: Final = 13
MIN_UNIT: Final = 1e-30
MAX_ABS_VALUE: Final = 1e30  # differences still fit in float32
MAX_ABS_UNITS: Final = 1000.0  # of the forecast of an expert and of every error


Array = NDArray[Any]


class _StateArrays(NamedTuple):
    """The arrays of a state, for the kernel."""

    points: Array
    past: Array
    running: Array
    ar: Array
    covariance: Array
    period: Array
    due: Array


class _RowArrays(NamedTuple):
    """The arrays of ``FeatureRows``, for the kernel."""

    features: Array
    tail: Array
    z: Array
    unit: Array
    last: Array
    period: Array


@dataclass(slots=True)
class FeatureRows:
    """Features of N points, in their order.

    features (N, F) float32  inputs of the LSTM
    tail     (N, L) float32  (x_(t−l) − x_t) / unit for l = 1…L; 0 if there is no such point or x_t is missing
    z        (N,)   float32  (x_t − level) / scale, NaN if x_t is missing
    unit     (N,)   float64  units of the input in one unit of ``tail`` and of the LSTM's forecasts
    last     (N,)   float64  x_t, or the last value before it; a forecast is last + unit · f; NaN: no point yet
    period   (N,)   int32    period in steps, 0 if none is known
    """

    features: NDArray[np.float32]
    tail: NDArray[np.float32]
    z: NDArray[np.float32]
    unit: NDArray[np.float64]
    last: NDArray[np.float64]
    period: NDArray[np.int32]


def initial(n: int, memory: int = KEPT_POINTS) -> dict[str, NDArray[Any]]:
    """Return the state of n series without points.

    ``memory`` points of each are kept, a power of two.
    """
    if memory < 64 or memory & (memory - 1):
        raise ValueError(f"memory must be a power of two from 64 on, not {memory}")
    return {
        "count": np.zeros(n, np.int64),
        "past": np.zeros((n, memory), np.float32),
        "running": np.zeros((n, RUNNING_COLUMNS), np.float64),
        "ar": np.zeros((n, AR_REGRESSORS), np.float32),
        "covariance": np.tile(INITIAL_COVARIANCE, (n, 1)),
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
    """Return the features of N points of one channel; the state changes in place.

    Slots may interleave; each slot is in time order.

    Args:
        state: the result of ``initial``.
        slot: channel slot of each point (N,).
        value: values (N,), NaN where one is missing.
        missed: number of cadence steps without a point just before each point (N,).
        tail: number L of lags in ``FeatureRows.tail``.
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
        _StateArrays(*(state[name] for name in STATE_NAMES)),
        slot,
        value,
        missed,
        (np.empty(AR_REGRESSORS), np.empty(AR_REGRESSORS)),
        _RowArrays(*(getattr(out, f) for f in _RowArrays._fields)),
    )
    return out


@row_kernel
def _advance(
    state: _StateArrays, slot: Array, value: Array, missed: Array, work: tuple[Array, Array], out: _RowArrays
) -> None:
    """Advance the state by N points; ``work`` are buffers, the rest as in ``advance``."""
    count, past, running, ar, covariance, period, due = state
    features, tail, z, unit, last, season = out
    regressors = work[0]
    for i in range(len(slot)):
        s = slot[i]
        n, p, r, x = count[s], period[s], running[s], value[i]
        if abs(x) > MAX_ABS_VALUE and math.isfinite(x):
            x = math.copysign(MAX_ABS_VALUE, x)
        gap = min(missed[i], past.shape[1]) if n > 0 else 0
        for _ in range(gap):
            past[s][n & (past.shape[1] - 1)] = _expected(past[s], n, p)
            n += 1
        if math.isfinite(x):
            _observe(past[s], n, p, r, (ar[s], covariance[s]), work, x)
            _normalise(n, r, x)
            _inputs(past[s], n, p, r, ar[s], regressors, x, features[i])
            z[i] = (x - r[COL_LEVEL]) / r[COL_SCALE]
            for lag in range(1, min(tail.shape[1], n) + 1):
                tail[i, lag - 1] = _bounded((_back(past[s], n, lag) - _back(past[s], n, 0)) / r[COL_UNIT])
            features[i, 20] = log(1.0 + gap)
        else:
            if n > 0:
                past[s][n & (past.shape[1] - 1)] = _expected(past[s], n, p)
            else:
                n -= 1  # a series begins with its first value
            features[i] = 0.0
            features[i, 20] = 1.0 + log(1.0 + gap)
            z[i] = math.nan
        n += 1
        count[s] = n
        unit[i], last[i], season[i] = r[COL_UNIT], (r[COL_LAST] if n > 0 else math.nan), p
        if n >= due[s]:
            shift = _rebase(past[s], n)
            r[COL_ANCHOR] += shift
            period[s] = find_period(past[s], n)
            due[s] = n + min(n // 2, past.shape[1])


@row_kernel
def _bounded(x: float) -> float:
    return min(max(x, -MAX_ABS_UNITS), MAX_ABS_UNITS)


@row_kernel
def _back(past: Array, n: int, lag: int) -> float:
    """Return x_(t−lag) − anchor; t is the point with number n (from 0), already kept."""
    return float(past[(n - lag) & (len(past) - 1)])


@row_kernel
def _expected(past: Array, n: int, p: int) -> float:
    """Return the substitute for a missing point: the last season, or the last value."""
    return _back(past, n, p) if 0 < p <= n else _back(past, n, 1)


@row_kernel
def _observe(
    past: Array, n: int, p: int, r: Array, expert: tuple[Array, Array], work: tuple[Array, Array], x: float
) -> None:
    """Score the forecasts of the experts for point number n, and keep the point."""
    (ar, covariance), (regressors, gain) = expert, work
    if n == 0:
        r[COL_ANCHOR] = r[COL_LAST] = r[COL_LEVEL] = r[COL_RECENT] = x
        r[COL_SCALE] = r[COL_UNIT] = r[COL_FAST] = MIN_UNIT
    unit = r[COL_UNIT]
    step = x - r[COL_LAST]
    if n > 1:
        error = _bounded((x - r[COL_AR_GUESS]) / unit)
        _regressors(past, n - 1, p, r, regressors)
        learn(ar, covariance, regressors, gain, _bounded(step / unit))
        rate = max(1.0 / n, 0.02)
        r[COL_AR_ERROR] += rate * (min(abs(error), 10.0) - r[COL_AR_ERROR])
        if 0 < p <= n:
            error = _bounded((x - r[COL_ANCHOR] - _back(past, n, p)) / unit)
            r[COL_SEASON_ERROR] += rate * (min(abs(error), 10.0) - r[COL_SEASON_ERROR])
    past[n & (len(past) - 1)] = x - r[COL_ANCHOR]


@row_kernel
def _regressors(past: Array, n: int, p: int, r: Array, out: Array) -> None:
    """Compute the regressors of the AR expert, in units, relative to x_n."""
    now = _back(past, n, 0)
    for lag in range(3):
        out[lag] = (_back(past, n, lag) - _back(past, n, lag + 1)) / r[COL_UNIT] if n > lag else 0.0
    out[3] = (r[COL_LEVEL] - r[COL_ANCHOR] - now) / r[COL_UNIT]
    out[4] = (_back(past, n, p - 1) - now) / r[COL_UNIT] if 0 < p <= n else 0.0
    out[5] = (_back(past, n, 2 * p - 1) - now) / r[COL_UNIT] if 0 < 2 * p <= n else out[4]
    out[6] = (now - _back(past, n, p)) / r[COL_UNIT] if 0 < p <= n else 0.0
    for j in range(AR_REGRESSORS):
        out[j] = min(max(out[j], -30.0), 30.0)


@row_kernel
def _ahead(past: Array, n: int, p: int, r: Array, weights: Array, regressors: Array, steps: int) -> float:
    """Return the iterated forecast of the AR expert ``steps`` after point number n.

    It is in units, relative to x_n.
    """
    now = _back(past, n, 0)
    ahead = 0.0
    a, b, c = regressors[0], regressors[1], regressors[2]
    home = (r[COL_LEVEL] - r[COL_ANCHOR] - now) / r[COL_UNIT]
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
            first = (_back(past, n, p - step) - now) / r[COL_UNIT]
            second = (_back(past, n, 2 * p - step) - now) / r[COL_UNIT] if 2 * p <= n else first
            move += weights[4] * (first - ahead) + weights[5] * (second - ahead)
            behind = ahead + move - first
        move = min(max(move, -30.0), 30.0)
        a, b, c = move, a, b
        ahead += move
    return ahead


@row_kernel
def _inputs(
    past: Array, n: int, p: int, r: Array, weights: Array, regressors: Array, x: float, out: Array
) -> None:
    """Compute the features of point number n.

    Experts and normaliser have been updated by it.
    """
    unit, scale = r[COL_UNIT], r[COL_SCALE]
    out[0] = asinh(_bounded((x - r[COL_LEVEL]) / scale))
    out[1] = asinh(_bounded(r[COL_D1] / unit))
    out[2] = asinh(_bounded((r[COL_D1] - r[COL_D2]) / unit))
    out[3] = min(max(log(unit / scale), -6.0), 6.0)
    out[4] = min(log((r[COL_FAST] + 1e-3 * unit) / unit), 6.0)
    out[5] = asinh(_bounded((r[COL_RECENT] - r[COL_LEVEL]) / scale))
    out[6] = asinh(_bounded((x - r[COL_RECENT]) / unit))
    _season_inputs(past, n, p, r, out)
    _regressors(past, n, p, r, regressors)
    out[15] = asinh(_bounded((x - r[COL_AR_GUESS]) / unit)) if n > 1 else 0.0
    ahead = _bounded(_ahead(past, n, p, r, weights, regressors, HORIZONS[0]))
    out[16] = asinh(ahead)
    out[17] = asinh(_bounded(_ahead(past, n, p, r, weights, regressors, HORIZONS[1])))
    out[18] = log(r[COL_AR_ERROR] + 0.01)
    out[19] = log(1.0 + n) / 8.0
    out[21] = r[COL_TIES]
    r[COL_AR_GUESS] = x + unit * ahead


@row_kernel
def _season_inputs(past: Array, n: int, p: int, r: Array, out: Array) -> None:
    out[7:15] = 0.0
    if not 0 < p <= n:
        return
    now, unit = _back(past, n, 0), r[COL_UNIT]
    out[7] = asinh(_bounded((now - _back(past, n, p)) / unit))
    out[8] = asinh(_bounded((_back(past, n, p - HORIZONS[0]) - now) / unit))
    out[9] = asinh(_bounded((_back(past, n, p - HORIZONS[1]) - now) / unit))
    out[10] = log(r[COL_SEASON_ERROR] + 0.01)
    out[11] = 1.0
    angle = np.float32(2.0 * math.pi * (n % p) / p)
    out[12], out[13] = np.sin(angle), np.cos(angle)
    out[14] = log(p) / 4.0


@row_kernel
def _normalise(n: int, r: Array, x: float) -> None:
    """Update level, scale and unit by x, each at most by a bounded deviation."""
    rate = max(1.0 / (n + 1), 1.0 / WINDOW_ROWS)
    step = x - r[COL_LAST]
    floor = max(1e-7 * abs(x), MIN_UNIT)  # below it, differences are rounding
    far = x - r[COL_LEVEL]
    bound = 10.0 if n > 16 else 1e300
    r[COL_LEVEL] += rate * min(max(far, -bound * r[COL_SCALE]), bound * r[COL_SCALE])
    if n > 0:
        start = max(1.0 / n, 1.0 / WINDOW_ROWS)
        if r[COL_UNIT] <= floor:  # flat so far: the first step sets the unit at once
            r[COL_UNIT] = r[COL_SCALE] = max(abs(step), floor)
        r[COL_SCALE] = max(r[COL_SCALE] + start * (min(abs(far), bound * r[COL_SCALE]) - r[COL_SCALE]), floor)
        r[COL_UNIT] = max(r[COL_UNIT] + start * (min(abs(step), bound * r[COL_UNIT]) - r[COL_UNIT]), floor)
        r[COL_FAST] += max(1.0 / n, 1.0 / 16.0) * (abs(step) - r[COL_FAST])
        r[COL_TIES] += max(1.0 / n, 1.0 / 128.0) * ((1.0 if step == 0.0 else 0.0) - r[COL_TIES])
    r[COL_RECENT] += max(1.0 / (n + 1), 1.0 / 16.0) * (x - r[COL_RECENT])
    r[COL_D2], r[COL_D1] = r[COL_D1], step
    r[COL_LAST] = x


@row_kernel
def _rebase(past: Array, n: int) -> float:
    """Move the anchor to the last point and return the shift.

    Otherwise float32 would lose the significant digits of a series that moves far from its start.
    """
    shift = past[(n - 1) & (len(past) - 1)]
    for i in range(len(past)):
        past[i] -= shift
    return float(shift)
