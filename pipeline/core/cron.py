"""Crontab expressions as points in time."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: Search ranges of ``last_due``, in turn. A frequent trigger is found in a short range with few due times.
_SEARCH_RANGES = [
    timedelta(minutes=1),
    timedelta(hours=1),
    timedelta(days=1),
    timedelta(days=31),
    timedelta(days=366),
    timedelta(days=5 * 366),
]


def trigger(expression: str, zone: str) -> Any:
    """Return APScheduler's trigger of a crontab expression, on the wall clock of ``zone``.

    Raises:
        ValueError: The expression does not have five valid fields; the message shows an example.
    """
    from apscheduler.triggers.cron import CronTrigger

    fields = expression.lower().split()
    if len(fields) == 5:
        # In crontab 0 and 7 are Sunday; APScheduler counts from Monday.
        fields[4] = re.sub(r"(?<![\d/])[0-7](?!\d)", lambda m: _DAYS[int(m[0])], fields[4])
    try:
        return CronTrigger.from_crontab(" ".join(fields), timezone=ZoneInfo(zone))
    except ValueError as error:
        raise ValueError(
            f"{expression!r} is not a cron expression ({error}); write minute hour day month "
            f"weekday: 0 2 * * sun"
        ) from None


def last_due(when: Any, now: datetime) -> datetime | None:
    """Return the last due time of a trigger at or before ``now`` (aware), None if there was none in five years.

    All processes that ask within one interval get the same time, which identifies the run.
    """
    for back in _SEARCH_RANGES:
        due, last = when.get_next_fire_time(None, now - back), None
        while due is not None and due <= now:
            last, due = due, when.get_next_fire_time(None, due + timedelta(microseconds=1))
        if last is not None:
            return last
    return None


def check_cron(expression: str) -> None:
    """Raise ValueError with an example unless the text is a crontab expression of five fields."""
    trigger(expression, "UTC")
