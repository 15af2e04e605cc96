"""What a user says about retraining: when, on what, where, and who decides about the result."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field

from pipeline.config.types import ConfigModel, Duration

#: The address of a Dask scheduler.
SCHEDULER = re.compile(r"(tcp|tls)://(\[[0-9a-fA-F:]+\]|[^\s:/]+):\d{1,5}")

Device = Literal["auto", "cpu", "gpu"]


class Retraining(ConfigModel):
    """When a stream's model is trained again, and what it takes to replace the one that decides."""

    schedule: str | None = Field(
        "0 3 * * *", description="crontab expression: minute hour day month weekday; null: never by the clock"
    )
    timezone: str = Field("UTC", description="zone of the schedule")
    on_drift: bool = Field(True, description="also train when the stream has drifted")
    min_interval: Duration = Field(timedelta(hours=6), description="a drift trains at most this often")
    device: Device = Field(
        "auto", description="auto takes a GPU worker where there is one; gpu waits for one"
    )
    cpu_after: Duration | None = Field(
        timedelta(minutes=30),
        description="a training that waits for a GPU worker for this long takes the CPU; null: it goes on waiting",
    )
    history: Duration = Field(timedelta(days=30), description="how far back the training data reach")
    most_points: int = Field(
        5_000_000,
        ge=1000,
        description="rows of history that a training reads at most: the newest, evenly over all series (300 bytes each)",
    )
    shadow: Duration = Field(
        timedelta(hours=24),
        description="how long a new version is only compared before it may decide; 0s: not at all",
    )
    post_promotion_check: Duration = Field(
        timedelta(hours=24),
        description="time after a promotion in which the new champion is compared with its predecessor and rolled back if it is worse; 0s: no check",
    )
    promote: Literal["auto", "manual"] = Field(
        "auto", description="manual: a better version waits for `forewatch models promote`"
    )
    models_by: list[str] = Field(
        [],
        description="labels of a series: each of their values gets a network of its own where that forecasts better than the shared one (all labels: one a series)",
    )
    epochs: int = Field(20, ge=1, description="most passes over the data")
    seed: int = Field(0, ge=0, description="the same data and seed give the same model on a CPU")
    lease: Duration = Field(
        timedelta(seconds=30), description="a job whose worker is silent for this long is given to another"
    )


class Tls(ConfigModel):
    """Certificates for a Dask scheduler whose address begins with tls://."""

    ca: Path = Field(description="certificate of the authority that signed those of the cluster")
    cert: Path = Field(description="our certificate")
    key: Path = Field(description="its key; a file that only this user may read")


class Cluster(ConfigModel):
    """Where trainings run.

    Left out: in a process of their own on this machine, with low priority, started on demand.
    """

    scheduler: str | None = Field(
        None, description="address of a Dask scheduler, tcp://host:8786 or tls://host:8786"
    )
    tls: Tls | None = None
