"""Trading time: the number of points that a market can produce between two times.

A series sampled within the day (every minute, every hour) steps in open time: nothing is missed overnight,
over a lunch break, at a weekend. A daily series steps in sessions: a holiday is no gap. Slower ones (weekly
bars) step in plain time, as does everything outside the years that the calendar knows. Sessions, holidays and
early closes come from ``exchange_calendars``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numba import njit
from numpy.typing import NDArray

HOUR_NS = 3_600_000_000_000
DAY_NS = 24 * HOUR_NS
#: Cadences between these are daily: closes move by an hour when clocks change, and dates are written in many
#: zones.
MIN_DAILY_CADENCE_NS, MAX_DAILY_CADENCE_NS = 20 * HOUR_NS, 36 * HOUR_NS

FIRST_YEAR = "1990-01-01"
YEARS_AHEAD = 5


def zone_of_calendar(name: str) -> str:
    """Return the time zone of the market with a calendar name such as XNYS.

    Raises:
        InvalidCalendarName: exchange_calendars has no calendar of this name.
    """
    import exchange_calendars  # over a second to import, and few streams have a calendar

    return str(exchange_calendars.get_calendar(name).tz)


@dataclass(frozen=True, slots=True)
class Calendar:
    """Opening hours of a market, int64 ns, ascending; empty arrays mean always open.

    sessions       (S,)  midnight UTC of the date of each session
    opens, closes  (I,)  the stretches in which it is open (two a session where there is a lunch break)
    opened         (I,)  open time before each stretch
    """

    sessions: NDArray[np.int64]
    opens: NDArray[np.int64]
    closes: NDArray[np.int64]
    opened: NDArray[np.int64]

    @staticmethod
    def always() -> Calendar:
        nothing = np.empty(0, np.int64)
        return Calendar(nothing, nothing, nothing, nothing)

    @staticmethod
    def of(name: str) -> Calendar:
        """Return the calendar of ``exchange_calendars`` with a name such as XNYS.

        Raises:
            InvalidCalendarName: exchange_calendars has no calendar of this name.
        """
        import exchange_calendars  # over a second to import, and few streams have a calendar

        ahead = (datetime.now(UTC) + timedelta(days=365 * YEARS_AHEAD)).date().isoformat()
        try:
            schedule = exchange_calendars.get_calendar(name, start=FIRST_YEAR, end=ahead).schedule
        except ValueError:  # some markets' holidays are not known that far back, or ahead
            schedule = exchange_calendars.get_calendar(name).schedule
        column = {key: schedule[key].to_numpy("datetime64[ns]").astype(np.int64) for key in schedule.columns}
        pause = schedule["break_start"].notna().to_numpy()
        opens = np.concatenate([column["open"], column["break_end"][pause]])
        closes = np.concatenate(
            [np.where(pause, column["break_start"], column["close"]), column["close"][pause]]
        )
        order = np.argsort(opens)
        opens, closes = opens[order], closes[order]
        sessions = schedule.index.to_numpy("datetime64[ns]").astype(np.int64)
        return Calendar(sessions, opens, closes, np.concatenate([[0], np.cumsum(closes - opens)[:-1]]))


@njit(cache=True)
def open_time(t, opens, closes, opened):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the open time, ns, from the first opening to ``t`` (negative before it)."""
    i = np.searchsorted(opens, t, side="right") - 1
    if i < 0:
        return t - opens[0]
    if i == len(opens) - 1 and t > closes[i]:
        return opened[i] + t - opens[i]
    return opened[i] + min(t, closes[i]) - opens[i]


@njit(cache=True)
def moment_of(open_ns, opens, closes, opened):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the time at which an open time has passed, the inverse of ``open_time``.

    A time between two sessions is the opening, not the close before it.
    """
    i = max(np.searchsorted(opened, open_ns, side="right") - 1, 0)
    return opens[i] + open_ns - opened[i]


@njit(cache=True)
def session_number(t, sessions):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the number of sessions up to ``t``; outside the known years every day is a session."""
    if t < sessions[0]:
        return (t - sessions[0]) // DAY_NS + 1
    if t >= sessions[-1] + DAY_NS:
        return len(sessions) + (t - sessions[-1]) // DAY_NS
    return np.searchsorted(sessions, t, side="right")


@njit(cache=True)
def steps_between(last, t, every, sessions, opens, closes, opened):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the steps of a series from its point at ``last`` to the next one at ``t``.

    The result is 1 if no point is missing. ``every`` is the cadence, ns.
    """
    if len(opens) == 0 or every >= MAX_DAILY_CADENCE_NS:
        return (t - last + every // 2) // every
    if every < MIN_DAILY_CADENCE_NS:
        return (
            open_time(t, opens, closes, opened) - open_time(last, opens, closes, opened) + every // 2
        ) // every
    # Any constant way to write the date (midnight there or in UTC, the open, the close) gives the same
    # difference.
    return session_number(t, sessions) - session_number(last, sessions)


@njit(cache=True)
def step_time(last, t, k, steps, every, sessions, opens, closes, opened):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the time of the k-th of ``steps`` steps from ``last`` to ``t``, 0 < k < steps."""
    if len(opens) == 0 or every >= MAX_DAILY_CADENCE_NS:
        return last + (t - last) // steps * k + (t - last) % steps * k // steps
    if every < MIN_DAILY_CADENCE_NS:
        start = open_time(last, opens, closes, opened)
        span = open_time(t, opens, closes, opened) - start
        return moment_of(start + span * k // steps, opens, closes, opened)
    number = session_number(last, sessions) + k - 1
    within = last - sessions[max(session_number(last, sessions) - 1, 0)]
    return sessions[min(max(number, 0), len(sessions) - 1)] + within
