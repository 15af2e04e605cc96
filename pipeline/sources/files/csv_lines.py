"""Lines of CSV text to a table, line by line accounted for: a line that cannot be split is rejected with its
bytes, the others go on.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv as arrow

from pipeline.sources.files.row_slice import TablePart

#: Spellings of a missing number that Arrow's reader shall know; rarer ones are left to the decoder, as text.
MISSING = ["", "null", "NULL", "None", "NA", "na", "N/A", "n/a", "#N/A"]


@dataclass(frozen=True, slots=True)
class Layout:
    """Names of the columns in order, and which hold numbers, labels and other texts.

    Of other columns Arrow finds the type by itself. A line that begins with ``comment`` is passed over, and
    one that repeats ``header``.
    """

    names: list[str]
    delimiter: str
    numbers: frozenset[str]
    labels: frozenset[str]
    texts: frozenset[str] = frozenset()
    comment: bytes = b""
    header: bytes = b""

    def types(self) -> dict[str, pa.DataType]:
        text = pa.dictionary(pa.int32(), pa.string())
        types = dict.fromkeys(self.numbers, pa.float64()) | dict.fromkeys(self.labels, text)
        types |= dict.fromkeys(self.texts, pa.string())
        return {name: types[name] for name in self.names if name in types}


def parse_lines(text: bytes, first_row: int, layout: Layout) -> TablePart:
    """Whole lines, the first of which is row ``first_row``. One line is one record: a quoted field may not
    span lines.

    A column of numbers that has other text in this piece comes as text; the decoder says which rows are
    wrong.
    """
    lines = text.count(b"\n") + (not text.endswith(b"\n"))
    rows = np.arange(first_row, first_row + lines)
    # blank lines use up a row and are nothing
    comment, header = layout.comment, layout.header
    commented = comment and (text.startswith(comment) or b"\n" + comment in text)
    if (
        commented
        or (header and header in text)
        or b"\n\n" in text
        or b"\n\r\n" in text
        or text.startswith((b"\n", b"\r\n"))
    ):
        filled = [
            (row, line)
            for row, full in zip(rows.tolist(), text.split(b"\n"), strict=False)
            if (line := full.removesuffix(b"\r"))
            and line != header
            and not (comment and line.startswith(comment))
        ]
        rows, text = np.array([row for row, _ in filled], np.int64), b"\n".join(line for _, line in filled)
    if not _is_utf8(text):  # Arrow could not even hand such a line over, and would print a traceback
        return _line_by_line(text, rows, first_row + lines, layout)
    for types in (layout.types(), dict.fromkeys(layout.names, pa.string())):
        part = _by_arrow(text, rows, first_row + lines, layout, types)
        if part is not None:
            return part
    return _line_by_line(text, rows, first_row + lines, layout)


def _by_arrow(
    text: bytes, rows: NDArray[np.int64], next_row: int, layout: Layout, types: dict[str, pa.DataType]
) -> TablePart | None:
    """None: a value does not fit its column's type, or a quote that is not closed swallowed lines."""
    bad: list[tuple[int, int]] = []  # (number of the line from 0, how many fields it has)

    def skip(row: arrow.InvalidRow) -> str:
        bad.append((row.number - 1, row.actual_columns))
        return "skip"

    if text.count(b"\r") != text.count(b"\r\n"):  # to Arrow a lone carriage return ends a line
        return None
    if not text:
        return TablePart(
            rows[:0], pa.table({name: pa.array([], pa.string()) for name in layout.names}), next_row
        )
    try:
        table = arrow.read_csv(
            pa.BufferReader(text),
            arrow.ReadOptions(column_names=layout.names, use_threads=False, block_size=len(text) + 1),
            arrow.ParseOptions(
                delimiter=layout.delimiter, ignore_empty_lines=False, invalid_row_handler=skip
            ),
            arrow.ConvertOptions(column_types=types, null_values=MISSING, strings_can_be_null=False),
        )
    except pa.ArrowInvalid:
        return None
    if len(table) + len(bad) != len(rows):
        return None
    rejected = []
    if bad:
        lines = text.split(b"\n")
        rejected = [(int(rows[i]), lines[i].rstrip(b"\r"), _wrong_count(n, layout)) for i, n in bad]
    return TablePart(np.delete(rows, [i for i, _ in bad]), table, next_row, rejected)


def _is_utf8(text: bytes) -> bool:
    try:
        return text.isascii() or bool(text.decode())
    except UnicodeDecodeError:
        return False


def _line_by_line(text: bytes, rows: NDArray[np.int64], next_row: int, layout: Layout) -> TablePart:
    """The slow and sure way, for a piece with broken quotes or bytes that are not UTF-8."""
    good: list[int] = []
    fields: list[list[str]] = []
    rejected = []
    for row, line in zip(rows.tolist(), text.removesuffix(b"\n").split(b"\n"), strict=True):
        line = line.rstrip(b"\r")
        try:
            (found,) = csv.reader([line.decode()], delimiter=layout.delimiter, strict=True)
        except (UnicodeDecodeError, csv.Error, ValueError) as error:
            spans = "; a text in quotes must end in its line" if line.count(b'"') % 2 else ""
            rejected.append((row, line, f"cannot be split into fields: {error}{spans}"))
            continue
        if len(found) == len(layout.names):
            good.append(row)
            fields.append(found)
        else:
            rejected.append((row, line, _wrong_count(len(found), layout)))
    columns = zip(*fields, strict=True) if fields else [[] for _ in layout.names]
    table = pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], names=layout.names)
    return TablePart(np.array(good, np.int64), table, next_row, rejected)


def _wrong_count(fields: int, layout: Layout) -> str:
    return f"{fields} fields where {len(layout.names)} are expected"
