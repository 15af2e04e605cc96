"""The AR expert of the LSTM's inputs: recursive least squares with forgetting.

Source: Haykin, Adaptive Filter Theory, ch. 10.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.jit import row_kernel

# Regressors of the AR expert: three differences, distance to the level, two seasons, last seasonal error.
AR_REGRESSORS: Final = 7
AR_FORGETTING_FACTOR: Final = 0.998
#: The covariance of the AR expert is kept as its lower triangle by rows.
INITIAL_COVARIANCE: Final = np.eye(AR_REGRESSORS, dtype=np.float32)[np.tril_indices(AR_REGRESSORS)]

Array = NDArray[Any]


@row_kernel
def _triangle_place(row: int, column: int) -> int:
    """Return the place of an element of a lower triangle that is stored by rows."""
    return row * (row + 1) // 2 + column


@row_kernel
def learn(weights: Array, covariance: Array, regressors: Array, gain: Array, target: float) -> None:
    """Make one step of recursive least squares with forgetting.

    An outlier moves the weights at most as far as an error of 6 units.

    Args:
        weights: Weights of the regressors, changed in place.
        covariance: Their covariance, changed in place.
        regressors: Regressors of the row.
        gain: Buffer.
        target: Step of the row, in units.
    """
    norm, guess, trace = AR_FORGETTING_FACTOR, 0.0, 0.0
    for j in range(AR_REGRESSORS):
        total = 0.0
        for k in range(AR_REGRESSORS):
            total += covariance[_triangle_place(max(j, k), min(j, k))] * regressors[k]
        gain[j] = total
        norm += total * regressors[j]
        guess += weights[j] * regressors[j]
        trace += covariance[_triangle_place(j, j)]
    if (
        norm < 0.5 * AR_FORGETTING_FACTOR
    ):  # rounding made the covariance indefinite: reset it, keep the weights
        for at in range(len(covariance)):
            covariance[at] = INITIAL_COVARIANCE[at]
        return
    error = min(max(target - guess, -6.0), 6.0)
    grow = (
        1.0 / AR_FORGETTING_FACTOR if trace < 10.0 * AR_REGRESSORS else 1.0
    )  # no wind-up if nothing excites a regressor
    for j in range(AR_REGRESSORS):
        weights[j] += gain[j] * error / norm
        for k in range(j + 1):
            at = _triangle_place(j, k)
            covariance[at] = (covariance[at] - gain[j] * gain[k] / norm) * grow
        covariance[at] = max(covariance[at], np.float32(1e-7))
