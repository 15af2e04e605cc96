"""The models of the configuration file.

Every key is documented by its ``description``; ``docs/reference/configuration.md`` and the JSON Schema are generated
from here.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator
from sqlalchemy import make_url

from detectors.local_time import holiday_days
from pipeline.config.aggregate import Aggregate
from pipeline.config.alerts import AlertsConfig
from pipeline.config.endpoints import Endpoint
from pipeline.config.event_settings import SESSION_RATE_RATIO, EventsConfig
from pipeline.config.field_types import ConfigModel, Duration, IntervalShare, Secret, format_duration
from pipeline.config.forecaster import ForecasterConfig
from pipeline.config.inputs import (
    CsvFormat,
    FilesSourceConfig,
    FormatConfig,
    JsonFormat,
    KafkaSourceConfig,
    MemorySourceConfig,
    RecordFormat,
    SourceConfig,
    TelemetrySourceConfig,
)
from pipeline.config.operation import EngineConfig, Storage, Workers
from pipeline.config.outputs import OutputConfig
from pipeline.config.push import PushSourceConfig
from pipeline.config.retraining import Cluster, Retraining
from pipeline.config.serve import Http, ServeConfig
from pipeline.config.sql import SqlSourceConfig
from pipeline.core.iso_times import known_zone

__all__ = [
    "Config",
    "ConfigModel",
    "CsvFormat",
    "Duration",
    "FilesSourceConfig",
    "FormatConfig",
    "JsonFormat",
    "KafkaSourceConfig",
    "MemorySourceConfig",
    "PushSourceConfig",
    "RecordFormat",
    "Secret",
    "SourceConfig",
    "SqlSourceConfig",
    "Stream",
    "TelemetrySourceConfig",
    "format_duration",
]

# ---------------------------------------------------------------------------------------------------------- streams


class Limit(ConfigModel):
    """Static limits of a channel; a value outside is flagged, starting with the first point."""

    min: float | None = Field(None, description="lowest normal value")
    max: float | None = Field(None, description="highest normal value")


class Gap(ConfigModel):
    """Treatment of missing points."""

    policy: Literal["gap", "hold", "linear"] = Field(
        "gap",
        description="gap: the detector handles the missing points; hold: repeat the last value; "
        "linear: interpolate (as soon as the next point is known)",
    )
    restart_after: int | None = Field(
        None,
        ge=1,
        description="number of consecutive missing points after which the state of the series is reset",
    )


class DeadLetterLimit(ConfigModel):
    """Share of undecodable records above which a stream stops; no record is skipped."""

    ratio: float = Field(
        0.5, gt=0, le=1, description="share of undecodable records among the last `window` records"
    )
    window: int = Field(1000, ge=1, description="number of records over which the ratio is computed")
    run: int = Field(500, ge=1, description="number of consecutive undecodable records")


#: Intervals of a stream that trainings read at least. Of daily bars these are 480 trading days.
TRAINING_INTERVALS = 700

#: Sensitivity → alarm rate.
ALARM_RATES = {"low": 1e-5, "normal": 1e-4, "high": 1e-3}


class Stream(ConfigModel):
    """An input stream: source, record format, preset and detector."""

    source: SourceConfig
    format: FormatConfig
    team: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="team that owns the stream; API keys and logins can be limited to teams",
    )
    events: EventsConfig | None = Field(
        None, description="for a format with `code` or `text`: sessions and model of the events"
    )
    preset: Literal["sensor", "network", "stock"] = Field("sensor", description="kind of time series")
    detector: str = Field(
        "standard", description="light, standard, strong, or the name of a registered detector"
    )
    forecaster: ForecasterConfig | None = Field(
        None,
        description="network of the stream that its training jobs train; the packaged LSTM decides until a "
        "version of it is promoted (default: they fine-tune that LSTM)",
    )
    every: Duration | None = Field(
        None, description="interval between points of a series (default: learned from the data)"
    )
    lateness: Duration = Field(timedelta(0), description="time to wait for points that arrive out of order")
    future: Duration | None = Field(
        timedelta(hours=1),
        description="a point that is this far ahead of the clock of the log becomes a dead letter; "
        "null disables the check",
    )
    aggregate: Aggregate | None = None
    counters: list[str] = Field(
        default_factory=list,
        description="monotonic counters (resets are allowed); they are converted to rates per second",
    )
    calendar: str | None = Field(
        None, description="trading calendar of exchange_calendars, such as XNYS; closed hours are not a gap"
    )
    gap: Gap = Field(default_factory=Gap)
    limits: dict[str, Limit] = Field(default_factory=dict, description="channel → static limits")
    direction: Literal["both", "up", "down"] = Field(
        "both", description="direction of the deviations that are flagged"
    )
    min_deviation: float = Field(
        0.0, ge=0, description="smallest deviation, relative to the expected value, that can be flagged"
    )
    alarm_rate: float = Field(
        ALARM_RATES["normal"],
        gt=0,
        lt=1,
        description="target share of alarms among normal points (minutes, where points come faster)",
    )
    sensitivity: Literal["low", "normal", "high"] | None = Field(
        None,
        description="instead of alarm_rate: low (0.00001), normal (0.0001) or high (0.001)",
    )
    threshold: str = Field(
        "static",
        description="threshold of the surprisal: static (given by the alarm rate), or learned by each "
        "series: quantile, spot, dspot, conformal, or the name of a registered threshold",
    )
    decision: Literal["surprise", "usual_range"] = Field(
        "usual_range",
        description="rule of an alarm: usual_range (a quantity of a channel, such as its value, level or "
        "step, leaves the range that is usual for it at this time of day), or surprise (the surprisal "
        "reaches the threshold; the rule of version 0.1.0)",
    )
    timezone: str | None = Field(
        None,
        description="time zone of daily and weekly rhythms, for decision usual_range, of calendar inputs of "
        "a forecaster, and of the times in alerts, beside UTC (default: that of the calendar, else UTC)",
    )
    holidays: str | None = Field(
        None,
        description="country whose public holidays are like weekends, such as US or DE-BY (with a part of "
        "the country), for decision usual_range and for calendar inputs of a forecaster",
    )
    interval: IntervalShare = 0.99
    min_points: int = Field(1, ge=1, description="consecutive points over the threshold before an alarm")
    close_after: int = Field(
        3,
        ge=1,
        description="consecutive points, neither flagged nor close to the threshold, that close an anomaly",
    )
    warm_start: Path | None = Field(
        None,
        description="file or folder of historical points (CSV, Parquet); they give each series its "
        "initial state, and training uses those that are older than the recorded history",
    )
    dead_letters: DeadLetterLimit = Field(default_factory=DeadLetterLimit)
    idle_after: Duration = Field(
        timedelta(days=7),
        description="time without points after which the state of a series is moved from memory to the "
        "database",
    )
    max_series: int = Field(
        100_000,
        ge=1,
        description="largest number of series in the memory of a process, and of silent ones in the database; "
        "records of further series are counted as filtered, and a fault names some of them",
    )
    duplicates: Literal["first", "last"] = Field(
        "first",
        description="value that counts if a point of the same series and time comes again after "
        "it was scored; last: the correction revises the verdicts of the series",
    )
    revise: Duration = Field(
        timedelta(days=1),
        description="age, relative to the newest point of its series, up to which a late point revises the "
        "verdicts of its series; 0s: late points are stored only",
    )
    alerts: AlertsConfig = Field(
        default_factory=AlertsConfig,
        description="alerting: rules, groups, silences and budget",
    )
    retraining: Retraining = Field(
        default_factory=Retraining,
        description="retraining of the model: schedule, data and promotion",
    )
    outputs: dict[str, OutputConfig] = Field(
        default_factory=dict, description="name → output: where verdicts are written beside the database"
    )
    power: bool = Field(
        True,
        description="measure the detection power on copies of live series; uses at most 2 % of a core",
    )

    @field_validator("timezone")
    @classmethod
    def _zone_exists(cls, value: str | None) -> str | None:
        return known_zone(value) if value else value

    @field_validator("holidays")
    @classmethod
    def _country_exists(cls, value: str | None) -> str | None:
        try:
            holiday_days(value or "")
        except ValueError as error:
            raise ValueError(
                f"there are no holidays of {value!r} ({error}): write a country of ISO 3166 such as US, or a "
                "part of one such as DE-BY"
            ) from None
        return value

    @model_validator(mode="after")
    def _one_alarm_rate(self) -> Stream:
        if self.sensitivity is not None and "alarm_rate" in self.model_fields_set:
            raise ValueError("sensitivity: is given together with alarm_rate; remove one of them")
        return self

    @model_validator(mode="after")
    def _channels(self) -> Stream:
        known = set(self.channels)
        for key, names in (("counters", self.counters), ("limits", self.limits)):
            if unknown := set(names) - known:
                raise ValueError(
                    f"{key}: no channel {', '.join(sorted(unknown))}; there are {', '.join(self.channels)}"
                )
        return self

    @property
    def of_events(self) -> bool:
        """Return whether the records are events, not numbers."""
        return self.format.chosen.event_field is not None

    @property
    def event_settings(self) -> EventsConfig:
        """Settings of the events, the defaults if the key is left out."""
        return self.events or EventsConfig()

    @property
    def target_alarm_rate(self) -> float:
        """Share of alarms among normal points, by ``alarm_rate`` or ``sensitivity``.

        Of events with sessions it is the share of normal sessions.
        """
        if self.sensitivity is None and "alarm_rate" in self.model_fields_set:
            return self.alarm_rate
        ratio = SESSION_RATE_RATIO if self.of_events and self.event_settings.sessions else 1.0
        return ratio * ALARM_RATES[self.sensitivity or "normal"]

    @property
    def local_timezone(self) -> str:
        """Time zone of the rhythms and of the times in messages, "" for UTC."""
        if self.timezone is not None:
            return self.timezone
        if self.calendar is None:
            return ""
        from pipeline.core.trading_calendar import zone_of_calendar  # compiled code, which few streams need

        return zone_of_calendar(self.calendar)

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that the detector sees, in order."""
        if self.aggregate is not None:
            return tuple(self.aggregate.values)
        return tuple(self.format.chosen.value_fields)

    @property
    def training_history(self) -> timedelta:
        """Time span of the training data: as configured, or long enough for the cadence."""
        span, every = self.retraining.history, self.aggregate.every if self.aggregate else self.every
        if every is None or "history" in self.retraining.model_fields_set:
            return span
        return max(span, TRAINING_INTERVALS * every)


class Config(ConfigModel):
    """The configuration file."""

    database: str = Field(
        "sqlite:///forewatch.db",
        description="SQLAlchemy URL: sqlite:///file.db or postgresql+psycopg://user@host/name",
    )
    database_password: Secret | None = Field(None, description="password of the database user")
    storage: Storage = Field(default_factory=Storage)
    http: Http | None = Field(default_factory=Http, description="null disables the HTTP server")
    serve: bool | ServeConfig = Field(
        False, description="serve the REST API and the dashboard in the daemon; true takes the defaults"
    )
    workers: Workers = Field(1, description="processes that score: a number, or auto for one a core")
    engine: EngineConfig = Field(default_factory=EngineConfig)
    cluster: Cluster = Field(default_factory=Cluster)
    streams: dict[str, Stream] = Field(min_length=1, description="name → stream")
    endpoints: dict[str, Endpoint] = Field(
        default_factory=dict, description="name → receiver of alerts; without an endpoint there are no alerts"
    )
    _file: Path | None = PrivateAttr(None)

    def model_post_init(self, context: Any) -> None:
        """Keep the path that the loader validates with."""
        self._file = context.get("file") if isinstance(context, dict) else None

    def __eq__(self, other: object) -> bool:
        """Compare the keys, not the files that they were read from."""
        return isinstance(other, Config) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    @property
    def file(self) -> Path | None:
        """Absolute path of the file; None for a config that was not read from one."""
        return self._file

    @property
    def served(self) -> ServeConfig | None:
        """Settings of the server of API and dashboard; None if there are none."""
        return ServeConfig() if self.serve is True else self.serve or None

    @property
    def retention(self) -> Storage:
        """Settings of retention, with the age of history that trainings need."""
        if "keep_history" in self.storage.model_fields_set:
            return self.storage
        spans = [stream.training_history for stream in self.streams.values()]
        return self.storage.model_copy(update={"keep_history": max(self.storage.keep_history, *spans)})

    @property
    def history_path(self) -> str:
        """Folder or URL of the recorded history: as configured, or beside the database file."""
        if self.storage.history_path is not None:
            return self.storage.history_path
        return f"{make_url(self.database).database}.history"

    @property
    def models_path(self) -> str:
        """Folder or URL of the trained models: as configured, or beside the database file."""
        return self.storage.models_path or f"{make_url(self.database).database}.models"

    def spool_folder(self, stream: str) -> Path:
        """Folder of what a stream received and has not scored: beside the database file."""
        return Path(f"{make_url(self.database).database}.spool") / stream
