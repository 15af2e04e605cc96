"""The configuration: what a user writes in YAML, checked before anything starts.

Every key is documented by its ``description``; ``docs/reference/configuration.md`` and the JSON Schema are generated
from here.
"""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from sqlalchemy import make_url

from pipeline.config.alerts import AlertsConfig
from pipeline.config.endpoints import Endpoint
from pipeline.config.retraining import Cluster, Retraining
from pipeline.config.types import ConfigModel, Duration, Secret, format_duration

__all__ = ["Config", "ConfigModel", "Duration", "Secret", "Stream", "format_duration"]

# ---------------------------------------------------------------------------------------------------------- sources


class KafkaSourceConfig(ConfigModel):
    """Topics of an Apache Kafka cluster, read as one consumer group."""

    brokers: list[str] = Field(min_length=1, description="bootstrap servers, host:port")
    topics: list[str] = Field(
        min_length=1, description="topics to read; partitions that are added later are found"
    )
    group: str | None = Field(None, description="consumer group; left out: forewatch-<stream>")
    start: str = Field(
        "earliest",
        description="where a partition without a position begins: earliest, latest, or an ISO 8601 time",
    )
    on_gap: Literal["fail", "resume-earliest"] = Field(
        "fail", description="what to do when the position is older than retention or the topic was made again"
    )
    client: Literal["kafka-python", "confluent"] = Field(
        "kafka-python", description="confluent needs the extra forewatch[confluent]"
    )
    security: dict[str, Any] = Field(
        default_factory=dict,
        description="SASL and TLS settings, passed to the client as they are (kafka-python's names)",
    )
    password: Secret | None = Field(None, description="SASL password")
    session_timeout: Duration = Field(
        timedelta(seconds=10), description="a member silent for this long is replaced"
    )
    max_poll_interval: Duration = Field(
        timedelta(minutes=5), description="a batch that takes longer loses its partitions"
    )


class FilesSourceConfig(ConfigModel):
    """CSV or Parquet files; each file is one partition, each row one record."""

    paths: list[str] = Field(
        min_length=1, description="paths or glob patterns; the ending says which: .csv, .csv.gz, .parquet"
    )
    follow: bool = Field(False, description="go on watching for new files and appended rows")


class TelemetrySourceConfig(ConfigModel):
    """This machine's own CPU, memory, disk and network counters (psutil)."""

    every: Duration = Field(timedelta(seconds=1), description="time between two readings")


class MemorySourceConfig(ConfigModel):
    """Records that a program puts in (tests, `forewatch demo --no-kafka`)."""

    name: str = Field("memory", description="name of the in-process log")


class SourceConfig(ConfigModel):
    """Where records come from; exactly one of the keys."""

    kafka: KafkaSourceConfig | None = None
    files: FilesSourceConfig | None = None
    telemetry: TelemetrySourceConfig | None = None
    memory: MemorySourceConfig | None = None

    @model_validator(mode="after")
    def _one(self) -> SourceConfig:
        if len(self.model_fields_set) != 1:
            raise ValueError("give exactly one of kafka, files, telemetry, memory")
        return self

    @property
    def chosen(self) -> KafkaSourceConfig | FilesSourceConfig | TelemetrySourceConfig | MemorySourceConfig:
        return next(v for v in (self.kafka, self.files, self.telemetry, self.memory) if v is not None)


# ---------------------------------------------------------------------------------------------------------- formats

Fields = list[str] | dict[str, str]


class RecordFormat(ConfigModel):
    """How one record becomes points: which fields name the series, the time and the values."""

    series: str | list[str] | dict[str, str] = Field(
        description="field, or fields, that name the series; a mapping gives labels other names: {site: meta.site}"
    )
    time: str = Field(description="field of the event time: epoch in s, ms, µs or ns, or ISO 8601")
    time_unit: Literal["auto", "s", "ms", "us", "ns", "iso"] = Field(
        "auto", description="auto tells epochs apart by their size"
    )
    timezone: str = Field("UTC", description="zone of times that name none")
    values: str | Fields = Field(
        description="numeric fields, one channel each; a mapping names channels: {bytes: octets}"
    )
    optional: list[str] = Field(
        default_factory=list,
        description="channels (or fields that the aggregate reads) that a record may lack: a missing value then; a record that lacks any "
        "other field is a dead letter",
    )

    @property
    def label_fields(self) -> dict[str, str]:
        """label name → field"""
        if isinstance(self.series, dict):
            return self.series
        return {f: f for f in ([self.series] if isinstance(self.series, str) else self.series)}

    @property
    def value_fields(self) -> dict[str, str]:
        """channel name → field"""
        if isinstance(self.values, dict):
            return self.values
        return {f: f for f in ([self.values] if isinstance(self.values, str) else self.values)}


class JsonFormat(RecordFormat):
    """JSON objects; a dot descends: ``meta.site``."""

    samples: str | None = Field(
        None,
        description="field that holds an array of samples; fields are looked for there, then in the record",
    )


class CsvFormat(RecordFormat):
    """Comma-separated text, or the columns of a columnar file (Parquet, telemetry)."""

    delimiter: str = Field(",", min_length=1, max_length=1, description="field separator")
    header: list[str] | None = Field(
        None, description="column names of records that carry no header line (Kafka)"
    )


class FormatConfig(ConfigModel):
    """How records are decoded; exactly one of the keys."""

    json_: JsonFormat | None = Field(None, alias="json")
    csv: CsvFormat | None = None

    @model_validator(mode="after")
    def _one(self) -> FormatConfig:
        if len(self.model_fields_set) != 1:
            raise ValueError("give exactly one of json, csv")
        return self

    @property
    def chosen(self) -> JsonFormat | CsvFormat:
        chosen = self.json_ or self.csv
        assert chosen is not None
        return chosen


# ---------------------------------------------------------------------------------------------------------- streams

AggregateName = Literal[
    "sum", "count", "mean", "last", "min", "max", "nunique", "open", "high", "low", "close"
]


class Aggregate(ConfigModel):
    """Irregular or event-like input is aggregated to one point a series and interval."""

    every: Duration = Field(description="length of an interval; intervals are aligned to the epoch")
    values: dict[
        str, AggregateName | Annotated[dict[AggregateName, str], Field(min_length=1, max_length=1)]
    ] = Field(
        min_length=1,
        description="channel → function (of the channel of the same name), or channel → {function: field}; these become the channels",
    )


class Limit(ConfigModel):
    """Static limits of a channel; a value outside is flagged from the first point on."""

    min: float | None = Field(None, description="lowest value that is normal")
    max: float | None = Field(None, description="highest value that is normal")


class Gap(ConfigModel):
    """What happens where points are missing."""

    policy: Literal["gap", "hold", "linear"] = Field(
        "gap",
        description="gap: the model is told; hold: the last value is repeated; linear: filled on a line (known only when the next point is there)",
    )
    restart_after: int | None = Field(
        None, ge=1, description="this many missing points begin the series anew"
    )


class DeadLetterLimit(ConfigModel):
    """When bad records mean that the stream itself is broken: it stops, nothing is skipped."""

    ratio: float = Field(0.5, gt=0, le=1, description="share of bad records among the last `window` records")
    window: int = Field(1000, ge=1, description="records the ratio is taken over")
    run: int = Field(500, ge=1, description="bad records in a row")


class Stream(ConfigModel):
    """One configured input: a source, a message format, a preset and a detector."""

    source: SourceConfig
    format: FormatConfig
    preset: Literal["sensor", "network", "stock"] = Field(
        "sensor", description="what kind of numbers these are"
    )
    detector: str = Field(
        "standard", description="light, standard, strong, or the name of a registered detector"
    )
    every: Duration | None = Field(None, description="cadence of a series; left out: learned from the data")
    lateness: Duration = Field(timedelta(0), description="how long to wait for points that come out of order")
    future: Duration | None = Field(
        timedelta(hours=1),
        description="a point further ahead than this of the log's own clock is quarantined; null: never",
    )
    aggregate: Aggregate | None = None
    counters: list[str] = Field(
        default_factory=list,
        description="channels that only grow (resets apart); they become rates per second",
    )
    calendar: str | None = Field(
        None, description="an exchange_calendars name such as XNYS: no gap where the market is closed"
    )
    gap: Gap = Field(default_factory=Gap)
    limits: dict[str, Limit] = Field(default_factory=dict, description="static limits by channel")
    direction: Literal["both", "up", "down"] = Field("both", description="which deviations count")
    min_deviation: float = Field(
        0.0, ge=0, description="smaller deviations, relative to what was expected, are never flagged"
    )
    alarm_rate: float = Field(1e-4, gt=0, lt=1, description="wanted share of alarms among undisturbed points")
    threshold: str = Field(
        "static",
        description="what a surprise must reach: static, the alarm rate itself; or quantile, spot, dspot, conformal, or the name of a registered one: a level that each series learns from its own surprises",
    )
    min_points: int = Field(1, ge=1, description="points in a row over the threshold before an alarm")
    close_after: int = Field(
        3, ge=1, description="points in a row that end an anomaly: neither flagged nor near the threshold"
    )
    warm_start: Path | None = Field(
        None,
        description="file or folder of historical points (CSV, Parquet): they give a series its initial state, and a training reads those that are older than the recorded history",
    )
    dead_letters: DeadLetterLimit = Field(default_factory=DeadLetterLimit)
    idle_after: Duration = Field(
        timedelta(days=7),
        description="a series silent for this long leaves memory; it comes back with its state",
    )
    alerts: AlertsConfig = Field(
        default_factory=AlertsConfig,
        description="what becomes of the anomalies: rules, groups, silences, budget",
    )
    retraining: Retraining = Field(
        default_factory=Retraining,
        description="when the model is trained again, on what, and who decides about it",
    )

    power: bool = Field(
        True,
        description="find out what would be caught, on shadow copies of live series; takes at most 2 % of a core",
    )

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
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that the detector sees, in order."""
        if self.aggregate is not None:
            return tuple(self.aggregate.values)
        return tuple(self.format.chosen.value_fields)


class Storage(ConfigModel):
    """How much is kept, and for how long."""

    snapshot_every: Duration = Field(
        timedelta(seconds=30), description="time between two snapshots of the series' state"
    )
    history_path: str | None = Field(
        None, description="folder or fsspec URL of the recorded history; left out: <database name>.history"
    )
    history: bool = Field(
        True, description="keep recent points and verdicts (for explain, training and plots)"
    )
    keep_history: Duration = Field(
        timedelta(days=30), description="age after which history segments are deleted"
    )
    keep_history_bytes: int | None = Field(
        None, ge=1, description="total size above which the oldest segments are deleted"
    )
    models_path: str | None = Field(
        None, description="folder or fsspec URL of the trained models; left out: <database name>.models"
    )
    keep_models: int = Field(
        5, ge=1, description="versions of a stream's model that are kept beside those that decided an anomaly"
    )
    keep_anomalies: Duration = Field(
        timedelta(days=365), description="age after which closed anomalies are deleted"
    )
    keep_dead_letters: Duration = Field(
        timedelta(days=30), description="age after which dead letters and late records are deleted"
    )


class Http(ConfigModel):
    """Where /healthz, /readyz and /metrics are served."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(9464, ge=0, le=65535, description="port; 0 picks a free one and logs it")


class EngineConfig(ConfigModel):
    """The loop. The defaults are right for nearly everybody."""

    max_batch: int = Field(20_000, ge=1, description="most records of one batch and one transaction")
    watchdog: Duration = Field(
        timedelta(minutes=2),
        description="the process exits (code 70) when the loop has not turned for this long",
    )


class Config(ConfigModel):
    """The whole file."""

    database: str = Field(
        "sqlite:///forewatch.db",
        description="SQLAlchemy URL: sqlite:///file.db or postgresql+psycopg://user@host/name",
    )
    database_password: Secret | None = Field(None, description="password of the database user")
    storage: Storage = Field(default_factory=Storage)
    http: Http | None = Field(default_factory=Http, description="null: serve nothing")
    engine: EngineConfig = Field(default_factory=EngineConfig)
    cluster: Cluster = Field(default_factory=Cluster)
    streams: dict[str, Stream] = Field(min_length=1, description="name → stream")
    endpoints: dict[str, Endpoint] = Field(
        default_factory=dict, description="name → receiver of alerts; without one there are no alerts"
    )

    @property
    def history_path(self) -> str:
        """Folder or URL of the history segments: as configured, or beside the database file."""
        if self.storage.history_path is not None:
            return self.storage.history_path
        return f"{make_url(self.database).database}.history"

    @property
    def models_path(self) -> str:
        """Folder or URL of the trained models: as configured, or beside the database file."""
        return self.storage.models_path or f"{make_url(self.database).database}.models"


def config_hash(stream: Stream) -> str:
    """Return 12 hex digits that change with anything that decides a stream's verdicts.

    Spelling, order of keys, ``alerts``, ``power`` and ``retraining`` do not count.
    """
    values = stream.model_dump(mode="json", by_alias=True, exclude={"alerts", "power", "retraining"})
    # Stored anomalies carry this hash, so a key keeps the name under which it was first hashed.
    values["history"] = values.pop("warm_start")
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
