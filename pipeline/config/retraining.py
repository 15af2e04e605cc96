"""The configuration of retraining, and of the cluster that runs it."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.config.field_types import ConfigModel, Duration

#: The address of a Dask scheduler.
SCHEDULER = re.compile(r"(tcp|tls)://(\[[0-9a-fA-F:]+\]|[^\s:/@]+):\d{1,5}")

Device = Literal["auto", "cpu", "gpu"]


class Retraining(ConfigModel):
    """When a stream's model is trained again, and how a new version becomes champion."""

    schedule: str | None = Field(
        "0 3 * * *", description="crontab expression: minute hour day month weekday; null: no schedule"
    )
    timezone: str = Field("UTC", description="zone of the schedule (default: that of the stream, else UTC)")
    on_drift: bool = Field(True, description="also train when the stream has drifted")
    min_interval: Duration = Field(
        timedelta(hours=6), description="shortest time between a training and one after a drift"
    )
    device: Device = Field("auto", description="auto: a GPU worker if there is one; gpu: wait for one")
    cpu_after: Duration | None = Field(
        timedelta(minutes=30),
        description="a training that waited this long for a GPU worker uses the CPU; null: no limit",
    )
    history: Duration = Field(
        timedelta(days=30),
        description="time span of the training data (default for a stream with `every` of more than an "
        "hour: 700 intervals, which for daily bars are 480 trading days)",
    )
    most_points: int = Field(
        5_000_000,
        ge=1000,
        description="maximum number of rows of history that a training reads: the newest, evenly over "
        "all series (300 bytes each)",
    )
    shadow: Duration = Field(
        timedelta(hours=24),
        description="how long a new version is compared with the champion before it is promoted; 0s: "
        "no comparison",
    )
    post_promotion_check: Duration = Field(
        timedelta(hours=24),
        description="time after a promotion in which the new champion is compared with its predecessor "
        "and rolled back if it is worse; 0s: no check",
    )
    promote: Literal["auto", "manual"] = Field(
        "auto", description="manual: a better version waits for `forewatch models promote`"
    )
    models_by: list[str] = Field(
        [],
        description="labels that group the series: each group gets its own LSTM if that forecasts "
        "better than the shared one (all labels: one LSTM per series)",
    )
    epochs: int = Field(20, ge=1, description="maximum number of passes over the data")
    seed: int = Field(0, ge=0, description="on a CPU the same data and seed give the same model")
    lease: Duration = Field(
        timedelta(seconds=30),
        description="a job is given to another process when its owner sends no heartbeat for this long",
    )


class Tls(ConfigModel):
    """Certificates for a Dask scheduler with a tls:// address."""

    ca: Path = Field(description="certificate of the authority that signed the certificates of the cluster")
    cert: Path = Field(description="certificate of this process")
    key: Path = Field(description="key of the certificate; only this user may be able to read the file")


class Cluster(ConfigModel):
    """The Dask cluster on which trainings run.

    Left out: in a separate process on this machine, with low priority, started on demand.
    """

    scheduler: str | None = Field(
        None, description="address of a Dask scheduler, tcp://host:8786 or tls://host:8786"
    )
    tls: Tls | None = None
    environment: list[str] = Field(
        [],
        description="environment variables that the worker on this machine also gets, for example "
        "AWS_PROFILE; it gets no other variable of the daemon that may hold a secret",
    )
