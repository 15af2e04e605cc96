"""Tables of streams: positions, state and results.

A column has the name of the field of ``pipeline.core.types`` that it stores, with exceptions in the modules
that write it. Times are ns since the epoch, UTC.

No foreign keys point at ``positions``: they would make its row locks harder to see through (see
``positions.acquire``).
"""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, Double, Index, Integer, LargeBinary, MetaData, Text, Uuid, false, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from storage.sql.column_types import Floats, RowId, SafeJson, SafeText


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        int: BigInteger,
        float: Double,
        str: Text,
        bytes: LargeBinary,
        UUID: Uuid,
        list[float]: Floats,
        list[str]: SafeJson,
        dict[str, str]: SafeJson,
        dict[str, Any]: SafeJson,
    }


class OfPartition:
    """Key columns of rows that belong to one partition of a stream's source."""

    stream: Mapped[str] = mapped_column(primary_key=True)
    topic: Mapped[str] = mapped_column(primary_key=True)
    partition: Mapped[int] = mapped_column(Integer, primary_key=True)


class PositionRow(OfPartition, Base):
    """Owner of a partition (epoch), its next offset, and the outcomes of all records so far.

    ``held`` is the field ``buffered`` of ``Counts``.
    """

    __tablename__ = "positions"

    epoch: Mapped[int]
    commits: Mapped[int]
    next_offset: Mapped[int | None]
    start_offset: Mapped[int | None]
    identity: Mapped[str]
    owner: Mapped[str]
    scored: Mapped[int]
    late: Mapped[int]
    duplicate: Mapped[int]
    dead_lettered: Mapped[int]
    filtered: Mapped[int]
    held: Mapped[int]
    watermark_ns: Mapped[int | None]
    updated_ns: Mapped[int]


class SnapshotRow(OfPartition, Base):
    """The one snapshot of a partition; its bytes are in ``snapshot_pages``."""

    __tablename__ = "snapshots"

    snapshot_offset: Mapped[int]
    state_version: Mapped[str]
    meta: Mapped[dict[str, Any]]
    pages: Mapped[int] = mapped_column(Integer)
    size_bytes: Mapped[int]
    created_ns: Mapped[int]


class SnapshotPageRow(OfPartition, Base):
    __tablename__ = "snapshot_pages"

    page: Mapped[int] = mapped_column(Integer, primary_key=True)
    data: Mapped[bytes]


class SeriesStateRow(OfPartition, Base):
    """State of an offloaded series.

    ``series_key``: see ``types.short_key``.
    """

    __tablename__ = "series_states"
    __table_args__ = (Index("ix_series_states_evicted_ns", "evicted_ns"),)

    series_key: Mapped[bytes] = mapped_column(primary_key=True)
    series: Mapped[str] = mapped_column(SafeText)
    state: Mapped[bytes]
    state_version: Mapped[str]
    last_ns: Mapped[int]
    evicted_ns: Mapped[int]


class BackfillShardRow(Base):
    """A part of a backfill on a cluster that has begun.

    ``done_ns`` is set when its last result is committed. ``first_late_id`` is the newest late record
    from before it began. ``counts`` are those of ``Counts``.
    """

    __tablename__ = "backfill_shards"
    __table_args__ = (Index("ix_backfill_shards_created_ns", "created_ns"),)

    run: Mapped[str] = mapped_column(primary_key=True)
    shard: Mapped[int] = mapped_column(Integer, primary_key=True)
    stream: Mapped[str]
    first_late_id: Mapped[int]
    counts: Mapped[dict[str, Any]]
    anomalies: Mapped[int]
    series: Mapped[int]
    seconds: Mapped[float]
    created_ns: Mapped[int]
    done_ns: Mapped[int | None]


class BackfillAnomalyRow(Base):
    """An anomaly that a part of a backfill on a cluster has found so far."""

    __tablename__ = "backfill_anomalies"

    run: Mapped[str] = mapped_column(primary_key=True)
    shard: Mapped[int] = mapped_column(Integer, primary_key=True)
    anomaly: Mapped[UUID] = mapped_column(primary_key=True)


class AnomalyRow(Base):
    __tablename__ = "anomalies"
    __table_args__ = (
        Index(
            "ix_anomalies_open",
            "stream",
            "topic",
            "partition",
            postgresql_where=text("state = 'open'"),
            sqlite_where=text("state = 'open'"),
        ),
        Index("ix_anomalies_series", "series", postgresql_using="hash"),
        Index("ix_anomalies_stream_start_ns", "stream", "start_ns"),
        Index("ix_anomalies_stream_end_ns", "stream", "end_ns"),
        Index("ix_anomalies_start_ns", "start_ns"),
        Index("ix_anomalies_updated_ns", "updated_ns"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    stream: Mapped[str]
    series: Mapped[str] = mapped_column(SafeText)
    labels: Mapped[dict[str, str]]
    state: Mapped[str]
    severity: Mapped[str]
    direction: Mapped[str]
    start_ns: Mapped[int]
    end_ns: Mapped[int]
    peak_ns: Mapped[int]
    points: Mapped[int]
    score: Mapped[float]
    surprise: Mapped[float]
    channels: Mapped[list[str]]
    observed: Mapped[list[float]]
    expected: Mapped[list[float]]
    lower: Mapped[list[float]]
    upper: Mapped[list[float]]
    contribution: Mapped[list[float]]
    guard: Mapped[str]  # Anomaly.forecaster
    evidence: Mapped[str] = mapped_column(server_default="none")  # Anomaly.cause
    model_version: Mapped[str]
    config_hash: Mapped[str]
    topic: Mapped[str]
    partition: Mapped[int] = mapped_column(Integer)
    first_offset: Mapped[int]
    last_offset: Mapped[int]
    peak_offset: Mapped[int]
    last_flag_seq: Mapped[int]
    ratio: Mapped[float] = mapped_column(server_default="0")
    every_ns: Mapped[int] = mapped_column(server_default="0")
    first_flag_seq: Mapped[int] = mapped_column(server_default="-1")
    told_seq: Mapped[int] = mapped_column(server_default="-1")
    relative: Mapped[bool] = mapped_column(server_default=false())
    end_reason: Mapped[str] = mapped_column(server_default="")
    event: Mapped[dict[str, Any] | None]  # Anomaly.event
    context: Mapped[dict[str, Any] | None]  # Anomaly.context
    onset_ns: Mapped[int] = mapped_column(server_default="0")
    outside_until_ns: Mapped[int] = mapped_column(server_default="0")
    span_readings: Mapped[int] = mapped_column(server_default="0")
    revised_ns: Mapped[int] = mapped_column(server_default="0")
    course: Mapped[dict[str, Any] | None]  # Anomaly.course
    revision: Mapped[int]
    updated_ns: Mapped[int]


class DeadLetterRow(Base):
    __tablename__ = "dead_letters"
    __table_args__ = (
        Index("ix_dead_letters_stream_created_ns", "stream", "created_ns"),
        Index("ix_dead_letters_created_ns", "created_ns"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    stream: Mapped[str]
    topic: Mapped[str]
    partition: Mapped[int] = mapped_column(Integer)
    offset: Mapped[int]
    timestamp_ns: Mapped[int]
    key: Mapped[bytes | None]
    value: Mapped[bytes | None]
    headers: Mapped[list[str]]  # [[name, base64 or null], …]
    reason: Mapped[str]
    detail: Mapped[str] = mapped_column(SafeText)
    created_ns: Mapped[int]
    replayed_ns: Mapped[int | None]


class LateRow(Base):
    __tablename__ = "late_records"
    __table_args__ = (
        Index("ix_late_records_stream_created_ns", "stream", "created_ns"),
        Index("ix_late_records_created_ns", "created_ns"),
        Index("ix_late_records_due", "due_ns", "stream"),
        Index("ix_late_records_series", "series", postgresql_using="hash"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    stream: Mapped[str]
    topic: Mapped[str]
    partition: Mapped[int] = mapped_column(Integer)
    offset: Mapped[int]
    series: Mapped[str] = mapped_column(SafeText)
    time_ns: Mapped[int]
    values: Mapped[list[float]]
    created_ns: Mapped[int]
    revised_ns: Mapped[int | None]  # when it had revised the verdicts of its series, 0: too old
    due_ns: Mapped[int | None] = mapped_column(server_default="0")  # 0: pending, NULL: done


class FaultRow(Base):
    """A fault of the whole stream has no partition: topic "" and partition −1, because NULLs are never equal
    in a unique index.

    ``owner`` is the process that the fault belongs to: it raises ``beat`` while the fault lasts. Without an
    owner ("") no lease applies. ``partitions`` are those that a fault of the whole stream affects, NULL: all.
    """

    __tablename__ = "faults"
    __table_args__ = (
        Index(
            "uq_faults_open",
            "stream",
            "kind",
            "topic",
            "partition",
            "owner",
            unique=True,
            postgresql_where=text("ended_ns IS NULL"),
            sqlite_where=text("ended_ns IS NULL"),
        ),
        Index(
            "uq_faults_started_ns",
            "stream",
            "kind",
            "topic",
            "partition",
            "started_ns",
            "owner",
            unique=True,
        ),
        Index("ix_faults_started_ns", "started_ns"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    stream: Mapped[str]
    kind: Mapped[str]
    topic: Mapped[str]
    partition: Mapped[int] = mapped_column(Integer)
    message: Mapped[str] = mapped_column(SafeText)
    detail: Mapped[dict[str, Any]]
    started_ns: Mapped[int]
    ended_ns: Mapped[int | None]
    owner: Mapped[str] = mapped_column(SafeText, server_default="")
    beat: Mapped[int] = mapped_column(server_default="0")
    partitions: Mapped[list[Any] | None] = mapped_column(SafeJson)
