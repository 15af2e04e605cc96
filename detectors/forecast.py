"""The forecaster: LSTM hidden state and lags → a linear readout per lane, solved in closed form from the lane's own moments.

Features φ_t = [h_t, x_(t−l) − x_t for l = 1…L, z_t, 1] forecast x_(t+k) − x_t at k = 1 and 4, all in units of the lane's steps. The moments Σ φφᵀ and
Σ φy are kept with forgetting (Huber weights: an incident teaches nothing), and w = (Σ φφᵀ + λI)⁻¹ Σ φy is solved again on a schedule
that depends on the lane's own count alone, so that verdicts do not depend on how points are batched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.forecasters import features
from detectors.kernel import kernel
from detectors.lanes import Floats, Lanes
from detectors.scale import ANCHOR
from detectors.scale import LARGEST as FARTHEST

if TYPE_CHECKING:
    from detectors.forecasters.shared import SharedLSTM

HORIZON = 4
MEMORY = 10_000.0
USUAL = 2_000.0
FIRST = 48
LARGEST = 20.0
LARGEST_ERROR = 1e6
COUNT, SOLVED, DUE = range(3)


class Forecast:
    """Inputs → shared LSTM → readout: the forecast of each row made one row earlier, and its errors."""

    def __init__(self, module: SharedLSTM, lags: int) -> None:
        from detectors.forecasters import shared

        self.module, self.lags, self.batch, self.hidden = module, lags, shared.run_batch, shared.HIDDEN
        self.readout = Readout(self.hidden + lags + 2)
        self.tracks = self.readout.tracks

    def initial(self, lanes: int) -> State:
        inputs = {f"inputs.{name}": array for name, array in features.initial(lanes).items()}
        hidden = {f"hidden.{name}": np.zeros((lanes, self.hidden), np.float32) for name in "hc"}
        return inputs | hidden | self.readout.initial(lanes)

    def run(self, state: State, lanes: Lanes, out: Floats) -> Floats:
        """Errors into ``out`` (M, tracks); returns the forecast of v (M,), NaN while there is none."""
        own = {name.removeprefix("inputs."): array for name, array in state.items() if name.startswith("inputs.")}
        inputs = features.advance(own, lanes.lane, lanes.x, lanes.missed, self.lags)
        h = self.batch(self.module, inputs.features, lanes.lane, state["hidden.h"], state["hidden.c"])
        level = np.clip(np.nan_to_num(lanes.z), -LARGEST, LARGEST)[:, None]
        phi = np.concatenate([h, inputs.tail, level, np.ones_like(level)], axis=1)
        expected = self.readout.run(state, lanes, inputs.unit, phi, out)
        anchor = state["scale.moments"][lanes.lane, ANCHOR]
        return np.clip(expected - anchor, -FARTHEST, FARTHEST).astype(np.float32)


class Readout:
    """State a lane: (D² + 2·2·D + 4·D + …) · 4 bytes with D features."""

    tracks: tuple[str, ...] = ("residual", "residual_mean", "residual_half")

    def __init__(self, features: int, ridge: float = 0.1, refit: int = 512) -> None:
        self.features, self.ridge, self.refit = features, ridge, refit

    def initial(self, lanes: int) -> State:
        d = self.features
        return {
            "readout.moments": np.zeros((lanes, d, d), np.float32),
            "readout.cross": np.zeros((lanes, 2, d), np.float32),
            "readout.weights": np.zeros((lanes, 2, d), np.float32),
            "readout.recent": np.zeros((lanes, HORIZON, d), np.float32),
            "readout.past": np.zeros((lanes, HORIZON, 3), np.float64),  # value, forecast at 1 and at 4 of the last rows
            "readout.usual": np.zeros((lanes, 2), np.float32),
            "readout.mean": np.zeros((lanes, 2), np.float32),
            "readout.clock": np.zeros((lanes, 3), np.int64),
        }

    def run(self, state: State, lanes: Lanes, unit: NDArray[np.float64], phi: Floats, out: Floats) -> NDArray[np.float64]:
        """Errors into ``out`` (M, 3); returns the forecast of x made one row ago (M,), NaN while there is none."""
        names = ("moments", "cross", "weights", "recent", "past", "usual", "mean", "clock")
        arrays = (state[f"readout.{name}"] for name in names)
        expected = np.full(len(lanes), np.nan)
        _readout(*arrays, np.float32(self.ridge), self.refit, lanes.lane, lanes.x, unit, lanes.period, phi, out, expected)
        return expected


@kernel
def _solve(moments, cross, weights, ridge):  # type: ignore[no-untyped-def]  # noqa: ANN001
    d = len(moments)
    a = np.zeros((d, d))
    b = np.zeros((d, 2))
    trace = 0.0
    for j in range(d):
        trace += moments[j, j]
    for j in range(d):
        for k in range(j + 1):
            a[j, k] = a[k, j] = moments[j, k]
        a[j, j] += ridge * (1.0 + 1e-4 * trace / d)
        b[j, 0], b[j, 1] = cross[0, j], cross[1, j]
    w = np.linalg.solve(a, b)
    for j in range(d):
        weights[0, j], weights[1, j] = w[j, 0], w[j, 1]


@kernel
def _learn(moments, cross, phi, target, weight, both, k):  # type: ignore[no-untyped-def]  # noqa: ANN001
    d = len(phi)
    if both:
        for j in range(d):
            c = weight * phi[j]
            for i in range(j + 1):
                moments[j, i] += c * phi[i]
    for j in range(d):
        cross[k, j] += weight * phi[j] * target


@kernel
def _readout(moments, cross, weights, recent, past, usual, mean, clock, ridge, refit, lane, x, step, period, phi, out, expected):  # type: ignore[no-untyped-def]  # noqa: ANN001
    d = phi.shape[1]
    for i in range(len(lane)):
        row = lane[i]
        t = clock[row]
        out[i, :] = np.nan
        if not np.isfinite(x[i]):
            continue
        n = t[COUNT]
        total = np.float32(0)
        for k in range(2):
            back = 1 if k == 0 else HORIZON
            if n < back:
                continue
            then = past[row, (n - back) % HORIZON]
            weight = np.float32(1)
            if t[SOLVED]:
                error = np.float32(min(abs(x[i] - then[1 + k]) / step[i], LARGEST_ERROR))
                if k == 0:
                    expected[i] = then[1]
                size = usual[row, k]
                ratio = error / max(size, np.float32(1e-6)) if size > 0 else np.float32(1)
                weight = np.float32(1) if ratio < 6 else 6 / ratio
                total += min(ratio, np.float32(1e4))
                rate = max(1 / USUAL, 1 / (n - t[SOLVED] + 1.0))
                usual[row, k] += rate * (min(error, 6 * size if size > 0 else error) - size)
                if k == 0:
                    out[i, 0] = error
            target = (x[i] - then[0]) / step[i]
            if not abs(target) <= 50:
                weight, target = np.float32(0), 0.0
            _learn(moments[row], cross[row], recent[row, (n - back) % HORIZON], np.float32(target), weight, k == 0, k)
        if t[SOLVED]:
            span = np.float32(2 * period[i] if period[i] > 0 else 64)
            mean[row, 0] += (total - mean[row, 0]) / min(span, n - t[SOLVED] + np.float32(1))
            mean[row, 1] += (total - mean[row, 1]) / min(span / 4, n - t[SOLVED] + np.float32(1))
            out[i, 1], out[i, 2] = mean[row, 0], mean[row, 1]
        if n > MEMORY and n % 64 == 0:
            keep = np.float32(1 - 64 / MEMORY)
            for j in range(d):
                for k in range(j + 1):
                    moments[row, j, k] *= keep
                cross[row, 0, j] *= keep
                cross[row, 1, j] *= keep
        if n >= FIRST and n >= t[DUE]:
            _solve(moments[row], cross[row], weights[row], ridge)
            t[DUE] = n + min(max(n // 2, 16), refit)
            if t[SOLVED] == 0:
                t[SOLVED] = n
        at = n % HORIZON
        recent[row, at] = phi[i]
        past[row, at, 0] = x[i]
        for k in range(2):
            guess = np.float32(0)
            for j in range(d):
                guess += weights[row, k, j] * phi[i, j]
            past[row, at, 1 + k] = x[i] + guess * step[i]
        t[COUNT] = n + 1
