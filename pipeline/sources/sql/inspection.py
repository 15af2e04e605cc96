"""Tables of a database and samples of their rows, for the import wizard."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, column, inspect, literal_column, select
from sqlalchemy.exc import NoSuchTableError, SQLAlchemyError

from pipeline.core.errors import InputError
from pipeline.sources.sql.query import begin_reading, make_engine, reason_of, wrapped_query

#: Rows of a sample: enough for several readings of each of some thousand series.
MAX_ROWS = 5_000
#: Time after which PostgreSQL ends a query of the wizard.
TIMEOUT_SECONDS = 30
_QUERY = re.compile(r"\s*(select|with|values|table)\b", re.IGNORECASE)
_SYSTEM_SCHEMAS = frozenset(("information_schema", "pg_catalog", "pg_toast", "sys", "mysql"))


class Table(NamedTuple):
    """Query of a table or of the user.

    name  name of the table, "" for a query
    key   primary key, "" if it is not one column
    """

    query: str
    name: str = ""
    key: str = ""


class Inspection:
    """Connection to a database for a look at it. A context manager."""

    def __init__(self, address: str) -> None:
        """Connect. Raises ConfigError, or InputError if the database does not answer."""
        self._engine = make_engine(address, "--from")
        try:
            self._connection: Connection = self._engine.connect()
            begin_reading(self._connection)
            if self._connection.dialect.name == "postgresql":
                self._connection.exec_driver_sql(f"SET statement_timeout = {1000 * TIMEOUT_SECONDS}")
        except SQLAlchemyError as error:
            self._engine.dispose()
            raise InputError(
                f"the database does not answer: {reason_of(error)}; check address, user and password"
            ) from None

    def __enter__(self) -> Inspection:
        """Return the inspection."""
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect."""
        self._connection.close()
        self._engine.dispose()

    def tables(self) -> list[str]:
        """Return tables and views, those outside the default schema with it."""
        seen = inspect(self._connection)
        found = []
        for schema in seen.get_schema_names():
            if schema in _SYSTEM_SCHEMAS:
                continue
            prefix = "" if schema == seen.default_schema_name else f"{schema}."
            found += [prefix + one for one in (*seen.get_table_names(schema), *seen.get_view_names(schema))]
        return found

    def table(self, given: str) -> Table:
        """Return the query of a table, or the given query. Raises InputError."""
        if _QUERY.match(given):
            return Table(given.strip().rstrip(";"))
        schema, _, name = given.rpartition(".")
        quote = self._connection.dialect.identifier_preparer.quote
        try:
            key = inspect(self._connection).get_pk_constraint(name, schema or None)["constrained_columns"]
        except NoSuchTableError:
            raise InputError(
                f"there is no table {given}: {', '.join(self.tables()) or 'none is visible'}"
            ) from None
        except SQLAlchemyError as error:
            raise InputError(f"{given}: {reason_of(error)}") from None
        quoted = ".".join(quote(part) for part in (schema, name) if part)
        return Table(f"SELECT * FROM {quoted}", name, key[0] if len(key) == 1 else "")

    def rows(self, query: str, newest_by: str | None = None) -> dict[str, list[Any]]:
        """Return the columns of a query with the values of some rows.

        Args:
            query: SELECT statement.
            newest_by: Column by which the newest rows are chosen, ascending; None: any rows.
        """
        wanted: Select[Any] = select(literal_column("*")).select_from(wrapped_query(query)).limit(MAX_ROWS)
        if newest_by is not None:
            order: Any = column(newest_by)
            wanted = wanted.where(order.is_not(None)).order_by(order.desc())
        try:
            result = self._connection.execute(wanted)
        except SQLAlchemyError as error:
            raise InputError(f"the query fails: {reason_of(error)}") from None
        names = list(result.keys())
        if len(set(names)) < len(names):
            raise InputError(
                f"the query has several columns of one name: {', '.join(names)}; name each with AS"
            )
        rows = [tuple(row) for row in result]
        if newest_by is not None:
            rows.reverse()
        return {name: [row[at] for row in rows] for at, name in enumerate(names)}
