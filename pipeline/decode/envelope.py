"""Fields of a record outside its value: ``$key``, ``$timestamp`` and others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from pipeline.decode.json_paths import ABSENT, find, path_of
from pipeline.sources.base import Headers, Records, TableRecords

#: The value itself, where that is a bare number or text.
VALUE = "$value"
NAMES = ("$key", "$timestamp", "$topic", "$partition", "$offset", "$headers", "$source", "$file")
_ENDING = re.compile(
    r"\.(csv|jsonl|ndjson|json|parquet|avro|txt|tsv)(\.(gz|zst|bz2|xz|lz4))?$", re.IGNORECASE
)


def is_envelope(field: str) -> bool:
    """Return whether a field is one of the envelope, not of the value."""
    return field.split(".", 1)[0] in NAMES


def source_name(topic: str) -> str:
    """Return the name of a topic, or of a file without folder and ending."""
    return _ENDING.sub("", re.split(r"[/\\]", topic)[-1])


def envelope_columns(records: Records | TableRecords, fields: Iterable[str]) -> dict[str, list[Any]]:
    """Return each field of the envelope, one content per record, None: none."""
    return {field: _column(records, field) for field in fields}


def _column(records: Records | TableRecords, field: str) -> list[Any]:
    name, _, rest = field.partition(".")
    n = len(records)
    match name:
        case "$topic":
            return [records.partition.topic] * n
        case "$source" | "$file":
            return [source_name(records.partition.topic)] * n
        case "$partition":
            return [records.partition.number] * n
        case "$offset":
            return list(records.offsets.tolist())
        case "$timestamp":
            return [None if stamp < 0 else stamp for stamp in records.timestamps.tolist()]
    if isinstance(records, TableRecords):
        return [None] * n
    if name == "$key":
        return [_content(key, rest) for key in records.keys]
    if records.headers is None:
        return [None] * n
    return [_header(headers, rest) for headers in records.headers]


def _header(headers: Headers, name: str) -> str | None:
    found = [content for key, content in headers if key == name]
    return _text(found[-1]) if found else None


def _content(key: bytes | None, rest: str) -> Any:
    """Return the key as text, or a field of a key that is JSON."""
    if key is None or not rest:
        return _text(key)
    try:
        found = find(
            msgspec.json.decode(key.removeprefix(key[:5]) if key[:1] == b"\0" else key), path_of(rest)
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return None if found is ABSENT else found


def _text(raw: bytes | None) -> str | None:
    """Return bytes as text; those that are none, such as a number, in hexadecimal."""
    if raw is None:
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return raw.hex()
    return raw.hex() if "\0" in text else text
