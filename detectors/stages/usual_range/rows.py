"""The pass over the rows of a batch: quantities, ratios and learning, one channel slot at a time."""

from __future__ import annotations

import math

import numpy as np

from detectors.jit import inlined_kernel, kernel, log2, row_kernel
from detectors.stages.usual_range import own_tail
from detectors.stages.usual_range import residual_tail as tail
from detectors.stages.usual_range.absence import ABSENCE_MIN_DAYS, is_flat, measure_extremes
from detectors.stages.usual_range.departures import is_habit, keep_departure
from detectors.stages.usual_range.lane import (
    COL_BLOCK_LENGTH,
    COL_BLOCK_ROWS,
    COL_BLOCKS,
    COL_CHANGE_EVIDENCE,
    COL_LAST,
    COL_LAST_STEP,
    COL_LEVEL,
    COL_MAXIMUM,
    COL_MINIMUM,
    COL_NOISE,
    COL_OLD_DISTANCE,
    COL_RAW,
    COL_RELATION,
    COL_RESOLUTION,
    COL_ROWS,
    COL_SLOW_STEP,
    COL_STILL,
    COL_TREND,
    MAX_WHOLE,
    MINUTE_NS,
    TIME_LAST,
    WHOLE_ALTERNATIVE,
    WHOLE_BLOCK_OUTSIDE,
    WHOLE_OUTSIDE_BLOCKS,
    WHOLE_REACH,
    WHOLE_VISIT_OUTSIDE,
    lane_of,
)
from detectors.stages.usual_range.limits import (
    ACCEPTED_DAYS,
    BLOCKS,
    MAX_BLOCK_ROWS,
    MIN_BLOCK_ROWS,
    YOUNG_BLOCK_SHARE,
    close_block,
    fill_spreads,
    keep_distance,
    leads,
    learn_pool,
    limit_factors,
    moved_factor,
)
from detectors.stages.usual_range.ordinary import (
    LEVEL_ROWS,
    MAX_TREND_CADENCE_NS,
    TREND_ROWS,
    is_ordinary,
    moved_trend,
    undoes,
)
from detectors.stages.usual_range.phase_profile import model_of
from detectors.stages.usual_range.quantities import (
    MODELS,
    Q_FORECAST,
    Q_HIGHEST,
    Q_LEVEL,
    Q_LOWEST,
    Q_NOISE,
    Q_RELATION,
    Q_STEP,
    Q_STILL,
    Q_VALUE,
    SIDE_DOWN,
    SIDE_UP,
)
from detectors.stages.usual_range.visits import DAY_NS, fill_floor, load_ranges, next_visit, widen
from detectors.stages.usual_range.weekdays import basis_of
from detectors.stages.usual_range.young import fewest_blocks

#: A step over a gap of more cadences is not judged; daily bars have weekends and holidays between them.
GAP_CADENCES, GAP_DAILY_CADENCES = 2.5, 5.5
SLOW_STEP_ROWS, RELATION_ROWS = 40.0, 4.0
CUT_MARGIN = np.float32(0.25)  # in half widths beyond the limit, at which a value counts in the mean
DECADES_PER_E_FOLD = np.float32(math.log10(math.e))
MAX_WIDTH_SHARE = np.float32(3)  # widest interval, in widths of the usual range of all phases
MAX_HABIT_NS = 3 * DAY_NS // 24  # after a usual large residual, in which other quantities are no alarms
MAX_CLOCK_MISFIT = 4.0  # half widths that one row counts at most
NAN = np.float32(np.nan)


@inlined_kernel
def _cut(value, j, lane, work, k):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return ``value`` cut to a little more than the usual range of quantity ``j``."""
    m = lane.model[j]
    low, high = work.ranges[j, m, 0], work.ranges[j, m, 1]
    down, up = work.factors[j, m, SIDE_DOWN], work.factors[j, m, SIDE_UP]
    if np.isnan(low) or not np.isfinite(down):
        return value
    middle, half = np.float32(0.5) * (low + high), max(np.float32(0.5) * (high - low), work.floor[k])
    return min(max(value, middle - half * (down + CUT_MARGIN)), middle + half * (up + CUT_MARGIN))


@inlined_kernel
def _measure(lane, layout, work, rows, i, gap, base, enabled):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Fill the quantities of row ``i``, NaN where there is none."""
    h, now, v = lane.head, work.now, rows.v[i]
    earlier = h[COL_ROWS]
    now[:] = NAN
    now[Q_VALUE] = v
    cut, size = v, NAN
    if earlier > 0:
        step = v - h[COL_LAST]
        moved = np.float32(abs(rows.raw[i] - h[COL_RAW]))
        if step != 0 and moved > 0 and (h[COL_RESOLUTION] == 0 or moved < h[COL_RESOLUTION]):
            h[COL_RESOLUTION] = moved
        h[COL_STILL] = h[COL_STILL] + 1 if step == 0 and not gap else np.float32(0)
        now[Q_STILL] = log2(1 + h[COL_STILL])
        if not gap:
            now[Q_STEP], size = step, abs(step)
    for j in range(len(layout.quantity)):
        k = layout.quantity[j]
        if k == Q_VALUE and enabled[k]:
            cut = _cut(v, j, lane, work, k)
        if k == Q_STEP and not np.isnan(size):
            size = abs(_cut(now[Q_STEP], j, lane, work, k))
    h[COL_LEVEL] += (cut - h[COL_LEVEL]) / min(earlier + 1, np.float32(LEVEL_ROWS))
    if earlier >= LEVEL_ROWS:
        now[Q_LEVEL] = h[COL_LEVEL]
    if not np.isnan(size):
        h[COL_NOISE] += (size - h[COL_NOISE]) / min(earlier, np.float32(LEVEL_ROWS))
        h[COL_SLOW_STEP] += (size - h[COL_SLOW_STEP]) / min(earlier, np.float32(SLOW_STEP_ROWS))
        if earlier >= LEVEL_ROWS:
            now[Q_NOISE] = log2(max(h[COL_NOISE], np.float32(0.25) * max(work.floor[Q_VALUE], base)))
    if not enabled[Q_VALUE]:
        now[Q_LEVEL] = NAN
        if rows.every[i] <= MAX_TREND_CADENCE_NS:
            h[COL_TREND] = moved_trend(h[COL_TREND], now[Q_STEP], size)
            now[Q_LEVEL] = h[COL_TREND] if earlier >= TREND_ROWS else NAN
    if not np.isnan(rows.relation[i]):
        h[COL_RELATION] += (rows.relation[i] - h[COL_RELATION]) / np.float32(RELATION_ROWS)
        now[Q_RELATION] = h[COL_RELATION]
    h[COL_LAST], h[COL_RAW] = v, rows.raw[i]


@inlined_kernel
def _keep_distances(distances, blocks, layout, j, value, floor, ranges):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Keep the distances of ``value`` from the middle of its ranges in the open block."""
    for m in range(MODELS):
        low, high = ranges[j, m, 0], ranges[j, m, 1]
        if np.isnan(low):
            continue
        half = max(np.float32(0.5) * (high - low), floor)
        distance = (value - np.float32(0.5) * (low + high)) / half
        n = int(blocks[max(layout.track[j, m], 0)])
        for side in range(2):
            e = layout.entry[j, m, side]
            if e >= 0:
                keep_distance(distances, e, n, distance if side == SIDE_UP else -distance)


@inlined_kernel
def _judge_residual(lane, settings, rows, every, base, i):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the ratio of the forecast residual of row ``i``, and learn it.

    The second result is the limit of the alarms over the learned one.
    """
    residual, doubtful = rows.residual[i], lane.whole[WHOLE_ALTERNATIVE] != 0
    expected, seen, shift = rows.v[i] - residual, lane.head[COL_ROWS], rows.shift[i]
    decades = tail.decades_at(settings.decades, every, seen)
    limit, least = lane.tail_head[tail.TAIL_LIMIT], np.float32(1)
    if shift != 0 and limit > 0:
        moved = tail.decades_at(settings.decades + shift * DECADES_PER_E_FOLD, every, seen)
        least = tail.moved_limit(lane.tail_head, decades, moved) / limit
    ratio = tail.residual_ratio(lane.events, lane.tail_head, residual, expected, rows.local[i], doubtful)
    tail.learn_residual(lane.tail, lane.tail_head, abs(residual), decades, base)
    return ratio, least


@inlined_kernel
def _judge(lane, layout, settings, work, rows, enabled, every, base, found, i):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Judge all quantities of row ``i``, the leading one into ``found``.

    Returns whether one is outside, the largest evidence, and that of the leading quantity.
    """
    h, now = lane.head, work.now
    best, evidence, told, outside, back = np.float32(0), np.float32(0), np.float32(0), False, False
    found.level[i], found.step[i] = h[COL_LEVEL] if h[COL_ROWS] >= LEVEL_ROWS else NAN, now[Q_STEP]
    if not enabled[Q_VALUE]:
        back = undoes(now[Q_STEP], h[COL_LAST_STEP], h[COL_SLOW_STEP])
        h[COL_LAST_STEP] = now[Q_STEP]
    fewest, shift, usual_low, usual_high = fewest_blocks(lane, layout), rows.shift[i], NAN, NAN
    of_residual, moved_limit, departure = NAN, np.float32(1), np.float32(0)
    if len(lane.tail) and enabled[Q_FORECAST] and not np.isnan(rows.residual[i]):
        of_residual, moved_limit = _judge_residual(lane, settings, rows, every, base, i)
    habitual = len(lane.tail) > 0 and tail.is_habitual(lane.tail_head)
    for j in range(len(layout.quantity)):
        k = layout.quantity[j]
        value = now[k]
        if np.isnan(value) or not enabled[k]:
            continue
        if j < layout.phased:
            widen(lane.visit[j], value)
        widen(lane.block[j], value)
        absence = k in (Q_HIGHEST, Q_LOWEST)
        if absence and h[COL_ROWS] < ABSENCE_MIN_DAYS * DAY_NS / every:
            continue
        _keep_distances(lane.distances, lane.blocks, layout, j, value, work.floor[k], work.ranges)
        m = model_of(lane.model, work.ranges, j)
        low, high = work.ranges[j, m, 0], work.ranges[j, m, 1]
        middle, half = np.float32(0.5) * (low + high), max(np.float32(0.5) * (high - low), work.floor[k])
        side = SIDE_UP if value > middle else SIDE_DOWN
        ratio, least, most, known, inside, flat = np.float32(0), NAN, NAN, np.float32(0), False, True
        if layout.entry[j, m, side] >= 0 and lane.blocks[layout.track[j, m]] >= fewest and not np.isnan(low):
            least = middle - half * work.factors[j, m, SIDE_DOWN]
            most = middle + half * work.factors[j, m, SIDE_UP]
            ratio = (
                (value - middle) / (most - middle) if side == SIDE_UP else (middle - value) / (middle - least)
            )
            if k == Q_VALUE:
                distance = (value - middle) / half
                back = abs(distance) < 1 and abs(distance) < abs(h[COL_OLD_DISTANCE])
                h[COL_OLD_DISTANCE] = distance
                if ratio <= 1:
                    usual_low, usual_high = least, most
            inside = is_ordinary(lane, work, every, (j, k), not enabled[Q_VALUE], back)
            if absence and (ratio > 1 or shift != 0):
                flat = is_flat(lane, layout, work, settings.logarithmic)
                inside |= ratio > 1 and not flat
            if ratio > 1 and not inside:
                outside = True
                signed = ratio if side == SIDE_UP else -ratio
                departure = signed if ratio > abs(departure) else departure
                inside = len(lane.departures) > 0 and is_habit(lane.departures, signed, rows.local[i])
            inside |= habitual and k != Q_STILL
            ratio = min(ratio, np.float32(1)) if inside else ratio
            if not inside:
                known = own_tail.evidence_of(settings.evidence, k, ratio)
                evidence = max(evidence, known)
        if k in (Q_VALUE, Q_LEVEL):
            found.own[i] = max(found.own[i], ratio)
        if shift != 0 and ratio > 0:
            inside |= not flat  # judged at this sensitivity, and learned and stated at the reference
            down = moved_factor(work.factors, work.spreads, (j, m), SIDE_DOWN, shift)
            up = moved_factor(work.factors, work.spreads, (j, m), SIDE_UP, shift)
            least, most = middle - half * down, middle + half * up
            moved = (most - middle) if side == SIDE_UP else (middle - least)
            ratio = min(abs(value - middle) / moved, np.float32(1) if inside else np.float32(np.inf))
        if leads(ratio, best, found.quantity[i]):
            best = ratio
            found.ratio[i], found.quantity[i], found.side[i] = ratio, k, 1 if side == SIDE_UP else -1
            found.observed[i], found.low[i], found.high[i] = value, least, most
            found.basis[i], told = basis_of(lane, layout, m), known
    if len(lane.departures) and departure != 0:
        keep_departure(lane.departures, departure, rows.local[i])
    since = lane.tail_head[tail.TAIL_EVENT_SINCE]
    if habitual and since > LEVEL_ROWS and (not outside or since * every > MAX_HABIT_NS):
        tail.set_habitual(lane.tail_head, False)
    if not np.isnan(of_residual):
        ratio, moved = of_residual, moved_limit
        expected = rows.v[i] - rows.residual[i]
        if expected < usual_low or expected > usual_high:
            # The forecast is unusual, not the value: it follows a fault that is over, or repeats one.
            tail.begin_return(lane.tail_head, rows.v[i], rows.residual[i])
            ratio = np.float32(0)
        outside = bool(outside or ratio > 1)
        known = own_tail.evidence_of(settings.evidence, Q_FORECAST, ratio if ratio > 1 else np.float32(0))
        evidence = max(evidence, known)
        ratio = ratio / moved if ratio > moved else np.float32(0)
        if leads(ratio, best, found.quantity[i]):
            value, limit = rows.residual[i], lane.tail_head[tail.TAIL_LIMIT] * moved
            found.ratio[i], found.quantity[i], found.side[i] = ratio, Q_FORECAST, 1 if value > 0 else -1
            found.observed[i], found.low[i], found.high[i] = value, -limit, limit
            found.basis[i], told = 0, known
    return outside, evidence, told


@inlined_kernel
def _state_rarity(lane, layout, settings, rows, i, result):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """State rarity and interval of row ``i``, then learn them."""
    found, base, outside, evidence, told = result
    own, seen = lane.own, int(lane.head[COL_ROWS])
    found.evidence[i] = evidence
    found.rarity[i] = own_tail.rarity_of(own, evidence, seen)
    found.stated_rarity[i] = own_tail.rarity_of(own, told, seen)
    own_tail.learn_evidence(own, evidence, seen, outside)
    unit = base if np.isnan(rows.step[i]) else max(rows.step[i], base)
    half = width_before = own_tail.half_width(own, unit)
    for j in range(len(layout.quantity)):
        width = lane.pool[j, 1] - lane.pool[j, 0]
        if layout.quantity[j] == Q_VALUE and width > 0:
            half = min(half, MAX_WIDTH_SHARE * np.float32(0.5) * width)
    found.half_width[i] = half
    if not np.isnan(rows.residual[i]):
        own_tail.learn_width(
            own, abs(rows.residual[i]), width_before, seen, settings.outside_share, settings.width_stride
        )


@kernel
def _end_block(lane, layout, work, every, k):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Close a full block: the limits of sensitivity ``k``, the models in use and the pooled ranges."""
    h, whole = lane.head, lane.whole
    day_rows = DAY_NS / every
    full = min(max(day_rows, MIN_BLOCK_ROWS), MAX_BLOCK_ROWS)
    # Shorter blocks have smaller extremes: the limit is one of rows, whatever the length of the blocks.
    mean_rows = h[COL_ROWS] / min(h[COL_BLOCKS] + 1, np.float32(BLOCKS))
    shorter = np.float32(np.log(max(full / mean_rows, 1.0)))
    kept = (lane.pool, lane.distances, lane.limits, lane.blocks, lane.left, lane.model)
    close_block(
        lane.profile,
        lane.quantum,
        lane.visits,
        kept,
        layout,
        int(lane.whole[WHOLE_REACH]),
        work.floor,
        k + shorter,
        (work.other, work.widths),
    )
    limit_factors(lane.limits, layout, work.factors)
    outside = int(whole[WHOLE_OUTSIDE_BLOCKS]) + 1 if whole[WHOLE_BLOCK_OUTSIDE] > 0 else 0
    whole[WHOLE_OUTSIDE_BLOCKS] = min(outside, MAX_WHOLE)
    accepted = outside >= max(ACCEPTED_DAYS, ACCEPTED_DAYS * day_rows / full)
    learn_pool(lane.pool, lane.block, layout, h[COL_BLOCKS], accepted, work.factors, work.floor)
    h[COL_BLOCKS] += 1
    h[COL_BLOCK_ROWS] = whole[WHOLE_BLOCK_OUTSIDE] = 0
    h[COL_BLOCK_LENGTH] = min(full, max(MIN_BLOCK_ROWS, YOUNG_BLOCK_SHARE * h[COL_ROWS]))
    load_ranges(lane, layout, work)


@inlined_kernel
def _one_row(lane, layout, settings, work, rows, i, enabled, found):  # type: ignore[no-untyped-def]  # noqa: ANN001
    h = lane.head
    every = rows.every[i] if rows.every[i] > 0 else MINUTE_NS
    found.minimum[i], found.maximum[i] = h[COL_MINIMUM], h[COL_MAXIMUM]
    allowed = GAP_CADENCES if every < DAY_NS // 2 else GAP_DAILY_CADENCES
    gap = h[COL_ROWS] > 0 and rows.time[i] - lane.time[TIME_LAST] > allowed * every
    lane.time[TIME_LAST] = rows.time[i]
    base = fill_floor(lane, layout, rows.anchor[i], not enabled[Q_VALUE], work.floor)
    next_visit(lane, layout, settings, work, rows, i, every)
    v, clock = rows.v[i], work.clock
    if clock[1] > clock[0] and clock[3] > clock[2]:
        here = min(abs(2 * v - clock[0] - clock[1]) / (clock[1] - clock[0]), np.float32(MAX_CLOCK_MISFIT))
        there = min(abs(2 * v - clock[2] - clock[3]) / (clock[3] - clock[2]), np.float32(MAX_CLOCK_MISFIT))
        h[COL_CHANGE_EVIDENCE] += here - there
    _measure(lane, layout, work, rows, i, gap, base, enabled)
    measure_extremes(lane, layout, work, v)
    outside, evidence, told = _judge(lane, layout, settings, work, rows, enabled, every, base, found, i)
    if outside:
        lane.whole[WHOLE_VISIT_OUTSIDE] = lane.whole[WHOLE_BLOCK_OUTSIDE] = 1
    _state_rarity(lane, layout, settings, rows, i, (found, base, outside, evidence, told))
    h[COL_ROWS] += 1
    h[COL_BLOCK_ROWS] += 1
    h[COL_MINIMUM] = min(h[COL_MINIMUM], np.float32(v + rows.anchor[i]))
    h[COL_MAXIMUM] = max(h[COL_MAXIMUM], np.float32(v + rows.anchor[i]))
    if h[COL_BLOCK_ROWS] >= h[COL_BLOCK_LENGTH]:
        _end_block(lane, layout, work, every, rows.sensitivity[i])
        if settings.shifted:
            fill_spreads(lane.distances, lane.blocks, layout, work.spreads)


@row_kernel
def judge_rows(state, layout, settings, order, rows, output) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Judge and learn all rows.

    Args:
        state: Arrays of ``Lane`` in its order, one row per channel slot.
        layout: Places of the quantities.
        settings: Constants of the detector.
        order: Rows sorted by channel slot, in the order of time within each (M,).
        rows: Columns of the rows.
        output: Buffers of ``new_work``, and the results that are filled.
    """
    work, found = output
    a, last, channels = state, -1, len(settings.enabled)
    lane = lane_of(a, 0)
    for i in order:
        if np.isnan(rows.v[i]):
            continue
        s = rows.slot[i]
        if s != last:
            lane = lane_of(a, s)
            limit_factors(lane.limits, layout, work.factors)
            if settings.shifted:
                fill_spreads(lane.distances, lane.blocks, layout, work.spreads)
            load_ranges(lane, layout, work)
            last = s
        _one_row(lane, layout, settings, work, rows, i, settings.enabled[s % channels], found)
