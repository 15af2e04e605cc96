"""Crontab expressions as points in time.

The rule of an expression is evaluated on the wall clock, without a zone, by cronsim. The wall-clock time is
then placed on the time line. A time of the hour that autumn repeats is due once, at its first occurrence. A
time that spring skips is due at the first instant after the gap.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

_WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_WEEKDAY_RANGE = re.compile(r"(?P<first>[0-7]|[a-z]{3})-(?P<last>[0-7]|[a-z]{3})(?:/(?P<step>\d+))?")


class Schedule(Protocol):
    """Points in time at which something is due."""

    def next_due(self, after: datetime) -> datetime | None:
        """Return the first due time later than ``after`` (aware), None if there is none."""

    def last_due(self, now: datetime) -> datetime | None:
        """Return the last due time at or before ``now`` (aware), None if there was none.

        All processes that ask within one interval get the same time, which identifies the run.
        """


class CronSchedule:
    """Due times of a crontab expression of five fields, on the wall clock of a zone.

    Weekdays 0 and 7 are Sunday, and a range may go over the end of the week (``fri-mon``). If both day of
    month and weekday are restricted, a day that matches one of them is due, as crontab(5) says.

    Raises:
        ValueError: The expression does not have five valid fields, or is due on no day of any year.
    """

    def __init__(self, expression: str, zone: str) -> None:
        from cronsim import CronSimError

        fields = expression.lower().split()
        self._zone = ZoneInfo(zone)
        try:
            if len(fields) != 5:
                raise CronSimError(f"{len(fields)} fields instead of 5")
            fields[4] = ",".join(_unwrapped(part) for part in fields[4].split(","))
            self._rule = " ".join(fields)
            self._walls(datetime(2000, 1, 1), reverse=False)
        except CronSimError as error:
            raise ValueError(
                f"{expression!r} is not a cron expression ({error}); write minute hour day month "
                f"weekday: 0 2 * * sun"
            ) from None

    def next_due(self, after: datetime) -> datetime | None:
        """Return the first due time later than ``after`` (aware), None if there is none in 50 years."""
        wall = after.astimezone(self._zone).replace(tzinfo=None)
        # In the second pass of a repeated hour the times up to its end have been due in the first pass.
        placed = (first_instant(due, self._zone) for due in self._walls(wall, reverse=False))
        return next((due for due in placed if due > after), None)

    def last_due(self, now: datetime) -> datetime | None:
        """Return the last due time at or before ``now`` (aware), None if there was none in 50 years."""
        wall = now.astimezone(self._zone).replace(tzinfo=None)
        # In the second pass of a repeated hour its later times have been due, too: the clock of a day ago
        # was ahead by the length of that hour.
        before = (now - timedelta(days=1)).astimezone(self._zone)
        latest = max(wall, now.astimezone(UTC).replace(tzinfo=None) + (before.utcoffset() or timedelta(0)))
        placed = (
            first_instant(due, self._zone) for due in self._walls(latest + timedelta(seconds=2), reverse=True)
        )
        return next((due for due in placed if due <= now), None)

    def _walls(self, wall: datetime, *, reverse: bool) -> Iterator[datetime]:
        from cronsim import CronSim

        return CronSim(self._rule, wall, reverse=reverse)


def first_instant(wall: datetime, zone: ZoneInfo) -> datetime:
    """Return the UTC time at which a clock in ``zone`` first shows ``wall`` (naive) or a later time."""
    with_offset_before = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    early = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    if early >= with_offset_before:
        return with_offset_before
    # The clock skips this time. The instant of the change lies between the two readings.
    late = with_offset_before
    while late - early > timedelta(seconds=1):
        middle = early + (late - early) // timedelta(seconds=2) * timedelta(seconds=1)
        if middle.astimezone(zone).replace(tzinfo=None) < wall:
            early = middle
        else:
            late = middle
    return late


def _unwrapped(part: str) -> str:
    """Return a part of the weekday field without a range that goes over the end of the week."""
    found = _WEEKDAY_RANGE.fullmatch(part)
    if found is None:
        return part
    try:
        first, last = (_WEEKDAYS.index(day) if day in _WEEKDAYS else int(day) for day in found.group(1, 2))
    except ValueError:
        return part
    if last < first:
        last += 7
    step = int(found["step"] or 1)
    # A step of 0 and a range that is refused anyway are left to the parser, which names the field.
    return ",".join(str(day % 7) for day in range(first, last + 1, step)) if step else part


def check_cron(expression: str) -> None:
    """Raise ValueError with an example unless the text is a crontab expression of five fields."""
    CronSchedule(expression, "UTC")
