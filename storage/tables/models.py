"""The tables of retraining: jobs, the versions they made, who decides since when, and what is kept out of
training.

jobs ─► models ─► promotions          quarantine: ranges that a person keeps out
power: what would be caught, by series          drift_states: what the eye on drift knows of a partition's series
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, Integer, text
from sqlalchemy.orm import Mapped, mapped_column

from storage.sql.column_types import RowId, SafeText
from storage.tables.stream import Base, OfPartition

_LIVE = text("state IN ('queued', 'running')")


class JobRow(Base):
    """One piece of work and all that is known of it.

    The row is the truth: who runs it holds ``token``, and shows by ``beat`` that it lives.
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
    detail: Mapped[dict[str, Any]]  # what was asked for: evidence of a drift, the version to judge
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
    cancelled_ns: Mapped[int | None]  # when somebody asked for its end
    created_ns: Mapped[int]
    started_ns: Mapped[int | None]
    finished_ns: Mapped[int | None]


class ModelRow(Base):
    """One trained version: where its two files lie, and how it stands."""

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
    """Each change of the champion of a stream, one row; the row of the highest ``sequence`` says who decides.
    NULL: the packaged weights.
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
    """A range of time that a person keeps out of training; ``series`` NULL: of the whole stream.

    Removed ones stay, for the record.
    """

    __tablename__ = "quarantine"
    __table_args__ = (Index("ix_quarantine_stream", "stream", "start_ns"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    stream: Mapped[str]
    series: Mapped[str | None] = mapped_column(SafeText)
    start_ns: Mapped[int]
    end_ns: Mapped[int]  # not part of it any more
    reason: Mapped[str] = mapped_column(SafeText)
    author: Mapped[str] = mapped_column(SafeText)
    created_ns: Mapped[int]
    removed_ns: Mapped[int | None]
    removed_by: Mapped[str | None] = mapped_column(SafeText)


class PowerRow(Base):
    """What of one kind of change would be caught on one channel of one series, as it was measured last."""

    __tablename__ = "power"

    stream: Mapped[str] = mapped_column(primary_key=True)
    series_key: Mapped[bytes] = mapped_column(primary_key=True)  # see ``types.short_key``
    series: Mapped[str] = mapped_column(SafeText)
    channel: Mapped[str] = mapped_column(SafeText, primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)  # spike | dip | shift | drift | flat
    smallest: Mapped[float | None]  # in spreads; NULL: nothing was caught
    delay: Mapped[int | None] = mapped_column(Integer)  # rows until the flag
    caught: Mapped[float]  # share of the sizes tried
    spread: Mapped[float]  # one spread in units of the input
    model_version: Mapped[str]
    found_ns: Mapped[int]


class DriftStateRow(OfPartition, Base):
    """What is usual for the series of a partition, for the eye on drift to go on with after a restart."""

    __tablename__ = "drift_states"

    state: Mapped[bytes]
    quiet_until_ns: Mapped[int | None]  # event time until which no drift is reported again
    saved_ns: Mapped[int]
