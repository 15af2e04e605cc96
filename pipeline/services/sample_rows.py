"""Samples for the import wizard: rows or records as flat fields."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from pathlib import Path
from time import time_ns
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.inputs import LineProtocolFormat
from pipeline.core.errors import InputError
from pipeline.decode.json_texts import ANY_MEMBER
from pipeline.decode.line_protocol import SAMPLES, line_translator
from pipeline.decode.senml import BASE_FIELDS, SAMPLE_FIELDS, resolve_pack
from pipeline.decode.unwrapping import unwrap
from pipeline.services.log_samples import NO_LOG, decoded_text, rows_of_log
from pipeline.services.sample_paths import (
    Row,
    columns_of,
    is_row,
    items_of,
    rows_of,
    sample_path,
    whole_rows_of,
)
from pipeline.services.table_samples import MAX_ROWS, spread, table_of
from pipeline.sources.files.avro_reader import AvroFile
from pipeline.sources.files.compression import COMPRESSED, UNPACKING_ERRORS, binary_kind, first_bytes
from pipeline.sources.files.json_document import JsonDocument, has_lines
from pipeline.sources.files.parquet_reader import flat_table
from pipeline.sources.files.readers import (
    ENDINGS,
    JSON_ENDINGS,
    LINE_ENDINGS,
    LOG_ENDINGS,
    TEXT_ENDINGS,
)

MAX_BYTES = 1 << 20
#: Places after the first bytes of a large file that are looked at, too.
PLACES, PLACE_BYTES = 4, 1 << 16
#: Larger row groups of Parquet are looked at where they begin.
MAX_GROUP_ROWS = 300_000


@dataclass(slots=True)
class Samples:
    """Rows with flat fields (``meta.id``), and the keys that read them.

    ``kind`` is json, line_protocol, senml, log_lines or csv; ``why`` maps a key to the reason. ``around``
    has the fields outside the array of samples.
    """

    kind: str
    rows: list[Row]
    keys: dict[str, Any] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    around: frozenset[str] = frozenset()


def samples_of_file(path: Path, encoding: str | None = None) -> Samples:
    """Read the beginning of a file. Raises InputError.

    ``encoding`` is None if it is not known.
    """
    try:
        if path.suffix == ".parquet":
            return Samples("csv", rows_of_table(flat_table(_rows_of_parquet(pq.ParquetFile(path)))))
        if path.suffix == ".avro":
            part = AvroFile(path).read()
            values = [] if part is None else part.table.column(0).to_pylist()
            return samples_of_records(values, str(path))
        raw = _beginning(path)
    except (*UNPACKING_ERRORS, ValueError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if kind := binary_kind(raw):
        raise InputError(f"{path} is no table of text: {kind}")
    text, encoding = decoded_text(raw, encoding, path)
    _check_ending(path)
    if path.name.endswith(JSON_ENDINGS) and not has_lines(text.encode()):
        return samples_of_records([_whole(path)], str(path))
    if ".lp" in path.suffixes:
        return samples_of_lines(raw, str(path))
    if path.name.endswith(LINE_ENDINGS + JSON_ENDINGS) or _is_log_of_json(path, text):
        lines = spread([line.encode() for line in text.splitlines() if line.strip()], MAX_ROWS)
        return samples_of_records(lines, str(path))
    if path.name.endswith(TEXT_ENDINGS) and (log := samples_of_log(text, path)) is not None:
        return log
    return _rows_of_text(text, encoding, path)


def _rows_of_text(text: str, encoding: str, path: Path) -> Samples:
    is_log = path.name.endswith(LOG_ENDINGS)
    if text.lstrip()[:1] in ("{", "[") and not is_log:
        raise InputError(f"{path} holds JSON: name it .json, or .jsonl with one record a line")
    try:
        found = Samples("csv", *table_of(text, str(path)))
    except InputError:
        if is_log:
            raise InputError(f"{path}: {NO_LOG}") from None
        raise
    if encoding != "utf-8":
        found.keys["encoding"], found.why["encoding"] = encoding, "the bytes are not UTF-8"
    return found


def _is_log_of_json(path: Path, text: str) -> bool:
    return path.name.endswith(LOG_ENDINGS) and text.lstrip()[:1] == "{"


def samples_of_log(text: str, path: Path) -> Samples | None:
    """Return the samples of a file of log lines, None if its lines are no such."""
    lines = [line for line in text.splitlines() if line.strip()]
    year = datetime.fromtimestamp(path.stat().st_mtime, UTC).year
    rows, lacking = rows_of_log(spread(lines, MAX_ROWS), year)
    if not rows:
        return None
    found = Samples("log_lines", rows)
    if lacking:
        found.keys["year"] = year
        found.why["year"] = "the times lack it: that of the last change of the file"
    return found


def rows_of_table(table: pa.Table | pa.RecordBatch) -> list[Row]:
    """Return the rows of a table; moments become text, as in other samples."""
    return [{name: _text_of_moment(value) for name, value in row.items()} for row in table.to_pylist()]


def _text_of_moment(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).isoformat()
    return value.isoformat() if isinstance(value, date | time) else value


def samples_of_records(values: Sequence[bytes], where: str) -> Samples:
    """Read records of JSON, of any shape. Raises InputError."""
    found = Samples("json", [])
    objects = [one for value in values[:MAX_ROWS] for one in _objects(value)][:MAX_ROWS]
    if _are_senml(objects):
        return samples_of_packs(values, where)
    path = sample_path([one for one in objects if isinstance(one, dict)])
    if path is not None:
        found.keys["samples"] = path
        found.why["samples"] = (
            "each member of the object is a sample, or an array of them; $name is its name"
            if path.endswith(ANY_MEMBER)
            else "an array: each element is a sample"
        )
        inside = {name for one in objects for item in items_of(one, path) for name in item}
        found.around = (
            frozenset(name for one in objects for row in rows_of(one, path) for name in row) - inside
        )
    whole = [row for one in objects for row in whole_rows_of(one, path)]
    if columns := {name for row in whole for name in columns_of(row)}:
        found.around |= {name for row in whole for name in row} - columns
        found.why["arrays"] = "each place in them is a sample"
    for one in objects:
        found.rows += rows_of(one, path)
        if len(found.rows) >= MAX_ROWS:
            break
    if not found.rows:
        raise InputError(
            f"{where} holds no objects of JSON in its first records; see docs/how-to/read-data-as-it-is"
        )
    return found


def _are_senml(objects: Sequence[Any]) -> bool:
    """Return whether objects have only fields of SenML, among them a base field."""
    names = {name for one in objects for name in (one if isinstance(one, dict) else ("",))}
    return bool(names & BASE_FIELDS) and names <= BASE_FIELDS | SAMPLE_FIELDS


def samples_of_packs(values: Sequence[bytes], where: str) -> Samples:
    """Read packs of SenML. Raises InputError."""
    try:
        rows = [row for value in values[:MAX_ROWS] for row in json.loads(resolve_pack(value, time_ns()))]
    except ValueError as error:
        raise InputError(f"{where} holds no SenML: {error}") from None
    return Samples("senml", rows[:MAX_ROWS])


def _objects(value: bytes) -> list[Any]:
    """Return the objects in a record, whatever is around them."""
    try:
        text = unwrap(value).decode()
    except ValueError:
        return []
    decoder, at, found = json.JSONDecoder(), 0, []
    while at < len(text):
        try:
            thing, at = decoder.raw_decode(text, at)
        except ValueError:
            break
        found.append(thing)
        while at < len(text) and text[at] in " \r\n\t,":
            at += 1
    flat: list[Any] = []
    for thing in found:
        if isinstance(thing, str):
            flat += _objects(thing.encode())
        else:
            flat += _elements(thing)
    return flat


def _elements(thing: Any) -> list[Any]:
    """Return the objects and rows of arrays in arrays."""
    if isinstance(thing, dict) or is_row(thing):
        return [thing]
    return [one for inner in thing for one in _elements(inner)] if isinstance(thing, list) else []


def _beginning(path: Path) -> bytes:
    """Return the first bytes, and lines from further places of a large file.

    A file may have one series after the other.
    """
    raw = first_bytes(path, MAX_BYTES)
    size = path.stat().st_size
    if size <= len(raw) or path.suffix in COMPRESSED or b"\0" in raw[:1024] or path.name.endswith(".json"):
        return raw
    parts = [raw.rpartition(b"\n")[0] or raw]
    with path.open("rb") as file:
        for place in range(1, PLACES + 1):
            file.seek(len(raw) + (size - len(raw)) * place // PLACES - min(PLACE_BYTES, size - len(raw)))
            parts.append(file.read(PLACE_BYTES).partition(b"\n")[2].rpartition(b"\n")[0])
    return b"\n".join(part for part in parts if part) + b"\n"


def _rows_of_parquet(file: pq.ParquetFile) -> pa.Table:
    """Return rows of the first, the middle and the last row group."""
    groups = sorted({0, file.num_row_groups // 2, file.num_row_groups - 1})
    if file.metadata.num_rows <= MAX_ROWS or not file.num_row_groups:
        return file.read()
    parts = [next(file.iter_batches(3 * MAX_ROWS // 5, row_groups=[0]))]
    for group in groups:
        count = file.metadata.row_group(group).num_rows
        if count <= MAX_GROUP_ROWS:
            places = spread(range(count), MAX_ROWS // 5)
            parts += file.read_row_group(group).take(pa.array(places, pa.int64())).to_batches()
        else:
            parts.append(next(file.iter_batches(MAX_ROWS // 5, row_groups=[group])))
    return pa.Table.from_batches(parts)


def samples_of_lines(raw: bytes, where: str) -> Samples:
    """Read line protocol. Raises InputError."""
    translate = line_translator(LineProtocolFormat.model_construct(precision="ns"))
    try:
        content = translate(raw.rpartition(b"\n")[0] or raw, 0) or b"{}"
    except ValueError as error:
        raise InputError(f"{where} holds no line protocol: {error}") from None
    rows = [row for row in rows_of(json.loads(content), SAMPLES) if "line" not in row]
    return Samples("line_protocol", rows[:MAX_ROWS])


def _whole(path: Path) -> bytes:
    part = JsonDocument(path).read()
    return b"" if part is None else bytes(part.table.column(0)[0].as_py())


def _check_ending(path: Path) -> None:
    if not path.name.endswith(ENDINGS):
        raise InputError(
            f"{path}: the name must end in one of {', '.join(ENDINGS)}; rename the file, or convert it to "
            "CSV or to JSON lines"
        )
