"""Visits of a channel slot to the bins of the day: ranges in force, and what the last visit teaches."""

from __future__ import annotations

import numpy as np

from detectors.jit import inlined_kernel, row_kernel
from detectors.stages.usual_range.lane import (
    COL_BLOCK_LENGTH,
    COL_CELL,
    COL_CHANGE,
    COL_CHANGE_DONE,
    COL_CHANGE_EVIDENCE,
    COL_GRID,
    COL_LEVEL,
    COL_MAXIMUM,
    COL_MINIMUM,
    COL_RESOLUTION,
    COL_ROWS,
    COL_SLOW_STEP,
    COL_VISITS,
    TIME_VISIT,
    WHOLE_ALTERNATIVE,
    WHOLE_REACH,
    WHOLE_SHIFT,
    WHOLE_VISIT_OUTSIDE,
)
from detectors.stages.usual_range.limits import MIN_BLOCK_ROWS
from detectors.stages.usual_range.phase_profile import (
    QUANTUM_VALUES,
    close_visit,
    phase_ranges,
    unite_kinds,
)
from detectors.stages.usual_range.quantities import (
    MODEL_DAILY,
    MODEL_POOLED,
    MODELS,
    OCTAVES_NOISE,
    OCTAVES_STILL,
    Q_LEVEL,
    Q_NOISE,
    Q_RELATION,
    Q_STEP,
    Q_STILL,
    Q_VALUE,
)
from detectors.stages.usual_range.weekdays import (
    MIN_DISTANCE,
    close_days,
    kind_of,
    measure_visit,
    rescale,
    weekday_of,
)

DAY_NS, HOUR_NS = 86_400_000_000_000, 3_600_000_000_000
MAX_PHASED_CADENCE_NS = 2 * HOUR_NS  # twelve rows a day: with fewer a day has no phases
RELATIVE_FLOOR, ABSOLUTE_FLOOR = 1e-5, 1e-12  # of a half width, relative to the level and at least
POOL_FLOOR, RELATION_FLOOR = 0.02, 0.04  # of a half width, relative to the width of all phases
SLOW_STEP_FLOOR = 2.0  # of a step's half width, in mean steps
#: Series that begin at 0 and rise by at most so many steps are counts: a count of n varies by √n, so that the
#: usual range of a quiet host does not end at the largest count that happened to come.
MAX_COUNT, COUNT_SPREADS = 16.0, 2.0
CLOCK_CHANGE_DAYS = 7  # for which both phases are usual, unless one is proven
CLOCK_EVIDENCE_HOURS = 2.0  # of rows at the full difference, after which one phase is adopted
SUNDAY = 6
NAN = np.float32(np.nan)


@row_kernel
def load_ranges(lane, layout, work) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Fill the ranges of the current bin; where the clock may have changed, also those of an hour on."""
    h, ranges, other = lane.head, work.ranges, work.other
    cell, reach = int(h[COL_CELL]), int(lane.whole[WHOLE_REACH])
    phase_ranges(lane.profile, lane.quantum, lane.visits, lane.pool, layout, cell, reach, ranges)
    work.clock[:] = NAN
    if lane.whole[WHOLE_ALTERNATIVE] == 0:
        return
    bins = layout.bins
    b = (cell % bins + int(lane.whole[WHOLE_ALTERNATIVE])) % bins
    at = cell // bins * bins + b
    phase_ranges(lane.profile, lane.quantum, lane.visits, lane.pool, layout, at, reach, other)
    for j in range(len(layout.quantity)):
        if layout.quantity[j] == Q_VALUE:
            work.clock[0], work.clock[1] = ranges[j, MODEL_DAILY, 0], ranges[j, MODEL_DAILY, 1]
            work.clock[2], work.clock[3] = other[j, MODEL_DAILY, 0], other[j, MODEL_DAILY, 1]
        for m in range(1, MODELS):
            if not np.isnan(other[j, m, 0]):
                if not ranges[j, m, 0] <= other[j, m, 0]:
                    ranges[j, m, 0] = other[j, m, 0]
                if not ranges[j, m, 1] >= other[j, m, 1]:
                    ranges[j, m, 1] = other[j, m, 1]


@inlined_kernel
def widen(ends, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Widen the two ends to contain ``value``."""
    if not ends[0] <= value:
        ends[0] = value
    if not ends[1] >= value:
        ends[1] = value


@inlined_kernel
def _pooled_width(lane, layout):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the width of the range of values over all phases, NaN if unknown."""
    for j in range(len(layout.quantity)):
        if layout.quantity[j] == Q_VALUE:
            return lane.pool[j, 1] - lane.pool[j, 0]
    return NAN


@inlined_kernel
def fill_floor(lane, layout, anchor, is_price, floor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Fill the least half width of each quantity; return the resolution of the values."""
    h, width = lane.head, _pooled_width(lane, layout)
    resolution = h[COL_RESOLUTION] * h[COL_GRID]
    base = np.float32(max(resolution, RELATIVE_FLOOR * abs(h[COL_LEVEL] + anchor) + ABSOLUTE_FLOOR))
    known = not np.isnan(width)
    wide = max(base, np.float32(POOL_FLOOR) * width) if known else base
    floor[:] = wide
    floor[Q_STEP] = max(base, np.float32(SLOW_STEP_FLOOR) * h[COL_SLOW_STEP])
    if is_price:
        floor[Q_LEVEL] = floor[Q_STEP]
    floor[Q_RELATION] = max(base, np.float32(RELATION_FLOOR) * width) if known else base
    floor[Q_NOISE], floor[Q_STILL] = OCTAVES_NOISE, OCTAVES_STILL
    return base


@row_kernel
def _possible_change(h, whole, settings, time, every, hour):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return by how many bins the phase may have moved (0: not), and adopt a move that is proven."""
    alternative = 0
    after = np.searchsorted(settings.changes, time, side="right")
    for c in range(max(after - 4, 0), after):
        if h[COL_CHANGE_DONE] == c + 1:
            continue
        over = time - settings.changes[c] >= CLOCK_CHANGE_DAYS * DAY_NS
        if h[COL_CHANGE] != c + 1:
            if over:
                continue
            h[COL_CHANGE], h[COL_CHANGE_EVIDENCE] = c + 1, 0
        alternative = settings.directions[c] * hour
        # At the end the likelier phase is adopted; in a series without a season either is as good.
        if over or abs(h[COL_CHANGE_EVIDENCE]) > CLOCK_EVIDENCE_HOURS * HOUR_NS / every:
            h[COL_CHANGE_DONE] = c + 1
            if h[COL_CHANGE_EVIDENCE] > 0:
                whole[WHOLE_SHIFT] += alternative
            alternative = 0
    return alternative


@inlined_kernel
def _values_of_visit(lane, layout):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the lowest and the highest value of the visit that ends, NaN if unknown."""
    for j in range(len(layout.quantity)):
        if layout.quantity[j] == Q_VALUE:
            return lane.visit[j, 0], lane.visit[j, 1]
    return NAN, NAN


@row_kernel
def _keep_visit(lane, layout):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Keep the lowest and the highest value of the visit that ends."""
    at = int(lane.head[COL_VISITS]) % len(lane.recent)
    lane.recent[at, 0], lane.recent[at, 1] = _values_of_visit(lane, layout)
    lane.head[COL_VISITS] += 1


@row_kernel
def _learn_weekday(lane, layout, quantum, day, every) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Learn the visit that ends for its weekday, and a week that ends.

    Args:
        lane: State of the channel slot.
        layout: Places of the quantities.
        quantum: Quantum of values before the visit was learned.
        day: Day of the visit that begins.
        every: Cadence in ns.
    """
    bins, last = layout.bins, lane.time[TIME_VISIT] // layout.bins
    low, high = _values_of_visit(lane, layout)
    middle = np.float32(0.5) * (low + high)
    unit = lane.quantum[QUANTUM_VALUES]
    rescale(lane.means, quantum, unit)
    measure_visit(lane.means, lane.whole, weekday_of(last), middle, unit)
    if day <= last:
        return
    least = MIN_DISTANCE * _pooled_width(lane, layout) / unit if unit > 0 else NAN
    if close_days(lane.means, lane.whole, last, day, min(bins, DAY_NS // every), least):
        unite_kinds(lane.profile, lane.visits, layout)


@row_kernel
def next_visit(lane, layout, settings, work, rows, i, every) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Begin a visit where row ``i`` lies in another bin than the row before; close and learn the last one."""
    h, whole, bins = lane.head, lane.whole, layout.bins
    day = rows.local[i] // DAY_NS
    b = (rows.local[i] - day * DAY_NS) * bins // DAY_NS
    key, first = day * bins + b, h[COL_ROWS] == 0
    if key == lane.time[TIME_VISIT] and not first:
        return
    phased = every <= MAX_PHASED_CADENCE_NS
    alternative = 0
    if first:
        h[COL_BLOCK_LENGTH], h[COL_GRID], h[COL_LEVEL] = MIN_BLOCK_ROWS, 1, rows.v[i]
        h[COL_MINIMUM], h[COL_MAXIMUM] = np.float32(np.inf), np.float32(-np.inf)
    else:
        quantum = lane.quantum[QUANTUM_VALUES]
        # A row at a phase that is in doubt teaches neither phase.
        if phased and whole[WHOLE_REACH] >= 0 and whole[WHOLE_ALTERNATIVE] == 0:
            learned = (lane.visit, whole[WHOLE_VISIT_OUTSIDE] > 0)
            close_visit(
                lane.profile,
                lane.quantum,
                lane.visits,
                layout,
                int(h[COL_CELL]),
                learned,
                work.ranges,
                lane.model,
                work.factors,
                work.floor,
            )
        if phased:
            _learn_weekday(lane, layout, quantum, day, every)
        if len(lane.recent):
            _keep_visit(lane, layout)
        lane.visit[:] = NAN
        whole[WHOLE_VISIT_OUTSIDE] = 0
        if phased and len(settings.changes):
            alternative = _possible_change(h, whole, settings, rows.time[i], every, max(bins // 24, 1))
    lane.time[TIME_VISIT] = key
    weekday = weekday_of(day)
    if len(settings.holidays):
        at = np.searchsorted(settings.holidays, day)
        if at < len(settings.holidays) and settings.holidays[at] == day:
            weekday = SUNDAY
    kind = kind_of(whole, weekday)
    h[COL_CELL] = kind * bins + (b + int(whole[WHOLE_SHIFT])) % bins
    whole[WHOLE_REACH] = (1 if every * bins <= DAY_NS else 0) if phased else -1
    whole[WHOLE_ALTERNATIVE] = alternative
    load_ranges(lane, layout, work)
    _set_grid(lane, layout, settings.logarithmic, work, rows.anchor[i])


@row_kernel
def _set_grid(lane, layout, logarithmic, work, anchor):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Set the least half width in working units of one unit of the input, at the place of the range."""
    h = lane.head
    for j in range(len(layout.quantity)):
        if layout.quantity[j] != Q_VALUE:
            continue
        m = MODEL_DAILY if not np.isnan(work.ranges[j, MODEL_DAILY, 0]) else MODEL_POOLED
        high = work.ranges[j, m, 1] + anchor
        place = np.float32(0.5) * (work.ranges[j, m, 0] + work.ranges[j, m, 1]) + anchor
        if np.isnan(place):  # no range yet, or a price, whose values have none
            place = h[COL_LEVEL] + anchor
        slope = 1.0
        if logarithmic:
            place = abs(place) if logarithmic == 1 else place
            slope = np.exp(-min(max(place, -80.0), 80.0))
        h[COL_GRID] = slope
        if logarithmic < 2 and abs(h[COL_MINIMUM]) < 1e-6 * h[COL_RESOLUTION]:
            unit = h[COL_RESOLUTION]
            count = max(np.expm1(min(high, 80.0)) if logarithmic else high, 0.0) / unit
            if count <= MAX_COUNT:
                most = unit * (count + COUNT_SPREADS * np.sqrt(max(count, 1.0)))
                most = np.log1p(most) if logarithmic else most
                h[COL_GRID] = max(slope, (most - place) / unit)
