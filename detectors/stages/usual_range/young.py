"""Rules of young series: when a limit is used, and which movements are judged."""

from __future__ import annotations

import numpy as np

from detectors.jit import inlined_kernel
from detectors.stages.usual_range.lane import COL_BLOCKS, COL_ROWS, COL_SLOW_STEP
from detectors.stages.usual_range.limits import MIN_BLOCKS, MIN_YOUNG_BLOCKS
from detectors.stages.usual_range.quantities import Q_STEP
from detectors.stages.usual_range.visits import DAY_NS

YOUNG_DAYS, MIN_INDEPENDENT = 7.0, 20.0  # see ``moves_slowly``


@inlined_kernel
def fewest_blocks(lane, layout):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the blocks before a limit is used.

    The first change of a series that stood still says nothing about the size of its changes.
    """
    if lane.head[COL_BLOCKS] <= MIN_BLOCKS:
        for j in range(len(layout.quantity)):
            if layout.quantity[j] == Q_STEP and lane.pool[j, 1] > lane.pool[j, 0]:
                return MIN_YOUNG_BLOCKS
    return MIN_BLOCKS


@inlined_kernel
def moves_slowly(lane, pool, floor, every):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return whether a movement without a jump may be the course of a young series.

    It may in the first day. In the first week it may where the rows hold few independent values: a value
    needs (half width / mean step) ^ 2 rows to cross its range.

    Args:
        lane: State of the channel slot.
        pool: Usual range of the quantity over all phases.
        floor: Its least half width.
        every: Cadence in ns.
    """
    rows = lane.head[COL_ROWS]
    if rows >= YOUNG_DAYS * DAY_NS / every:
        return False
    half = max(np.float32(0.5) * (pool[1] - pool[0]), floor)
    steps = lane.head[COL_SLOW_STEP] / half
    return bool(rows < DAY_NS / every or rows * steps * steps < MIN_INDEPENDENT)
