"""Paths into JSON: keys, positions in arrays, and JSON inside a text."""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Any

import msgspec

from pipeline.decode.unwrapping import unwrap

Path = tuple[str, ...]
_DOT = re.compile(r"(?<!\\)\.")
_MAX_POSITION_DIGITS = 9
#: First characters of base64 of ``{``, ``[`` and gzip.
_BASE64_BEGINNINGS = "eWH"


class _Nothing:
    """Marker of a field that is not there."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


#: The field is not there.
ABSENT: Any = _Nothing("absent")
#: A parent of the field is null.
NULL_PARENT: Any = _Nothing("below null")


def path_of(field: str) -> Path:
    r"""Split a path: ``meta.site`` → ("meta", "site"); ``host\.name`` is one key with a dot in it."""
    return tuple(part.replace("\\.", ".") for part in _DOT.split(field))


def find(node: Any, path: Path) -> Any:
    """Return the content at ``path``, ABSENT or NULL_PARENT."""
    for part in path:
        if isinstance(node, str):
            node = parsed_text(node)
        if isinstance(node, dict):
            node = node.get(part, ABSENT)
        elif isinstance(node, list):
            node = _element(node, part)
        else:
            return NULL_PARENT if node is None or node is NULL_PARENT else ABSENT
    return node


def parsed_text(text: str) -> Any:
    """Return the JSON object or array that a text holds, otherwise ABSENT.

    The text may be base64.
    """
    begin = text.lstrip()[:1]
    try:
        if begin in _BASE64_BEGINNINGS and begin:
            inner = unwrap(b64decode(text, validate=True))
            return msgspec.json.decode(inner) if inner.lstrip()[:1] in (b"{", b"[") else ABSENT
        return msgspec.json.decode(text) if begin in ("{", "[") else ABSENT
    except (msgspec.DecodeError, ValueError, RecursionError):
        return ABSENT


def _element(array: list[Any], part: str) -> Any:
    digits = part.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > _MAX_POSITION_DIGITS:
        return ABSENT
    place = int(part)
    return array[place] if -len(array) <= place < len(array) else ABSENT
