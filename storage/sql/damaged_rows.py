"""Reading of rows some of which may be damaged: those are skipped and named.

SQLite keeps any value in any column, and a JSON column can hold text that is no JSON. A row of a later
version can hold a word that this version lacks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Select, select
from sqlalchemy.orm import InstrumentedAttribute

from storage.sql.statements import in_parts

log = logging.getLogger(__name__)

#: Errors of a row whose values are not what its columns hold.
DAMAGE = (ValueError, TypeError, LookupError)
_MAX_LOGGED_ROWS = 1000
_logged: set[tuple[str, str]] = set()

_Record = TypeVar("_Record")


def read_rows(
    connection: Connection,
    statement: Select[Any],
    key: InstrumentedAttribute[Any],
    make: Callable[[Row[Any]], _Record],
    on_damage: Callable[[Any, str], None] | None = None,
) -> list[_Record]:
    """Return the records of a statement, without rows that cannot be read.

    Args:
        connection: A transaction.
        statement: The statement; its columns are those of the table of ``key``.
        key: Primary key of the table.
        make: Makes a record of a row.
        on_damage: Called with the key and the problem of each damaged row; by default it is logged once.
    """
    try:
        return [make(row) for row in connection.execute(statement)]
    except DAMAGE:
        pass  # of some row: read them one by one
    columns, found = select(*statement.selected_columns), []
    for one in connection.execute(statement.with_only_columns(key)).scalars().all():
        try:
            found.append(make(connection.execute(columns.where(key == one)).one()))
        except DAMAGE as error:
            (on_damage or _log_of(key))(one, str(error))
    return found


def damaged_rows(
    connection: Connection,
    columns: Collection[Any],
    key: InstrumentedAttribute[Any],
    make: Callable[[Row[Any]], object],
) -> list[tuple[Any, str]]:
    """Read all rows of a table, and return key and problem of each damaged one.

    Args:
        connection: A transaction.
        columns: Columns that ``make`` needs.
        key: Primary key of the table.
        make: Makes a record of a row.
    """
    found: list[tuple[Any, str]] = []
    for part in in_parts(connection.execute(select(key).order_by(key)).scalars().all()):
        statement = select(*columns).where(key.in_(part))
        read_rows(connection, statement, key, make, lambda one, problem: found.append((one, problem)))
    return found


def _log_of(key: InstrumentedAttribute[Any]) -> Callable[[Any, str], None]:
    table = key.class_.__tablename__

    def report(one: Any, problem: str) -> None:
        if (table, str(one)) not in _logged and len(_logged) < _MAX_LOGGED_ROWS:
            _logged.add((table, str(one)))
            log.warning(
                "row %s of table %s is damaged and skipped (%s); run: forewatch db check", one, table, problem
            )

    return report
