"""Configuration of a source that polls a SQL database."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from pydantic import Field

from pipeline.config.field_types import ConfigModel, Duration, Secret


class SqlSourceConfig(ConfigModel):
    """Rows of a SQL query, in the order of a cursor column; only new rows are read."""

    url: Secret = Field(
        description="SQLAlchemy URL with user and password, such as postgresql+psycopg://reader:…@host/plant"
    )
    query: str = Field(
        min_length=1, description="SELECT statement; it is wrapped, so it may have conditions and joins"
    )
    cursor: str = Field(
        min_length=1,
        description="column of the result that grows with each new row: a whole number, a date or "
        "a timestamp",
    )
    every: Duration = Field(timedelta(seconds=10), description="time between two queries")
    settle: Duration = Field(
        timedelta(seconds=5),
        description="time for which rows of the newest cursor value wait for further rows with the "
        "same value",
    )
    start: Literal["earliest", "latest"] = Field(
        "earliest", description="first row of a stream without a stored position"
    )
