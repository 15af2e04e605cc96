"""Column types and SQL that work on SQLite and PostgreSQL."""

from __future__ import annotations

import math
import re
from hashlib import blake2b
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Connection,
    Dialect,
    Integer,
    Text,
    case,
    delete,
    exists,
    func,
    select,
    tuple_,
    type_coerce,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.types import TypeDecorator

Json = JSON().with_variant(JSONB(), "postgresql")

#: SQLite numbers rows by itself only where the type is spelt INTEGER.
RowId = BigInteger().with_variant(Integer(), "sqlite")


class SafeText(TypeDecorator[str]):
    """Text from outside, without the NUL and lone surrogates that PostgreSQL rejects."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else safe(value)


class Floats(TypeDecorator[list[float]]):
    """List of floats as JSON, with NaN and the infinities as ``nan``, ``inf`` and ``-inf``."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(Json.dialect_impl(dialect))

    def process_bind_param(self, value: list[float] | None, dialect: Dialect) -> Any:
        return None if value is None else [float(x) if math.isfinite(x) else str(float(x)) for x in value]

    def process_result_value(self, value: Any, dialect: Dialect) -> list[float] | None:
        return None if value is None else [float(x) for x in value]


class SafeJson(TypeDecorator[Any]):
    """JSON whose strings come from outside (see ``SafeText``); tuples come back as lists."""

    impl = JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(Json.dialect_impl(dialect))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return safe_tree(value)


def short_key(text: str) -> bytes:
    """Return a hash of ``text`` for a primary key: PostgreSQL's indexes reject texts of some KB."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def delete_older(connection: Connection, when: InstrumentedAttribute[int], before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` rows with ``when`` before ``before_ns``, and return their number."""
    key = when.class_.__table__.primary_key.columns
    old = select(*key).where(when < before_ns).limit(limit)
    return connection.execute(delete(when.class_).where(tuple_(*key).in_(old))).rowcount


def safe(text: str) -> str:
    """Return ``text`` without characters that PostgreSQL cannot store; NUL becomes ␀."""
    return text.replace("\x00", "␀").encode("utf-8", "backslashreplace").decode("utf-8")


def safe_tree(value: Any) -> Any:
    """Return a JSON value with ``safe`` applied to every text in it."""
    if isinstance(value, str):
        return safe(value)
    if isinstance(value, dict):
        return {safe(str(key)): safe_tree(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [safe_tree(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def insert(connection: Connection, table: Any) -> postgresql.Insert:
    """Return the database's own INSERT, which supports ON CONFLICT."""
    return insert_for(connection.dialect.name, table)


def insert_for(dialect: str, table: Any) -> postgresql.Insert:
    """Return the INSERT of a dialect, for statements that are built once.

    The SQL is the same in both databases, but SQLAlchemy has a class for each.
    """
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)  # type: ignore[return-value]


def matches(column: InstrumentedAttribute[str], glob: str) -> ColumnElement[bool]:
    """Return the condition that ``column`` matches a pattern, case-sensitive.

    ``*`` stands for any text and ``?`` for one character.
    """
    pattern = "".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in safe(glob))
    return column.regexp_match(f"(?s)^{pattern}\\Z")


def has_json_text(
    connection: Connection, column: InstrumentedAttribute[Any], name: str, value: str
) -> ColumnElement[bool]:
    """Return the condition that a JSON object has a text under a name.

    Args:
        connection: A connection.
        column: The column of the object; on SQLite a damaged one has no names.
        name: The name, any text.
        value: The text.
    """
    if connection.dialect.name == "postgresql":
        return func.jsonb_extract_path_text(column, safe(name)) == safe(value)
    stored = type_coerce(column, Text)
    pairs = func.json_each(case((func.json_valid(stored), stored), else_="{}")).table_valued("key", "value")
    return exists().where(pairs.c.key == safe(name), pairs.c.value == safe(value))
