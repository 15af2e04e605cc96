"""Aggregate of a stream: one point per series and interval."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.field_types import ConfigModel, Duration

AggregateName = Literal[
    "sum", "count", "mean", "last", "min", "max", "nunique", "open", "high", "low", "close"
]


class Aggregate(ConfigModel):
    """Aggregation of irregular records or events to one point per series and interval."""

    every: Duration = Field(description="length of the interval; intervals are aligned to the epoch")
    values: dict[
        str, AggregateName | Annotated[dict[AggregateName, str], Field(min_length=1, max_length=1)]
    ] = Field(
        min_length=1,
        description="channel → function of the value with the same name, or channel → {function: "
        "field}; these are the channels of the stream",
    )
    silence: Duration | None = Field(
        None,
        description="time for which all records of a partition may be late together, such as that between "
        "two uploads; after a longer silence its intervals count 0 by the clock of the machine; default: one "
        "interval, and longer once records came later than that",
    )
