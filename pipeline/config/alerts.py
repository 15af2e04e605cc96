"""What a user writes about alerts: ``alerts`` of a stream.

The receivers (``endpoints`` of the file) are in ``endpoint_config``.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from pipeline.config.types import ConfigModel, Duration
from pipeline.core.cron import check_cron
from pipeline.core.types import Severity


def _percent(value: Any) -> Any:
    """``5%`` → 0.05."""
    if isinstance(value, str) and (found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value)):
        return float(found[1]) / 100
    return value


Ratio = Annotated[
    float,
    BeforeValidator(_percent),
    WithJsonSchema(
        {"anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*%\s*$"}]}
    ),
]

Level = Annotated[Severity, WithJsonSchema({"enum": [level.value for level in Severity]})]

#: label or property → glob, or any of several globs; a leading ``!`` negates.
Match = dict[str, str | list[str]]

_PER = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}


class Budget(ConfigModel):
    """How many pages the people on call are willing to get while nothing is wrong; the threshold of a page
    follows from it.
    """

    pages: float = Field(gt=0, description="pages in each period")
    per: Duration = Field(timedelta(days=1), description="the period")
    team: str | None = Field(None, description="streams that name the same team share one budget")

    @property
    def per_day(self) -> float:
        return self.pages / (self.per / timedelta(days=1))


def _budget(value: Any) -> Any:
    """``5 per day`` → {pages: 5, per: 1d}."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s+per\s+(hour|day|week)\s*", value)
    if found is None:
        raise ValueError(
            "write a budget such as 5 per day, 1 per hour or 10 per week, or {pages: 5, per: 1d, team: plant}"
        )
    return {"pages": float(found[1]), "per": _PER[found[2]]}


_BUDGET_TEXT = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s+per\s+(hour|day|week)\s*$"}


def _or_text(schema: dict[str, Any]) -> None:
    schema["anyOf"].append(_BUDGET_TEXT)


class Urgencies(ConfigModel):
    """The least severity of each urgency.

    Below ``notice`` nothing is sent; with a budget it is the budget that decides what pages.
    """

    page: Level = Field(Severity.CRITICAL, description="anomalies from this severity on page people")
    notice: Level = Field(
        Severity.INFO, description="anomalies from this severity on are sent to endpoints that take notices"
    )

    @model_validator(mode="after")
    def _order(self) -> Urgencies:
        levels = list(Severity)
        if levels.index(self.page) < levels.index(self.notice):
            raise ValueError(f"page ({self.page}) is below notice ({self.notice}); exchange them")
        return self


class Grouping(ConfigModel):
    """Which series make one alert together, and how often it may speak."""

    by: list[str] | None = Field(
        None, description="labels; series that agree in them share an alert. Left out: each series by itself"
    )
    wait: Duration = Field(
        timedelta(0), description="time from the first anomaly to the first message, so that others can join"
    )
    interval: Duration = Field(
        timedelta(0), description="least time between two messages of one alert that is still open"
    )
    repeat: Duration | None = Field(
        timedelta(hours=4), description="an open alert that nobody acknowledged is sent again; null: never"
    )


class Flapping(ConfigModel):
    """A series that opens again and again is one alert that ends when it has been quiet for ``within``."""

    changes: int = Field(4, ge=2, description="this many anomalies of a series ...")
    within: Duration = Field(timedelta(hours=1), description="... in this time are flapping")


class Policy(ConfigModel):
    """How an alert behaves. A rule's keys replace those of the stream."""

    to: list[str] | None = Field(None, description="endpoints; left out: all of them")
    group: Grouping | None = Field(None, description="which series share an alert")
    recover_after: Duration | None = Field(
        None, description="how long a series must be normal before its alert is resolved"
    )
    cooldown: Duration | None = Field(
        None, description="how long after the end of an alert a short anomaly of the same series stays silent"
    )
    flapping: Flapping | None = Field(None, description="when a series counts as flapping")
    min_deviation: Ratio | None = Field(
        None, ge=0, description="smaller deviations, relative to what was expected, are not sent"
    )
    min_severity: Level | None = Field(None, description="anomalies below it are not sent")
    lasts: Duration | None = Field(None, description="anomalies that are over sooner are not sent")


class Rule(Policy):
    """The first rule that matches an anomaly decides what becomes of it; without one the stream's own keys
    do."""

    name: str | None = Field(
        None, description="how the rule is called in reports; left out: rule-1, rule-2, ..."
    )
    match: Match = Field(
        default_factory=dict,
        description="label → glob or list of globs (`!` negates); also stream, series, channel, direction, severity, forecaster, cause (deprecated: guard)",
    )
    drop: bool = Field(False, description="never send what matches")


class Silence(ConfigModel):
    """A planned time in which matching alerts are kept but not sent: recurring (cron), or from a calendar."""

    match: Match = Field(
        default_factory=dict, description="as in a rule; left out: everything of this stream"
    )
    cron: str | None = Field(None, description="when it begins: minute hour day month weekday")
    for_: Duration | None = Field(
        None, alias="for", description="how long it lasts from each beginning (with cron)"
    )
    calendar: Path | None = Field(
        None, description="iCalendar file: its events are the silences (holidays, maintenance)"
    )
    timezone: str = Field(
        "UTC", description="zone of the cron expression and of whole-day or floating events of the calendar"
    )

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ValueError, OSError, LookupError):
            raise ValueError(
                f"there is no time zone {value!r}; write a name such as UTC or Europe/Berlin"
            ) from None
        return value

    @model_validator(mode="after")
    def _one(self) -> Silence:
        if (self.cron is None) == (self.calendar is None):
            raise ValueError("give exactly one of cron and calendar")
        if (self.cron is None) != (self.for_ is None):
            raise ValueError("cron and for belong together: cron says when it begins, for how long it lasts")
        if self.cron is not None:
            check_cron(self.cron)
        return self


class FaultAlerts(ConfigModel):
    """Alerts about the pipeline itself: a source that is away, a gap, an endpoint that only fails."""

    to: list[str] | None = Field(None, description="endpoints; left out: those of the stream")
    hold: bool = Field(
        True, description="while a source is at fault, hold the alerts about data that began after the fault"
    )


class Alerts(Policy):
    """What becomes of the anomalies of a stream."""

    budget: Annotated[Budget | None, BeforeValidator(_budget)] = Field(
        None, description="wanted pages, for example `5 per day`", json_schema_extra=_or_text
    )
    severity: Urgencies = Field(
        default_factory=Urgencies, description="least severity of a page and of a notice"
    )
    rules: list[Rule] = Field(default_factory=list, description="exceptions, read from the top")
    silences: dict[str, Silence] = Field(default_factory=dict, description="name → planned silence")
    max_age: Duration | None = Field(
        None,
        description="anomalies that were over for longer than this when they are seen (a backlog, old data) are not sent; null: all are",
    )
    storm: int | None = Field(
        50,
        ge=2,
        description="more new alerts than this in a minute become one alert with a list; null: no limit",
    )
    faults: FaultAlerts = Field(default_factory=FaultAlerts, description="alerts about the pipeline itself")
    public_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="address under which people reach this forewatch's HTTP server, for links and pictures",
    )
    units: dict[str, str] = Field(
        default_factory=dict, description="channel → unit, for messages: {temperature: °C}"
    )

    @field_validator("rules")
    @classmethod
    def _named(cls, rules: list[Rule]) -> list[Rule]:
        """Every rule has a name, and no two the same."""
        named = [r if r.name else r.model_copy(update={"name": f"rule-{i}"}) for i, r in enumerate(rules, 1)]
        names = [r.name for r in named]
        if twice := {n for n in names if names.count(n) > 1} | ({"default", "storm"} & set(names)):
            raise ValueError(
                f"rule names must differ from each other and from default and storm: {', '.join(sorted(map(str, twice)))}"
            )
        return named
