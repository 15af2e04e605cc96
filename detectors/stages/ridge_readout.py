# ruff: noqa: ANN001
"""A linear readout per channel slot, solved in closed form from the lane's own moments.

Features φ_t forecast (x_(t+k) − x_t) / unit at the horizons k. The moments Σ φφᵀ and Σ φy are kept with
forgetting and Huber weights (an incident teaches nothing), and w = (Σ φφᵀ + λI)⁻¹ Σ φy is solved again on a
schedule that depends on the lane's own count alone, so that verdicts do not depend on how points are batched.
(Ridge regression: Hoerl & Kennard 1970; a fixed recurrent net with a solved readout: Jaeger 2001.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import kernel

MEMORY = 10_000.0  # rows of the moments
USUAL = 2_000.0  # rows of the usual size of an error
FIRST = 48  # rows before the first solution
HUBER = 6.0  # errors beyond this many usual ones count less
FARTHEST = 50.0  # a move of more units is no example to learn from
LARGEST = 1e6
ALONE = 64  # rows of a "period" where none was found
TAKEOVER = 8  # rows for each feature that what was learnt counts for once some features mean something else
SHY = 4  # rows for each of those features
COUNT, SOLVED, DUE = range(3)  # rows; the row of the first solution; the row of the next


class RidgeReadout:
    """Tracks: the error one step ahead in units; then of each horizon its error in usual sizes, averaged over
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
        self.features, self.horizons, self.spans, self.ridge, self.refit = (
            features,
            horizons,
            spans,
            ridge,
            refit,
        )
        self.tracks = ("residual", *(f"ahead{k}x{span:g}" for k in horizons for span in spans))

    def initial(self, slots: int) -> State:
        d, k, far = self.features, len(self.horizons), max(self.horizons)
        return {
            "readout.moments": np.zeros((slots, d * (d + 1) // 2), np.float32),  # lower triangle by rows
            "readout.cross": np.zeros((slots, k, d), np.float32),
            "readout.weights": np.zeros((slots, k, d), np.float32),
            "readout.recent": np.zeros((slots, far, d), np.float32),
            # value, then the forecast at each horizon, of the last rows
            "readout.past": np.zeros((slots, far, 1 + k), np.float64),
            "readout.usual": np.zeros((slots, k), np.float32),
            "readout.mean": np.zeros((slots, k, len(self.spans)), np.float32),
            "readout.clock": np.zeros((slots, 3), np.int64),
        }

    def run(
        self, state: State, batch: ChannelBatch, unit: NDArray[np.float64], phi: Floats, out: Floats
    ) -> NDArray[np.float64]:
        """Errors into ``out`` (M, tracks); returns the forecast of x made one row ago (M,), NaN while there
        is none.
        """
        names = ("moments", "cross", "weights", "recent", "past", "usual", "mean", "clock")
        arrays = (state[f"readout.{name}"] for name in names)
        expected = np.full(len(batch), np.nan)
        fixed = (
            np.array(self.horizons),
            np.array(self.spans, np.float32),
            np.float32(self.ridge),
            self.refit,
        )
        _readout(*arrays, *fixed, batch.slot, batch.x, unit, batch.period, phi, out, expected)
        return expected

    def forget(self, state: State, first: int) -> None:
        """Forget in place what the first ``first`` features taught: they mean something else now. The next
        row solves again without them.

        What the others taught counts for at most ``TAKEOVER`` rows for each feature from here on: ten
        thousand rows that never saw the new ones would hold the solution to the old ones for as long. And the
        lane is that young again, so that it is solved again soon and its usual error follows. Lest those few
        rows choose wild weights, each new feature begins with ``SHY`` rows for each of them in which it
        varied as the old one did and explained nothing. (The last feature is the constant 1: its moment is
        the number of rows.)
        """
        moments, cross, clock = (state[f"readout.{name}"] for name in ("moments", "cross", "clock"))
        row = np.repeat(np.arange(self.features), np.arange(1, self.features + 1))
        column = np.concatenate([np.arange(n + 1) for n in range(self.features)])
        most = TAKEOVER * self.features
        keep = np.float32(most) / np.maximum(moments[..., -1:], np.float32(most))
        moments *= keep
        cross *= keep[..., None]
        moments[..., (column < first) & (row != column)] = 0
        moments[..., (column < first) & (row == column)] *= np.float32(min(SHY * first / most, 1))
        for name in ("cross", "weights", "recent"):
            state[f"readout.{name}"][..., :first] = 0
        count, solved = clock[..., COUNT], clock[..., SOLVED]
        solved[...] = np.where(solved > 0, np.maximum(solved, count - most), 0)
        clock[..., DUE] = count


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
    """One example for horizon number k; the first horizon's also feeds the moments of φ, which all share."""
    at = 0
    for j in range(len(phi)):
        c = weight * phi[j]
        cross[k, j] += c * target
        if k == 0:
            for i in range(j + 1):
                moments[at + i] += c * phi[i]
            at += j + 1


@kernel
def _judge(error, usual, age):  # type: ignore[no-untyped-def]
    """Error in usual sizes, and the usual size with this error in it."""
    if not usual > 0:
        return np.float32(1), error
    rate = max(1 / np.float32(USUAL), 1 / (age + np.float32(1)))
    return error / usual, usual + rate * (min(error, HUBER * usual) - usual)


@kernel
def _average(ratio, mean, spans, rows, age, out):  # type: ignore[no-untyped-def]
    """Exponentially weighted means over each span, plain means while younger than that."""
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
def _readout(  # type: ignore[no-untyped-def]
    moments,
    cross,
    weights,
    recent,
    past,
    usual,
    mean,
    clock,
    horizons,
    spans,
    ridge,
    refit,
    slot,
    x,
    unit,
    period,
    phi,
    out,
    expected,
):
    far = recent.shape[1]
    for i in range(len(slot)):
        row, t = slot[i], clock[slot[i]]
        out[i, :] = np.nan
        if not np.isfinite(x[i]):
            continue
        n, age = t[COUNT], np.float32(t[COUNT] - t[SOLVED])
        rows = np.float32(period[i] if period[i] > 0 else ALONE)
        for k in range(len(horizons)):
            if n < horizons[k]:
                continue
            at = (n - horizons[k]) % far
            weight = np.float32(1)
            if t[SOLVED]:
                error = np.float32(min(abs(x[i] - past[row, at, 1 + k]) / unit[i], LARGEST))
                ratio, usual[row, k] = _judge(error, usual[row, k], age)
                weight = min(np.float32(1), HUBER / max(ratio, np.float32(1)))
                _average(
                    min(ratio, np.float32(LARGEST)),
                    mean[row, k],
                    spans,
                    rows,
                    age,
                    out[i, 1 + k * len(spans) :],
                )
                if k == 0:
                    out[i, 0], expected[i] = error, past[row, at, 1]
            target = np.float32((x[i] - past[row, at, 0]) / unit[i])
            if abs(target) <= FARTHEST:
                _learn(moments[row], cross[row], recent[row, at], target, weight, k)
        if n > MEMORY and n % 64 == 0:
            _forget(moments[row], cross[row], np.float32(1 - 64 / MEMORY))
        if n >= FIRST and n >= t[DUE]:
            _solve(moments[row], cross[row], weights[row], ridge)
            t[SOLVED] = t[SOLVED] if t[SOLVED] else n
            t[DUE] = n + min(max((n - t[SOLVED] + FIRST) // 2, 16), refit)
        recent[row, n % far] = phi[i]
        _forecast(weights[row], past[row, n % far], phi[i], x[i], unit[i])
        t[COUNT] = n + 1
