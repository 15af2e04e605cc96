"""Parts of statements that several modules need."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, false, or_, true
from sqlalchemy.orm import InstrumentedAttribute

MAX_VALUES_PER_IN_LIST = 500

#: One stream, some streams, or None for all.
StreamChoice = str | Collection[str] | None

#: Columns of an order; a True beside a column means descending.
Order = Sequence[tuple[InstrumentedAttribute[Any], bool]]


class Bounds(NamedTuple):
    """Part of a list; None: no bound."""

    stream: StreamChoice = None
    since_ns: int | None = None
    until_ns: int | None = None  # exclusive
    after: Sequence[Any] | None = None  # columns of the order in the last row of the page before
    limit: int | None = None


def where_given(statement: Select[Any], *filters: tuple[Any, ColumnElement[bool]]) -> Select[Any]:
    """Add the conditions of (value, condition) whose value is not None."""
    return statement.where(*(condition for value, condition in filters if value is not None))


def page_of(
    statement: Select[Any], order: Order, after: Sequence[Any] | None, limit: int | None
) -> Select[Any]:
    """Return the rows that follow ``after`` in an order, up to ``limit``.

    Rows that are inserted meanwhile neither shift a page nor repeat a row.

    Args:
        statement: the statement without an order.
        order: columns that together are unique.
        after: values of these columns in the last row of the page before.
        limit: maximum number of rows.
    """
    if after is not None:
        later: ColumnElement[bool] = false()
        for (column, descending), value in reversed(list(zip(order, after, strict=True))):
            beyond = column < value if descending else column > value
            later = or_(beyond, and_(column == value, later))
        statement = statement.where(later)
    return statement.order_by(*(c.desc() if descending else c for c, descending in order)).limit(limit)


def of_streams(column: InstrumentedAttribute[Any], streams: StreamChoice) -> ColumnElement[bool]:
    """Return the condition that a row belongs to a stream, to one of several, or to any."""
    if streams is None:
        return true()
    return column == streams if isinstance(streams, str) else column.in_(list(streams))


def id_begins_with(column: InstrumentedAttribute[UUID], digits: str) -> ColumnElement[bool]:
    """Return the condition that an id begins with 1 to 32 hex digits."""
    return column.between(UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f")))


def in_parts(values: Collection[Any], size: int = MAX_VALUES_PER_IN_LIST) -> Iterator[list[Any]]:
    """Split values into lists that one IN list can hold."""
    listed = list(values)
    return (listed[i : i + size] for i in range(0, len(listed), size))
