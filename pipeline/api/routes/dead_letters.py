"""Records that could not be decoded, and their replay."""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, Field

from pipeline.access import audited_changes
from pipeline.api.context import Context, ListFilter, Name, Page, require_stream
from pipeline.api.direct_answers import api_router, shared
from pipeline.core.iso_times import show_time
from pipeline.services.dead_letter_replay import replay
from storage.results import dead_letters
from storage.results.dead_letters import Kept

router = api_router(prefix="/dead-letters", tags=["dead letters"])

RowNumber = Annotated[int, Field(ge=1, lt=1 << 63)]


class DeadLetterItem(BaseModel):
    """A record that could not be decoded; ``value`` is in base64."""

    id: int
    stream: str
    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    value: str | None
    created: str | None
    replayed: str | None


class ReplayRequest(BaseModel):
    """Dead letters to write to their topic again: those named, or all that match."""

    ids: list[RowNumber] | None = Field(None, max_length=1000)
    stream: str | None = Field(None, max_length=500)
    reason: str | None = Field(None, max_length=100)
    dry_run: bool = True


class ReplayResult(BaseModel):
    """Counts of a replay; ``refused``: those that still do not decode, by reason."""

    considered: int
    decodable: int
    replayed: int
    refused: dict[str, int]


class DeadLetterFilter(ListFilter):
    """Dead letters by arrival."""

    reason: Name | None = None
    replayed: bool | None = None


@router.get("")
@shared
def list_dead_letters(context: Context, query: Annotated[DeadLetterFilter, Query()]) -> Page[DeadLetterItem]:
    """Return records that could not be decoded, the newest first."""
    with context.database.read() as connection:
        found = dead_letters.page(
            connection, query.bounds(context, int), reason=query.reason, replayed=query.replayed
        )
    return query.page(found, _shown, lambda one: (one.id,))


@router.get("/counts")
def count_dead_letters(
    context: Context, stream: Annotated[Name | None, Query(description="only this stream")] = None
) -> dict[str, int]:
    """Count the dead letters that were not replayed, by reason."""
    with context.database.read() as connection:
        return dead_letters.counts(connection, context.streams(stream))


@router.post("/replay")
def replay_dead_letters(context: Context, request: ReplayRequest) -> ReplayResult:
    """Write dead letters that decode now to their topic or spool again.

    With ``dry_run``, the default, they are only counted.
    """
    if request.stream is not None:
        require_stream(context.config, request.stream)
    if request.ids is not None and context.visible is not None:
        with context.database.read() as connection:
            for one in request.ids:
                letter = dead_letters.get(connection, one).letter
                context.require_visible(letter.stream, f"there is no dead letter {one}")
    report = replay(
        context.config,
        context.database,
        ids=request.ids,
        stream=context.streams(request.stream),
        reason=request.reason,
        dry_run=request.dry_run,
    )
    if not request.dry_run:
        with context.database.begin() as connection:
            change = audited_changes.replayed(request.stream, request.ids, request.reason, report.replayed)
            context.record(connection, change)
    return ReplayResult(**report.as_dict())


def _shown(kept: Kept) -> DeadLetterItem:
    return DeadLetterItem(
        id=kept.id,
        stream=kept.letter.stream,
        topic=kept.letter.partition.topic,
        partition=kept.letter.partition.number,
        offset=kept.letter.offset,
        reason=kept.letter.reason,
        detail=kept.letter.detail,
        value=None if kept.letter.value is None else b64encode(kept.letter.value).decode(),
        created=show_time(kept.created_ns),
        replayed=show_time(kept.replayed_ns),
    )
