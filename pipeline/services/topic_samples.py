"""Samples of the records of a topic, whatever these hold, and what their keys say."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from pipeline.core.errors import InputError
from pipeline.services.guess import Guess, number_of
from pipeline.services.guess_labels import is_label_name
from pipeline.services.guess_numbers import states_of
from pipeline.services.log_samples import rows_of_log, rows_without_time
from pipeline.services.sample_rows import Samples, samples_of_lines, samples_of_records
from pipeline.services.table_samples import MAX_ROWS
from pipeline.sources.base import Records, TableRecords

_WITH_UNIT = re.compile(r"[+-]?[\d.,]*\d\s*[^\d\s.,+-]{1,6}")
#: Share of the records up to which keys may differ and name the series.
MAX_KEYS_SHARE = 0.5
_REGISTRY_ADVICE = (
    "begin with the five bytes of a schema registry and are no JSON: write the config by hand, with `avro: "
    "{registry: …}` or `protobuf: {registry: …}` as the format"
)


def samples_of_topic(found: Sequence[Records | TableRecords], where: str) -> Samples:
    """Return the samples of records of JSON, line protocol, log lines, or bare numbers.

    Raises InputError.
    """
    values = [value for one in found if isinstance(one, Records) for value in one.values if value is not None]
    if not values:
        raise InputError(f"{where} has no records to look at; run init again when it has some")
    if bare := _bare_values(values):
        return Samples("json", [{"$value": text} for text in bare])
    try:
        return samples_of_records(values, where)
    except InputError:
        if values[0][:1] == b"\0":
            raise InputError(f"the records of {where} {_REGISTRY_ADVICE}") from None
    lines = [value.decode(errors="replace").partition("\n")[0] for value in values[:MAX_ROWS]]
    if rows := rows_of_log(lines)[0]:
        return Samples("log_lines", rows)
    try:
        return samples_of_lines(b"\n".join(values) + b"\n", where)
    except (InputError, UnicodeDecodeError):
        if rows := rows_without_time(lines):
            return Samples("log_lines", rows)
        raise InputError(
            f"the records of {where} are neither JSON nor line protocol nor log lines nor numbers "
            f"({values[0][:40]!r}); of CSV, name the columns: format: {{csv: {{header: [...]}}}}"
        ) from None


def _bare_values(values: Sequence[bytes]) -> list[str]:
    """Return records that are numbers or words of a switch, empty for others."""
    try:
        texts = [value.decode().strip().strip('"') for value in values]
    except UnicodeDecodeError:
        return []
    numbers = all(number_of(text) is not None or _WITH_UNIT.fullmatch(text) for text in texts)
    return texts if numbers or states_of(texts) is not None else []


def take_keys(guess: Guess, found: Sequence[Records | TableRecords]) -> None:
    """Let the keys of records name the series, or a header, if no field does."""
    _take_keys(guess, found)
    if not guess.form.get("series"):
        _take_header(guess, found)


def _take_header(guess: Guess, found: Sequence[Records | TableRecords]) -> None:
    """Let a header that all records have, named like an identifier, name the series."""
    records = [one for part in found if isinstance(part, Records) for one in part.headers or ()]
    count = sum(len(part) for part in found)
    for name in dict.fromkeys(name for headers in records for name, _ in headers):
        contents = [content for headers in records for one, content in headers if one == name]
        distinct = len(set(contents))
        if is_label_name(name) and len(contents) == count and distinct <= max(2, MAX_KEYS_SHARE * count):
            guess.form["series"] = [f"$headers.{name}"]
            guess.note("series", f"$headers.{name}", f"a header of the records: {distinct} different ones")
            return


def _take_keys(guess: Guess, found: Sequence[Records | TableRecords]) -> None:
    keys = [key for one in found if isinstance(one, Records) for key in one.keys]
    if guess.form.get("series") or not keys or None in keys:
        return
    distinct = {key for key in keys if key is not None}
    if len(distinct) > max(2, MAX_KEYS_SHARE * len(keys)):
        guess.note("no label", "$key", "the key differs in most records; --set series=$key takes it")
        return
    guess.form["series"] = _fields_of(min(distinct))
    guess.note(
        "series", ", ".join(guess.form["series"]), f"the keys of the records: {len(distinct)} different ones"
    )


def _fields_of(key: bytes) -> list[str]:
    """Return the fields of a key that is an object of JSON, or the key itself."""
    try:
        content = json.loads(key)
    except ValueError:
        return ["$key"]
    if not isinstance(content, dict):
        return ["$key"]
    named = [f"$key.{name}" for name, one in content.items() if isinstance(one, str | int)]
    return named or ["$key"]
