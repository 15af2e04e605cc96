"""Crontab expressions as points in time."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun")
#: How far ``last_due`` looks, in turn: a frequent trigger is found before its many due times would have to be
#: walked through.
_BACK = [
    timedelta(minutes=1),
    timedelta(hours=1),
    timedelta(days=1),
    timedelta(days=31),
    timedelta(days=366),
    timedelta(days=5 * 366),
]


def trigger(expression: str, zone: str) -> Any:
    """APScheduler's trigger of a crontab expression of five fields, on the wall clock of ``zone``.

    Raises ValueError, with what to write.
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
            f"{expression!r} is not a cron expression ({error}); write minute hour day month weekday: 0 2 * * sun"
        ) from None


def last_due(when: Any, now: datetime) -> datetime | None:
    """The last time at or before ``now`` (aware) at which the trigger ``when`` was due; None where there was
    none in the last five years.

    Every process that asks within one interval gets the same answer: it names the tick, however late its
    clock fires.
    """
    for back in _BACK:
        due, last = when.get_next_fire_time(None, now - back), None
        while due is not None and due <= now:
            last, due = due, when.get_next_fire_time(None, due + timedelta(microseconds=1))
        if last is not None:
            return last
    return None


def check_cron(expression: str) -> None:
    """Raise ValueError, with what to write, unless this is a crontab expression of five fields."""
    trigger(expression, "UTC")
