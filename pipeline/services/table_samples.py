"""Samples of delimited text for the import wizard: rows, and what is around them."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from pipeline.core.errors import InputError
from pipeline.core.timestamps import parse_times
from pipeline.services.guess import share_of_times
from pipeline.services.guess_times import is_time_name
from pipeline.services.sample_paths import Row

MAX_ROWS = 500
MAX_ROWS_OF_UNITS = 3
#: Rows above the names of the columns that may be as wide as the table.
MAX_ROWS_ABOVE = 50
_DELIMITERS = ",;\t|"


def spread(lines: Sequence[Any], count: int) -> list[Any]:
    """Return up to ``count`` of the lines: the first ones, and others after them."""
    first = 3 * count // 5
    if len(lines) <= count:
        return list(lines)
    step = (len(lines) - first) / (count - first)
    return [*lines[:first], *(lines[first + int(step * (i + 1)) - 1] for i in range(count - first))]


def table_of(text: str, where: str) -> tuple[list[Row], dict[str, Any], dict[str, str]]:
    """Read delimited text, whatever is above and below its header.

    Returns:
        The rows, the keys that read them, and the reason of each key.

    Raises:
        InputError: The text is no table.
    """
    keys: dict[str, Any] = {}
    why: dict[str, str] = {}
    lines = [line for line in text.splitlines() if line.strip()]
    if not any(line.count('"') % 2 for line in lines):  # no text in quotes spans lines
        lines = spread(lines, MAX_ROWS + 50)
    lines = lines[: MAX_ROWS + 50]
    comments = sum(line.startswith("#") for line in lines)
    body = [line for line in lines if not line.startswith("#")]
    if len(body) < 2:
        raise InputError(f"{where} has no rows below a header")
    if comments:
        keys["comment"], why["comment"] = "#", f"{comments} lines begin with #"
    declared = body[0][4:5] if body[0].lower().startswith("sep=") else None
    body = body[1:] if declared else body
    delimiter = declared or max(_DELIMITERS, key=lambda one: _agreement(body, one))
    if delimiter != ",":
        keys["delimiter"], why["delimiter"] = delimiter, "it gives all rows the same columns"
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
        keys["skip"], why["skip"] = above, "lines above the names of the columns"
    if below:
        units = ", ".join(cells[skipped + 1])
        keys["skip_after_header"], why["skip_after_header"] = below, f"units: {units}"
    rows = [[*row, *[""] * (width - len(row))] if width // 2 < len(row) < width else row for row in rows]
    return [dict(zip(header, row, strict=True)) for row in rows[:MAX_ROWS] if len(row) == width], keys, why


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
