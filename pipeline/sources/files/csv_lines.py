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

#: Most lines of a row with texts in quotes that span lines.
MAX_LINES_OF_ROW = 50
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
    #: Columns that a row must have, 0: all. Programs leave separators out before empty columns at the end.
    least: int = 0

    def missing(self, fields: int) -> int:
        """Return the number of columns that a row leaves out, 0 if it must not."""
        return len(self.names) - fields if 0 < self.least <= fields else 0

    def types(self) -> dict[str, pa.DataType]:
        text = pa.dictionary(pa.int32(), pa.string())
        types = dict.fromkeys(self.numbers, pa.float64()) | dict.fromkeys(self.labels, text)
        types |= dict.fromkeys(self.texts, pa.string())
        return {name: types[name] for name in self.names if name in types}


def parse_lines(text: bytes, first_row: int, layout: Layout) -> TablePart:
    """Whole lines, the first of which is row ``first_row``.

    A record whose text in quotes spans lines has the number of its first line.

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
        rows = np.array([row for row, _ in filled], np.int64)
        text = b"\n".join(line for _, line in filled) + (b"\n" if filled and text.endswith(b"\n") else b"")
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
        cut_off = -1 if text.endswith(b"\n") else len(rows) - 1  # the last line may be incomplete
        if short := {row: missing for row, n in bad if row != cut_off and (missing := layout.missing(n)) > 0}:
            padded = [_padded(line, short.get(row, 0), layout) for row, line in enumerate(lines)]
            return _by_arrow(b"\n".join(padded), rows, next_row, layout, types)
        rejected = [(int(rows[i]), lines[i].rstrip(b"\r"), _wrong_count(n, layout)) for i, n in bad]
    return TablePart(np.delete(rows, [i for i, _ in bad]), table, next_row, rejected)


def _padded(line: bytes, missing: int, layout: Layout) -> bytes:
    return line.rstrip(b"\r") + layout.delimiter.encode() * missing if missing else line


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
    lines = text.removesuffix(b"\n").split(b"\n")
    numbers, at = rows.tolist(), 0
    while at < len(lines):
        line = lines[at].rstrip(b"\r")
        count = _lines_of_row(lines, at, layout)
        whole = line if count == 1 else b"\n".join(lines[at : at + count]).rstrip(b"\r")
        row, at = numbers[at], at + count
        try:
            found = _split(whole, layout)
        except (UnicodeDecodeError, csv.Error, ValueError) as error:
            spans = "; a quote is not closed" if line.count(b'"') % 2 else ""
            rejected.append((row, line, f"cannot be split into fields: {error}{spans}"))
            continue
        if at < len(lines) or text.endswith(b"\n"):  # the last line may be incomplete
            found += [""] * layout.missing(len(found))
        if len(found) == len(layout.names):
            good.append(row)
            fields.append(found)
        else:
            rejected.append((row, line, _wrong_count(len(found), layout)))
    columns = zip(*fields, strict=True) if fields else [[] for _ in layout.names]
    table = pa.Table.from_arrays([pa.array(column, pa.string()) for column in columns], names=layout.names)
    return TablePart(np.array(good, np.int64), table, next_row, rejected)


def _split(row: bytes, layout: Layout) -> list[str]:
    """Return the fields of a row. Raises UnicodeDecodeError, csv.Error, ValueError."""
    (found,) = csv.reader([row.decode()], delimiter=layout.delimiter, strict=True)
    return found


def _lines_of_row(lines: list[bytes], at: int, layout: Layout) -> int:
    """Return the number of lines of the row that begins at a line.

    It has more than one if they together, and no fewer, have the columns of the layout.
    """
    quotes = lines[at].count(b'"')
    if quotes % 2 == 0:
        return 1
    for count in range(2, min(MAX_LINES_OF_ROW, len(lines) - at) + 1):
        quotes += lines[at + count - 1].count(b'"')
        if quotes % 2 == 0:
            try:
                found = _split(b"\n".join(lines[at : at + count]).rstrip(b"\r"), layout)
            except (UnicodeDecodeError, csv.Error, ValueError):
                return 1
            return count if len(found) == len(layout.names) else 1
    return 1


def whole_rows(text: bytes) -> int:
    """Return the number of bytes of lines without a row at the end that goes on.

    0: all of them go on, or the row is longer than a row can be.
    """
    if text.count(b'"') % 2 == 0:
        return len(text)
    end = len(text)
    for _ in range(MAX_LINES_OF_ROW):
        begin = text.rfind(b"\n", 0, end - 1) + 1
        if text.count(b'"', begin, end) % 2:
            return begin
        end = begin
        if not begin:
            break
    return 0


def _wrong_count(fields: int, layout: Layout) -> str:
    return f"{fields} fields where {len(layout.names)} are expected"
