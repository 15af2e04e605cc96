"""Samples inside a record of JSON: the array that holds them, and their fields."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.decode.json_paths import parsed_text
from pipeline.decode.json_texts import ANY_MEMBER, NAME
from pipeline.decode.typed_json import plain_content
from pipeline.services.guess import number_of, share_of_times, words_of
from pipeline.services.guess_times import is_time_name

Row = dict[str, Any]

#: Arrays that describe a reading, or the way that it took.
_NO_SAMPLES = re.compile(
    r"(^|[._])(rx_?meta_?data|rx_?info|gateways?|tags|item_tags|links?|route|correlation_ids|groups)$"
)
_VALUE_NAME = re.compile(
    r"(^|[._])(v|val|value|values|reading|average|avg|mean|sum|total|min|max|last|gauge)$"
)
#: Field of a sample that is a bare number.
BARE = "$value"
#: Shortest arrays of numbers that are no position and value.
MIN_COLUMN_LENGTH = 5
#: Shortest array of times beside others: two times are rather a beginning and an end.
MIN_ARRAY_LENGTH = 3


def sample_path(records: Sequence[Row]) -> str | None:
    """Return the path of the array of samples, None if each record is one."""
    if (members := _members_of(records[:20])) is not None:
        return members
    counts: Counter[str] = Counter()
    for record in records:
        counts.update({path for path, _ in _arrays(record, "")})
    for path in sorted(counts, key=lambda one: (-one.count("."), -counts[one])):
        if _NO_SAMPLES.search(words_of(path)):
            continue
        rows = [row for record in records[:20] for row in rows_of(record, path)]
        inside = {name for record in records[:20] for item in items_of(record, path) for name in item}
        if not any(_is_number(value) for row in rows for name, value in row.items() if name in inside):
            continue
        named = any(
            is_time_name(name) or _VALUE_NAME.search(words_of(name)) or name.isdigit() for name in inside
        )
        outside: dict[str, set[float]] = defaultdict(set)
        for row in rows:
            for name, value in row.items():
                if isinstance(value, float) and name not in inside:
                    outside[name].add(value)
        if named or not any(len(values) > 1 for values in outside.values()):
            return path
    return None


def _members_of(records: Sequence[Row]) -> str | None:
    """Return the path of an object whose members hold samples, None without.

    They are samples named by their time, or arrays of samples.
    """
    paths = [next(_named_members(record, ""), None) for record in records]
    return paths[0] if paths and len(set(paths)) == 1 else None


def _named_members(node: Any, path: str) -> Iterator[str]:
    if not isinstance(node, dict) or len(node) < 2:
        if isinstance(node, dict):
            for name, item in node.items():
                yield from _named_members(item, f"{path}{name}.") if "." not in name else ()
        return
    if _are_samples_by_time(node) or _are_arrays_of_samples(node) or _are_samples_by_name(node):
        yield f"{path}{ANY_MEMBER}"
        return
    for name, item in node.items():
        if "." not in name:
            yield from _named_members(item, f"{path}{name}.")


def _are_samples_by_time(node: Row) -> bool:
    if share_of_times(list(node)) < 1:
        return False
    return all(isinstance(item, dict) for item in node.values()) or (
        len(node) >= MIN_ARRAY_LENGTH and all(map(_is_number, node.values()))
    )


def _are_samples_by_name(node: Row) -> bool:
    """Return whether all members are samples with the same fields.

    One of the fields is a time, and one a number.
    """
    if not _all_objects(list(node.values())):
        return False
    fields = {tuple(sorted(item)) for item in node.values()}
    return len(fields) == 1 and all(
        any(is_time_name(name) and share_of_times([one]) == 1 for name, one in item.items())
        and any(_is_number(one) and not is_time_name(name) for name, one in item.items())
        for item in node.values()
    )


def _are_arrays_of_samples(node: Row) -> bool:
    """Return whether all members are arrays of objects with the same fields.

    One of the fields is a time.
    """
    if not all(isinstance(item, list) and item and _all_objects(item) for item in node.values()):
        return False
    fields = {tuple(sorted(item[0])) for item in node.values()}
    return len(fields) == 1 and any(is_time_name(name) for name in next(iter(fields)))


def columns_of(row: Row) -> list[str]:
    """Return the fields of a row that are arrays beside each other.

    One of them is that of the times.
    """
    length = next((len(item) for name, item in row.items() if _are_times(name, item)), None)
    return [name for name, item in row.items() if _are_scalars(item) and len(item) == length]


def _are_times(name: str, item: Any) -> bool:
    """Return whether a field is an array of times; one of numbers is named like times."""
    if not _are_scalars(item) or len(item) < MIN_ARRAY_LENGTH or share_of_times(item) < 1:
        return False
    texts = all(isinstance(one, str) for one in item)
    return texts or is_time_name(name) or is_time_name(name.rstrip("s"))


def _are_scalars(item: Any) -> bool:
    return isinstance(item, list) and not any(isinstance(one, dict | list) for one in item)


def _beside(row: Row) -> Iterator[Row]:
    """Yield a row for each place in arrays beside each other, or the row itself."""
    columns = columns_of(row)
    if not columns:
        yield row
        return
    for place in range(len(row[columns[0]])):
        yield row | {name: row[name][place] for name in columns}


def rows_of(record: Any, path: str | None) -> list[Row]:
    """Return the samples of a record, with flat fields of them and around them."""
    return [one for row in whole_rows_of(record, path) for one in _beside(row)]


def whole_rows_of(record: Any, path: str | None) -> list[Row]:
    """Return the samples of a record, with arrays beside each other as they are."""
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
    elif isinstance(node, dict) and rest and rest[0] == ANY_MEMBER:
        yield from _expanded_members(node, rest[1:], around)
    elif isinstance(node, dict) and rest:
        own = {n: item for n, item in _flat(node).items() if not isinstance(item, list) or _are_scalars(item)}
        inner: Any = node
        while rest and isinstance(inner, dict) and rest[0] != ANY_MEMBER:
            inner, rest = inner.get(rest[0]), rest[1:]
        if isinstance(inner, list) or (isinstance(inner, dict) and rest):
            yield from _expanded(inner, rest, around | own)


def _expanded_members(node: Row, rest: list[str], around: Row) -> Iterator[Row]:
    for name, member in node.items():
        named = around | {NAME: name}
        if isinstance(member, list) or rest:
            yield from _expanded(member, rest, named)
        else:
            yield named | (_flat(member) if isinstance(member, dict) else {BARE: member})


def items_of(record: Any, path: str) -> Iterator[Row]:
    """Yield the elements of the array at the end of a path, with flat fields."""

    def walk(node: Any, rest: list[str]) -> Iterator[Any]:
        if isinstance(node, list):
            for element in node:
                if rest:
                    yield from walk(element, rest)
                else:
                    yield _flat(element)
        elif rest and isinstance(node, dict) and rest[0] == ANY_MEMBER:
            for member in node.values():
                if rest[1:] or isinstance(member, dict | list):
                    yield from walk(member, rest[1:])
                else:
                    yield {BARE: member}
        elif rest and isinstance(node, dict):
            yield from walk(node.get(rest[0]), rest[1:])
        elif isinstance(node, dict):
            yield _flat(node)

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


def is_row(item: Any) -> bool:
    """Return whether an array is a sample, of which the first position is a time."""
    return _are_scalars(item) and len(item) > 1 and share_of_times(item[:1]) == 1


def _all_objects(items: list[Any]) -> bool:
    return all(isinstance(one, dict) for one in items)


def _all_rows(items: list[Any]) -> bool:
    return all(isinstance(one, list) and 1 < len(one) < MIN_COLUMN_LENGTH for one in items)


def _flat(record: Any, before: str = "", lengths: frozenset[int] | None = None) -> Row:
    """Return nested fields under their paths, with positions in short arrays.

    Arrays as long as one of times (``lengths``) stay as they are.
    """
    if isinstance(record, list):
        return _positions(record)
    if not isinstance(record, dict):
        return {}
    lengths = frozenset(_time_lengths(record)) if lengths is None else lengths
    found: Row = {}
    for name, item in record.items():
        path = before + name.replace("\\", "\\\\").replace(".", "\\.")
        if isinstance(item, str) and isinstance(inner := parsed_text(item), dict):
            item = inner
        item = plain_content(item)
        if isinstance(item, dict):
            found |= _flat(item, f"{path}.", lengths)
        elif isinstance(item, list) and len(item) not in lengths and _is_pair(item):
            found |= {f"{path}.{place}": one for place, one in enumerate(item)}
        else:
            found[path] = item
    return found


def _time_lengths(node: dict[str, Any]) -> Iterator[int]:
    for name, item in node.items():
        if isinstance(item, dict):
            yield from _time_lengths(item)
        elif _are_times(name, item):
            yield len(item)


def _positions(row: Sequence[Any]) -> Row:
    return {str(place): one for place, one in enumerate(row)}


def _is_pair(items: list[Any]) -> bool:
    short = 0 < len(items) < MIN_COLUMN_LENGTH
    return short and not any(isinstance(one, dict | list) for one in items) and any(map(_is_number, items))


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or value is None or isinstance(value, list | dict):
        return False
    return isinstance(value, int | float) or number_of(str(value)) is not None
