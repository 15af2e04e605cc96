"""Silences that people add."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from time import time_ns
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import Query, Response
from pydantic import BaseModel, Field

from pipeline.access import audited_changes
from pipeline.access.scopes import NotPermitted
from pipeline.alerts.routing.matchers import escape_glob
from pipeline.alerts.routing.silence_calendar import SilenceWindow
from pipeline.alerts.routing.silencing import planned_windows
from pipeline.api.context import Context, ListFilter, Page, SeriesName, require_stream, to_ns
from pipeline.api.direct_answers import api_router, shared
from pipeline.api.entity_tags import IfMatch, require_match, tag_of
from pipeline.api.routes.series import RangeFilter
from pipeline.core.durations import DAY_NS, SECOND_NS
from pipeline.core.errors import InputError
from pipeline.core.iso_times import show_time
from storage.alerting import silences
from storage.alerting.silences import ManualSilence
from storage.sql.statements import Bounds

router = api_router(tags=["silences"])

MAX_CALENDAR_NS = 100 * DAY_NS
MAX_CALENDAR_SILENCES = 500


class SilenceItem(BaseModel):
    """A silence that was added by hand."""

    id: UUID
    stream: str | None
    match: dict[str, Any]
    starts: str | None
    ends: str | None
    author: str
    comment: str


class SilenceRequest(BaseModel):
    """A silence until ``ends``.

    Without a stream and with an empty ``match`` it silences everything.
    """

    stream: str | None = Field(None, max_length=500)
    series: SeriesName | None = Field(None, description="only this series; * and ? have no meaning")
    match: dict[str, str] = Field({}, max_length=50, examples=[{"site": "eu-*"}])
    ends: datetime = Field(examples=["2030-01-01T12:00:00Z"])
    author: str = Field("api", min_length=1, max_length=200)
    comment: str = Field("", max_length=2000)


class SilenceFilter(ListFilter):
    """Silences that overlap the range; those of a stream, with those of all streams."""

    ended: bool = Field(False, description="also those that have ended")


class CalendarFilter(RangeFilter):
    """A span of at most 100 days; the default is two weeks from today on."""


class CalendarWindow(BaseModel):
    """A time in which a silence is in force; ``name`` is empty for one by hand."""

    stream: str | None
    name: str
    match: dict[str, Any]
    author: str
    starts: str | None
    ends: str | None


class SilenceCalendarView(BaseModel):
    """Silences of a span."""

    windows: list[CalendarWindow]
    problems: list[str] = Field(description="planned silences that are not in force, with the reason")


@router.get("/silences")
@shared
def list_silences(context: Context, query: Annotated[SilenceFilter, Query()]) -> Page[SilenceItem]:
    """Return silences that were added by hand, by their end."""
    with context.database.read() as connection:
        now_ns = None if query.ended else time_ns()
        found = silences.page(connection, query.bounds(context, int, UUID), now_ns)
    return query.page(found, silence_shown, lambda one: (one.ends_ns, one.id))


@router.post("/silences", status_code=201)
def add_silence(context: Context, request: SilenceRequest) -> SilenceItem:
    """Silence matching alerts from now on; they are kept and listed."""
    now_ns, ends_ns = time_ns(), to_ns(request.ends)
    if ends_ns is None or ends_ns <= now_ns:
        raise InputError("ends: the end of the silence is in the past; give a future time")
    if request.stream is not None:
        require_stream(context.config, request.stream)
    elif context.visible is not None:
        raise NotPermitted("a key of some streams can silence one of them only; name it in `stream`")
    of_series = {} if request.series is None else {"series": escape_glob(request.series)}
    silence = ManualSilence(
        uuid4(),
        request.stream,
        request.match | of_series,
        now_ns,
        ends_ns,
        context.author(request.author),
        request.comment,
        now_ns,
    )
    with context.database.begin() as connection:
        silences.add(connection, silence)
        context.record(connection, audited_changes.silenced(silence))
    return silence_shown(silence)


@router.get("/silence-calendar")
def read_silence_calendar(context: Context, query: Annotated[CalendarFilter, Query()]) -> SilenceCalendarView:
    """Return the times of silences, added by hand and planned in the config."""
    since_ns, until_ns = _calendar_range(query)
    span = SilenceWindow(*(datetime.fromtimestamp(ns / SECOND_NS, UTC) for ns in (since_ns, until_ns)))
    with context.database.read() as connection:
        bounds = Bounds(context.streams(None), since_ns, until_ns, None, MAX_CALENDAR_SILENCES)
        by_hand = silences.page(connection, bounds, None)
    windows = [
        CalendarWindow(
            stream=one.stream,
            name="",
            match=one.match,
            author=one.author,
            starts=show_time(one.starts_ns),
            ends=show_time(one.ends_ns),
        )
        for one in by_hand
    ]
    problems = []
    for stream, config in context.config.streams.items():
        planned, failed = planned_windows(config.alerts, span)
        windows += [
            CalendarWindow(
                stream=stream,
                name=one.name,
                match=config.alerts.silences[one.name].match,
                author="the config",
                starts=one.start.isoformat(),
                ends=one.end.isoformat(),
            )
            for one in planned
        ]
        problems += [f"{stream}, silence {name}: {why}" for name, why in failed.items()]
    return SilenceCalendarView(windows=windows, problems=problems)


@router.get("/silences/{silence_id}")
def read_silence(context: Context, silence_id: UUID, response: Response) -> SilenceItem:
    """Return one silence, also if it has ended."""
    with context.database.read() as connection:
        found = silences.get(connection, silence_id)
    missing = f"there is no silence {silence_id}"
    if found is None:
        raise InputError(missing)
    if found.stream is not None:
        context.require_visible(found.stream, missing)
    shown = silence_shown(found)
    response.headers["etag"] = tag_of(shown)
    return shown


@router.delete("/silences/{silence_id}", status_code=204)
def end_silence(context: Context, silence_id: UUID, if_match: IfMatch = None) -> None:
    """End a silence now; alerts that are still open are sent."""
    with context.database.begin() as connection:
        missing = f"there is no silence {silence_id} in force"
        found = silences.get(connection, silence_id)
        if found is None or not silences.expire(connection, silence_id.hex, time_ns()):
            raise InputError(missing)
        if found.stream is not None:
            context.require_visible(found.stream, missing)
        elif context.visible is not None:
            raise NotPermitted("this silence is of every stream; a key of some streams cannot end it")
        require_match(if_match, silence_shown(found))
        context.record(connection, audited_changes.silence_ended(found))


def _calendar_range(query: CalendarFilter) -> tuple[int, int]:
    since_ns = to_ns(query.since)
    if since_ns is None:
        since_ns = time_ns() // DAY_NS * DAY_NS
    until_ns = to_ns(query.until)
    if until_ns is None:
        until_ns = since_ns + 14 * DAY_NS
    if not 0 < until_ns - since_ns <= MAX_CALENDAR_NS:
        raise InputError("choose a span of 1 to 100 days: `from` before `to`")
    return since_ns, until_ns


def silence_shown(one: ManualSilence) -> SilenceItem:
    """Return a silence as the API shows it."""
    times = {"starts": show_time(one.starts_ns), "ends": show_time(one.ends_ns)}
    return SilenceItem(**asdict(one) | times)
