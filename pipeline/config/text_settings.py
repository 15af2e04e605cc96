"""Units and time zone of the texts about a stream, read without the models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.yaml_file import plain_values, read_tree


@dataclass(frozen=True, slots=True)
class TextSettings:
    """Settings of the sentences about a stream.

    units     channel → unit
    timezone  IANA time zone of times, "" for UTC
    """

    units: dict[str, str] = field(default_factory=dict)
    timezone: str = ""


def read_text_settings(file: Path) -> dict[str, TextSettings]:
    """Return the settings of the sentences of each stream.

    What is wrong counts as left out: a command that only lists rows works beside such an error.

    Raises:
        ConfigFileError: The file cannot be read, or it is no YAML mapping.
    """
    streams = plain_values(read_tree(file)).get("streams")
    return {
        name: _settings(stream)
        for name, stream in (streams.items() if isinstance(streams, dict) else ())
        if isinstance(stream, dict)
    }


def _settings(stream: dict[str, Any]) -> TextSettings:
    alerts = stream.get("alerts")
    units = alerts.get("units") if isinstance(alerts, dict) else None
    texts = {k: v for k, v in units.items() if isinstance(v, str)} if isinstance(units, dict) else {}
    return TextSettings(texts, _timezone(stream))


def _timezone(stream: dict[str, Any]) -> str:
    """Return what ``Stream.local_timezone`` does, "" for an unknown zone."""
    from zoneinfo import ZoneInfo

    zone, calendar = stream.get("timezone"), stream.get("calendar")
    if zone is None and isinstance(calendar, str):
        zone = _zone_of_calendar(calendar)
    try:
        return ZoneInfo(zone).key if isinstance(zone, str) else ""
    except (ValueError, LookupError, OSError):
        return ""


def _zone_of_calendar(name: str) -> str | None:
    # The import takes a second, and few streams have a calendar.
    from exchange_calendars.errors import InvalidCalendarName

    from pipeline.core.trading_calendar import zone_of_calendar

    try:
        return zone_of_calendar(name)
    except InvalidCalendarName:
        return None
