"""Configuration of the alerts of a stream (``alerts``).

The receivers (``endpoints``) are in ``pipeline.config.endpoints``.
"""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from pipeline.config.field_types import ConfigModel, Duration
from pipeline.core.cron import check_cron
from pipeline.core.iso_times import known_zone
from pipeline.core.types import Severity


def _percent(value: Any) -> Any:
    """Convert ``5%`` to 0.05."""
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

SeverityLevel = Annotated[Severity, WithJsonSchema({"enum": [level.value for level in Severity]})]

#: label or property → glob, or any of several globs; a leading ``!`` negates.
Match = dict[str, str | list[str]]

_PER = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(weeks=1)}


class BudgetConfig(ConfigModel):
    """Rate of pages that undisturbed data may cause; the threshold of a page follows from it."""

    pages: float = Field(gt=0, description="pages in each period")
    per: Duration = Field(timedelta(days=1), description="the period")
    team: str | None = Field(None, description="streams that name the same team share one budget")

    @property
    def per_day(self) -> float:
        return self.pages / (self.per / timedelta(days=1))


def _budget(value: Any) -> Any:
    """Convert ``5 per day`` to {pages: 5, per: 1d}."""
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


class UrgencyConfig(ConfigModel):
    """Least severity of each urgency.

    Anomalies below ``notice`` are not sent. With a budget, the budget decides which anomalies page.
    """

    page: SeverityLevel = Field(
        Severity.MAJOR, description="anomalies of this severity or higher page people"
    )
    notice: SeverityLevel = Field(
        Severity.INFO,
        description="anomalies of this severity or higher are sent to endpoints that accept notices",
    )

    @model_validator(mode="after")
    def _order(self) -> UrgencyConfig:
        levels = list(Severity)
        if levels.index(self.page) < levels.index(self.notice):
            raise ValueError(
                f"page ({self.page}) is below notice ({self.notice}); page must be at least notice"
            )
        return self


class GroupingConfig(ConfigModel):
    """Grouping of series into one alert, and the frequency of its messages."""

    by: list[str] | None = Field(
        None,
        description="labels; series with the same values of them share an alert. Default: one alert "
        "for each series",
    )
    wait: Duration = Field(
        timedelta(0),
        description="time from the first anomaly to the first message, in which other anomalies can join",
    )
    interval: Duration = Field(timedelta(0), description="minimum time between two messages of an open alert")
    repeat: Duration | None = Field(
        timedelta(hours=4),
        description="time after which an open alert that is not acknowledged is sent again; null: never",
    )


class FlappingConfig(ConfigModel):
    """Flapping: a series that opens repeatedly is one alert, which ends after ``within`` without anomalies."""

    changes: int = Field(4, ge=2, description="number of anomalies of a series ...")
    within: Duration = Field(timedelta(hours=1), description="... in this time that count as flapping")


class AlertPolicyConfig(ConfigModel):
    """Behaviour of alerts. The keys of a rule replace those of the stream."""

    to: list[str] | None = Field(None, description="names of endpoints; default: all of them")
    group: GroupingConfig | None = Field(None, description="grouping of series into one alert")
    recover_after: Duration | None = Field(
        None, description="time that a series must be normal before its alert is resolved"
    )
    cooldown: Duration | None = Field(
        None,
        description="time after the end of an alert in which short anomalies of the same series are not sent",
    )
    flapping: FlappingConfig | None = Field(None, description="condition for a series to count as flapping")
    min_deviation: Ratio | None = Field(
        None,
        ge=0,
        description="anomalies with a smaller deviation, relative to the expected value, are not sent",
    )
    min_severity: SeverityLevel | None = Field(None, description="anomalies of a lower severity are not sent")
    lasts: Duration | None = Field(None, description="anomalies that last less than this are not sent")


class AlertRuleConfig(AlertPolicyConfig):
    """Rule: the first one that matches an anomaly applies; without one the keys of the stream apply."""

    name: str | None = Field(None, description="name of the rule in reports; default: rule-1, rule-2, ...")
    match: Match = Field(
        default_factory=dict,
        description="label → glob or list of globs (`!` negates); also stream, series, channel, "
        "direction, severity, forecaster, cause (deprecated: guard)",
    )
    drop: bool = Field(False, description="do not send matching anomalies")


class SilenceConfig(ConfigModel):
    """A planned time in which matching alerts are kept but not sent: recurring (cron), or from a calendar."""

    match: Match = Field(default_factory=dict, description="as in a rule; default: everything of this stream")
    cron: str | None = Field(None, description="beginning: minute hour day month weekday")
    for_: Duration | None = Field(None, alias="for", description="length from each beginning (with cron)")
    calendar: Path | None = Field(
        None, description="iCalendar file whose events are the silences (holidays, maintenance)"
    )
    timezone: str = Field(
        "UTC",
        description="time zone of the cron expression and of whole-day or floating events of the calendar",
    )

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        return known_zone(value)

    @model_validator(mode="after")
    def _one(self) -> SilenceConfig:
        if (self.cron is None) == (self.calendar is None):
            raise ValueError("give exactly one of cron and calendar")
        if (self.cron is None) != (self.for_ is None):
            raise ValueError("cron needs for: cron is the beginning of the silence, for its length")
        if self.cron is not None:
            check_cron(self.cron)
        return self


class FaultAlertsConfig(ConfigModel):
    """Alerts about the pipeline itself: an unavailable source, a gap, an endpoint that always fails."""

    to: list[str] | None = Field(None, description="names of endpoints; default: those of the stream")
    hold: bool = Field(
        True, description="while a source has a fault, suppress alerts about data that began after the fault"
    )


class AlertsConfig(AlertPolicyConfig):
    """Alerts of a stream."""

    budget: Annotated[BudgetConfig | None, BeforeValidator(_budget)] = Field(
        None, description="rate of pages, for example `5 per day`", json_schema_extra=_or_text
    )
    severity: UrgencyConfig = Field(
        default_factory=UrgencyConfig, description="least severity of a page and of a notice"
    )
    rules: list[AlertRuleConfig] = Field(
        default_factory=list, description="rules; the first that matches applies"
    )
    silences: dict[str, SilenceConfig] = Field(default_factory=dict, description="name → planned silence")
    max_age: Duration | None = Field(
        timedelta(days=1),
        description="anomalies that ended longer ago than this (a backlog, old data) are recorded and "
        "counted, but not sent; null: no limit",
    )
    storm: int | None = Field(
        50,
        ge=2,
        description="more new alerts than this in a minute become one alert with a list; null: no limit",
    )
    faults: FaultAlertsConfig = Field(
        default_factory=FaultAlertsConfig, description="alerts about the pipeline itself"
    )
    public_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="address of the HTTP server of forewatch for people, used in links and pictures",
    )
    units: dict[str, str] = Field(
        default_factory=dict, description="channel → unit, for messages: {temperature: °C}"
    )

    @field_validator("rules")
    @classmethod
    def _named(cls, rules: list[AlertRuleConfig]) -> list[AlertRuleConfig]:
        """Name every rule, and refuse equal names."""
        named = [r if r.name else r.model_copy(update={"name": f"rule-{i}"}) for i, r in enumerate(rules, 1)]
        names = [r.name for r in named]
        if twice := {n for n in names if names.count(n) > 1} | ({"default", "storm"} & set(names)):
            raise ValueError(
                f"rule names must differ from each other and from default and storm: "
                f"{', '.join(sorted(map(str, twice)))}"
            )
        return named
