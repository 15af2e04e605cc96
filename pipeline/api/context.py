"""Config and database of a request, and conversions of its parameters."""

from __future__ import annotations

import base64
import binascii
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from pipeline.config.schema import Config
from pipeline.core.durations import SECOND_NS
from pipeline.core.errors import InputError
from pipeline.core.timestamps import END_NS
from storage.sql.database import Database


@dataclass(frozen=True, slots=True)
class ApiContext:
    """Config and database that the routes read and change."""

    config: Config
    database: Database


def _context(request: Request) -> ApiContext:
    found: ApiContext = request.app.state.context
    return found


Context = Annotated[ApiContext, Depends(_context)]
Name = Annotated[str, Field(max_length=500)]
SeriesName = Annotated[str, Field(max_length=10_000)]


class Filter(BaseModel):
    """Query parameters of a list; a parameter that does not exist is an error."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(50, ge=1, le=500, description="largest number of rows")


class StreamFilter(Filter):
    """Rows of one stream or of all."""

    stream: Name | None = Field(None, description="only this stream")


class TimeFilter(StreamFilter):
    """Rows of one stream in a time range."""

    since: datetime | None = Field(None, alias="from", description="earliest time")
    until: datetime | None = Field(None, alias="to", description="latest time, exclusive")


def to_ns(when: datetime | None) -> int | None:
    """Return nanoseconds since the epoch; a time without a zone is UTC.

    Raises:
        InputError: The time is before 1970 or after 2199.
    """
    if when is None:
        return None
    zoned = when if when.tzinfo else when.replace(tzinfo=UTC)
    try:
        ns = round(zoned.timestamp() * 1_000_000) * 1000
    except (OverflowError, ValueError):
        ns = -1
    if not 0 <= ns < END_NS:
        raise InputError(f"{when.isoformat()}: write a time from 1970 to 2199")
    return ns


def time_range(since: datetime | None, until: datetime | None, default_seconds: int) -> tuple[int, int]:
    """Return (since, until) in ns; the default ends now and has ``default_seconds``.

    Raises:
        InputError: The range is empty.
    """
    given = to_ns(until)
    until_ns = time.time_ns() if given is None else given
    first = to_ns(since)
    since_ns = max(0, until_ns - default_seconds * SECOND_NS) if first is None else first
    if since_ns >= until_ns:
        raise InputError("the time range is empty: `from` must be before `to`")
    return since_ns, until_ns


def encode_cursor(*parts: Any) -> str:
    """Return an opaque text that names the last row of a page."""
    return base64.urlsafe_b64encode(json.dumps([str(part) for part in parts]).encode()).decode()


def decode_cursor(text: str, count: int) -> list[str]:
    """Return the parts of a cursor.

    Raises:
        InputError: The text is not a cursor.
    """
    try:
        parts = json.loads(base64.urlsafe_b64decode(text.encode("ascii")))
    except (ValueError, binascii.Error):
        parts = None
    if not isinstance(parts, list) or len(parts) != count or not all(isinstance(p, str) for p in parts):
        raise InputError("cursor: take the value of `next_cursor` of the page before, unchanged")
    return parts


def require_stream(config: Config, name: str) -> None:
    """Raise InputError if the config has no stream ``name``."""
    if name not in config.streams:
        raise InputError(f"there is no stream {name!r}; there are {', '.join(config.streams)}")
