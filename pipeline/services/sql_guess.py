"""Guess of the cursor of a SQL source."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import pyarrow as pa

from pipeline.core.errors import InputError
from pipeline.services.guess import Fields, words_of
from pipeline.services.guess_times import is_bookkeeping, is_time, is_time_name
from pipeline.services.sample_rows import Samples, rows_of_table
from pipeline.sources.sql.cursor_values import offset_of
from pipeline.sources.sql.inspection import Inspection, Table
from pipeline.sources.sql.source import arrow_column

#: Names of numbers that grow with each row.
_NUMBERS = ("id", "seq", "sequence", "rowid", "row_id", "serial", "offset", "lsn", "version")


def choose_table(seen: Inspection, given: str | None) -> Table | list[str]:
    """Return the chosen table, the only one, or the names of all.

    Raises InputError: there is no such table, or none at all.
    """
    if given is not None:
        return seen.table(given)
    names = seen.tables()
    if not names:
        raise InputError("the database shows no table to this user; name one with --query, or grant SELECT")
    return seen.table(names[0]) if len(names) == 1 else names


def guess_cursor(columns: Fields, key: str) -> tuple[str, str] | None:
    """Return the cursor and the reason, None if no column can be one.

    Args:
        columns: Columns of a sample of rows.
        key: Primary key of the table, "" without one.
    """
    usable = [name for name, values in columns.items() if _is_usable(values)]
    unique = [name for name in usable if len(set(columns[name])) == len(columns[name])]
    if key in unique and not is_time_name(key):
        return key, "the primary key, which grows with each row"
    numbers = [name for name in unique if words_of(name) in _NUMBERS]
    if numbers:
        return numbers[0], "a number of its own for each row"
    if written := [name for name in usable if is_bookkeeping(name) and _is_moment(name, columns[name])]:
        return written[0], "the time at which a row was written"
    times = [name for name in usable if _is_moment(name, columns[name])]
    if times:
        named = [name for name in times if is_time_name(name)] or times
        return named[0], "no column counts the rows; a row with an older time than those read is not seen"
    return None


def cursor_question(columns: Fields) -> tuple[str, list[str]]:
    """Return the question for a cursor, and the columns that may be one."""
    usable = [name for name, values in columns.items() if _is_usable(values)]
    question = "no column is a number or a time that grows with each row: which one is the cursor?"
    if usable:
        return question, usable
    return (
        "no column can be a cursor: a whole number, a date or a timestamp that grows with each row. Add one "
        "to the query, for example with CAST",
        [],
    )


def samples_of_table(seen: Inspection, query: str, cursor: str, time: object = None) -> Samples:
    """Return the newest rows, without a cursor that is not the time.

    Args:
        seen: Connection to the database.
        query: SELECT statement.
        cursor: The cursor column.
        time: Answer for the time, None if it is to be guessed.
    """
    columns = seen.rows(query, newest_by=cursor)
    if cursor not in columns:
        raise InputError(f"the query has no column {cursor}: {', '.join(columns)}")
    moments = [name for name, values in columns.items() if _is_moment(name, values)]
    own = [name for name in moments if name != cursor]
    if time != cursor and (cursor not in moments or (is_bookkeeping(cursor) and own)):
        del columns[cursor]
    return Samples("csv", rows_of_table(pa.table({name: arrow_column(one) for name, one in columns.items()})))


def _is_moment(name: str, values: Sequence[Any]) -> bool:
    """Return whether a column holds times, or numbers that are times."""
    return is_time(name, [str(value) if isinstance(value, date) else value for value in values])


def _is_usable(values: Sequence[Any]) -> bool:
    """Return whether all values can be offsets."""
    try:
        for value in values:
            offset_of(value)
    except ValueError:
        return False
    return bool(values)
