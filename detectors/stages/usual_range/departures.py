"""The largest departure of each day, so that what comes back is usual.

A departure is a time in which a quantity is outside of its usual range. Of each of the last ``DAYS`` days the
time of day, the side and the size of the largest one are kept, as ``residual_events`` keeps large residuals.
One that comes back at its time of day, by the rule of ``is_recurrent``, is a job or a habit and no event:
a newsletter on two mornings of the week, a report on Mondays. The usual range of a kind of day does not
contain it, because it comes on few of these days.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.jit import row_kernel
from detectors.stages.usual_range.residual_events import (
    DAYS_KEPT,
    DOUBTFUL_WINDOW,
    EVENT_DAY,
    EVENT_PHASE,
    EVENT_SIZE,
    NO_EVENT,
    PHASES,
    WINDOW,
    is_recurrent,
    size_step,
    wrapped,
)
from detectors.stages.usual_range.visits import DAY_NS

DAYS = 21  # three weeks; a divisor of ``DAYS_KEPT``


def initial_departures(slots: int) -> State:
    """Return the empty departures of ``slots`` channel slots: 63 bytes each."""
    departures = np.zeros((slots, DAYS, 3), np.int8)
    departures[..., EVENT_PHASE] = NO_EVENT
    return {"usual.departures": departures}


@row_kernel
def is_habit(departures, ratio, local, doubtful) -> bool:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Say whether departures as large came at this time on earlier days.

    Args:
        departures: Row of ``usual.departures``.
        ratio: Distance from the middle of the range over that of the limit, below 0 on the lower side.
        local: Local time in ns.
        doubtful: Whether the clock may have changed by an hour.
    """
    window = DOUBTFUL_WINDOW if doubtful else WINDOW
    return is_recurrent(departures, DAYS, abs(ratio), _place(ratio, local), window)


@row_kernel
def keep_departure(departures, ratio, local) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Keep the departure of a row if it is the largest of its day; see ``is_habit``."""
    up, phase, day = _place(ratio, local)
    step, coded_day, at = size_step(abs(ratio)), day + (DAYS_KEPT if up else 0), day % DAYS
    known = departures[at, EVENT_PHASE] != NO_EVENT and departures[at, EVENT_DAY] % DAYS_KEPT == day
    if known and wrapped(step - int(departures[at, EVENT_SIZE])) <= 0:
        return
    since = phase - int(departures[at, EVENT_PHASE])
    if not (known and departures[at, EVENT_DAY] == coded_day and 0 <= since <= WINDOW):  # it begins here
        departures[at, EVENT_DAY], departures[at, EVENT_PHASE] = coded_day, phase
    departures[at, EVENT_SIZE] = step


@row_kernel
def _place(ratio, local):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return side, time of day and day of a row, as ``is_recurrent`` takes them."""
    day = local // DAY_NS
    return ratio > 0, int((local - day * DAY_NS) * PHASES // DAY_NS), int(day % DAYS_KEPT)
