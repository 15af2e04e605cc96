"""Rules between keys of a config: keys that must agree, names that must exist, misplaced secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import detectors
from pipeline.config.diagnostics import closest, other_detector
from pipeline.config.endpoints import KafkaEndpoint
from pipeline.config.forecaster_rules import forecaster_rules
from pipeline.config.format_rules import format_rules
from pipeline.config.inputs import AvroFormat, LogLinesFormat
from pipeline.config.kafka_rules import client_rules, connection_rules
from pipeline.config.problems import Finding, KeyPath
from pipeline.config.push_rules import metric_rules, push_rules
from pipeline.config.retraining import SCHEDULER
from pipeline.config.schema import (
    Config,
    CsvFormat,
    FilesSourceConfig,
    JsonFormat,
    KafkaSourceConfig,
    SqlSourceConfig,
    Stream,
    TelemetrySourceConfig,
)
from pipeline.config.serve_rules import serve_rules
from pipeline.config.sql_rules import sql_rules
from pipeline.config.stream_names import stream_name_rules
from pipeline.config.worker_rules import worker_rules
from pipeline.core.secret_text import hide_user


def broken_rules(config: Config) -> list[Finding]:
    """Return a finding for each rule that ``config`` breaks."""
    found = [
        *_database(config),
        *stream_name_rules(config),
        *_alert_names(config),
        *_cluster(config),
        *serve_rules(config),
        *worker_rules(config),
    ]
    for name, endpoint in config.endpoints.items():
        if isinstance(endpoint, KafkaEndpoint):
            found += connection_rules(endpoint, ("endpoints", name))
    for name, stream in config.streams.items():
        for rule in STREAM_RULES:
            found += rule(stream, ("streams", name))
    return found


def _database(config: Config) -> Iterator[Finding]:
    path = ("database",)
    example = "write sqlite:///file.db or postgresql+psycopg://user@host/name"
    try:
        url = urlsplit(config.database)
    except ValueError:
        yield Finding(path, "this is not a database URL", example)
        return
    if url.scheme not in ("sqlite", "postgresql+psycopg", "postgresql", "postgres"):
        yield Finding(path, f"the kind of database {url.scheme!r} is not supported", example)
    elif url.scheme == "sqlite" and not config.database.startswith("sqlite:///"):
        yield Finding(
            path,
            "a SQLite URL has three slashes, then the path",
            "write sqlite:///file.db, or sqlite:////absolute/file.db",
        )


def _alert_names(config: Config) -> Iterator[Finding]:
    """Check that rules name existing endpoints, and that a team has one budget."""
    teams: dict[str, float] = {}
    for name, stream in config.streams.items():
        at: KeyPath = ("streams", name, "alerts")
        named = [((*at, "to"), stream.alerts.to), ((*at, "faults", "to"), stream.alerts.faults.to)]
        named += [((*at, "rules", number, "to"), rule.to) for number, rule in enumerate(stream.alerts.rules)]
        for path, to in named:
            for number, endpoint in enumerate(to or ()):
                if endpoint not in config.endpoints:
                    yield Finding(
                        (*path, number),
                        f"there is no endpoint {endpoint!r}",
                        closest(endpoint, config.endpoints),
                    )
        budget = stream.alerts.budget
        if (
            budget is not None
            and budget.team is not None
            and teams.setdefault(budget.team, budget.per_day) != budget.per_day
        ):
            yield Finding(
                (*at, "budget"),
                f"team {budget.team} has another budget in another stream",
                "write the same one in both",
            )
        for silence, planned in stream.alerts.silences.items():
            if planned.calendar is not None and not planned.calendar.is_file():
                path = (*at, "silences", silence, "calendar")
                yield Finding(
                    path, f"there is no calendar {planned.calendar}", "give the path of an iCalendar file"
                )


def _cluster(config: Config) -> Iterator[Finding]:
    path, address = ("cluster", "scheduler"), config.cluster.scheduler
    if address is None:
        if config.cluster.tls is not None:
            yield Finding(
                ("cluster", "tls"),
                "certificates without a scheduler",
                "write its address: `scheduler: tls://host:8786`",
            )
        return
    if not SCHEDULER.fullmatch(address):
        yield Finding(
            path,
            f"{hide_user(address)!r} is not the address of a Dask scheduler",
            "write tcp://host:8786 or tls://host:8786",
        )
    elif address.startswith("tls://") != (config.cluster.tls is not None):
        what = (
            "tls:// needs certificates"
            if config.cluster.tls is None
            else "certificates are used with tls:// only"
        )
        yield Finding(path, what, "write `tls: {ca: …, cert: …, key: …}` beside a tls:// address, or neither")
    for name, file in (config.cluster.tls.model_dump() if config.cluster.tls else {}).items():
        if not file.is_file():
            yield Finding(("cluster", "tls", name), f"there is no file {file}", "give the path of a PEM file")


def _kafka(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    source = stream.source.chosen
    if not isinstance(source, KafkaSourceConfig):
        return
    at = (*at, "source", "kafka")
    yield from connection_rules(source, at)
    if source.start not in ("earliest", "latest") and _instant(source.start) is None:
        yield Finding(
            (*at, "start"),
            f"{source.start!r} is not a time",
            "write earliest, latest, or a time such as 2025-01-31T00:00:00Z",
        )
    yield from client_rules(source.client, at)


def _outputs(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    for name, output in stream.outputs.items():
        if output.kafka is None:
            continue
        path = (*at, "outputs", name, "kafka")
        yield from connection_rules(output.kafka, path)
        yield from client_rules(output.kafka.client, path)
        source = stream.source.kafka
        if source is not None and output.kafka.topic in source.topics:
            yield Finding(
                (*path, "topic"),
                f"the stream reads {output.kafka.topic!r} itself",
                "write verdicts to a topic of their own",
            )


def _sql(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    if isinstance(stream.source.chosen, SqlSourceConfig):
        yield from sql_rules(stream.source.chosen, (*at, "source", "sql"))


def _instant(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _avro(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    chosen = stream.format.chosen
    from_files = isinstance(stream.source.chosen, FilesSourceConfig)
    if isinstance(chosen, AvroFormat) and not (chosen.schema_file or chosen.registry or from_files):
        remedy = "give one of schema_file and registry; only container files have their own"
        yield Finding((*at, "format", "avro"), "has no schema", remedy)


def _holds_records(paths: Sequence[str], form: object) -> bool:
    """Return whether files have records, and no columns."""
    endings = (".json", ".ndjson", ".lp", ".log")
    return isinstance(form, LogLinesFormat) or all(
        any(ending in path for ending in endings) or path.endswith(".avro") for path in paths
    )


def _format(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    at = (*at, "format")
    chosen_source = stream.source.chosen
    columnar = isinstance(chosen_source, TelemetrySourceConfig | SqlSourceConfig) or (
        isinstance(chosen_source, FilesSourceConfig)
        and not _holds_records(chosen_source.paths, stream.format.chosen)
    )
    if columnar and isinstance(stream.format.chosen, JsonFormat):
        yield Finding(
            (*at, stream.format.name),
            "files (but .json, .jsonl, .ndjson, .lp, .log, .avro), telemetry and SQL have columns",
            "write `csv:` with the names of the columns",
        )
    if (
        isinstance(stream.source.chosen, KafkaSourceConfig)
        and isinstance(stream.format.chosen, CsvFormat)
        and stream.format.chosen.header is None
    ):
        yield Finding(
            (*at, "csv"),
            "records of Kafka carry no header line",
            "name their columns in order: `header: [time, site, value]`",
        )
    kind = stream.format.name
    try:
        ZoneInfo(stream.format.chosen.timezone)
    except (ValueError, OSError, LookupError):
        path = (*at, kind, "timezone")
        yield Finding(
            path,
            f"there is no time zone {stream.format.chosen.timezone!r}",
            "write a name such as UTC or Europe/Berlin",
        )
    # Records without numbers can be counted.
    counted = stream.aggregate is not None and (kind == "json" or stream.format.chosen.template is not None)
    if not stream.format.chosen.value_fields and not counted:
        yield Finding((*at, kind, "values"), "is empty", "name at least one field")
    yield from format_rules(stream, (*at, kind))
    functions = stream.aggregate.values.values() if stream.aggregate else ()
    known = {
        *stream.format.chosen.value_fields,
        *stream.format.chosen.label_fields,
        *(field for f in functions if isinstance(f, dict) for field in f.values()),
    }
    for number, name in enumerate(stream.format.chosen.optional):
        if name not in known:
            yield Finding(
                (*at, kind, "optional", number),
                f"there is no value or label {name!r}",
                f"name some of {', '.join(sorted(known))}",
            )


def _aggregate(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    if stream.aggregate is None:
        return
    fields = stream.format.chosen.value_fields
    for channel, function in stream.aggregate.values.items():
        if isinstance(function, str) and function != "count" and channel not in fields:
            remedy = (
                f"write {{{function}: FIELD}}, or name one of the values of the format: {', '.join(fields)}"
            )
            yield Finding(
                (*at, "aggregate", "values", channel),
                f"there is no value {channel!r} to take the {function} of",
                remedy,
            )


def _limits(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    for channel, limit in stream.limits.items():
        if limit.min is not None and limit.max is not None and limit.min > limit.max:
            yield Finding(
                (*at, "limits", channel),
                f"min {limit.min:g} is above max {limit.max:g}",
                "swap the two values",
            )


def _calendar(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    if stream.calendar is None:
        return
    import exchange_calendars  # over a second to import, and few streams have a calendar

    names = exchange_calendars.get_calendar_names()
    if stream.calendar not in names:
        near = closest(stream.calendar, names) if len(stream.calendar) > 2 else ""
        remedy = near if near.startswith("did") else "write the market's code, such as XNYS, XLON or 24/7"
        yield Finding((*at, "calendar"), f"there is no calendar {stream.calendar!r}", remedy)


def _detector(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    if stream.detector not in detectors.names():
        yield Finding(
            (*at, "detector"),
            f"there is no detector {stream.detector!r}",
            other_detector(stream.detector, detectors.names()),
        )


def _threshold(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    if stream.threshold == "static":
        return
    # numba takes a while to import, and few streams name another one
    from detectors.thresholds import THRESHOLDS

    if stream.threshold not in THRESHOLDS:
        yield Finding(
            (*at, "threshold"),
            f"there is no threshold {stream.threshold!r}",
            closest(stream.threshold, THRESHOLDS),
        )


def _warm_start(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    if stream.warm_start is not None and not stream.warm_start.exists():
        yield Finding(
            (*at, "warm_start"),
            f"there is nothing at {stream.warm_start}",
            "give the path of a file or folder, or leave the key out",
        )


def _retraining(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    from pipeline.core.cron import check_cron

    at = (*at, "retraining")
    try:
        ZoneInfo(stream.retraining.timezone)
    except (ValueError, OSError, LookupError):
        yield Finding(
            (*at, "timezone"),
            f"there is no time zone {stream.retraining.timezone!r}",
            "write a name such as UTC or Europe/Berlin",
        )
    labels = stream.format.chosen.label_names
    if unknown := [label for label in stream.retraining.models_by if label not in labels]:
        yield Finding(
            (*at, "models_by"), f"series have no label {unknown[0]!r}", f"name some of {', '.join(labels)}"
        )
    if stream.retraining.schedule is not None:
        try:
            check_cron(stream.retraining.schedule)
        except ValueError as error:
            what, _, remedy = str(error).partition("; ")
            yield Finding((*at, "schedule"), what, remedy)


#: Keys of numeric streams that mean nothing for events.
NUMERIC_KEYS = (
    *(
        "preset",
        "detector",
        "forecaster",
        "every",
        "aggregate",
        "counters",
        "calendar",
        "gap",
        "limits",
        "direction",
    ),
    *("min_deviation", "threshold", "decision", "timezone", "holidays", "min_points", "duplicates"),
)


def _events(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    if not stream.of_events:
        if stream.events is not None:
            yield Finding(
                (*at, "events"),
                "the format names no event",
                "write `code: FIELD` or `text: FIELD` in the format in place of `values`",
            )
        return
    for key in NUMERIC_KEYS:
        if key in stream.model_fields_set:
            yield Finding((*at, key), "is for streams of numbers, this one has events", "remove the key")
    model = stream.event_settings.model
    if model is not None and not model.with_suffix(".json").is_file():
        yield Finding(
            (*at, "events", "model"),
            f"there is no model at {model}",
            "give the path that EventModel.save wrote, without its ending",
        )


STREAM_RULES: tuple[Callable[[Stream, KeyPath], Iterator[Finding]], ...] = (
    _kafka,
    _outputs,
    _format,
    _aggregate,
    _limits,
    _calendar,
    _detector,
    forecaster_rules,
    _threshold,
    _warm_start,
    _retraining,
    _events,
    push_rules,
    metric_rules,
    _sql,
    _avro,
)
