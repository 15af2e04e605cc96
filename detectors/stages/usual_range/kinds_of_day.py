"""Which weekdays are alike at an hour: two kinds of day for each bin of the day, learned from its visits.

Each bin begins with Monday to Friday as one kind and the weekend as the other. A weekday changes its kind
where its visits fit the range of the other kind clearly better, on two weeks on end: the Saturday of a shop
that is open, or the Friday of another country. Where both kinds are alike, a weekday that left the range on
two weeks on end becomes a kind of its own: the weekly job. In the third week it is usual.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.jit import row_kernel

WEEKDAYS = 7
WEEKEND = 0b1100000  # a bit a weekday, Monday first: the days of the second kind
COL_SECOND, COL_CANDIDATES = range(2)  # of "usual.kinds": days of the second kind; days that may change
BETTER_FIT = np.float32(0.5)  # share of the misfit that is clearly smaller
MIN_VISITS_OF_OTHER = 2
MIN_MISFIT_FLOORS = np.float32(4)


def initial_kinds(slots: int, bins: int) -> State:
    """Return the kinds of day of ``slots`` channel slots before their first row."""
    kinds = np.zeros((slots, bins, 2), np.uint8)
    kinds[:, :, COL_SECOND] = WEEKEND
    return {"usual.kinds": kinds}


@row_kernel
def kind_of(kinds, b, weekday):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the kind (0 or 1) of a weekday in bin ``b``."""
    return (int(kinds[b, COL_SECOND]) >> weekday) & 1


@row_kernel
def days_alike(kinds, weekday):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the weekdays that have the kinds of ``weekday`` in all bins; 0 where an earlier one has them."""
    days = 0
    for other in range(WEEKDAYS):
        alike = True
        for b in range(len(kinds)):
            alike &= kind_of(kinds, b, other) == kind_of(kinds, b, weekday)
        if alike and other < weekday:
            return 0
        days += 1 if alike else 0
    return days


@row_kernel
def _misfit(a, b):  # type: ignore[no-untyped-def]  # noqa: ANN001
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


@row_kernel
def learn_kind(kinds, visits, b, weekday, known, floor):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Learn from a visit to which kind its weekday belongs, before the visit is learned.

    Args:
        kinds: Row of ``usual.kinds``.
        visits: Row of ``usual.visits``.
        b: Bin of the visit.
        weekday: Its weekday, 0: Monday.
        known: Ends (low, high) of the values of the visit, of its kind, and of the other kind; and whether
            the visit left its usual range.
        floor: Least half width of a range.
    """
    visit, own, other, outside = known
    bins, kind, day = len(kinds), kind_of(kinds, b, weekday), 1 << weekday
    seen, seen_other = visits[kind * bins + b] >> 4, visits[(1 - kind) * bins + b] >> 4
    misfit, of_other = _misfit(visit, own), _misfit(visit, other)
    width = max(visit[1] - visit[0], other[1] - other[0])
    changes = splits = False
    if seen > 0 and seen_other >= MIN_VISITS_OF_OTHER and misfit > width + MIN_MISFIT_FLOORS * floor:
        changes = of_other < BETTER_FIT * misfit
        splits = not changes and outside and _misfit(own, other) < BETTER_FIT * misfit
    candidates = int(kinds[b, COL_CANDIDATES])
    if not (changes or splits):
        kinds[b, COL_CANDIDATES] = candidates & ~day
    elif not candidates & day:
        kinds[b, COL_CANDIDATES] = candidates | day
    else:
        kinds[b, COL_CANDIDATES] = candidates & ~day
        if changes:
            kinds[b, COL_SECOND] = int(kinds[b, COL_SECOND]) ^ day
            visits[kind * bins + b] = 0  # its range is that of two kinds of day
        else:
            kinds[b, COL_SECOND] = day
            visits[bins + b] = 0
