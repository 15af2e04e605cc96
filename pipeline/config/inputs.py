"""The models of the sources and of the record formats."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.field_types import ConfigModel, Duration, Secret
from pipeline.config.kafka_security import KafkaSecurity, TopicName
from pipeline.config.push import PushSourceConfig
from pipeline.config.record_formats import Precision, SchemaSource
from pipeline.config.sql import SqlSourceConfig

# ---------------------------------------------------------------------------------------------------------- sources


class KafkaSourceConfig(ConfigModel):
    """Topics of an Apache Kafka cluster, read as one consumer group."""

    brokers: list[str] = Field(min_length=1, description="bootstrap servers, host:port")
    topics: list[TopicName] = Field(
        min_length=1, description="topics to read; partitions that are added later are read as well"
    )
    group: str | None = Field(None, description="consumer group (default: forewatch-<stream>)")
    start: str = Field(
        "earliest",
        description="first offset of a partition without a stored position: earliest, latest, or an "
        "ISO 8601 time",
    )
    on_gap: Literal["fail", "resume-earliest"] = Field(
        "fail",
        description="action when the stored position is no longer in the topic or the topic was recreated",
    )
    client: Literal["kafka-python", "confluent"] = Field(
        "kafka-python", description="confluent needs the extra forewatch[confluent]"
    )
    security: KafkaSecurity = Field(
        default_factory=dict,
        description="SASL and TLS settings of the client (names of kafka-python); a secret among them "
        "is {env: NAME} or {file: PATH}",
    )
    password: Secret | None = Field(
        None, description="SASL password; needs a security_protocol in `security`"
    )
    session_timeout: Duration = Field(
        timedelta(seconds=10),
        description="time without a heartbeat after which a consumer loses its partitions",
    )
    max_poll_interval: Duration = Field(
        timedelta(minutes=5), description="time between two polls after which a consumer loses its partitions"
    )


class FilesSourceConfig(ConfigModel):
    """CSV, JSON lines, Avro or Parquet files; each file is one partition, each row one record."""

    paths: list[str] = Field(
        min_length=1,
        description="paths or glob patterns of .csv, .tsv, .txt, .parquet, .avro, .json, .jsonl, .ndjson, "
        ".lp or .log files; text may be compressed: .csv.gz, .zst, .bz2, .xz, .lz4",
    )
    follow: bool = Field(False, description="keep reading new files and appended rows")


class TelemetrySourceConfig(ConfigModel):
    """CPU, memory, disk and network counters of this machine (psutil)."""

    every: Duration = Field(timedelta(seconds=1), description="time between two readings")


class MemorySourceConfig(ConfigModel):
    """Records from an in-process log (tests, `forewatch demo --no-kafka`)."""

    name: str = Field("memory", description="name of the in-process log")


AnySourceConfig = (
    KafkaSourceConfig
    | FilesSourceConfig
    | TelemetrySourceConfig
    | MemorySourceConfig
    | PushSourceConfig
    | SqlSourceConfig
)


class SourceConfig(ConfigModel):
    """Source of the records; exactly one of the keys."""

    kafka: KafkaSourceConfig | None = None
    files: FilesSourceConfig | None = None
    telemetry: TelemetrySourceConfig | None = None
    memory: MemorySourceConfig | None = None
    push: PushSourceConfig | None = None
    sql: SqlSourceConfig | None = None

    @model_validator(mode="after")
    def _one(self) -> SourceConfig:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"give exactly one of {', '.join(SourceConfig.model_fields)}")
        return self

    @property
    def chosen(self) -> AnySourceConfig:
        """The one that is given."""
        return next(v for v in (getattr(self, name) for name in SourceConfig.model_fields) if v is not None)


# ---------------------------------------------------------------------------------------------------------- formats

#: Channel of a stream of events.
EVENT_CHANNEL = "event"
#: Label of a series of counted log lines: the code of their template.
TEMPLATE_LABEL = "template"
#: Label of an anomaly of such a series: its template.
TEMPLATE_TEXT_LABEL = "template_text"

Fields = list[str] | dict[str, str]
TimeUnit = Literal[
    "auto",
    "s",
    "ms",
    "us",
    "ns",
    "iso",
    "spreadsheet",
    "ticks",
    "filetime",
    "julian",
    "mjd",
    "matlab",
    "gps",
    "since_1904",
    "since_2000",
    "since_2001",
]


class RecordFormat(ConfigModel):
    """Fields of a record that hold the series, the time and the values."""

    series: str | list[str] | dict[str, str] = Field(
        default_factory=list,
        description="field or fields that identify the series; a mapping sets the names of the labels: "
        "{site: meta.site}. Without it each topic or file is one series",
    )
    time: str | Annotated[list[str], Field(min_length=1)] = Field(
        description="field of the event time: an epoch, ISO 8601 or another common spelling; a list of "
        "fields is joined by a space: [Date, Time]"
    )
    time_unit: TimeUnit = Field(
        "auto",
        description="unit of numeric times; auto derives it from the size of the number; spreadsheet: days "
        "since 1899-12-30; ticks: of .NET; filetime: of Windows; julian, mjd (modified Julian), matlab: "
        "days; gps: seconds of GPS; since_1904, since_2000, since_2001: seconds from the beginning of that "
        "year",
    )
    time_format: str | None = Field(
        None, description="format of times written as text, as in Python's strptime: '%d.%m.%Y %H:%M:%S'"
    )
    timezone: str = Field("UTC", description="time zone of times without a zone")
    values: str | Fields | None = Field(
        None,
        description="numeric fields, one channel each; a mapping sets the names of the channels: "
        "{bytes: octets}",
    )
    code: str | None = Field(
        None, description="instead of values: field of the code of an event; the stream is one of events"
    )
    text: str | None = Field(
        None,
        description="instead of values: field of a log line; its template is the code of the event",
    )
    template: str | None = Field(
        None,
        description="beside values: field of a log line, whose template is a further label of the series, so "
        "that `aggregate` counts the lines of each template",
    )
    optional: list[str] = Field(
        default_factory=list,
        description="channels (or fields of the aggregate) that may be absent from a record and are "
        "then missing values; labels that may be absent and are then empty; "
        "a record without any other field becomes a dead letter",
    )
    where: str | list[str] | dict[str, Any] | None = Field(
        None,
        description="condition of the records that belong to the stream; the others are filtered: "
        "{name: cpu}, or a text such as \"name == 'cpu' and not exists(error)\"",
    )
    decimal: Literal[".", ","] = Field(".", description="decimal sign of numbers written as text")
    thousands: Literal[",", ".", " ", "'", "_"] | None = Field(
        None, description="separator of thousands in numbers written as text"
    )
    missing: list[float | str] = Field(
        default_factory=list, description="values that mean that there is none: [-9999, Bad, No Data]"
    )
    units: list[str] | dict[str, float] = Field(
        default_factory=list,
        description="units that may follow a number written as text; a mapping gives the factor of each: "
        "{ms: 0.001, s: 1}",
    )
    states: dict[str, float] = Field(
        default_factory=dict,
        description="words that stand for numbers: {closed: 0, open: 1}; true and false are 1 and 0 anyway",
    )

    @model_validator(mode="after")
    def _one_content(self) -> RecordFormat:
        given = [name for name in ("values", "code", "text") if getattr(self, name) is not None]
        if len(given) != 1:
            named = " and ".join(given) if given else "none of them"
            raise ValueError(
                f"give exactly one of values (numbers), code (events) and text (log lines); given: {named}"
            )
        return self

    @property
    def event_field(self) -> str | None:
        """Field of the code or of the log line of an event, None for a format of numbers."""
        return self.code or self.text

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels of a series, with that of the template of a log line."""
        return (*self.label_fields, *((TEMPLATE_LABEL,) if self.template else ()))

    @property
    def anomaly_labels(self) -> tuple[str, ...]:
        """Names of the labels of an anomaly: those of its series, and the text of a template."""
        return (*self.label_names, *((TEMPLATE_TEXT_LABEL,) if self.template else ()))

    @property
    def label_fields(self) -> dict[str, str]:
        """label name → field"""
        if isinstance(self.series, dict) and self.series:
            return self.series
        fields = [self.series] if isinstance(self.series, str) else list(self.series)
        return {field: field for field in fields} or {"source": "$source"}

    @property
    def time_fields(self) -> list[str]:
        """Return the fields that make up the event time."""
        return [self.time] if isinstance(self.time, str) else self.time

    @property
    def plain_numbers(self) -> bool:
        """Return whether numbers need no setting to be read."""
        return self.decimal == "." and not (self.thousands or self.missing or self.units or self.states)

    @property
    def value_fields(self) -> dict[str, str]:
        """channel name → field"""
        if self.event_field is not None:
            return {EVENT_CHANNEL: self.event_field}
        if isinstance(self.values, dict):
            return self.values
        return {f: f for f in ([self.values] if isinstance(self.values, str) else self.values or ())}


class JsonFormat(RecordFormat):
    """JSON; a dot selects a nested field or a position in an array: ``meta.site``, ``data.0``."""

    samples: str | None = Field(
        None,
        description="field with an array of samples, ``.`` for the record itself; ``*`` is every member of "
        "an object, and ``$name`` its name; other fields are read from the sample, then from the record",
    )


class CsvFormat(RecordFormat):
    """Comma-separated text, or the columns of a columnar file (Parquet, telemetry)."""

    delimiter: str = Field(",", min_length=1, max_length=1, description="field separator")
    header: list[str] | None = Field(
        None, description="column names of records without a header line (Kafka)"
    )
    comment: str | None = Field(
        None, min_length=1, max_length=8, description="text that begins a line of comment in a file: '#'"
    )
    skip: int = Field(0, ge=0, description="lines of a file that are passed over before its header")
    skip_after_header: int = Field(
        0, ge=0, description="lines of a file that are passed over after its header, such as one of units"
    )
    encoding: str = Field("utf-8", description="encoding of files: cp1252, latin-1, utf-16, …")


class AvroFormat(SchemaSource, JsonFormat):
    """Avro records; fields are named as in JSON. Container files have their own schema."""

    @model_validator(mode="after")
    def _one_schema(self) -> AvroFormat:
        if self.schema_file is not None and self.registry is not None:
            raise ValueError("give exactly one of schema_file and registry, neither for container files")
        return self


class ProtobufFormat(SchemaSource, JsonFormat):
    """Protobuf messages; fields are named as in JSON, by the names of the .proto file."""

    message: str | None = Field(
        None, description="full name of the message in schema_file, such as plant.Reading"
    )

    @model_validator(mode="after")
    def _named(self) -> ProtobufFormat:
        if (self.message is None) != (self.schema_file is None):
            raise ValueError("give message with schema_file, and only with it")
        return self


class LineProtocolFormat(JsonFormat):
    """Line protocol: ``measurement``, ``tags.NAME``, ``fields.NAME``, ``time``."""

    time: str = Field("time", description="time of the line, or of the record for a line without one")
    precision: Precision = Field("ns", description="unit of the times of lines")


class SenmlFormat(JsonFormat):
    """SenML (RFC 8428); base fields are added to those of the samples."""

    series: str | list[str] | dict[str, str] = Field("n", description="the name of the sample identifies it")
    time: str = Field("t", description="time of the sample; a relative one counts from that of the record")
    values: str | Fields | None = Field("v", description="value of the sample; a boolean one is 0 or 1")


class LogLinesFormat(JsonFormat):
    """Log lines as text: ``time`` is the time in a line, ``message`` the rest of it."""

    time: str = Field("time", description="the time in the line; $timestamp is that of the record")
    text: str | None = Field(None, description="field of the log line; `message` without values and code")
    year: int | None = Field(None, ge=1970, le=2199, description="year of times without one, in files")

    @model_validator(mode="before")
    @classmethod
    def _message(cls, given: Any) -> Any:
        if not isinstance(given, dict) or {"values", "code", "text"} & given.keys():
            return given
        return given | {"text": "message"}


class MetricFormat(RecordFormat):
    """Samples of metrics; labels are fields.

    Further fields are `value`, `timestamp` and `series`, the name with all labels.
    """

    series: str | list[str] | dict[str, str] = Field(
        "series",
        description="label or labels that identify the series, such as [__name__, instance]; `series` is the "
        "name with all labels. A mapping sets the names: {host: instance}",
    )
    time: str = Field("timestamp", description="time of the sample")
    values: str | Fields | None = Field(
        "value", description="value of the sample; a mapping sets the name of the channel: {load: value}"
    )


class RemoteWriteFormat(MetricFormat):
    """Samples of Prometheus remote write 1 and 2; labels are fields."""


class OtlpFormat(MetricFormat):
    """Metrics of OpenTelemetry (OTLP over HTTP); attributes are fields."""


class FormatConfig(ConfigModel):
    """Format of the records; exactly one of the keys."""

    json_: JsonFormat | None = Field(None, alias="json")
    csv: CsvFormat | None = None
    avro: AvroFormat | None = None
    protobuf: ProtobufFormat | None = None
    line_protocol: LineProtocolFormat | None = None
    senml: SenmlFormat | None = None
    log_lines: LogLinesFormat | None = None
    remote_write: RemoteWriteFormat | None = None
    otlp: OtlpFormat | None = None

    @model_validator(mode="after")
    def _one(self) -> FormatConfig:
        if len(self.model_fields_set) != 1:
            names = [field.alias or name for name, field in FormatConfig.model_fields.items()]
            raise ValueError(f"give exactly one of {', '.join(names)}")
        return self

    @property
    def name(self) -> str:
        """Key of the format in the config."""
        return next(iter(self.model_fields_set)).removesuffix("_")

    @property
    def chosen(self) -> JsonFormat | CsvFormat | MetricFormat:
        """Settings of the format; translated records are then JSON."""
        return next(v for v in (getattr(self, name) for name in FormatConfig.model_fields) if v is not None)
