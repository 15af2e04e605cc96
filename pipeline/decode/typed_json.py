"""JSON that names the type of each content: ``{"N": "20.1"}`` is 20.1.

DynamoDB, MongoDB (extended JSON), Firestore and the JSON encoding of Avro's unions write an object with one
field, whose name is a type, in place of a text or a number. The name and the type of the content have to
agree, so that a field that is only named like a type stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_NOTHING = object()


def _text(content: Any) -> Any:
    return content if isinstance(content, str) else _NOTHING


def _number(content: Any) -> Any:
    return content if isinstance(content, int | float) and not isinstance(content, bool) else _NOTHING


def _quoted(content: Any) -> Any:
    """Return a number in quotes; a whole one as int, so that it can be a time."""
    if not isinstance(content, str):
        return _NOTHING
    try:
        float(content)
    except ValueError:
        return _NOTHING
    return int(content) if content.lstrip("-").isdecimal() else content


def _switch(content: Any) -> Any:
    return content if isinstance(content, bool) else _NOTHING


def _null(content: Any) -> Any:
    return None if content is True or content is None else _NOTHING


def _seconds(content: Any) -> Any:
    return content["t"] if isinstance(content, dict) and set(content) == {"t", "i"} else _NOTHING


def _date(content: Any) -> Any:
    inner = plain_content(content)
    return inner if isinstance(inner, str | int) else _NOTHING


_READERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("S", "string", "$oid", "$symbol", "stringValue", "timestampValue"), _text),
    **dict.fromkeys(("N", "$numberDouble", "$numberInt", "$numberLong", "$numberDecimal"), _quoted),
    **dict.fromkeys(("double", "float", "int", "long", "doubleValue"), _number),
    **dict.fromkeys(("BOOL", "boolean", "booleanValue"), _switch),
    **dict.fromkeys(("NULL", "nullValue"), _null),
    "integerValue": _quoted,
    "$date": _date,
    "$timestamp": _seconds,
}


def plain_content(content: Any) -> Any:
    """Return the content of an object that only names its type.

    Any other content is returned as it is.
    """
    if not isinstance(content, dict) or len(content) != 1:
        return content
    ((name, inner),) = content.items()
    reader = _READERS.get(name)
    found = _NOTHING if reader is None else reader(inner)
    return content if found is _NOTHING else found
