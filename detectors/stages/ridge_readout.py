# ruff: noqa: ANN001
"""A linear readout per channel slot, solved in closed form from its own moments.

Features φ_t forecast (x_(t+k) − x_t) / unit at the horizons k. The moments Σ φφᵀ and Σ φy are kept with
forgetting and Huber weights, so that an incident teaches little. w = (Σ φφᵀ + λI)⁻¹ Σ φy is solved again on a
schedule that depends on the rows of the channel slot only, so verdicts do not depend on how points are
batched. (Ridge regression: Hoerl & Kennard 1970; a fixed recurrent net with a solved readout: Jaeger 2001.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import kernel

FORGETTING_ROWS = 10_000.0  # of the moments
FORGETTING_STRIDE_ROWS = 64
USUAL_ERROR_ROWS = 2_000.0
MIN_ROWS_BEFORE_FIT = 48
MIN_REFIT_ROWS = 16
HUBER_USUAL_ERRORS = 6.0  # larger errors count less
MAX_TARGET_UNITS = 50.0  # a larger move is no example to learn from
MAX_ABS_ERROR_UNITS = 1e6
DEFAULT_PERIOD_ROWS = 64  # used where no period was found
#: After features changed their meaning: rows per feature that the others' examples count for at most.
TAKEOVER_ROWS_PER_FEATURE = 8
#: Rows per changed feature of the variance with which it begins.
PRIOR_ROWS_PER_FEATURE = 4
COL_ROWS, COL_FIRST_FIT, COL_NEXT_FIT = range(3)  # of "readout.clock", all in rows


class RidgeReadout:
    """Forecasts at several horizons, and their errors as tracks.

    Tracks: the error one step ahead in units; then the error of each horizon in usual errors, averaged over
    each of ``spans`` periods.
    """

    def __init__(
        self,
        features: int,
        horizons: tuple[int, ...],
        spans: tuple[float, ...],
        ridge: float = 0.1,
        refit: int = 512,
    ) -> None:
        """Configure the readout.

        Args:
            features: Number D of features; the last one is the constant 1.
            horizons: Steps ahead, the first of them 1.
            spans: Periods over which errors are averaged.
            ridge: λ.
            refit: Most rows between two solutions.
        """
        self.features, self.horizons, self.spans = features, horizons, spans
        self.ridge, self.refit = ridge, refit
        self.tracks = ("residual", *(f"ahead{k}x{span:g}" for k in horizons for span in spans))

    def initial(self, slots: int) -> State:
        """Return the empty state of ``slots`` channel slots."""
        d, k, far = self.features, len(self.horizons), max(self.horizons)
        return {
            # Lower triangle by rows.
            "readout.moments": np.zeros((slots, d * (d + 1) // 2), np.float32),
            "readout.cross": np.zeros((slots, k, d), np.float32),
            "readout.weights": np.zeros((slots, k, d), np.float32),
            "readout.recent": np.zeros((slots, far, d), np.float32),
            # Value, then the forecast at each horizon, of the last rows.
            "readout.past": np.zeros((slots, far, 1 + k), np.float64),
            "readout.usual": np.zeros((slots, k), np.float32),
            "readout.mean": np.zeros((slots, k, len(self.spans)), np.float32),
            "readout.clock": np.zeros((slots, 3), np.int64),
        }

    def run(
        self, state: State, batch: ChannelBatch, unit: NDArray[np.float64], phi: Floats, out: Floats
    ) -> NDArray[np.float64]:
        """Return the forecast of x made one row ago (M,), NaN while there is none.

        Args:
            state: Arrays of ``initial``, advanced in place.
            batch: Rows of the batch.
            unit: Unit of the forecasts (M,).
            phi: Features (M, D).
            out: Filled with the errors (M, tracks).
        """
        names = ("moments", "cross", "weights", "recent", "past", "usual", "mean", "clock")
        arrays = tuple(state[f"readout.{name}"] for name in names)
        spans = np.array(self.spans, np.float32)
        settings = (np.array(self.horizons), spans, np.float32(self.ridge), self.refit)
        expected = np.full(len(batch), np.nan)
        _readout(arrays, settings, (batch.slot, batch.x, batch.period, unit, phi), out, expected)
        return expected

    def forget(self, state: State, first: int) -> None:
        """Forget in place the examples of the first ``first`` features.

        These features have another meaning now.
        The next row solves again without them. The examples of the other features count for at most
        ``TAKEOVER_ROWS_PER_FEATURE`` rows per feature from here on: ten thousand rows without the new
        features would keep the solution at the old ones for as long. The channel slot counts as that young
        again, so it is solved again soon and its usual error follows. To keep those few rows from choosing
        wild weights, each new feature begins with ``PRIOR_ROWS_PER_FEATURE`` rows in which it varied as the
        old one did and explained nothing.
        """
        moments, cross, clock = (state[f"readout.{name}"] for name in ("moments", "cross", "clock"))
        row = np.repeat(np.arange(self.features), np.arange(1, self.features + 1))
        column = np.concatenate([np.arange(n + 1) for n in range(self.features)])
        most = TAKEOVER_ROWS_PER_FEATURE * self.features
        # The last feature is the constant 1, so its moment is the number of rows.
        keep = np.float32(most) / np.maximum(moments[..., -1:], np.float32(most))
        moments *= keep
        cross *= keep[..., None]
        moments[..., (column < first) & (row != column)] = 0
        prior = np.float32(min(PRIOR_ROWS_PER_FEATURE * first / most, 1))
        moments[..., (column < first) & (row == column)] *= prior
        for name in ("cross", "weights", "recent"):
            state[f"readout.{name}"][..., :first] = 0
        rows, first_fit = clock[..., COL_ROWS], clock[..., COL_FIRST_FIT]
        first_fit[...] = np.where(first_fit > 0, np.maximum(first_fit, rows - most), 0)
        clock[..., COL_NEXT_FIT] = rows


@kernel
def _solve(moments, cross, weights, ridge):  # type: ignore[no-untyped-def]
    horizons, d = cross.shape
    a, b = np.zeros((d, d)), np.zeros((d, horizons))
    trace, at = 0.0, 0
    for j in range(d):
        for i in range(j + 1):
            a[j, i] = a[i, j] = moments[at]
            at += 1
        trace += a[j, j]
        for k in range(horizons):
            b[j, k] = cross[k, j]
    for j in range(d):
        a[j, j] += ridge * (1.0 + 1e-4 * trace / d)
    w = np.linalg.solve(a, b)
    for k in range(horizons):
        for j in range(d):
            weights[k, j] = w[j, k]


@kernel
def _learn(moments, cross, phi, target, weight, k):  # type: ignore[no-untyped-def]
    """Add one example for horizon number k.

    Those of the first horizon also feed the moments of φ, which all horizons share.
    """
    at = 0
    for j in range(len(phi)):
        c = weight * phi[j]
        cross[k, j] += c * target
        if k == 0:
            for i in range(j + 1):
                moments[at + i] += c * phi[i]
            at += j + 1


@kernel
def _relative_error(error, usual, age):  # type: ignore[no-untyped-def]
    """Return the error in usual errors, and the usual error with this one in it."""
    if not usual > 0:
        return np.float32(1), error
    rate = max(1 / np.float32(USUAL_ERROR_ROWS), 1 / (age + np.float32(1)))
    return error / usual, usual + rate * (min(error, HUBER_USUAL_ERRORS * usual) - usual)


@kernel
def _average(ratio, mean, spans, rows, age, out):  # type: ignore[no-untyped-def]
    """Update the exponentially weighted mean over each span.

    It is a plain mean while the readout is younger than the span.
    """
    for s in range(len(spans)):
        mean[s] += (ratio - mean[s]) / min(max(spans[s] * rows, np.float32(1)), age + np.float32(1))
        out[s] = mean[s]


@kernel
def _forget(moments, cross, keep):  # type: ignore[no-untyped-def]
    for j in range(len(moments)):
        moments[j] *= keep
    for k in range(len(cross)):
        for j in range(cross.shape[1]):
            cross[k, j] *= keep


@kernel
def _forecast(weights, past, phi, x, unit):  # type: ignore[no-untyped-def]
    past[0] = x
    for k in range(len(weights)):
        guess = np.float32(0)
        for j in range(len(phi)):
            guess += weights[k, j] * phi[j]
        past[1 + k] = x + guess * unit


@kernel
def _readout(state, settings, columns, out, expected):  # type: ignore[no-untyped-def]
    moments, cross, weights, recent, past, usual, mean, clock = state
    horizons, spans, ridge, refit = settings
    slot, x, period, unit, phi = columns
    far = recent.shape[1]
    for i in range(len(slot)):
        row, t = slot[i], clock[slot[i]]
        out[i, :] = np.nan
        if not np.isfinite(x[i]):
            continue
        n, age = t[COL_ROWS], np.float32(t[COL_ROWS] - t[COL_FIRST_FIT])
        rows = np.float32(period[i] if period[i] > 0 else DEFAULT_PERIOD_ROWS)
        for k in range(len(horizons)):
            if n < horizons[k]:
                continue
            at = (n - horizons[k]) % far
            weight = np.float32(1)
            if t[COL_FIRST_FIT]:
                error = np.float32(min(abs(x[i] - past[row, at, 1 + k]) / unit[i], MAX_ABS_ERROR_UNITS))
                ratio, usual[row, k] = _relative_error(error, usual[row, k], age)
                weight = min(np.float32(1), HUBER_USUAL_ERRORS / max(ratio, np.float32(1)))
                ratio = min(ratio, np.float32(MAX_ABS_ERROR_UNITS))
                _average(ratio, mean[row, k], spans, rows, age, out[i, 1 + k * len(spans) :])
                if k == 0:
                    out[i, 0], expected[i] = error, past[row, at, 1]
            target = np.float32((x[i] - past[row, at, 0]) / unit[i])
            if abs(target) <= MAX_TARGET_UNITS:
                _learn(moments[row], cross[row], recent[row, at], target, weight, k)
        if n > FORGETTING_ROWS and n % FORGETTING_STRIDE_ROWS == 0:
            _forget(moments[row], cross[row], np.float32(1 - FORGETTING_STRIDE_ROWS / FORGETTING_ROWS))
        if n >= MIN_ROWS_BEFORE_FIT and n >= t[COL_NEXT_FIT]:
            _solve(moments[row], cross[row], weights[row], ridge)
            t[COL_FIRST_FIT] = t[COL_FIRST_FIT] if t[COL_FIRST_FIT] else n
            wait = (n - t[COL_FIRST_FIT] + MIN_ROWS_BEFORE_FIT) // 2
            t[COL_NEXT_FIT] = n + min(max(wait, MIN_REFIT_ROWS), refit)
        recent[row, n % far] = phi[i]
        _forecast(weights[row], past[row, n % far], phi[i], x[i], unit[i])
        t[COL_ROWS] = n + 1
