"""Silences that people add."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from time import time_ns
from typing import Annotated, Any
from uuid import UUID, uuid4

from fastapi import Query, Response
from pydantic import BaseModel, Field

from pipeline.access import audited_changes
from pipeline.access.scopes import NotPermitted
from pipeline.alerts.routing.matchers import escape_glob
from pipeline.api.context import Context, ListFilter, Page, SeriesName, require_stream, to_ns
from pipeline.api.direct_answers import api_router
from pipeline.api.entity_tags import IfMatch, require_match, tag_of
from pipeline.core.errors import InputError
from pipeline.core.iso_times import show_time
from storage.alerting import silences
from storage.alerting.silences import ManualSilence

router = api_router(tags=["silences"])


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


@router.get("/silences")
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


def silence_shown(one: ManualSilence) -> SilenceItem:
    """Return a silence as the API shows it."""
    times = {"starts": show_time(one.starts_ns), "ends": show_time(one.ends_ns)}
    return SilenceItem(**asdict(one) | times)
