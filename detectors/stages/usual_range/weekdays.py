"""Kinds of day: which days of the week are alike, by the mean of each.

The profile has two kinds of day. They begin as Monday to Friday and the weekend. The seven daily means of a
week fall into two groups where the distance between the groups is largest relative to the wider group: by
this ratio they are *apart*. A grouping is adopted once weeks on end have given it and their ratios, of at
most 1 each, sum up to two: a shop that is closed on Mondays, a weekend on Friday and Saturday.

The mean of a day is that of the middles of its visits, in the quantum of the profile.
"""

from __future__ import annotations

import numpy as np

from detectors.jit import inlined_kernel, kernel
from detectors.stages.usual_range.lane import (
    COL_CELL,
    WEEKDAYS,
    WEEKEND,
    WHOLE_DAY_VISITS,
    WHOLE_EVIDENCE,
    WHOLE_FOUND,
    WHOLE_GROUP,
)
from detectors.stages.usual_range.phase_profile import MAX_QUANTA, MISSING
from detectors.stages.usual_range.quantities import MODEL_WEEKLY, MODELS

#: Of the width of the usual range: groups that are less far apart are no other kinds of day.
MIN_DISTANCE = np.float32(0.1)
MIN_RATIO, MAX_RATIO = np.float32(0.5), np.float32(1)
EVIDENCE_STEPS = np.float32(32)  # of the stored sum of ratios, for a ratio of 1
ADOPTED_EVIDENCE = 64


@inlined_kernel
def weekday_of(day):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the weekday of a day since 1970-01-01, a Thursday; Monday is 0."""
    return (day + 3) % WEEKDAYS


@inlined_kernel
def kind_of(whole, weekday):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return 1 for a weekday of the group in use, which is the smaller one, else 0."""
    return (int(whole[WHOLE_GROUP]) >> weekday) & 1


@inlined_kernel
def basis_of(lane, layout, m):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the index into ``detectors.base.BASES`` of a range of model ``m``."""
    if m != MODEL_WEEKLY:
        return m + 1
    if lane.whole[WHOLE_GROUP] != WEEKEND:
        return MODELS + 2
    return MODELS + int(lane.head[COL_CELL] >= layout.bins)


@inlined_kernel
def measure_visit(means, whole, weekday, middle, quantum) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Move the mean of the open day by the middle of a visit.

    Args:
        means: Row of ``usual.means``.
        whole: Row of ``usual.whole``.
        weekday: Weekday of the visit.
        middle: Middle of its lowest and highest value, NaN if unknown.
        quantum: Unit of the means; 0 is unknown.
    """
    if np.isnan(middle) or quantum <= 0:
        return
    whole[WHOLE_DAY_VISITS] += 1
    now = min(max(middle / quantum, -MAX_QUANTA), MAX_QUANTA)
    mean = np.float32(means[weekday]) if whole[WHOLE_DAY_VISITS] > 1 else now
    means[weekday] = np.int16(np.rint(mean + (now - mean) / np.float32(whole[WHOLE_DAY_VISITS])))


@inlined_kernel
def rescale(means, before, after) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Write the means in the quantum ``after`` instead of ``before``."""
    if after > before > 0:
        for d in range(WEEKDAYS):
            if means[d] != MISSING:
                means[d] = np.int16(np.rint(np.float32(means[d]) * (before / after)))


@kernel
def _find_group(means, least):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the smaller group of the daily means, and the ratio.

    Both are 0 where the ratio is too small, the distance is below ``least``, or a day is unknown. A group has
    one bit a day, from Monday on.
    """
    group, best = 0, np.float32(0)
    if np.isnan(least) or (means == MISSING).any():
        return group, best
    order = np.argsort(means)
    sizes = means[order].astype(np.float32)
    for cut in range(1, WEEKDAYS):
        distance = sizes[cut] - sizes[cut - 1]
        wider = max(sizes[cut - 1] - sizes[0], sizes[WEEKDAYS - 1] - sizes[cut])
        ratio = min(distance / wider, MAX_RATIO) if wider > 0 else MAX_RATIO
        if distance > 0 and distance >= least and ratio >= MIN_RATIO and ratio > best:
            best, group = ratio, 0
            for n in range(WEEKDAYS):
                if (n < cut) == (2 * cut < WEEKDAYS):
                    group |= 1 << int(order[n])
    return group, best


@kernel
def close_days(means, whole, last, day, day_visits, least):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Close all days before ``day``; return whether the grouping changed.

    Args:
        means: Row of ``usual.means``.
        whole: Row of ``usual.whole``.
        last: Day of the visit before.
        day: Day of the visit, later than ``last``.
        day_visits: Visits of a full day; a day with less than half of them has no mean.
        least: Least distance of the groups in quanta, NaN if unknown.
    """
    if 2 * whole[WHOLE_DAY_VISITS] < day_visits:
        means[weekday_of(last)] = MISSING
    whole[WHOLE_DAY_VISITS] = 0
    adopted = False
    for d in range(last + 1, min(day, last + 2 * WEEKDAYS) + 1):
        if weekday_of(d) == 0:
            group, ratio = _find_group(means, least)
            evidence = int(whole[WHOLE_EVIDENCE]) if group == whole[WHOLE_FOUND] else 0
            evidence = min(evidence + int(np.rint(ratio * EVIDENCE_STEPS)), ADOPTED_EVIDENCE)
            whole[WHOLE_FOUND], whole[WHOLE_EVIDENCE] = group, evidence
            if evidence >= ADOPTED_EVIDENCE and group != whole[WHOLE_GROUP]:
                whole[WHOLE_GROUP], adopted = group, True
        means[weekday_of(d)] = MISSING
    return adopted
