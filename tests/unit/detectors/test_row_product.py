"""A row of a product depends on nothing but itself and the weights."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.forecasters import lstm_features, shared_lstm_numba
from detectors.row_product import row_product


@pytest.mark.parametrize(("terms", "width"), [(83, 256), (64, 24), (1, 3), (7, 1)])
def test_a_row_is_the_same_in_every_product(terms: int, width: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(67, terms)).astype(np.float32)
    weights = rng.normal(size=(terms, width)).astype(np.float32)
    whole = row_product(x, weights)
    np.testing.assert_allclose(whole, x.astype(np.float64) @ weights, atol=2e-5)
    for first, rows in ((0, 1), (66, 1), (3, 2), (1, 3), (5, 4), (2, 7), (0, 66), (1, 66)):
        part = row_product(x[first : first + rows], weights)
        np.testing.assert_array_equal(part, whole[first : first + rows])


def test_a_product_without_rows_is_empty() -> None:
    assert row_product(np.zeros((0, 5), np.float32), np.ones((5, 3), np.float32)).shape == (0, 3)


def test_hidden_states_do_not_depend_on_the_other_series() -> None:
    """With a BLAS they differ by 1e-7, which takeovers enlarged to 2.3e-2 in scores."""
    net = shared_lstm_numba.FrozenLSTM(shared_lstm_numba.read())
    rng = np.random.default_rng(1)
    series, rows = 71, 20
    inputs = rng.normal(size=(series * rows, lstm_features.FEATURES)).astype(np.float32)
    slot = np.tile(np.arange(series, dtype=np.int32), rows)

    def run(given: np.ndarray) -> np.ndarray:
        h, c = np.zeros((2, series, shared_lstm_numba.HIDDEN), np.float32)
        return net.run(inputs[given], slot[given], h, c)

    together = run(np.arange(len(slot)))
    for some in ([70], [0, 1], [3, 5, 8, 13, 21], list(range(66))):
        given = np.flatnonzero(np.isin(slot, some))
        np.testing.assert_array_equal(run(given), together[given])
