"""Times of planned silences: cron expressions and iCalendar events in civil time, correct across DST changes.

Silences recur on the wall clock: a rule is evaluated on naive local times, and its result is converted to UTC.
A beginning in the hour that autumn repeats takes place once, the first time. One in the hour that spring skips
takes place at the first instant after it (cron), or as RFC 5545 says (calendar). A silence from cron lasts its
length in elapsed time. An event of a calendar ends at the end that it states.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from pipeline.alerts.routing.calendar_events import as_list, usable_events
from pipeline.core.cron import CronSchedule
from pipeline.core.errors import ConfigError

#: Longer than any change of a wall clock.
_MAX_CLOCK_CHANGE = timedelta(hours=3)


class SilenceWindow(NamedTuple):
    """A time in which a silence is in force: ``start`` ≤ t < ``end``, both aware."""

    start: datetime
    end: datetime


def cron_window(expression: str, length: timedelta, zone: ZoneInfo, now: datetime) -> SilenceWindow | None:
    """Return the window of a recurring silence that contains ``now``, or None.

    Of overlapping windows it is the last to end.

    Args:
        expression: Cron expression of the beginnings.
        length: Length of each window.
        zone: Time zone of the expression.
        now: Aware time.
    """
    start = CronSchedule(expression, zone.key).last_due(now)
    return SilenceWindow(start, start + length) if start is not None and now < start + length else None


def cron_windows(
    expression: str, length: timedelta, zone: ZoneInfo, span: SilenceWindow
) -> Iterator[SilenceWindow]:
    """Yield the windows of a recurring silence that overlap a span, in order of time.

    Args:
        expression: Cron expression of the beginnings.
        length: Length of each window.
        zone: Time zone of the expression.
        span: The span.
    """
    schedule = CronSchedule(expression, zone.key)
    start = schedule.next_due(span.start - length)
    while start is not None and start < span.end:
        yield SilenceWindow(start, start + length)
        start = schedule.next_due(start)


class SilenceCalendar:
    """Events of an iCalendar file (RFC 5545), also recurring ones with exceptions and moved instances.

    ``window(now)`` reads the file again if it has changed, and raises ConfigError if it cannot be read.
    """

    def __init__(self, path: Path, zone: ZoneInfo) -> None:
        self._path = path
        self._zone = zone
        self._read_at: float | None = None
        self._events: list[Any] = []

    def window(self, now: datetime) -> SilenceWindow | None:
        """Return the event that contains ``now``, or None; of overlapping events the last to end."""
        self._refresh()
        instant = SilenceWindow(now, now)
        windows = [
            w for event in self._events for w in self._instances(event, instant) if w.start <= now < w.end
        ]
        return max(windows, key=lambda w: w.end, default=None)

    def windows(self, span: SilenceWindow) -> list[SilenceWindow]:
        """Return the events that overlap a span, in order of time."""
        self._refresh()
        found = [w for event in self._events for w in self._instances(event, span)]
        return sorted(w for w in found if w.start < span.end and w.end > span.start)

    def _refresh(self) -> None:
        from icalendar import Calendar as ICalendar

        try:
            changed = self._path.stat().st_mtime
            if changed != self._read_at:
                events = ICalendar.from_ical(self._path.read_bytes()).walk("VEVENT")
                self._events = usable_events(self._path, events)
                self._read_at = changed
        except OSError as error:
            raise ConfigError(
                f"cannot read the calendar {self._path}: {error.strerror}; check the path and its permissions"
            ) from None
        except ValueError as error:
            raise ConfigError(f"{self._path} is not an iCalendar file: {error}") from None

    def _instances(self, event: Any, span: SilenceWindow) -> Iterator[SilenceWindow]:
        """Yield the windows of the event that may overlap a span."""
        start, length = self._wall(event["DTSTART"].dt), self._length(event)
        zone = self._zone_of(event["DTSTART"].dt)
        if str(event.get("STATUS", "")).upper() == "CANCELLED":
            return
        if "RRULE" not in event and "RDATE" not in event:
            yield self._placed(start, length, zone)
            return
        moved = self._moved(event)
        first, last = (one.astimezone(zone).replace(tzinfo=None) for one in span)
        for wall in self._recurrence(event, start, zone).between(
            first - length - _MAX_CLOCK_CHANGE, last + _MAX_CLOCK_CHANGE, inc=True
        ):
            if _place(wall, zone) not in moved:
                yield self._placed(wall, length, zone)

    def _recurrence(self, event: Any, start: datetime, zone: ZoneInfo) -> Any:
        from dateutil.rrule import rruleset, rrulestr

        occasions = rruleset()
        occasions.rdate(start)
        for rule in as_list(event.get("RRULE")):
            text = rule.to_ical().decode()
            # UNTIL is in UTC where DTSTART has a zone; on the wall clock of the event it is local.
            text = re.sub(r"UNTIL=(\d{8}T\d{6})Z", lambda m: "UNTIL=" + _local(m[1], zone), text)
            occasions.rrule(rrulestr(text, dtstart=start))
        for kind, add in (("RDATE", occasions.rdate), ("EXDATE", occasions.exdate)):
            for dates in as_list(event.get(kind)):
                for entry in dates.dts:
                    add(self._wall_in(entry.dt, zone))
        return occasions

    def _moved(self, event: Any) -> set[datetime]:
        """Return the instances of a recurring event that are separate events of the file."""
        uid = event.get("UID")
        return {
            _place(self._wall(e["RECURRENCE-ID"].dt), self._zone_of(e["RECURRENCE-ID"].dt))
            for e in self._events
            if e.get("UID") == uid and "RECURRENCE-ID" in e
        }

    def _length(self, event: Any) -> timedelta:
        start = event["DTSTART"].dt
        if "DTEND" in event:
            return self._wall(event["DTEND"].dt) - self._wall(start)
        if "DURATION" in event:
            return event["DURATION"].dt
        return timedelta(0) if isinstance(start, datetime) else timedelta(days=1)

    def _placed(self, wall: datetime, length: timedelta, zone: ZoneInfo) -> SilenceWindow:
        return SilenceWindow(_place(wall, zone), _place(wall + length, zone))

    def _zone_of(self, moment: date | datetime) -> Any:
        return moment.tzinfo if isinstance(moment, datetime) and moment.tzinfo is not None else self._zone

    def _wall(self, moment: date | datetime) -> datetime:
        if not isinstance(moment, datetime):
            return datetime.combine(moment, time())
        return moment.replace(tzinfo=None)

    def _wall_in(self, moment: date | datetime, zone: Any) -> datetime:
        if isinstance(moment, datetime) and moment.tzinfo is not None:
            moment = moment.astimezone(zone)
        return self._wall(moment)


def _place(wall: datetime, zone: Any) -> datetime:
    """Return the UTC time at which a clock in ``zone`` shows ``wall``; the first if there are two."""
    return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


def _local(stamp: str, zone: Any) -> str:
    return (
        datetime.strptime(stamp, "%Y%m%dT%H%M%S")
        .replace(tzinfo=UTC)
        .astimezone(zone)
        .strftime("%Y%m%dT%H%M%S")
    )
