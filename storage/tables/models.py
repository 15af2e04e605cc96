"""The tables of retraining: jobs, model versions, promotions and excluded intervals.

jobs ─► models ─► promotions                quarantine: ranges that a person excludes from training
power: detection power by series            drift_states: the drift monitor's state by partition
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, Integer, text
from sqlalchemy.orm import Mapped, mapped_column

from storage.sql.column_types import RowId, SafeText
from storage.tables.stream import Base, OfPartition

_LIVE = text("state IN ('queued', 'running')")


class JobRow(Base):
    """One job.

    The owner of a running job holds ``token`` and raises ``beat`` to keep its lease.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("uq_jobs_kind", "kind", "stream", "due_ns", unique=True),
        Index("ix_jobs_live", "due_ns", postgresql_where=_LIVE, sqlite_where=_LIVE),
        Index("ix_jobs_stream_created_ns", "stream", "created_ns"),
        Index("ix_jobs_created_ns", "created_ns"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    kind: Mapped[str]  # train | shadow | guard
    stream: Mapped[str]
    due_ns: Mapped[int]
    trigger: Mapped[str]  # schedule | drift | history | manual | follow-up
    author: Mapped[str] = mapped_column(SafeText)
    detail: Mapped[dict[str, Any]]  # arguments: evidence of a drift, the version to judge
    state: Mapped[str]  # queued | running | succeeded | failed | cancelled | rejected
    reason: Mapped[str] = mapped_column(SafeText)  # why it waits, or how it ended
    device: Mapped[str]  # asked for: auto | cpu | gpu
    ran_on: Mapped[str | None]
    attempt: Mapped[int] = mapped_column(Integer)
    token: Mapped[int]  # one more with every owner
    owner: Mapped[str | None]
    beat: Mapped[int]
    progress: Mapped[dict[str, Any]]  # phase, epoch, epochs, loss, held_out, seconds_left
    result: Mapped[dict[str, Any]]
    error: Mapped[str | None] = mapped_column(SafeText)
    traceback: Mapped[str | None] = mapped_column(SafeText)
    cost: Mapped[dict[str, Any]]  # cpu_seconds, gpu_seconds, peak_bytes, points
    cancelled_ns: Mapped[int | None]  # time at which cancellation was requested
    created_ns: Mapped[int]
    started_ns: Mapped[int | None]
    finished_ns: Mapped[int | None]


class ModelRow(Base):
    """One trained version: the path of its two files, and its state."""

    __tablename__ = "models"
    __table_args__ = (Index("ix_models_stream_created_ns", "stream", "created_ns"),)

    version: Mapped[str] = mapped_column(primary_key=True)  # the first 12 digits of sha256
    stream: Mapped[str]
    path: Mapped[str]
    sha256: Mapped[str]  # of the manifest, which holds that of the tensors
    state: Mapped[str]  # candidate | shadow | champion | retired | rejected
    reason: Mapped[str] = mapped_column(SafeText)  # of its state
    parent: Mapped[str | None]  # the champion when it was made; NULL: the packaged weights
    evidence: Mapped[dict[str, Any]]
    job_id: Mapped[int | None]
    author: Mapped[str] = mapped_column(SafeText)
    created_ns: Mapped[int]
    changed_ns: Mapped[int]


class PromotionRow(Base):
    """One change of the champion of a stream.

    The row with the highest ``sequence`` names the champion. NULL stands for the packaged weights.
    """

    __tablename__ = "promotions"
    __table_args__ = (Index("uq_promotions_stream", "stream", "sequence", unique=True),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    stream: Mapped[str]
    sequence: Mapped[int]
    action: Mapped[str]  # promote | rollback | pin | unpin
    from_version: Mapped[str | None]
    to_version: Mapped[str | None]
    pinned: Mapped[int] = mapped_column(Integer)  # 1: only a person changes it
    author: Mapped[str] = mapped_column(SafeText)
    reason: Mapped[str] = mapped_column(SafeText)
    created_ns: Mapped[int]


class QuarantineRow(Base):
    """A range of time that a person excludes from training.

    ``series`` NULL: all series of the stream. Removed ranges stay for the record.
    """

    __tablename__ = "quarantine"
    __table_args__ = (Index("ix_quarantine_stream", "stream", "start_ns"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    stream: Mapped[str]
    series: Mapped[str | None] = mapped_column(SafeText)
    start_ns: Mapped[int]
    end_ns: Mapped[int]  # exclusive
    reason: Mapped[str] = mapped_column(SafeText)
    author: Mapped[str] = mapped_column(SafeText)
    created_ns: Mapped[int]
    removed_ns: Mapped[int | None]
    removed_by: Mapped[str | None] = mapped_column(SafeText)


class PowerRow(Base):
    """Detection power for one kind of change on one channel of one series."""

    __tablename__ = "power"

    stream: Mapped[str] = mapped_column(primary_key=True)
    series_key: Mapped[bytes] = mapped_column(primary_key=True)  # see ``types.short_key``
    series: Mapped[str] = mapped_column(SafeText)
    channel: Mapped[str] = mapped_column(SafeText, primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)  # spike | dip | shift | drift | flat
    # minimum detectable size in robust standard deviations; NULL: no size was detected
    smallest: Mapped[float | None]
    delay: Mapped[int | None] = mapped_column(Integer)  # rows until the flag
    caught: Mapped[float]  # share of the tried sizes that was detected
    spread: Mapped[float]  # robust standard deviation, in units of the input
    model_version: Mapped[str]
    found_ns: Mapped[int]


class DriftStateRow(OfPartition, Base):
    """The drift monitor's state of a partition, restored after a restart."""

    __tablename__ = "drift_states"

    state: Mapped[bytes]
    quiet_until_ns: Mapped[int | None]  # event time until which no drift is reported again
    saved_ns: Mapped[int]
