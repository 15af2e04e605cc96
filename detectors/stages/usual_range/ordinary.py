"""The trend of a price, and quantities outside of their ranges that are no events.

A trend counts steps as far as they are usual, so that a jump, which is an event of its own, leaves none.
It goes on while the price is ahead of the mean of its last rows, by half of what a steady trend gives.
Over days a trend is the ordinary course of a price, and is not judged.
"""

from __future__ import annotations

import numpy as np

from detectors.jit import inlined_kernel
from detectors.stages.usual_range.lane import COL_LAST, COL_LEVEL, COL_SLOW_STEP, COL_STILL
from detectors.stages.usual_range.quantities import Q_LEVEL, Q_STEP, Q_STILL, Q_VALUE
from detectors.stages.usual_range.visits import DAY_NS
from detectors.stages.usual_range.young import moves_slowly

LEVEL_ROWS, TREND_ROWS = 8.0, 40.0
MAX_TREND_CADENCE_NS = int(DAY_NS / TREND_ROWS)
MIN_SHARE_AHEAD = np.float32(0.5 * LEVEL_ROWS / TREND_ROWS)  # of a trend
MAX_SHARE_LEFT = np.float32(0.25)  # of a step that undoes the one before
MIN_STILL_ROWS = 8  # repeated values before a standstill can be unusual
JUMP_STEPS = 6.0  # mean steps: of a young series that moves slowly, only a value that jumps is judged


@inlined_kernel
def undoes(step, last_step, mean_step):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return whether a jump of a price undoes the one before, as after a wrong tick."""
    large = abs(step) > JUMP_STEPS * mean_step
    return large and step * last_step < 0 and abs(step + last_step) <= MAX_SHARE_LEFT * abs(step)


@inlined_kernel
def moved_trend(trend, step, size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the trend of a price after a step.

    A jump back ends it, and only the rest of the jump begins another one.

    Args:
        trend: Trend before the step.
        step: The step, NaN: none.
        size: Size of the step, cut to its usual range.
    """
    trend *= np.float32(1 - 1 / TREND_ROWS)
    if np.isnan(size):
        return trend
    if trend * step < 0 and abs(step) >= abs(trend):
        size, trend = min(size, abs(step + trend)), np.float32(0)
    return trend + (size if step > 0 else -size)


@inlined_kernel
def is_ordinary(lane, work, every, place, is_price, back) -> bool:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Say whether a quantity outside of its range is no event.

    Args:
        lane: State of the channel slot.
        work: Buffers with the quantities of the row.
        every: Cadence in ns.
        place: Place and number of the quantity.
        is_price: Whether the channel is a price.
        back: Whether the value goes back towards the middle of its range.
    """
    (j, k), h, now = place, lane.head, work.now
    if k == Q_STEP:
        return back
    if k == Q_STILL:
        return h[COL_STILL] < MIN_STILL_ROWS
    if k == Q_LEVEL and is_price:
        ahead = h[COL_LAST] - h[COL_LEVEL]
        if ahead * now[k] <= 0 or abs(ahead) < MIN_SHARE_AHEAD * abs(now[k]):
            return True
    if k not in (Q_VALUE, Q_LEVEL) or (k == Q_VALUE and abs(now[Q_STEP]) > JUMP_STEPS * h[COL_SLOW_STEP]):
        return False
    return moves_slowly(lane, lane.pool[j], work.floor[k], every)
