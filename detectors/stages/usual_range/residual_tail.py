"""The tail of the forecast residual, row by row: the size that is exceeded at a stated rate.

The sizes of the last ``HALVING_ROWS`` / 2 to ``HALVING_ROWS`` rows are counted in bins of a quarter octave.
The limit is a generalised Pareto tail through the quantiles .9, .968 and .99, read at the wanted rate.
Anomalies of up to one per cent of the rows do not move these quantiles, unlike the mean excess over them.

The shape ξ of the tail counts only as far as extremes come singly. Extremes in clusters are events and do not
make the noise heavy-tailed; extremes that come alone do. The weight of ξ falls from 1 to 0 as the share of
extremes within ``CLUSTER_ROWS`` of another rises from ``SINGLE_SHARE`` to ``CLUSTERED_SHARE``
(the extremal index; Leadbetter 1983).

A residual beyond the limit is unusual if it is also larger than recurring ones, see ``is_recurrent``.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.jit import kernel, log2, log10
from detectors.stages.usual_range.quantities import MODEL_DAILY, MODEL_POOLED

BINS, BINS_PER_OCTAVE = 40, 4
HALVING_ROWS = 40_000  # counts are halved at this many rows
STRIDE_ROWS = 64  # between two computations of the limit
MIN_ROWS_BEFORE_LIMIT = 5_000.0  # fifty extremes beyond the .99 quantile
CLUSTER_ROWS = 16.0
SINGLE_SHARE, CLUSTERED_SHARE = np.float32(0.2), np.float32(0.5)  # 0.15 of white noise are within 16 rows
MEMORY_OF_EXTREMES = np.float32(0.99)  # a hundred extremes
PRIOR_CLUSTERED, PRIOR_EXTREMES = np.float32(0.8), np.float32(4)
PRIOR_SHAPE, PRIOR_SHAPE_ROWS = np.float32(0.15), np.float32(1_000)
MAX_SHAPE = np.float32(0.6)
MIN_NONZERO_SHARE = np.float32(0.05)  # of the rows: below it the quantiles are those of nothing
#: A limit that is left by more than one in 500 rows is not one that marks anomalies.
MAX_EXCEEDED_SHARE, EXCEEDED_MEMORY_ROWS = np.float32(1 / 500), np.float32(4_000)
#: Times the largest residual of an ordinary block: with less, the largest residual of each second day counts.
ORDINARY_BLOCK_FACTOR = np.float32(1.5)
MIN_SIZE = np.float32(1e-30)
(TAIL_ROWS, TAIL_LOWEST, TAIL_SINCE, TAIL_EXTREMES, TAIL_CLUSTERED, TAIL_LIMIT, TAIL_GATE, TAIL_EXCEEDED) = (
    range(8)
)
TAIL_MEDIAN_DOWN, TAIL_MEDIAN_UP = 8, 9  # largest residual of an ordinary block, in half widths
TEN = np.float32(10)


def initial_tail(slots: int) -> State:
    """Return the empty tails of ``slots`` channel slots."""
    head = np.zeros((slots, 10), np.float32)
    head[:, TAIL_MEDIAN_DOWN:] = np.inf
    return {"usual.tail": np.zeros((slots, BINS), np.uint16), "usual.tail_head": head}


@kernel
def _size_above(counts, head, share):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the size above which this share of the rows lies."""
    wanted, k, above = share * head[TAIL_ROWS], BINS - 1, np.float32(0)
    while k > 0 and above + counts[k] < wanted:
        above += counts[k]
        k -= 1
    part = (wanted - above) / np.float32(counts[k]) if counts[k] > 0 else np.float32(0.5)
    place = head[TAIL_LOWEST] + k + 1 - min(part, np.float32(1))
    return np.float32(np.exp2(place / np.float32(BINS_PER_OCTAVE)))


@kernel
def _count_size(counts, head, size):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Count ``size`` in its bin; the bins move up where it is larger than all of them."""
    place = np.floor(log2(max(size, MIN_SIZE)) * np.float32(BINS_PER_OCTAVE))
    if counts.sum() == 0:
        head[TAIL_LOWEST] = place - BINS * 3 // 4
    shift = int(place - head[TAIL_LOWEST]) - BINS + 1
    if shift > 0:
        merged = 0
        for k in range(min(shift + 1, BINS)):
            merged += int(counts[k])
        for k in range(BINS):
            counts[k] = counts[k + shift] if k + shift < BINS else 0
        counts[0] = min(merged, 65_535)
        head[TAIL_LOWEST] += shift
    at = max(int(place - head[TAIL_LOWEST]), 0)
    counts[at] = min(int(counts[at]) + 1, 65_535)


@kernel
def _update_limit(counts, head, decades, grid):  # type: ignore[no-untyped-def]  # noqa: ANN001
    nonzero = np.float32(0)
    for k in range(BINS):
        nonzero += np.float32(counts[k])
    if nonzero < MIN_NONZERO_SHARE * head[TAIL_ROWS]:
        head[TAIL_LIMIT] = 0
        return
    q90 = _size_above(counts, head, np.float32(0.1))
    q97 = max(_size_above(counts, head, np.float32(0.0316228)), q90 * np.float32(1.0001))
    q99 = _size_above(counts, head, np.float32(0.01))
    head[TAIL_GATE] = q99
    # A decade of the tail is at least one step of the resolution of the values.
    q99 = max(max(q99, q97 * np.float32(1.0001)), q90 + grid)
    rows = head[TAIL_ROWS]
    shape = np.float32(2) * log10(np.float32(max((q99 - q97) / (q97 - q90), np.float32(1e-3))))
    shape = (shape * rows + PRIOR_SHAPE * PRIOR_SHAPE_ROWS) / (rows + PRIOR_SHAPE_ROWS)
    clustered = (head[TAIL_CLUSTERED] + PRIOR_CLUSTERED) / (head[TAIL_EXTREMES] + PRIOR_EXTREMES)
    single = (CLUSTERED_SHARE - clustered) / (CLUSTERED_SHARE - SINGLE_SHARE)
    shape = min(max(shape, np.float32(0)), MAX_SHAPE) * min(max(single, np.float32(0)), np.float32(1))
    beyond = decades - 1
    if shape > np.float32(1e-3):
        beyond = (TEN ** (shape * (decades - 1)) - 1) / (TEN**shape - 1)
    head[TAIL_LIMIT] = q90 + (q99 - q90) * beyond


@kernel
def learn_residual(counts, head, size, decades, grid) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Learn one residual's ``size``; every ``STRIDE_ROWS`` rows the limit is computed.

    ``decades`` is −log10 of the rate at which the limit is exceeded, ``grid`` the resolution of the values.
    """
    if size > 0:
        _count_size(counts, head, size)
    head[TAIL_ROWS] += 1
    head[TAIL_SINCE] += 1
    if head[TAIL_GATE] > 0 and size > head[TAIL_GATE]:
        head[TAIL_EXTREMES] = head[TAIL_EXTREMES] * MEMORY_OF_EXTREMES + 1
        near = head[TAIL_SINCE] <= CLUSTER_ROWS
        head[TAIL_CLUSTERED] = head[TAIL_CLUSTERED] * MEMORY_OF_EXTREMES + (1 if near else 0)
        head[TAIL_SINCE] = 0
    if int(head[TAIL_ROWS]) % STRIDE_ROWS == 0:
        if head[TAIL_ROWS] >= HALVING_ROWS:
            for k in range(BINS):
                counts[k] = (int(counts[k]) + 1) >> 1
            head[TAIL_ROWS] = HALVING_ROWS // 2
        _update_limit(counts, head, decades, grid)


@kernel
def is_recurrent(head, ranges, steps, residual, side, floor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Say whether a residual beyond the limit is as large as those that recur.

    It is, if it lies within twice the range of residuals at this time of day, or of steps where no such range
    of residuals is kept: the start of a shift is a step that the forecast does not foresee. It also is, if
    it is no larger than ``ORDINARY_BLOCK_FACTOR`` times the largest of an ordinary (median) block: what comes
    on every second day is usual for the series, however rare it is among its rows.

    Args:
        head: Row of ``usual.tail_head``.
        ranges: Ranges of the residual (3, 2).
        steps: Ranges of the step (3, 2).
        residual: The residual.
        side: 0: down, 1: up.
        floor: Least half width of the residual.
    """
    own = not np.isnan(ranges[MODEL_DAILY, 0])
    low = ranges[MODEL_DAILY, 0] if own else steps[MODEL_DAILY, 0]
    high = ranges[MODEL_DAILY, 1] if own else steps[MODEL_DAILY, 1]
    if abs(residual - np.float32(0.5) * (low + high)) <= high - low:
        return True
    low, high = ranges[MODEL_POOLED, 0], ranges[MODEL_POOLED, 1]
    half = max(np.float32(0.5) * (high - low), floor)
    ordinary = ORDINARY_BLOCK_FACTOR * head[TAIL_MEDIAN_DOWN + side]
    return abs(residual - np.float32(0.5) * (low + high)) <= half * ordinary


@kernel
def residual_ratio(head, ranges, steps, residual, side, floor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the size of a residual over its limit, 0 where it cannot be unusual."""
    size, limit = abs(residual), head[TAIL_LIMIT]
    ratio = np.float32(0)
    if limit > 0 and head[TAIL_ROWS] >= MIN_ROWS_BEFORE_LIMIT and size > limit:
        if head[TAIL_SINCE] > CLUSTER_ROWS:
            head[TAIL_EXCEEDED] += 1 / EXCEEDED_MEMORY_ROWS
        often = head[TAIL_EXCEEDED] >= MAX_EXCEEDED_SHARE
        if not often and not is_recurrent(head, ranges, steps, residual, side, floor):
            ratio = size / limit
    head[TAIL_EXCEEDED] -= head[TAIL_EXCEEDED] / EXCEEDED_MEMORY_ROWS
    return ratio
