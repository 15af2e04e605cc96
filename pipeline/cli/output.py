"""Output of commands: tables for people, JSON for programs.

Data goes to stdout, everything else to stderr.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

#: Wide enough that no column is cut when the output is piped into a file.
_PIPE_WIDTH_CHARACTERS = 400


def show_json(value: Any) -> None:
    """Print a value as JSON, with null for NaN and infinity."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False, default=str))


def print_line(line: str) -> None:
    """Print a line with one call, so that the lines of several threads stay apart."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def show_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str, wrap: Sequence[str] = ()
) -> None:
    """Print rows under headings.

    Args:
        columns: Headings, one for each cell of a row.
        rows: Cells, row by row.
        empty: Text that is printed on stderr when there are no rows.
        wrap: Columns whose text is wrapped on a narrow terminal.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold", no_wrap=name not in wrap)
    for row in rows:
        table.add_row(*(Text(_text(cell)) for cell in row))
    if table.row_count:
        _print(table)
    else:
        print_note(empty)


def show_list(
    json: bool,
    values: Iterable[Any],
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    empty: str,
    wrap: Sequence[str] = (),
) -> None:
    """Print the result of a list command, as JSON or as a table.

    Args:
        json: Print JSON.
        values: Values of the JSON list.
        columns: Headings of the table.
        rows: Rows of the table.
        empty: Text on stderr if the table has no rows.
        wrap: Columns that wrap on a narrow terminal.
    """
    if json:
        show_json(list(values))
    else:
        show_table(columns, rows, empty, wrap)


def show_fields(fields: Mapping[str, Any]) -> None:
    """Print one object, a line for each of its fields."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in fields.items():
        table.add_row(name, Text(_text(value)))
    _print(table)


def print_note(text: str) -> None:
    """Print a message on stderr."""
    print(text, file=sys.stderr)


def _print(table: Any) -> None:
    from rich.console import Console

    if sys.stdout.isatty():
        Console().print(table)
        return
    console = Console(width=_PIPE_WIDTH_CHARACTERS)
    with console.capture() as lines:
        console.print(table)
    print("\n".join(line.rstrip() for line in lines.get().splitlines()))


def format_number(value: float) -> str:
    """Format a number with six significant digits; NaN is a missing value."""
    return "missing" if math.isnan(value) else f"{value:.6g}"


def _text(cell: Any) -> str:
    """Return the text of a cell with control characters escaped: a terminal would hide or obey them."""
    if cell is None:
        return "-"
    if isinstance(cell, float):
        return format_number(cell)
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in str(cell)
    )


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
