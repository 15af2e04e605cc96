"""Check of the events of a calendar file before they are evaluated.

A rule of recurrence is a program: one that never matches, or that matches each second since 1970, would keep
the thread that sends alerts computing for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import structlog

from pipeline.core.errors import ConfigError

log = structlog.get_logger(__name__)

_FREQUENCIES = ("YEARLY", "MONTHLY", "WEEKLY", "DAILY")
_FIRST_YEAR, _LAST_YEAR = 1900, 9000
#: Rules are tried at the end of the calendar of Python, where a rule that never matches ends soon. The years
#: from here on have every weekday at every date, and leap years.
_TRIAL_YEAR = 9972


def usable_events(path: Path, events: Sequence[Any]) -> list[Any]:
    """Return the events that can be evaluated.

    Each other one is named in the log and silences nothing.
    """
    found = []
    for event in events:
        try:
            _require_usable(event)
        except (ConfigError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            log.error(
                "an event of a calendar is not used; it silences nothing",
                calendar=str(path),
                summary=str(event.get("SUMMARY", event.get("UID", ""))),
                error=str(error) or type(error).__name__,
            )
        else:
            found.append(event)
    return found


def _require_usable(event: Any) -> None:
    """Raise an error that says why an event cannot be evaluated."""
    if "DTSTART" not in event:
        raise ConfigError("it has no DTSTART")
    _require_date(event["DTSTART"].dt)
    if "DTEND" in event:
        _require_date(event["DTEND"].dt)
    if "DURATION" in event:
        _require_date(datetime(_FIRST_YEAR, 1, 1) + event["DURATION"].dt)
    for key in ("RDATE", "EXDATE"):
        for dates in as_list(event.get(key)):
            for entry in dates.dts:
                _require_date(entry.dt)
    for rule in as_list(event.get("RRULE")):
        _require_rule(rule.to_ical().decode())


def _require_date(moment: date) -> None:
    if not isinstance(moment, date):
        raise ConfigError(f"{moment!r} is not a date")
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise ConfigError(f"the year {moment.year} is not between {_FIRST_YEAR} and {_LAST_YEAR}")


def _require_rule(text: str) -> None:
    from dateutil.rrule import rrulestr

    parts = dict(part.partition("=")[::2] for part in text.upper().split(";"))
    if parts.get("FREQ") not in _FREQUENCIES:
        raise ConfigError(
            f"RRULE:{text}: FREQ must be one of {', '.join(_FREQUENCIES)} (write DAILY with BYHOUR)"
        )
    if int(parts.get("INTERVAL", "1")) < 1:
        raise ConfigError(f"RRULE:{text}: INTERVAL must be 1 or more")
    kept = ";".join(
        f"{key}={value}" for key, value in parts.items() if key not in ("UNTIL", "COUNT", "INTERVAL")
    )
    if next(iter(rrulestr(kept, dtstart=datetime(_TRIAL_YEAR, 1, 1))), None) is None:
        raise ConfigError(f"RRULE:{text}: no date matches")


def as_list(value: Any) -> list[Any]:
    """Return the values of a property that may be missing, single or repeated."""
    return [] if value is None else value if isinstance(value, list) else [value]
