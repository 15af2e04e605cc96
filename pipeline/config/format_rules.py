"""Rules of one record format: condition, times, numbers, encoding."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from datetime import datetime

from pipeline.config.inputs import TEMPLATE_LABEL, TEMPLATE_TEXT_LABEL, MetricFormat
from pipeline.config.problems import Finding, KeyPath
from pipeline.config.schema import (
    CsvFormat,
    FilesSourceConfig,
    SqlSourceConfig,
    Stream,
    TelemetrySourceConfig,
)
from pipeline.core.conditions import parse_condition

#: Fields of the envelope that only a log of records has.
_OF_RECORDS = ("$key", "$timestamp", "$headers")
_ENVELOPE = (*_OF_RECORDS, "$topic", "$partition", "$offset", "$source", "$file", "$value", "$name")
_EXAMPLE = datetime(2026, 3, 13, 13, 5, 7)


def format_rules(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    """Yield what is wrong with the format at ``at``."""
    chosen = stream.format.chosen
    if chosen.where is not None:
        try:
            parse_condition(chosen.where)
        except ValueError as error:
            example = "write {name: cpu}, or a text such as \"name == 'cpu' and op in ['c', 'u']\""
            yield Finding((*at, "where"), str(error), example)
    yield from _times(stream, at)
    if chosen.thousands == chosen.decimal:
        yield Finding(
            (*at, "thousands"),
            f"{chosen.thousands!r} is the decimal sign, too",
            "set `decimal` to the other sign",
        )
    for unit in chosen.units:
        if not re.fullmatch(r"[^\d\s.,+-]([^\n]*\S)?", unit):
            yield Finding((*at, "units"), f"{unit!r} is not a unit", "write texts such as °C, kB or %")
    yield from _envelope(stream, at)
    yield from _template(stream, at)
    if isinstance(chosen, CsvFormat):
        try:
            codecs.lookup(chosen.encoding)
            "x".encode(chosen.encoding)
        except (LookupError, UnicodeError):
            yield Finding(
                (*at, "encoding"),
                f"there is no encoding {chosen.encoding!r}",
                "write a name such as utf-8, cp1252, latin-1 or utf-16",
            )


def _times(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    chosen = stream.format.chosen
    if chosen.time_format is None:
        return
    path = (*at, "time_format")
    if chosen.time_unit != "auto":
        yield Finding(path, "is given together with time_unit", "remove one of them")
    try:
        text = _EXAMPLE.strftime(chosen.time_format)
        read = datetime.strptime(text, chosen.time_format)
    except (ValueError, re.error, UnicodeError) as error:
        what = f"{chosen.time_format!r} cannot be used ({error})"
        yield Finding(path, what, "write a format such as '%d.%m.%Y %H:%M:%S'")
        return
    if read.date() != _EXAMPLE.date():
        what = f"{chosen.time_format!r} does not hold a whole date"
        yield Finding(path, what, "write day, month and year, such as '%d.%m.%Y %H:%M:%S'")


def _template(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    chosen = stream.format.chosen
    if chosen.template is None:
        return
    path = (*at, "template")
    if stream.of_events:
        field = "code" if chosen.code else "text"
        yield Finding(path, f"is given together with {field}", "count lines in a stream with `values: []`")
    elif isinstance(chosen, MetricFormat):
        yield Finding(path, "samples of metrics have no log lines", "remove the key")
    elif stream.aggregate is None:
        remedy = "write `aggregate: {every: 1m, values: {lines: count}}`"
        yield Finding(path, "is for lines that an aggregate counts", remedy)
    for label in (TEMPLATE_LABEL, TEMPLATE_TEXT_LABEL):
        if label in chosen.label_fields:
            remedy = "name the label otherwise: `series: {NAME: FIELD}`"
            yield Finding((*at, "series"), f"the label {label} is that of `template`", remedy)


def _envelope(stream: Stream, at: KeyPath) -> Iterator[Finding]:
    chosen, source = stream.format.chosen, stream.source.chosen
    used = [*chosen.label_fields.values(), *chosen.time_fields, *chosen.value_fields.values()]
    used += [chosen.template] if chosen.template else []
    columnar = isinstance(source, FilesSourceConfig | TelemetrySourceConfig | SqlSourceConfig)
    for field in used:
        name = field.split(".", 1)[0]
        key = (
            "time" if field in chosen.time_fields else "values" if field in chosen.value_fields else "series"
        )
        if key == "series" and field == chosen.event_field:
            key = "code" if chosen.code else "text"
        elif key == "series" and field == chosen.template and field not in chosen.label_fields.values():
            key = "template"
        if name == "$headers" and name == field:
            yield Finding((*at, key), "$headers needs a name", "write $headers.NAME")
        elif columnar and name in _OF_RECORDS:
            yield Finding((*at, key), f"a source of files, telemetry or SQL has no {name}", "name a column")
        elif re.fullmatch(r"\$[a-z]+", name) and name not in _ENVELOPE:
            yield Finding((*at, key), f"there is no {name}", f"name some of {', '.join(_ENVELOPE)}")
