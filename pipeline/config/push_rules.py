"""Rules of push sources and of formats of metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.config.inputs import (
    CsvFormat,
    FilesSourceConfig,
    MetricFormat,
    SourceConfig,
    TelemetrySourceConfig,
)
from pipeline.config.problems import Finding, KeyPath
from pipeline.config.push import PushSourceConfig
from pipeline.config.schema import SqlSourceConfig, Stream
from pipeline.config.serve_rules import is_local_name
from pipeline.core.conditions import parse_condition

_VALUE, _TIME = "value", "timestamp"
#: What a name of a stream may hold to be a part of an address.
_PATH_NAME = re.compile(r"[\w.~-]+", re.ASCII)


def push_rules(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    """Yield what is wrong with a push source at ``at``, the path of its stream."""
    source = stream.source.chosen
    if not isinstance(source, PushSourceConfig):
        return
    path: KeyPath = (*at, "source", "push")
    if source.key is None and not is_local_name(source.host):
        yield Finding(
            (*path, "host"),
            f"{source.host} is not of this machine only, and there is no key",
            "write `key: {env: NAME}` or `key: {file: PATH}`, or listen on 127.0.0.1",
        )
    if not _PATH_NAME.fullmatch(str(at[-1])):
        yield Finding(
            path,
            f"the name of the stream, {at[-1]!r}, is a part of the address that senders use",
            "name it with letters, digits, `-`, `_` and `.`",
        )
    if source.max_content_bytes < source.max_body_bytes:
        yield Finding(
            (*path, "max_content_bytes"), "is less than max_body_bytes", "write at least as many bytes"
        )
    if 2 * source.max_body_bytes > source.spool_bytes:
        yield Finding(
            (*path, "spool_bytes"),
            "has no room for two bodies of max_body_bytes",
            "write a larger spool_bytes or a smaller max_body_bytes",
        )
    form = stream.format.chosen
    if isinstance(form, CsvFormat) and form.header is None:
        yield Finding(
            (*at, "format", "csv"),
            "records that are pushed carry no header line",
            "name their columns in order: `header: [time, site, value]`",
        )


def metric_rules(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    """Yield what is wrong with a format of metrics at ``at``, the path of its stream."""
    form = stream.format.chosen
    if not isinstance(form, MetricFormat):
        return
    path: KeyPath = (*at, "format", stream.format.name)
    if isinstance(stream.source.chosen, FilesSourceConfig | TelemetrySourceConfig | SqlSourceConfig):
        sources = [name for name in SourceConfig.model_fields if name not in ("files", "telemetry", "sql")]
        yield Finding(
            path, "files, telemetry and SQL hold no such records", f"read from {', '.join(sources)}"
        )
    if form.time != _TIME:
        yield Finding((*path, "time"), f"samples have their time in {_TIME}", "remove the key")
    if form.event_field is not None or set(form.value_fields.values()) != {_VALUE}:
        yield Finding(
            (*path, "values"),
            f"samples have one number, called {_VALUE}",
            "remove the key, or name its channel: `values: {load: value}`",
        )
    for label, field in form.label_fields.items():
        if field.startswith("$") or field in (_VALUE, _TIME):
            yield Finding(
                (*path, "series"),
                f"{field!r} of {label} is no label",
                "name labels such as __name__ and instance, or `series` for all of them",
            )
    yield from _label_conditions(form, path)
    for channel, function in (stream.aggregate.values if stream.aggregate else {}).items():
        if isinstance(function, dict):
            ((kind, field),) = function.items()
            if kind not in ("count", "nunique") and field != _VALUE:
                yield Finding(
                    (*at, "aggregate", "values", channel),
                    f"{field!r} is a label, not a number",
                    f"write {{{kind}: {_VALUE}}}",
                )


def _label_conditions(form: MetricFormat, path: KeyPath) -> Iterator[Finding]:
    if form.where is None:
        return
    try:
        fields = parse_condition(form.where).fields
    except ValueError:
        return  # reported by the rules of formats
    for field in fields:
        if field.startswith("$") or field in (_VALUE, _TIME):
            yield Finding(
                (*path, "where"),
                f"{field!r} is no label: whole series belong to the stream or do not",
                "name labels, or set `limits`",
            )
