"""Reading of new rows of a query, in the order of its cursor column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import sqlalchemy
from sqlalchemy import (
    URL,
    ColumnClause,
    Connection,
    Engine,
    Select,
    TextClause,
    column,
    create_engine,
    literal_column,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from pipeline.config.sql import SqlSourceConfig
from pipeline.core.errors import ConfigError, SourceUnavailable
from pipeline.core.secret_text import hide_secrets
from pipeline.sources.sql.cursor_values import CursorKind, offset_of, value_of

#: Statement that makes a session unable to write, by the kind of database.
_READ_ONLY = {
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
    "sqlite": "PRAGMA query_only = ON",
}
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}


@dataclass(frozen=True, slots=True)
class Page:
    """Rows with their offsets, ascending.

    ``newest`` is the offset of the last ones if no row is known after them, None if there are others.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    offsets: Sequence[int]
    newest: int | None


def make_engine(address: str, where: str) -> Engine:
    """Return an engine without a pool, which does not connect yet.

    Args:
        address: SQLAlchemy URL.
        where: What errors name.

    Raises:
        ConfigError: The URL cannot be read, or its driver is not installed.
    """
    try:
        url = make_url(address)
        url = url.set(drivername=_DRIVERS.get(url.drivername, url.drivername))
        return create_engine(_without_new_file(url), poolclass=NullPool)
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise ConfigError(f"{where}: the driver is not installed: {error}") from None
    except ArgumentError:
        raise ConfigError(f"{where}: is not a database URL; write KIND://user:password@host/name") from None


def _without_new_file(url: URL) -> URL:
    """Return a URL of SQLite by which no file is made where there is none."""
    path = url.database or ":memory:"
    if url.drivername not in ("sqlite", "sqlite+pysqlite") or path.startswith((":", "file:")):
        return url
    return url.set(database=f"file:{quote(path)}").update_query_dict({"mode": "rw", "uri": "true"})


def begin_reading(connection: Connection) -> None:
    """Make the session read only where the database can."""
    if (statement := _READ_ONLY.get(connection.dialect.name)) is not None:
        connection.exec_driver_sql(statement)
        connection.commit()


def wrapped_query(query: str) -> TextClause:
    """Return a query as a table that can be selected from."""
    wrapped = query.strip().rstrip(";").replace(":", r"\:")
    return text(f"(\n{wrapped}\n) AS forewatch_rows")


def reason_of(error: SQLAlchemyError) -> str:
    """Return the first line of what the database says, without secrets."""
    if "unable to open database file" in str(error):
        return "there is no such file of SQLite, or this user may not read it"
    return hide_secrets(str(getattr(error, "orig", None) or error).strip().splitlines()[0])


class CursorQuery:
    """Query of a stream; each call connects, reads and disconnects."""

    def __init__(self, stream: str, config: SqlSourceConfig) -> None:
        """Do not connect yet.

        Raises:
            ConfigError: The URL cannot be read or used.
        """
        self._where = f"streams.{stream}.source.sql"
        self._cursor: ColumnClause[Any] = column(config.cursor)
        self._name = config.cursor
        self._rows = wrapped_query(config.query)
        self._kind: CursorKind | None = None
        self._engine = make_engine(config.url.reveal().get_secret_value(), f"{self._where}.url")

    def page(self, offset: int, limit: int) -> Page:
        """Return rows from ``offset`` on, at least ``limit`` if there are so many.

        Rows of one cursor value come together.

        Raises:
            SourceUnavailable: The database does not answer, or refuses the query.
        """
        try:
            with self._engine.connect() as connection:
                begin_reading(connection)
                return self._page(connection, offset, limit)
        except SQLAlchemyError as error:
            raise SourceUnavailable(
                f"{self._where}: {reason_of(error)}. It is tried again; check the database and the query"
            ) from None

    def end(self) -> int:
        """Return the offset after the newest row, 0 without rows.

        Raises:
            SourceUnavailable: The database does not answer.
        """
        return self._newest_offset() + 1

    def _newest_offset(self) -> int:
        try:
            with self._engine.connect() as connection:
                begin_reading(connection)
                newest = connection.execute(self._select(self._cursor).order_by(self._cursor.desc()).limit(1))
                return max((self._offset(value) for (value,) in newest), default=-1)
        except SQLAlchemyError as error:
            raise SourceUnavailable(f"{self._where}: {reason_of(error)}") from None

    def close(self) -> None:
        """Release the driver."""
        self._engine.dispose()

    def _select(self, what: Any) -> Select[Any]:
        return select(what).select_from(self._rows).where(self._cursor.is_not(None))

    def _page(self, connection: Connection, offset: int, limit: int) -> Page:
        if self._kind is None and offset > 0:
            first = connection.execute(self._select(self._cursor).limit(1)).all()
            if not first:
                return Page((), (), (), None)
            self._offset(first[0][0])
        wanted = self._select(literal_column("*")).order_by(self._cursor)
        if offset > 0:
            assert self._kind is not None
            wanted = wanted.where(self._cursor >= value_of(offset, self._kind))
        result = connection.execute(wanted.limit(limit + 1))
        names = list(result.keys())
        if self._name not in names:
            raise SourceUnavailable(
                f"{self._where}.cursor: the query has no column {self._name}: {', '.join(names)}"
            )
        place = names.index(self._name)
        rows: list[Sequence[Any]] = [tuple(row) for row in result]
        offsets = [self._offset(row[place]) for row in rows]
        if len(rows) <= limit:
            return Page(names, rows, offsets, offsets[-1] if offsets else None)
        # The last value may have further rows.
        whole = offsets.index(offsets[-1])
        if whole:
            return Page(names, rows[:whole], offsets[:whole], None)
        same = connection.execute(self._select(literal_column("*")).where(self._cursor == rows[0][place]))
        rows = [tuple(row) for row in same]
        return Page(names, rows, [offsets[0]] * len(rows), offsets[0])

    def _offset(self, value: object) -> int:
        try:
            offset, self._kind = offset_of(value)
        except ValueError as error:
            raise SourceUnavailable(f"{self._where}.cursor: {self._name} {error}") from None
        return offset
