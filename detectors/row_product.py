"""Matrix product whose rows do not depend on each other.

A BLAS adds the terms of a sum in another order in each of its tiles, so that a row of a product depends, in
its last bits, on the number of rows and on its place among them. Here each row has one order of summation. Scores
are then the same in whatever batches the points come: in a daemon, after a takeover, and in a backfill.
"""

from __future__ import annotations

import numpy as np

from detectors.channel_batch import Floats
from detectors.jit import ordered_kernel

#: Rows that share the read of a weight.
ROWS_PER_TILE = 4


def row_product(x: Floats, weights: Floats) -> Floats:
    """Return ``x @ weights`` (M, N) for float32 ``x`` (M, K) and ``weights`` (K, N)."""
    out = np.empty((len(x), weights.shape[1]), np.float32)
    multiply_rows(x, weights, out)
    return out


@ordered_kernel
def _multiply_single_rows(x, weights, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Write ``x @ weights`` to ``out``, one row after the other."""
    terms, width = weights.shape
    for r in range(len(x)):
        out[r, :] = np.float32(0)
        for t in range(0, terms - 1, 2):
            first, second = x[r, t], x[r, t + 1]
            for k in range(width):
                total = out[r, k] + first * weights[t, k]
                out[r, k] = total + second * weights[t + 1, k]
        if terms % 2:
            for k in range(width):
                out[r, k] = out[r, k] + x[r, terms - 1] * weights[terms - 1, k]


@ordered_kernel
def multiply_rows(x, weights, out) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Write ``x @ weights`` to ``out``, ``ROWS_PER_TILE`` rows together.

    The sum of a row has the order that it has in ``_multiply_single_rows``. It is written once in
    four terms.
    """
    terms, width = weights.shape
    tiled = len(x) - len(x) % ROWS_PER_TILE
    for r in range(0, tiled, ROWS_PER_TILE):
        out[r : r + ROWS_PER_TILE, :] = np.float32(0)
        for t in range(0, terms - 3, 4):
            a0, a1, a2, a3 = x[r, t], x[r, t + 1], x[r, t + 2], x[r, t + 3]
            b0, b1, b2, b3 = x[r + 1, t], x[r + 1, t + 1], x[r + 1, t + 2], x[r + 1, t + 3]
            c0, c1, c2, c3 = x[r + 2, t], x[r + 2, t + 1], x[r + 2, t + 2], x[r + 2, t + 3]
            d0, d1, d2, d3 = x[r + 3, t], x[r + 3, t + 1], x[r + 3, t + 2], x[r + 3, t + 3]
            for k in range(width):
                p, q, u, v = weights[t, k], weights[t + 1, k], weights[t + 2, k], weights[t + 3, k]
                a, b = out[r, k] + a0 * p + a1 * q, out[r + 1, k] + b0 * p + b1 * q
                c, d = out[r + 2, k] + c0 * p + c1 * q, out[r + 3, k] + d0 * p + d1 * q
                out[r, k], out[r + 1, k] = a + a2 * u + a3 * v, b + b2 * u + b3 * v
                out[r + 2, k], out[r + 3, k] = c + c2 * u + c3 * v, d + d2 * u + d3 * v
        for t in range(terms - terms % 4, terms):
            for i in range(r, r + ROWS_PER_TILE):
                for k in range(width):
                    out[i, k] = out[i, k] + x[i, t] * weights[t, k]
    _multiply_single_rows(x[tiled:], weights, out[tiled:])
