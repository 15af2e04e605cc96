"""The tail of the forecast residual, row by row: the size that is exceeded at a stated rate.

The sizes of the last ``HALVING_ROWS`` / 2 to ``HALVING_ROWS`` rows are counted in bins of a quarter octave.
The limit is a generalised Pareto tail through the quantiles .9, .968 and .99, read at the wanted rate.
Anomalies of up to one per cent of the rows do not move these quantiles, unlike the mean excess over them, and
of a longer one few rows are counted.
A rate cannot be checked on fewer rows than it needs: decades beyond the rows of the series count twice.

The shape ξ of the tail counts only as far as extremes come singly. Extremes in clusters are events and do not
make the noise heavy-tailed; extremes that come alone do. The weight of ξ falls from 1 to 0 as the share of
extremes within ``CLUSTER_ROWS`` of another rises from ``SINGLE_SHARE`` to ``CLUSTERED_SHARE``
(the extremal index; Leadbetter 1983).

A residual beyond the limit is unusual unless the series is where it was before its last move (the end of an
event is no event of its own), the value is usual and its forecast is not (it follows a fault that is over, or
repeats one of a period ago), or it recurs at its time of day, see ``is_recurrent``. A burst at
a random time of day is unusual, however often one comes, unless its size is common (``has_common_size``):
the limit answers for its share of the rows. In a series that mostly stays at the new level after a large
residual, such as a machine with load modes, residuals are no alarms: level and step of the value judge its
moves.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.jit import log2, log10, row_kernel
from detectors.stages.usual_range.lane import MINUTE_NS, SECOND_NS
from detectors.stages.usual_range.residual_events import (
    DAYS_KEPT,
    DOUBTFUL_WINDOW,
    EVENT_DAY,
    EVENT_PHASE,
    EVENT_SIZE,
    EVENTS,
    MIN_SIZE,
    WINDOW,
    has_common_size,
    is_recurrent,
    place_of,
    size_step,
    wrapped,
)

BINS, BINS_PER_OCTAVE = 40, 4
HALVING_ROWS = 40_000  # counts are halved at this many rows
STRIDE_ROWS = 64  # between two computations of the limit
MIN_ROWS_BEFORE_LIMIT = 5_000.0  # fifty extremes beyond the .99 quantile
CLUSTER_ROWS = 16.0
MAX_COUNTED = 12  # extremes of a cluster
#: In a cluster ``TAIL_SINCE`` is −(``CLUSTER_STEP`` · its extremes + rows since the last one).
CLUSTER_STEP = 32
SINGLE_SHARE, CLUSTERED_SHARE = np.float32(0.2), np.float32(0.5)  # 0.15 of white noise are within 16 rows
MEMORY_OF_EXTREMES = np.float32(0.99)  # a hundred extremes
PRIOR_CLUSTERED, PRIOR_EXTREMES = np.float32(0.8), np.float32(4)
PRIOR_SHAPE, PRIOR_SHAPE_ROWS = np.float32(0.15), np.float32(1_000)
MAX_SHAPE = np.float32(0.6)
MIN_NONZERO_SHARE = np.float32(0.05)  # of the rows: below it the quantiles are those of nothing
#: A limit that is left by more than one in 500 rows is not one that marks anomalies.
MAX_EXCEEDED_SHARE, EXCEEDED_MEMORY_ROWS = np.float32(1 / 500), np.float32(4_000)
KEPT_SHARE = np.float32(0.6)  # of the limit: a residual as large is kept as an event
#: So many rows after the last large residual it is settled whether the forecast is back where it was before
#: the first one, within ``BACK_SHARE`` of its size.
SETTLED_ROWS, BACK_SHARE = 32.0, np.float32(0.5)
#: A series that stays at the new level after more than this share of its last events moves between levels.
MAX_STAYED_SHARE, MEMORY_OF_EVENTS = np.float32(0.4), np.float32(16)
(TAIL_ROWS, TAIL_LOWEST, TAIL_SINCE, TAIL_EXTREMES, TAIL_CLUSTERED, TAIL_LIMIT, TAIL_GATE, TAIL_EXCEEDED) = (
    range(8)
)
#: Events so far (cut to 2 · EVENTS), and ``KIND_STEP`` times the kind of the last move; rows since an event.
TAIL_EVENTS, TAIL_EVENT_SINCE = 8, 9
#: Share of events that stayed; forecast before the first large residual, and that residual (0: no last move).
TAIL_STAYED, TAIL_BASE, TAIL_MOVE = 10, 11, 12
#: Kinds of the last move: not settled yet; settled at a new level; the return from one, not settled yet.
BEGUN, STAYED, RETURN = range(3)
KIND_STEP, KINDS = 32, 4
#: Added to the events of a series that leaves its range as it does on other days at this time.
HABITUAL = KIND_STEP * KINDS
TEN = np.float32(10)


def initial_tail(slots: int) -> State:
    """Return the empty tails of ``slots`` channel slots."""
    return {
        "usual.tail": np.zeros((slots, BINS), np.uint16),
        "usual.tail_head": np.zeros((slots, 13), np.float32),
        "usual.events": np.zeros((slots, EVENTS, 3), np.int8),
    }


@row_kernel
def decades_at(decades, every, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the decades at which the limit is read, given those of a minute or a slower row.

    Decades beyond the ``rows`` of the series so far count twice.
    """
    if every < MINUTE_NS:
        decades = decades + np.float32(np.log10(MINUTE_NS / max(every, SECOND_NS)))
    return decades + max(decades - log10(max(rows, np.float32(1))), np.float32(0))


@row_kernel
def moved_limit(head, decades, moved):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the limit at ``moved`` decades instead of ``decades``.

    It lies on the line through the limit and the .99 quantile.
    """
    limit, gate = head[TAIL_LIMIT], head[TAIL_GATE]
    return max(limit + (limit - gate) * (moved - decades) / (decades - np.float32(2)), gate)


@row_kernel
def _size_above(counts, head, share):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the size above which this share of the rows lies."""
    wanted, k, above = share * head[TAIL_ROWS], BINS - 1, np.float32(0)
    while k > 0 and above + counts[k] < wanted:
        above += counts[k]
        k -= 1
    part = (wanted - above) / np.float32(counts[k]) if counts[k] > 0 else np.float32(0.5)
    place = head[TAIL_LOWEST] + k + 1 - min(part, np.float32(1))
    return np.float32(np.exp2(place / np.float32(BINS_PER_OCTAVE)))


@row_kernel
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


@row_kernel
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


@row_kernel
def learn_residual(counts, head, size, decades, grid) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Learn one residual's ``size``; every ``STRIDE_ROWS`` rows the limit is computed.

    Extremes that follow each other within ``CLUSTER_ROWS`` are a cluster. Its first ``MAX_COUNTED`` rows
    count, then one in as many: what lasts is one event, not the tail, and yet a forecast that stays wrong is
    learned. ``decades`` is −log10 of the rate at which the limit is exceeded, ``grid`` the resolution of the
    values.
    """
    since, count = int(head[TAIL_SINCE]), 0
    if since < 0:
        since, count = -since % CLUSTER_STEP, -since // CLUSTER_STEP
    near = since < CLUSTER_ROWS
    since, count = since + 1, count if near else 0
    extreme = head[TAIL_GATE] > 0 and size > head[TAIL_GATE]
    if extreme:
        since, count = 0, count + 1
    head[TAIL_SINCE] = -(CLUSTER_STEP * count + since) if count else since
    if extreme and count > MAX_COUNTED and count % MAX_COUNTED != 0:
        return
    if size > 0:
        _count_size(counts, head, size)
    head[TAIL_ROWS] += 1
    if extreme:
        head[TAIL_EXTREMES] = head[TAIL_EXTREMES] * MEMORY_OF_EXTREMES + 1
        head[TAIL_CLUSTERED] = head[TAIL_CLUSTERED] * MEMORY_OF_EXTREMES + (1 if near else 0)
    if int(head[TAIL_ROWS]) % STRIDE_ROWS == 0:
        if head[TAIL_ROWS] >= HALVING_ROWS:
            for k in range(BINS):
                counts[k] = (int(counts[k]) + 1) >> 1
            head[TAIL_ROWS] = HALVING_ROWS // 2
        _update_limit(counts, head, decades, grid)


@row_kernel
def _keep_event(events, head, size, phase, coded_day):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Keep a large residual: a new event, or a larger size of the one that lasts."""
    step = size_step(size)
    seen, lasts = _events_seen(head), False
    if head[TAIL_EVENT_SINCE] <= CLUSTER_ROWS:
        for back in range(1, min(seen, 2) + 1):  # the newest event of each side
            at = (seen - back) % EVENTS
            if (events[at, EVENT_DAY] >= DAYS_KEPT) == (coded_day >= DAYS_KEPT) and not lasts:
                if wrapped(step - int(events[at, EVENT_SIZE])) > 0:
                    events[at, EVENT_SIZE] = step
                lasts = True
    if not lasts:
        at = seen % EVENTS
        events[at, EVENT_DAY], events[at, EVENT_PHASE], events[at, EVENT_SIZE] = coded_day, phase, step
        kind = int(head[TAIL_EVENTS]) - seen
        head[TAIL_EVENTS] = kind + (seen + 1 if seen < EVENTS else at + 1 + EVENTS)
    head[TAIL_EVENT_SINCE] = 0


@row_kernel
def _events_seen(head):  # type: ignore[no-untyped-def]  # noqa: ANN001
    return int(head[TAIL_EVENTS]) % KIND_STEP


@row_kernel
def _kind_of_move(head):  # type: ignore[no-untyped-def]  # noqa: ANN001
    return int(head[TAIL_EVENTS]) // KIND_STEP % KINDS


@row_kernel
def is_habitual(head):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Say whether the series left its range as it does on other days at this time."""
    return int(head[TAIL_EVENTS]) >= HABITUAL


@row_kernel
def set_habitual(head, habitual) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Begin or end a time in which leaving the range is usual."""
    head[TAIL_EVENTS] = int(head[TAIL_EVENTS]) % HABITUAL + (HABITUAL if habitual else 0)


@row_kernel
def _set_move(head, kind, base, move):  # type: ignore[no-untyped-def]  # noqa: ANN001
    habitual = HABITUAL if is_habitual(head) else 0
    head[TAIL_EVENTS] = KIND_STEP * kind + _events_seen(head) + habitual
    head[TAIL_BASE], head[TAIL_MOVE] = base, move


@row_kernel
def _settle(head, expected):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Learn whether the series stayed at a new level after its large residuals.

    It stayed if its forecast has gone the way of the first of them by ``BACK_SHARE`` of it. A wander of the
    forecast, such as that of a season, goes either way.
    """
    kind, base, move = _kind_of_move(head), head[TAIL_BASE], head[TAIL_MOVE]
    if move != 0 and kind != STAYED and head[TAIL_EVENT_SINCE] >= SETTLED_ROWS:
        stayed = (expected - base) / move > BACK_SHARE
        head[TAIL_STAYED] += ((1 if stayed else 0) - head[TAIL_STAYED]) / MEMORY_OF_EVENTS
        if stayed and kind == BEGUN:
            _set_move(head, STAYED, base, move)
        else:
            _set_move(head, BEGUN, base, np.float32(0))


@row_kernel
def _ends_move(head, residual, expected):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Say whether a series is where it was before its last move.

    The forecast can swing back and forth before it is right again.
    """
    move = head[TAIL_MOVE]
    if _kind_of_move(head) == RETURN or move == 0:
        return False
    return abs(expected + residual - head[TAIL_BASE]) <= BACK_SHARE * abs(move)


@row_kernel
def begin_return(head, value, residual) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Take the forecast of a usual value as the place from which the series has just come back."""
    if head[TAIL_LIMIT] > 0 and abs(residual) > head[TAIL_LIMIT]:
        _set_move(head, BEGUN, np.float32(value), np.float32(-residual))


@row_kernel
def residual_ratio(events, head, residual, expected, local, doubtful):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the size of a residual over its limit, 0 where it cannot be unusual.

    A ratio below 1 is unusual only where the limit of the alarms is lower than the learned one.

    Args:
        events: Kept events.
        head: Row of ``usual.tail_head``.
        residual: The residual.
        expected: The forecast.
        local: Local time in ns.
        doubtful: Whether the clock may have changed by an hour.
    """
    size, limit = abs(residual), head[TAIL_LIMIT]
    ratio = np.float32(0)
    head[TAIL_EVENT_SINCE] += 1
    _settle(head, expected)
    if limit > 0 and size > KEPT_SHARE * limit:
        (phase, day), up = place_of(local), residual > 0
        judged = head[TAIL_ROWS] >= MIN_ROWS_BEFORE_LIMIT
        if judged and size > limit and head[TAIL_SINCE] > CLUSTER_ROWS:
            head[TAIL_EXCEEDED] += 1 / EXCEEDED_MEMORY_ROWS
        often = head[TAIL_EXCEEDED] >= MAX_EXCEEDED_SHARE or head[TAIL_STAYED] > MAX_STAYED_SHARE
        seen, window = _events_seen(head), DOUBTFUL_WINDOW if doubtful else WINDOW
        recurs, ends = False, _ends_move(head, residual, expected)
        for reach in (window, 2 * window):
            recurs = recurs or is_recurrent(events, seen, size, (up, phase, day), reach)
        usual = recurs or often or ends or has_common_size(events, seen, size, up)
        if size > limit and (recurs or not usual):
            set_habitual(head, recurs)
        if judged and not usual:
            ratio = size / limit
        if size > limit and (head[TAIL_MOVE] == 0 or _kind_of_move(head) == STAYED):
            _set_move(head, RETURN if ends else BEGUN, np.float32(expected), np.float32(residual))
        _keep_event(events, head, size, phase, day + (DAYS_KEPT if up else 0))
    head[TAIL_EXCEEDED] -= head[TAIL_EXCEEDED] / EXCEEDED_MEMORY_ROWS
    return ratio
