"""Keys of the operation of a process: storage and processing loop."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.field_types import ConfigModel, Duration

MAX_WORKERS = 256
Workers = Literal["auto"] | Annotated[int, Field(ge=1, le=MAX_WORKERS)]


class Storage(ConfigModel):
    """Snapshots and retention."""

    snapshot_every: Duration = Field(
        timedelta(seconds=30), description="time between two snapshots of the state of the series"
    )
    history_path: str | None = Field(
        None, description="folder or fsspec URL of the recorded history (default: <database name>.history)"
    )
    history: bool = Field(
        True, description="record points and verdicts (used by explain, training and plots)"
    )
    keep_history: Duration = Field(
        timedelta(days=30),
        description="age after which history segments are deleted (default: at least the time span of the "
        "training data of all streams)",
    )
    keep_history_bytes: int | None = Field(
        None, ge=1, description="total size above which the oldest segments are deleted"
    )
    models_path: str | None = Field(
        None, description="folder or fsspec URL of the trained models (default: <database name>.models)"
    )
    keep_models: int = Field(
        5,
        ge=1,
        description="model versions of a stream that are kept, in addition to those that produced a "
        "stored anomaly",
    )
    keep_anomalies: Duration = Field(
        timedelta(days=365), description="age after which closed anomalies are deleted"
    )
    keep_dead_letters: Duration = Field(
        timedelta(days=30), description="age after which dead letters and late records are deleted"
    )
    keep_audit: Duration = Field(timedelta(days=365), description="age at which audit entries are deleted")


class EngineConfig(ConfigModel):
    """Settings of the processing loop. The defaults suit nearly all installations."""

    max_batch: int = Field(
        20_000, ge=1, description="largest number of records in a batch, which is one transaction"
    )
    watchdog: Duration = Field(
        timedelta(minutes=2),
        description="time without a turn of the loop after which the process exits with code 70",
    )
