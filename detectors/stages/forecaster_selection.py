"""Who forecasts: a series climbs from its mean so far to its last value, the season, a running Gaussian and
the LSTM's readout, by skill.

Each rung's recent error decides: a higher rung takes over once its error is the smallest, whatever the series
is called. The Gaussian rung is river's ``anomaly.GaussianScorer`` (its ``proba.Gaussian``: Welford's mean and
variance) as arrays: river keeps one Python object a series and takes one point at a time, with no state to
batch or to store; ``tests/unit/detectors/test_forecaster_selection.py`` checks ours against river's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import kernel

STATIC, SEASONAL, RIVER, LSTM, LAST = 1, 2, 3, 4, 5  # places in ``detectors.base.FORECASTERS``
RECENT = 200.0  # rows over which rungs compete
USUAL = 2000.0  # rows of the usual error
WARM = 8
SETTLED = 50
LARGEST = 1e4
N, MEAN, SQUARES, LATEST = range(4)
USUAL_ERROR = 5  # place behind the errors of the five rungs


@dataclass(slots=True)
class SelectedForecasts:
    """What the ladder says of M rows.

    expected (M,) float32  in the units of v (NaN: no forecast yet); forecaster (M,) uint8: index into FORECASTERS
    error    (M,) float32  usual one-step error in scales of the series (1 while not known)
    off      (M,) float32  this error in usual ones (0 where there is none, without bound while none is usual yet)
    rows     (M,) float32  rows seen of the lane before
    """

    expected: Floats
    forecaster: NDArray[np.uint8]
    error: Floats
    off: Floats
    rows: Floats


class ForecasterSelection:
    """Chooses among the rungs' forecasts of each row. State: 56 bytes a channel slot."""

    tracks: tuple[str, ...] = ("surplus",)

    def initial(self, slots: int) -> State:
        return {"ladder.gauss": np.zeros((slots, 4)), "ladder.error": np.zeros((slots, 6), np.float32)}

    def run(
        self, state: State, batch: ChannelBatch, readout: Floats | None, out: Floats
    ) -> SelectedForecasts:
        """Residual |v − expected| in steps into ``out`` (M, 1)."""
        m = len(batch)
        forecasts = SelectedForecasts(
            np.full(m, np.nan, np.float32), np.zeros(m, np.uint8), *np.zeros((3, m), np.float32)
        )
        if readout is None:
            readout = forecasts.expected.copy()
        arrays = (
            state["ladder.gauss"],
            state["ladder.error"],
            batch.slot,
            batch.v,
            batch.step,
            batch.unit,
            batch.season,
        )
        _ladder(
            *arrays,
            readout,
            out,
            forecasts.expected,
            forecasts.forecaster,
            forecasts.error,
            forecasts.off,
            forecasts.rows,
        )
        return forecasts


@kernel
def welford(g, value) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Count, mean and sum of squares about it, with ``value`` (Welford 1962)."""
    g[N] += 1
    off = value - g[MEAN]
    g[MEAN] += off / g[N]
    g[SQUARES] += off * (value - g[MEAN])


@kernel
def _choose(guesses, e, n):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Index of the rung that decides (−1: nothing is known)."""
    if n == 0:
        return -1
    best = STATIC - 1 if n < WARM else RIVER - 1
    if n >= WARM and not np.isnan(guesses[SEASONAL - 1]) and e[SEASONAL - 1] <= e[best]:
        best = SEASONAL - 1
    if n >= WARM and e[LAST - 1] <= e[best]:
        best = LAST - 1
    if not np.isnan(guesses[LSTM - 1]) and e[LSTM - 1] <= e[best]:
        best = LSTM - 1
    return best


@kernel
def _remember(e, guesses, best, value, step, age):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Let ``value`` judge each rung's forecast, an outlier as no more than six usual errors."""
    for k in range(len(guesses)):
        if np.isnan(guesses[k]):
            continue
        miss = min(abs(value - guesses[k]) / step, np.float32(LARGEST))
        if e[k] > 0:
            miss = min(miss, 6 * e[k] + np.float32(0.1))
        e[k] += (miss - e[k]) / min(age, np.float32(RECENT))
    miss = abs(value - guesses[best])
    if e[USUAL_ERROR] > 0:
        miss = min(miss, 6 * e[USUAL_ERROR])
    e[USUAL_ERROR] += (miss - e[USUAL_ERROR]) / min(age, np.float32(USUAL))


@kernel
def _ladder(gauss, error, slot, v, step, unit, season, readout, out, expected, forecaster, usual, off, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001
    guesses = np.empty(5, np.float32)
    for i in range(len(slot)):
        g, e = gauss[slot[i]], error[slot[i]]
        n = g[N]
        guesses[0] = guesses[2] = g[MEAN]
        guesses[1], guesses[3], guesses[4] = season[i], readout[i], g[LATEST]
        best = _choose(guesses, e, n)
        rows[i] = n
        usual[i] = e[USUAL_ERROR] / unit[i] if n >= SETTLED else 1.0
        if best >= 0:
            expected[i], forecaster[i] = guesses[best], best + 1
        out[i, 0] = np.nan
        if np.isnan(v[i]):
            continue
        if best >= 0:
            off[i] = (
                abs(v[i] - guesses[best]) / e[USUAL_ERROR] if n >= SETTLED and e[USUAL_ERROR] > 0 else np.inf
            )
        if n >= WARM:  # before that the size of a step is not known either
            out[i, 0] = min(abs(v[i] - guesses[best]) / step[i], np.float32(LARGEST))
            _remember(e, guesses, best, v[i], step[i], np.float32(n - WARM + 1))
        welford(g, np.float64(v[i]))
        g[LATEST] = v[i]
