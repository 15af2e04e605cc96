"""Samples for the import wizard: rows or records as flat fields."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from itertools import takewhile
from pathlib import Path
from time import time_ns
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.inputs import LineProtocolFormat
from pipeline.core.errors import InputError
from pipeline.core.timestamps import parse_times
from pipeline.decode.json_texts import ANY_MEMBER
from pipeline.decode.line_protocol import SAMPLES, line_translator
from pipeline.decode.senml import BASE_FIELDS, SAMPLE_FIELDS, resolve_pack
from pipeline.decode.unwrapping import unwrap
from pipeline.services.guess import share_of_times
from pipeline.services.guess_times import is_time_name
from pipeline.services.sample_paths import (
    Row,
    columns_of,
    is_row,
    items_of,
    rows_of,
    sample_path,
    whole_rows_of,
)
from pipeline.sources.files.avro_reader import AvroFile
from pipeline.sources.files.compression import COMPRESSED, UNPACKING_ERRORS, binary_kind, first_bytes
from pipeline.sources.files.json_document import JsonDocument, has_lines
from pipeline.sources.files.parquet_reader import flat_table
from pipeline.sources.files.readers import ENDINGS, JSON_ENDINGS, LINE_ENDINGS

MAX_ROWS, MAX_BYTES = 500, 1 << 20
#: Places after the first bytes of a large file that are looked at, too.
PLACES, PLACE_BYTES = 4, 1 << 16
#: Larger row groups of Parquet are looked at where they begin.
MAX_GROUP_ROWS = 300_000
MAX_ROWS_OF_UNITS = 3
#: Rows above the names of the columns that may be as wide as the table.
MAX_ROWS_ABOVE = 50
_DELIMITERS = ",;\t|"


@dataclass(slots=True)
class Samples:
    """Rows with flat fields (``meta.id``), and the keys that read them.

    ``kind`` is json, line_protocol, senml or csv; ``why`` maps a key to the reason. ``around`` has the fields
    outside the array of samples.
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
        raise InputError(f"{path} is no text: {kind}")
    text, encoding = _decoded(raw, encoding, path)
    _check_ending(path)
    if path.name.endswith(JSON_ENDINGS) and not has_lines(text.encode()):
        return samples_of_records([_whole(path)], str(path))
    if ".lp" in path.suffixes:
        return samples_of_lines(raw, str(path))
    if path.name.endswith(LINE_ENDINGS + JSON_ENDINGS):
        lines = spread([line.encode() for line in text.splitlines() if line.strip()], MAX_ROWS)
        return samples_of_records(lines, str(path))
    if text.lstrip()[:1] in ("{", "["):
        raise InputError(f"{path} holds JSON: name it .json, or .jsonl with one record a line")
    found = _table(text, str(path))
    if encoding != "utf-8":
        found.keys["encoding"], found.why["encoding"] = encoding, "the bytes are not UTF-8"
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


def spread(lines: Sequence[Any], count: int) -> list[Any]:
    """Return up to ``count`` of the lines: the first ones, and others after them."""
    first = 3 * count // 5
    if len(lines) <= count:
        return list(lines)
    step = (len(lines) - first) / (count - first)
    return [*lines[:first], *(lines[first + int(step * (i + 1)) - 1] for i in range(count - first))]


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
        content = translate(raw.rpartition(b"\n")[0] or raw, 0)
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


def _decoded(raw: bytes, given: str | None, path: Path) -> tuple[str, str]:
    """Return text and encoding. Raises InputError."""
    if given is not None:
        try:
            return raw.decode(given, "replace"), given
        except LookupError:
            raise InputError(f"there is no encoding {given!r}") from None
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", "ignore"), "utf-16"
    if (wide := raw[:4:2] if raw[1:4:2] == b"\0\0" else b"") and b"\0" not in wide:
        return raw.decode("utf-16-le", "ignore"), "utf-16-le"
    try:
        return raw.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError as error:
        if error.start > len(raw) - 4:  # only cut off
            return raw[: error.start].decode("utf-8-sig"), "utf-8"
    try:
        return raw.decode("cp1252"), "cp1252"
    except UnicodeDecodeError:
        raise InputError(
            f"{path} is neither UTF-8 nor Windows-1252: name its encoding with --set encoding=NAME, such as "
            "cp932, gb18030, euc_kr, cp1251 or mac_roman"
        ) from None


def _table(text: str, where: str) -> Samples:
    """Read delimited text, whatever is above and below its header."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not any(line.count('"') % 2 for line in lines):  # no text in quotes spans lines
        lines = spread(lines, MAX_ROWS + 50)
    lines = lines[: MAX_ROWS + 50]
    comments = sum(line.startswith("#") for line in lines)
    body = [line for line in lines if not line.startswith("#")]
    if len(body) < 2:
        raise InputError(f"{where} has no rows below a header")
    found = Samples("csv", [])
    if comments:
        found.keys["comment"], found.why["comment"] = "#", f"{comments} lines begin with #"
    declared = body[0][4:5] if body[0].lower().startswith("sep=") else None
    body = body[1:] if declared else body
    delimiter = declared or max(_DELIMITERS, key=lambda one: _agreement(body, one))
    if delimiter != ",":
        found.keys["delimiter"], found.why["delimiter"] = delimiter, "it gives all rows the same columns"
    cells = list(csv.reader(io.StringIO("\n".join(body)), delimiter=delimiter))
    width = Counter(map(len, cells)).most_common(1)[0][0]
    if all(row[-1] == "" for row in cells if len(row) == width):
        cells = [[*row, ""] if len(row) == width - 1 else row for row in cells]
    if width == 1:
        raise InputError(
            f"{where}: the lines have one column ({body[0][:60]}); columns are separated by a comma, a "
            "semicolon, a tab or a bar"
        )
    skipped, below = _header_of(cells, width)
    header, rows = cells[skipped], cells[skipped + 1 + below :]
    commented = list(csv.reader(_comment_above(lines, body[0]), delimiter=delimiter))
    if commented and len(commented[0]) == width and any(map(_is_number, header)):
        header, rows = commented[0], cells
    _check_names(header, where)
    if skipped and not comments:
        above = text.splitlines().index(body[skipped])
        found.keys["skip"], found.why["skip"] = above, "lines above the names of the columns"
    if below:
        units = ", ".join(cells[skipped + 1])
        found.keys["skip_after_header"], found.why["skip_after_header"] = below, f"units: {units}"
    rows = [[*row, *[""] * (width - len(row))] if width // 2 < len(row) < width else row for row in rows]
    found.rows = [dict(zip(header, row, strict=True)) for row in rows[:MAX_ROWS] if len(row) == width]
    return found


def _check_names(header: list[str], where: str) -> None:
    twice = [name for name, count in Counter(header).items() if count > 1 and name.strip()]
    if twice:
        raise InputError(
            f"{where}: several columns are called {', '.join(twice)}; give each a name of its own"
        )
    if any(_is_number(cell) for cell in header):
        raise InputError(
            f"{where}: no line names the columns ({', '.join(header[:4])} …); add a line with their names"
        )


def _header_of(cells: list[list[str]], width: int) -> tuple[int, int]:
    """Return the row that names the columns, and the number of rows of units below it.

    Of several rows of words it is the first one that names each column.
    """
    first = next((i for i, row in enumerate(cells) if len(row) == width), 0)
    first = _first_of_names(cells, first, width)
    rows = cells[first : first + 1 + MAX_ROWS_OF_UNITS]
    words = list(takewhile(lambda row: len(row) == width and _are_units(row), rows))
    if len(words) < 2 or not any(map(_is_number, cells[-1])):
        return first, 0
    full = next((i for i, row in enumerate(words) if all(cell.strip() for cell in row)), 0)
    return first + full, len(words) - full - 1


def _first_of_names(cells: Sequence[list[str]], first: int, width: int) -> int:
    """Return the first row from which on all are names, units or data.

    Above it may be rows of a name and its content, as wide as the table: ``Station;Halle``.
    """
    for place in range(first, min(len(cells), first + MAX_ROWS_ABOVE)):
        row = cells[place]
        if len(row) == width and _are_units(row) and any(map(is_time_name, row)):
            below = cells[place + 1 : place + 3 + MAX_ROWS_OF_UNITS]
            column = next(i for i, cell in enumerate(row) if is_time_name(cell))
            if any(len(one) == width and share_of_times([one[column]]) == 1 for one in below):
                return place
    return first


def _comment_above(lines: list[str], row: str) -> list[str]:
    """Return the comment above the first row, which may name the columns."""
    at = lines.index(row)
    return lines[at - 1 : at] if at and lines[at - 1].startswith("#") else []


def _are_units(cells: Sequence[str]) -> bool:
    """Return whether a row has neither numbers nor a time, as one of names or units."""
    there = [cell for cell in cells if cell.strip()]
    return not any(map(_is_number, there)) and not any(
        parse_times([cell], "auto", "UTC")[0] >= 0 for cell in there
    )


def _agreement(lines: Sequence[str], delimiter: str) -> tuple[float, int]:
    """Return the share of lines with the usual number of columns, and it."""
    widths = Counter(len(row) for row in csv.reader(lines, delimiter=delimiter))
    width, count = widths.most_common(1)[0]
    return (count / len(lines), width) if width > 1 else (0.0, 1)


def _is_number(cell: str) -> bool:
    try:
        float(cell.strip().replace(",", "."))
    except ValueError:
        return False
    return True
