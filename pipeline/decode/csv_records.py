"""CSV records (bytes, one line each, without a header) to a table of texts for ``arrow_tables``."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from pipeline.decode.parsed_batch import Reject, shown

#: Above this many bytes a batch is split line by line: Arrow wants it in one block.
_BLOCK = 1 << 28
#: Quotes, other line ends, NUL, byte order marks, which Arrow drops from the first line only, and empty
#: lines, which it takes for a row of empty texts.
_SPECIAL = (b'"', b"\r", b"\0", codecs.BOM_UTF8, b"\n\n")


def split(
    values: Sequence[bytes | None],
    header: Sequence[str],
    delimiter: str,
    used: Sequence[str],
    rejects: dict[int, Reject],
) -> tuple[pa.Table, NDArray[np.int64] | None]:
    """Split lines into (table of the ``used`` columns as texts, record of each row; None: row i is record i).

    Rejected records get no row.
    """
    table = _at_once(values, header, delimiter, used)
    return (table, None) if table is not None else _one_by_one(values, header, delimiter, used, rejects)


def _at_once(
    values: Sequence[bytes | None], header: Sequence[str], delimiter: str, used: Sequence[str]
) -> pa.Table | None:
    """Parse all lines in one call, or return None if the result could differ from line by line."""
    if not values or None in values:
        return None
    text = b"\n".join(values) + b"\n"  # type: ignore[arg-type]
    if (
        len(text) > _BLOCK
        or text.count(b"\n") != len(values)
        or any(mark in text for mark in _SPECIAL)
        or text[:1] == b"\n"
    ):
        return None
    try:
        table = pacsv.read_csv(
            pa.BufferReader(text),
            read_options=pacsv.ReadOptions(
                column_names=list(header), use_threads=False, block_size=len(text)
            ),
            parse_options=pacsv.ParseOptions(delimiter=delimiter, quote_char=False, ignore_empty_lines=False),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), include_columns=list(used)
            ),
        )
    except pa.ArrowInvalid:
        return None
    return table if len(table) == len(values) else None


def _one_by_one(
    values: Sequence[bytes | None],
    header: Sequence[str],
    delimiter: str,
    used: Sequence[str],
    rejects: dict[int, Reject],
) -> tuple[pa.Table, NDArray[np.int64]]:
    cells: list[list[str]] = []
    rows: list[int] = []
    for row, value in enumerate(values):
        if value is None:
            continue
        found = _line(value, header, delimiter)
        if isinstance(found, Reject):
            rejects[row] = found
        else:
            cells.append(found)
            rows.append(row)
    place = {name: i for i, name in enumerate(header)}
    return pa.table(
        {name: pa.array([c[place[name]] for c in cells], pa.string()) for name in used}
    ), np.array(rows, np.int64)


def _line(value: bytes, header: Sequence[str], delimiter: str) -> list[str] | Reject:
    try:
        text = value.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        return Reject("bad_bytes", f"not UTF-8: {error.reason} at byte {error.start}: {shown(value)}")
    try:
        lines = list(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error as error:
        return Reject("malformed", f"{error}: {shown(value)}")
    fields = lines[0] if lines and lines[0] else [""]
    if len(fields) != len(header):
        return Reject("malformed", f"{len(fields)} columns, the header has {len(header)}: {shown(value)}")
    return fields
