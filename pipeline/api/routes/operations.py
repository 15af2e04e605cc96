"""State of the pipeline: streams, partitions, faults, dead letters, config."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from pipeline.api.context import Context, Name, StreamFilter, TimeFilter, require_stream, to_ns
from pipeline.config.schema import config_hash
from pipeline.core.iso_times import show_time
from pipeline.core.secret_text import hide_in_urls
from pipeline.core.types import FaultKind, Position
from pipeline.services.dead_letter_replay import replay
from storage.results import dead_letters, faults
from storage.stream_state import positions

router = APIRouter(tags=["operations"])

RowNumber = Annotated[int, Field(ge=1, lt=1 << 63)]


class StreamItem(BaseModel):
    """One stream of the config."""

    name: str
    preset: str
    detector: str
    channels: list[str]
    labels: list[str]
    config_hash: str
    partitions: int
    records: int = Field(description="records read so far")


class PartitionItem(BaseModel):
    """Position of one partition, and the outcomes of its records."""

    stream: str
    topic: str
    partition: int
    epoch: int
    next_offset: int | None
    watermark: str | None
    scored: int
    late: int
    duplicate: int
    dead_lettered: int
    filtered: int
    buffered: int


class FaultItem(BaseModel):
    """A fault of the pipeline, not of the data; ``message`` says what to do."""

    stream: str
    kind: FaultKind
    message: str
    partition: str | None
    started: str | None
    ended: str | None


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


class ConfigView(BaseModel):
    """The config in force. Secrets are names of variables and files, never values."""

    file: str | None
    config: dict[str, Any]


class FaultFilter(StreamFilter):
    """Faults of a stream."""

    open: bool = Field(False, description="only faults that last")
    since: datetime | None = Field(None, alias="from", description="earliest beginning")


class DeadLetterFilter(TimeFilter):
    """Dead letters by arrival."""

    reason: Name | None = None
    replayed: bool | None = None


@router.get("/health")
def read_health(context: Context) -> dict[str, str | bool]:
    """Answer if the database does."""
    with context.database.read() as connection:
        positions.all_of(connection)
    return {"database": True, "version": "v1"}


@router.get("/streams")
def list_streams(context: Context) -> list[StreamItem]:
    """Return the streams of the config."""
    with context.database.read() as connection:
        found = positions.all_of(connection)
    return [
        StreamItem(
            name=name,
            preset=stream.preset,
            detector=stream.detector,
            channels=list(stream.channels),
            labels=list(stream.format.chosen.label_fields),
            config_hash=config_hash(stream),
            partitions=sum(one.stream == name for one in found),
            records=sum(one.counts.read() for one in found if one.stream == name),
        )
        for name, stream in context.config.streams.items()
    ]


@router.get("/partitions")
def list_partitions(
    context: Context, stream: Annotated[Name | None, Query(description="only this stream")] = None
) -> list[PartitionItem]:
    """Return the positions of all partitions."""
    with context.database.read() as connection:
        return [_partition(one) for one in positions.all_of(connection, stream)]


@router.get("/faults")
def list_faults(context: Context, query: Annotated[FaultFilter, Query()]) -> list[FaultItem]:
    """Return faults, the newest first."""
    with context.database.read() as connection:
        found = faults.query(
            connection,
            stream=query.stream,
            open_only=query.open,
            since_ns=to_ns(query.since),
            limit=query.limit,
        )
    return [
        FaultItem(
            stream=one.stream,
            kind=one.kind,
            message=one.message,
            partition=None if one.partition is None else str(one.partition),
            started=show_time(one.started_ns),
            ended=show_time(one.ended_ns),
        )
        for one in found
    ]


@router.get("/dead-letters")
def list_dead_letters(context: Context, query: Annotated[DeadLetterFilter, Query()]) -> list[DeadLetterItem]:
    """Return records that could not be decoded, the newest first."""
    with context.database.read() as connection:
        found = dead_letters.query(
            connection,
            stream=query.stream,
            reason=query.reason,
            replayed=query.replayed,
            since_ns=to_ns(query.since),
            until_ns=to_ns(query.until),
            limit=query.limit,
        )
    return [
        DeadLetterItem(
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
        for kept in found
    ]


@router.post("/dead-letters/replay")
def replay_dead_letters(context: Context, request: ReplayRequest) -> ReplayResult:
    """Write dead letters that decode now to their Kafka topic again.

    With ``dry_run``, the default, they are only counted.
    """
    if request.stream is not None:
        require_stream(context.config, request.stream)
    report = replay(
        context.config,
        context.database,
        ids=request.ids,
        stream=request.stream,
        reason=request.reason,
        dry_run=request.dry_run,
    )
    return ReplayResult(**report.as_dict())


@router.get("/config")
def read_config(context: Context) -> ConfigView:
    """Return the config in force, with passwords in URLs hidden."""
    shown: dict[str, Any] = _hidden(context.config.model_dump(mode="json", by_alias=True))
    return ConfigView(file=str(context.config.file) if context.config.file else None, config=shown)


def _partition(one: Position) -> PartitionItem:
    return PartitionItem(
        stream=one.stream,
        topic=one.partition.topic,
        partition=one.partition.number,
        epoch=one.epoch,
        next_offset=one.next_offset,
        watermark=show_time(one.watermark_ns),
        **asdict(one.counts),
    )


def _hidden(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _hidden(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_hidden(item) for item in value]
    return hide_in_urls(value) if isinstance(value, str) else value
