"""Selection of the forecaster of each row.

The candidate with the smallest recent error forecasts the row.
The candidates are the mean so far (static), the value one period ago (seasonal), a running Gaussian, the
readout of the LSTM, and the last value. The Gaussian is that of river's ``anomaly.GaussianScorer`` (the mean
of its ``proba.Gaussian``) as arrays. river keeps one Python object a series and takes one point at a time,
without a state to batch or to store. ``tests/unit/detectors/test_forecaster_selection.py`` compares the two.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import row_kernel

# Indices into ``detectors.base.FORECASTERS``, as stored; 0 stands for no forecast.
FORECASTER_STATIC, FORECASTER_SEASONAL, FORECASTER_GAUSSIAN = 1, 2, 3
FORECASTER_LSTM, FORECASTER_LAST_VALUE = 4, 5
FORECASTER_NETWORK = 7  # in place of the LSTM where the stream has a network of its own
CANDIDATES = 5
RECENT_ERROR_ROWS = 200.0  # memory of the errors that are compared
USUAL_ERROR_ROWS = 2000.0  # memory of the usual error
MIN_ROWS_BEFORE_SELECTION = 8
MIN_ROWS_BEFORE_USUAL_ERROR = 50
MAX_ERROR_STEPS = 1e4
MAX_USUAL_ERRORS = 6  # one error counts as no more than this many usual ones
COL_ROWS, COL_MEAN = range(2)  # of "ladder.gauss"
COL_USUAL_ERROR, COL_LAST = 5, 6  # of "ladder.error", after the errors of the candidates


class SelectedForecasts(NamedTuple):
    """The selected forecast of each of M rows.

    expected       (M,) float32  in the units of v (NaN: no forecast yet)
    forecaster     (M,) uint8    number of the candidate that made it
    usual_error    (M,) float32  usual one-step error in scales of the series (1 while unknown)
    relative_error (M,) float32  this error in usual ones (0: no error; infinite while no usual error is known)
    rows           (M,) float32  earlier rows of the channel slot
    """

    expected: Floats
    forecaster: NDArray[np.uint8]
    usual_error: Floats
    relative_error: Floats
    rows: Floats


class ForecasterSelection:
    """Selection of one candidate's forecast for each row.

    State: 44 bytes a channel slot.
    """

    tracks: tuple[str, ...] = ("surplus",)

    def initial(self, slots: int) -> State:
        """Return the empty state of ``slots`` channel slots."""
        return {"ladder.gauss": np.zeros((slots, 2)), "ladder.error": np.zeros((slots, 7), np.float32)}

    def run(
        self, state: State, batch: ChannelBatch, readout: Floats | None, out: Floats
    ) -> SelectedForecasts:
        """Select the forecasts and advance the state in place.

        Args:
            state: Arrays of ``initial``.
            batch: Rows of the batch.
            readout: Forecasts of v by the LSTM (M,), None without an LSTM.
            out: Filled with the residual |v − expected| in steps (M, 1).
        """
        m = len(batch)
        found = SelectedForecasts(
            np.full(m, np.nan, np.float32), np.zeros(m, np.uint8), *np.zeros((3, m), np.float32)
        )
        if readout is None:
            readout = found.expected.copy()
        rows = (batch.slot, batch.v, batch.step, batch.unit, batch.season, readout)
        guesses = np.empty(CANDIDATES, np.float32)
        _select_forecasts(state["ladder.gauss"], state["ladder.error"], rows, guesses, out, tuple(found))
        return found


@row_kernel
def _best_candidate(guesses, e, n):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the index of the candidate that forecasts (−1: no row was seen yet)."""
    if n == 0:
        return -1
    enough = n >= MIN_ROWS_BEFORE_SELECTION
    best = FORECASTER_GAUSSIAN - 1 if enough else FORECASTER_STATIC - 1
    seasonal, last, lstm = FORECASTER_SEASONAL - 1, FORECASTER_LAST_VALUE - 1, FORECASTER_LSTM - 1
    if enough and not np.isnan(guesses[seasonal]) and e[seasonal] <= e[best]:
        best = seasonal
    if enough and e[last] <= e[best]:
        best = last
    if not np.isnan(guesses[lstm]) and e[lstm] <= e[best]:
        best = lstm
    return best


@row_kernel
def _update_errors(e, guesses, best, value, step, age):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Update the recent errors of all candidates and the usual error.

    The usual error is that of the selected candidate.
    """
    for k in range(len(guesses)):
        if np.isnan(guesses[k]):
            continue
        miss = min(abs(value - guesses[k]) / step, np.float32(MAX_ERROR_STEPS))
        if e[k] > 0:
            miss = min(miss, MAX_USUAL_ERRORS * e[k] + np.float32(0.1))
        e[k] += (miss - e[k]) / min(age, np.float32(RECENT_ERROR_ROWS))
    miss = abs(value - guesses[best])
    if e[COL_USUAL_ERROR] > 0:
        miss = min(miss, MAX_USUAL_ERRORS * e[COL_USUAL_ERROR])
    e[COL_USUAL_ERROR] += (miss - e[COL_USUAL_ERROR]) / min(age, np.float32(USUAL_ERROR_ROWS))


@row_kernel
def _select_forecasts(gauss, error, rows, guesses, out, found):  # type: ignore[no-untyped-def]  # noqa: ANN001
    slot, v, step, unit, season, readout = rows
    expected, forecaster, usual_error, relative_error, earlier_rows = found
    for i in range(len(slot)):
        g, e, value = gauss[slot[i]], error[slot[i]], v[i]
        n = g[COL_ROWS]
        guesses[FORECASTER_STATIC - 1] = guesses[FORECASTER_GAUSSIAN - 1] = g[COL_MEAN]
        guesses[FORECASTER_SEASONAL - 1] = season[i]
        guesses[FORECASTER_LSTM - 1], guesses[FORECASTER_LAST_VALUE - 1] = readout[i], e[COL_LAST]
        best = _best_candidate(guesses, e, n)
        earlier_rows[i] = n
        known = n >= MIN_ROWS_BEFORE_USUAL_ERROR
        usual_error[i] = e[COL_USUAL_ERROR] / unit[i] if known else 1.0
        if best >= 0:
            expected[i], forecaster[i] = guesses[best], best + 1
        out[i, 0] = np.nan
        if np.isnan(value):
            continue
        if best >= 0:
            relative_error[i] = (
                abs(value - guesses[best]) / e[COL_USUAL_ERROR]
                if known and e[COL_USUAL_ERROR] > 0
                else np.inf
            )
        if n >= MIN_ROWS_BEFORE_SELECTION:  # before that the size of a step is unknown too
            out[i, 0] = min(abs(value - guesses[best]) / step[i], np.float32(MAX_ERROR_STEPS))
            age = np.float32(n - MIN_ROWS_BEFORE_SELECTION + 1)
            _update_errors(e, guesses, best, value, step[i], age)
        g[COL_ROWS] += 1
        g[COL_MEAN] += (np.float64(value) - g[COL_MEAN]) / g[COL_ROWS]
        e[COL_LAST] = value
