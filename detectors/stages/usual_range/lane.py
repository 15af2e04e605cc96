"""State, buffers and columns of the pass over rows, as tuples of arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.jit import row_kernel
from detectors.stages.usual_range.phase_profile import MISSING
from detectors.stages.usual_range.quantities import MODELS, QUANTITIES

(
    COL_ROWS, COL_LAST, COL_RAW, COL_LEVEL, COL_NOISE, COL_SLOW_STEP, COL_STILL, COL_RESOLUTION, COL_GRID,
    COL_RELATION, COL_BLOCK_ROWS, COL_BLOCK_LENGTH, COL_BLOCKS, COL_VISITS, COL_OLD_DISTANCE, COL_CELL,
    COL_MINIMUM, COL_CHANGE, COL_CHANGE_EVIDENCE, COL_CHANGE_DONE, COL_MAXIMUM,
) = range(21)  # of "usual.head"  # fmt: skip
HEAD_COLUMNS = 21
#: Of prices, which have neither a relation nor a usual value: their trend and last step.
COL_TREND, COL_LAST_STEP = COL_RELATION, COL_OLD_DISTANCE
(
    WHOLE_VISIT_OUTSIDE, WHOLE_BLOCK_OUTSIDE, WHOLE_OUTSIDE_BLOCKS, WHOLE_REACH, WHOLE_SHIFT,
    WHOLE_ALTERNATIVE, WHOLE_DAY_VISITS, WHOLE_GROUP, WHOLE_FOUND, WHOLE_EVIDENCE,
) = range(10)  # of "usual.whole"  # fmt: skip
WHOLE_COLUMNS, MAX_WHOLE, WEEKDAYS = 10, 127, 7
WEEKEND = 0b1100000  # Saturday and Sunday, with one bit a day from Monday on
#: The alarm rate of a series faster than a minute is one of minutes, down to a cadence of a second: an
#: engineer counts alarms by the week, and neighbouring rows say much the same.
MINUTE_NS, SECOND_NS = 60_000_000_000, 1_000_000_000
TIME_LAST, TIME_VISIT = range(2)  # of "usual.time": the last row in ns, number of the bin since the epoch


class Lane(NamedTuple):
    """State of one channel slot: a row of each array."""

    head: NDArray[np.float32]
    time: NDArray[np.int64]
    profile: NDArray[np.int16]
    quantum: NDArray[np.float32]
    visits: NDArray[np.uint8]
    pool: NDArray[np.float32]
    block: NDArray[np.float32]
    visit: NDArray[np.float32]
    recent: NDArray[np.float32]
    distances: NDArray[np.int8]
    limits: NDArray[np.int16]
    blocks: NDArray[np.uint8]
    left: NDArray[np.uint16]
    model: NDArray[np.int8]
    tail: NDArray[np.uint16]
    tail_head: NDArray[np.float32]
    events: NDArray[np.int8]
    own: NDArray[np.int16]
    whole: NDArray[np.int8]
    means: NDArray[np.int16]
    departures: NDArray[np.int8]


class Work(NamedTuple):
    """Buffers of one channel slot, filled from its state at its first row of a batch."""

    ranges: NDArray[np.float32]  # (J, 3, 2)
    other: NDArray[np.float32]  # (J, 3, 2)
    factors: NDArray[np.float32]  # (J, 3, 2)
    spreads: NDArray[np.float32]  # (J, 3, 2), filled where alarms have another rate than the reference
    widths: NDArray[np.float32]  # (J, 3)
    floor: NDArray[np.float32]  # by quantity
    now: NDArray[np.float32]  # quantities of the row, by quantity
    clock: NDArray[np.float32]  # daily range of the value at the phase, and an hour on


class Rows(NamedTuple):
    """Columns of M rows, in the order of ``detectors.channel_batch.ChannelBatch``."""

    slot: NDArray[np.int32]
    v: NDArray[np.float32]
    raw: NDArray[np.float64]
    anchor: NDArray[np.float64]
    time: NDArray[np.int64]
    local: NDArray[np.int64]
    every: NDArray[np.int64]
    relation: NDArray[np.float32]
    residual: NDArray[np.float32]
    step: NDArray[np.float32]
    sensitivity: NDArray[np.float32]  # k of ``limits``, by which they are learned
    shift: NDArray[np.float32]  # k of the alarms less that of the learned limits


class Settings(NamedTuple):
    """Constants of a detector.

    enabled           (C, QUANTITIES) bool  quantities that are judged, by channel
    changes           (T,) int64            times at which the clock of an unknown zone may change
    directions        (T,) int64            1: forward, −1: back
    holidays          (D,) int64            days since 1970-01-01 that are like those of a weekend
    shifted           bool                  the alarms may have another rate than the learned limits
    decades           float                 −log10 of the rate of ``residual_tail``
    logarithmic       int                   0: values as they are, 1: signed log(1 + |x|), 2: log(x)
    evidence          (QUANTITIES, KNOTS) float32  pooled map of ``own_tail``
    outside_share     float                 share of the rows outside of the interval
    width_stride      int                   rows between two falls of the width of the interval
    """

    enabled: NDArray[np.bool_]
    changes: NDArray[np.int64]
    directions: NDArray[np.int64]
    holidays: NDArray[np.int64]
    shifted: bool
    decades: np.float32
    logarithmic: int
    evidence: NDArray[np.float32]
    outside_share: np.float32
    width_stride: int


class Found(NamedTuple):
    """Results of M rows in working units; see ``detectors.base.Verdicts`` for ratio and side."""

    ratio: NDArray[np.float32]
    quantity: NDArray[np.int8]
    side: NDArray[np.int8]
    observed: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    own: NDArray[np.float32]  # largest ratio of value and level, whichever quantity leads
    minimum: NDArray[np.float32]  # lowest value before the row, in working units
    maximum: NDArray[np.float32]  # highest one
    evidence: NDArray[np.float32]  # decades, by the pooled map
    rarity: NDArray[np.float32]  # decades, by the past of the channel slot
    half_width: NDArray[np.float32]  # of the prediction interval
    stated_rarity: NDArray[np.float32]  # decades, of the leading quantity
    basis: NDArray[np.uint8]  # index into ``detectors.base.BASES``
    level: NDArray[np.float32]  # mean of the last rows, NaN in the first ones
    step: NDArray[np.float32]  # change from the previous row, NaN after a gap


def new_work(used: int) -> Work:
    """Return buffers for ``used`` quantities, not filled."""
    shapes = ((used, MODELS, 2),) * 4 + ((used, MODELS), (QUANTITIES,), (QUANTITIES,), (4,))
    return Work(*(np.empty(shape, np.float32) for shape in shapes))


def initial_head(slots: int) -> State:
    """Return the numbers of ``slots`` channel slots before the first row."""
    whole = np.zeros((slots, WHOLE_COLUMNS), np.int8)
    whole[:, WHOLE_GROUP] = WEEKEND
    return {
        "usual.head": np.zeros((slots, HEAD_COLUMNS), np.float32),
        "usual.whole": whole,
        "usual.means": np.full((slots, WEEKDAYS), MISSING, np.int16),
        "usual.time": np.zeros((slots, 2), np.int64),
    }


@row_kernel
def lane_of(a, s):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the state of channel slot ``s``."""
    return Lane(a[0][s], a[1][s], a[2][s], a[3][s], a[4][s], a[5][s], a[6][s], a[7][s], a[8][s], a[9][s], a[10][s], a[11][s], a[12][s], a[13][s], a[14][s], a[15][s], a[16][s], a[17][s], a[18][s], a[19][s], a[20][s])  # fmt: skip
