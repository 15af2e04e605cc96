"""The largest departure of each day, so that what comes back each week is usual.

A departure is a time in which a quantity is outside of its usual range. Of each of the last ``DAYS`` days the
time of day, the side and the size of the largest one are kept, as ``residual_events`` keeps large residuals.
One no more than twice as large, at this time of day on enough of the last seven days (``is_recurrent``) or on
two of the last three same weekdays, is a job or a habit and no event: a newsletter on two mornings of the week,
a report on Mondays. The usual range of a kind of day does not contain it, because it comes on few of these
days.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.jit import row_kernel
from detectors.stages.usual_range.residual_events import (
    DAYS_KEPT,
    EVENT_DAY,
    EVENT_PHASE,
    EVENT_SIZE,
    MATCH_SHARE,
    MIN_EARLIER_DAYS,
    PHASES,
    WINDOW,
    days_wanted,
    place_of,
    size_step,
    wrapped,
)

DAYS, NO_DEPARTURE = 21, -128  # three weeks, a divisor of ``DAYS_KEPT``; the time of a day without one
DAYS_ASKED = (1, 2, 3, 4, 5, 6, 7, 14, 21)  # before today
#: Phases after the beginning of an earlier one: the extremes of hours reach as far back.
LASTS = 3 * PHASES // 24


def initial_departures(slots: int) -> State:
    """Return the empty departures of ``slots`` channel slots: 63 bytes each."""
    departures = np.zeros((slots, DAYS, 3), np.int8)
    departures[..., EVENT_PHASE] = NO_DEPARTURE
    return {"usual.departures": departures}


@row_kernel
def is_habit(departures, ratio, local) -> bool:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Say whether departures as large came at this time on earlier days.

    Args:
        departures: Row of ``usual.departures``.
        ratio: Distance from the middle of the range over that of the limit, below 0 on the lower side.
        local: Local time in ns.
    """
    (phase, day), up = place_of(local), ratio > 0
    least = size_step(abs(ratio) * MATCH_SHARE)
    days = weeks = as_large = 0
    for ago in DAYS_ASKED:
        came = False
        for before in range(2):  # one that began before midnight
            then = (day - ago - before) % DAYS_KEPT
            at = then % DAYS
            same_side = departures[at, EVENT_DAY] == then + (DAYS_KEPT if up else 0)
            large = wrapped(int(departures[at, EVENT_SIZE]) - least) >= 0
            if departures[at, EVENT_PHASE] == NO_DEPARTURE or not same_side or not large:
                continue
            since = phase + before * PHASES - int(departures[at, EVENT_PHASE])
            came = came or -WINDOW <= since <= LASTS
            as_large += 1 if before == 0 and ago <= 7 else 0
        days += 1 if came and ago <= 7 else 0
        weeks += 1 if came and ago % 7 == 0 else 0
    return weeks >= MIN_EARLIER_DAYS or days >= days_wanted(as_large, WINDOW + LASTS + 1)


@row_kernel
def keep_departure(departures, ratio, local) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Keep the departure of a row if it is the largest of its day; see ``is_habit``."""
    (phase, day), up = place_of(local), ratio > 0
    step, coded_day, at = size_step(abs(ratio)), day + (DAYS_KEPT if up else 0), day % DAYS
    known = departures[at, EVENT_PHASE] != NO_DEPARTURE and departures[at, EVENT_DAY] % DAYS_KEPT == day
    if known and wrapped(step - int(departures[at, EVENT_SIZE])) <= 0:
        return
    since = phase - int(departures[at, EVENT_PHASE])
    if not (known and departures[at, EVENT_DAY] == coded_day and 0 <= since <= LASTS):  # it begins here
        departures[at, EVENT_DAY], departures[at, EVENT_PHASE] = coded_day, phase
    departures[at, EVENT_SIZE] = step
