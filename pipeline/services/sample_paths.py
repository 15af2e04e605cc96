"""Samples inside a record of JSON: the array that holds them, and their fields."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.services.guess import number_of, words_of
from pipeline.services.guess_times import is_time_name

Row = dict[str, Any]

#: Arrays that describe a reading, or the way that it took.
_NO_SAMPLES = re.compile(
    r"(^|[._])(rx_?meta_?data|rx_?info|gateways?|tags|item_tags|links?|route|correlation_ids|groups)$"
)
_VALUE_NAME = re.compile(
    r"(^|[._])(v|val|value|values|reading|average|avg|mean|sum|total|min|max|last|gauge)$"
)
#: Shortest arrays of numbers that are no position and value.
MIN_COLUMN_LENGTH = 5


def sample_path(records: Sequence[Row]) -> str | None:
    """Return the path of the array of samples, None if each record is one."""
    counts: Counter[str] = Counter()
    for record in records:
        counts.update({path for path, _ in _arrays(record, "")})
    for path in sorted(counts, key=lambda one: (-one.count("."), -counts[one])):
        if _NO_SAMPLES.search(words_of(path)):
            continue
        rows = [row for record in records[:20] for row in rows_of(record, path)]
        items = [item for record in records[:20] for item in items_of(record, path)]
        if not any(_is_number(value) for item in items for value in item.values()):
            continue
        named = any(
            is_time_name(name) or _VALUE_NAME.search(words_of(name)) or name.isdigit()
            for item in items
            for name in item
        )
        outside = {
            n
            for row in rows
            for n, v in row.items()
            if isinstance(v, float) and not any(n in i for i in items)
        }
        if named or not outside:
            return path
    return None


def rows_of(record: Any, path: str | None) -> list[Row]:
    """Return the samples of a record, with flat fields of them and around them."""
    if path is None:
        return [_flat(record)]
    return list(_expanded(record, path.split("."), {}))


def _expanded(node: Any, rest: list[str], around: Row) -> Iterator[Row]:
    """Yield a row for each element of the array at the end of a path."""
    if isinstance(node, list):
        for element in node:
            if rest:
                yield from _expanded(element, rest, around)
            else:
                yield around | _flat(element)
    elif isinstance(node, dict) and rest:
        own = {name: item for name, item in _flat(node).items() if not isinstance(item, list)}
        inner: Any = node
        while rest and isinstance(inner, dict):
            inner, rest = inner.get(rest[0]), rest[1:]
        if isinstance(inner, list):
            yield from _expanded(inner, rest, around | own)


def items_of(record: Any, path: str) -> Iterator[Row]:
    """Yield the elements of the array at the end of a path, with flat fields."""

    def walk(node: Any, rest: list[str]) -> Iterator[Any]:
        if isinstance(node, list):
            for element in node:
                if rest:
                    yield from walk(element, rest)
                else:
                    yield _flat(element)
        elif rest and isinstance(node, dict):
            yield from walk(node.get(rest[0]), rest[1:])

    yield from walk(record, path.split("."))


def _arrays(node: Any, path: str) -> Iterator[tuple[str, list[Any]]]:
    """Yield the arrays of objects, or of rows, of a record, with their paths."""
    if isinstance(node, dict):
        for name, item in node.items():
            if "." not in name:
                yield from _arrays(item, f"{path}.{name}" if path else name)
    elif isinstance(node, list) and node and (_all_objects(node) or _all_rows(node)):
        yield path, node
        for one in node:
            yield from _arrays(one, path)


def _all_objects(items: list[Any]) -> bool:
    return all(isinstance(one, dict) for one in items)


def _all_rows(items: list[Any]) -> bool:
    return all(isinstance(one, list) and 1 < len(one) < MIN_COLUMN_LENGTH for one in items)


def _flat(record: Any, before: str = "") -> Row:
    """Return nested fields under their paths, with positions in short arrays."""
    if isinstance(record, list):
        return _positions(record)
    if not isinstance(record, dict):
        return {}
    found: Row = {}
    for name, item in record.items():
        path = before + name.replace("\\", "\\\\").replace(".", "\\.")
        if isinstance(item, dict):
            found |= _flat(item, f"{path}.")
        elif isinstance(item, list) and _is_pair(item):
            found |= {f"{path}.{place}": one for place, one in enumerate(item)}
        else:
            found[path] = item
    return found


def _positions(row: Sequence[Any]) -> Row:
    return {str(place): one for place, one in enumerate(row)}


def _is_pair(items: list[Any]) -> bool:
    short = 0 < len(items) < MIN_COLUMN_LENGTH
    return short and not any(isinstance(one, dict | list) for one in items) and any(map(_is_number, items))


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or value is None or isinstance(value, list | dict):
        return False
    return isinstance(value, int | float) or number_of(str(value)) is not None
