"""State of the pipeline: streams, partitions, faults, config."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel, Field

from pipeline.api.context import Context, ListFilter, Name, Page
from pipeline.api.direct_answers import api_router, shared
from pipeline.config.yaml_text import yaml_of
from pipeline.core.iso_times import show_time
from pipeline.core.secret_text import hide_in_urls, hide_secrets
from pipeline.core.types import Fault, FaultKind, Position
from storage.results import faults
from storage.stream_state import positions, snapshots

router = api_router(tags=["operations"])

#: (stream, topic, number) of a partition.
Place = tuple[str, str, int]


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
    owner: str = Field(description="process that reads it")
    committed: str | None = Field(description="time of its last commit")
    snapshot_bytes: int | None
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


class ConfigView(BaseModel):
    """The config in force. Secrets are names of variables and files, never values."""

    file: str | None
    database: str
    database_schema: str | None = Field(description="version of the tables")
    config: dict[str, Any]
    yaml: str = Field(description="the config without values that are defaults")


class FaultFilter(ListFilter):
    """Faults by their beginning."""

    open: bool = Field(False, description="only faults that last")


@router.get("/health")
def read_health(context: Context) -> dict[str, str | bool]:
    """Answer if the database does."""
    with context.database.read() as connection:
        positions.all_of(connection)
    return {"database": True, "version": "v1"}


@router.get("/streams")
@shared
def list_streams(context: Context) -> Page[StreamItem]:
    """Return the streams of the config."""
    with context.database.read() as connection:
        found = positions.all_of(connection)
    shown = [
        StreamItem(
            name=name,
            preset=stream.preset,
            detector=stream.detector,
            channels=list(stream.channels),
            labels=list(stream.format.chosen.label_names),
            config_hash=context.hash_of(name),
            partitions=sum(one.stream == name for one in found),
            records=sum(one.counts.read() for one in found if one.stream == name),
        )
        for name, stream in context.config.streams.items()
    ]
    return Page(items=shown)


@router.get("/partitions")
@shared
def list_partitions(
    context: Context, stream: Annotated[Name | None, Query(description="only this stream")] = None
) -> Page[PartitionItem]:
    """Return the positions of all partitions, with their owners."""
    with context.database.read() as connection:
        found = positions.all_of(connection, context.streams(stream))
        owners = positions.owners(connection)
        sizes = snapshots.sizes(connection)
    return Page(items=[_partition(one, owners, sizes) for one in found])


@router.get("/faults")
@shared
def list_faults(context: Context, query: Annotated[FaultFilter, Query()]) -> Page[FaultItem]:
    """Return faults, the newest first."""
    with context.database.read() as connection:
        bounds = query.bounds(context, int, str, str, str, int, str)
        found = faults.page(connection, bounds, open_only=query.open)
    return query.page(found, fault_item, faults.order_of)


@router.get("/config")
def read_config(context: Context) -> ConfigView:
    """Return the config in force, with passwords in URLs hidden."""
    shown: dict[str, Any] = _hidden(context.config.model_dump(mode="json", by_alias=True))
    text = yaml_of(context.config.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    return ConfigView(
        file=str(context.config.file) if context.config.file else None,
        database=str(context.database),
        database_schema=context.database.current(),
        config=shown,
        yaml=hide_secrets(hide_in_urls(text)),
    )


def fault_item(one: Fault) -> FaultItem:
    """Return a fault as the API shows it."""
    return FaultItem(
        stream=one.stream,
        kind=one.kind,
        message=one.message,
        partition=None if one.partition is None else str(one.partition),
        started=show_time(one.started_ns),
        ended=show_time(one.ended_ns),
    )


def _partition(one: Position, owners: dict[Place, tuple[str, int]], sizes: dict[Place, int]) -> PartitionItem:
    place = (one.stream, *one.partition)
    owner, committed_ns = owners.get(place, ("", None))
    return PartitionItem(
        owner=owner,
        committed=show_time(committed_ns),
        snapshot_bytes=sizes.get(place),
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
