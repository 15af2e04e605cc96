"""Parts of statements that several modules need."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select
from sqlalchemy.orm import InstrumentedAttribute

MAX_VALUES_PER_IN_LIST = 500


def where_given(statement: Select[Any], *filters: tuple[Any, ColumnElement[bool]]) -> Select[Any]:
    """Add the conditions of (value, condition) whose value is not None."""
    return statement.where(*(condition for value, condition in filters if value is not None))


def id_begins_with(column: InstrumentedAttribute[UUID], digits: str) -> ColumnElement[bool]:
    """Return the condition that an id begins with 1 to 32 hex digits."""
    return column.between(UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f")))


def in_parts(values: Collection[Any], size: int = MAX_VALUES_PER_IN_LIST) -> Iterator[list[Any]]:
    """Split values into lists that one IN list can hold; an empty collection has no part."""
    listed = list(values)
    return (listed[i : i + size] for i in range(0, len(listed), size))
