"""JSON texts of records: documents in one, and samples as records of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from pipeline.decode.json_paths import Path, parsed_text
from pipeline.decode.parsed_batch import Reject, shown

#: Contents from the outermost one to that of the sample.
Scopes = tuple[Any, ...]
_SPACE = " \t\r\n"


#: Step of a path to every member of an object, and the field that holds the name of the member.
ANY_MEMBER, NAME = "*", "$name"


class Member(dict[str, Any]):
    """Scope of a member of an object: its name.

    ``is_sample``: the member is itself the sample.
    """

    def __init__(self, name: str, is_sample: bool) -> None:
        """Keep the name."""
        super().__init__({NAME: name})
        self.is_sample = is_sample


class RefusedError(Exception):
    """A record or a sample that cannot be read, with the reason."""

    def __init__(self, reason: str, detail: str) -> None:
        """Keep the reason."""
        super().__init__(detail)
        self.reject = Reject(reason, detail)


def documents_of(raw: bytes) -> Iterator[tuple[str, Any]]:
    """Yield (text, content) of each JSON text of a record; a Reject for a bad one."""
    try:
        yield "", msgspec.json.decode(raw)
        return
    except msgspec.DecodeError:
        pass
    text = raw.decode()
    decode = json.JSONDecoder(parse_constant=_constant).raw_decode
    place = 0
    found: list[tuple[str, Any]] = []
    while place < len(text):
        if text[place] in _SPACE or (text[place] in ",\x1e" and found):
            place += 1
            continue
        try:
            content, end = decode(text, place)
        except RecursionError:
            raise RefusedError("malformed", f"nested too deeply: {shown(raw)}") from None
        except ValueError as error:
            if found and "\n" not in text[:place].rpartition(found[-1][0])[2]:
                raise RefusedError("malformed", f"trailing characters after JSON: {shown(raw)}") from None
            newline = text.find("\n", place)
            end = len(text) if newline < 0 else newline
            content = Reject("malformed", f"{error}: {shown(text[place:end])}")
        found.append((text[place:end], content))
        place = end
    if all(isinstance(content, Reject) for _, content in found):
        raise RefusedError("malformed", f"not JSON: {shown(raw)}")
    yield from found


def _constant(name: str) -> float:
    return float(name)


def alone(scopes: Scopes, places: Sequence[Path]) -> Any:
    """Return the outermost scope with a single sample in it."""
    sample, in_array = scopes[-1], True
    for scope, place in zip(reversed(scopes[:-1]), reversed(places), strict=True):
        if isinstance(scope, Member):
            content = sample if scope.is_sample else replaced(None, place, [sample])
            sample, in_array = {scope[NAME]: content}, False
        else:
            sample, in_array = replaced(scope, place, [sample] if in_array else sample), True
    return sample


def replaced(node: Any, path: Path, content: Any) -> Any:
    """Return a copy of ``node`` with another content at a path."""
    if not path:
        return content
    if isinstance(node, str):
        node = parsed_text(node)
    if isinstance(node, dict):
        return {**node, path[0]: replaced(node.get(path[0]), path[1:], content)}
    if isinstance(node, list):
        place = int(path[0])
        return [replaced(one, path[1:], content) if i == place else one for i, one in enumerate(node)]
    return content


def dump_json(content: Any) -> bytes:
    """Return content as JSON without spaces."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
