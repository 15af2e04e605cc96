"""JSON of any shape, one record at a time.

It may have arrays, several texts in a record, JSON in a text, and numbers in quotes. If the time is an array,
the fields are arrays beside each other, with one element for each sample.
``pipeline.decode.json_records`` comes here with the records that do not fit the types of the plain case. A
record may hold many samples. Each of them becomes a point, is left out by the format's condition, or is bad.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np

from pipeline.core.conditions import Condition
from pipeline.core.number_texts import NotANumberError, NumberRules
from pipeline.decode.envelope import VALUE, is_envelope
from pipeline.decode.fields import Fields
from pipeline.decode.json_paths import ABSENT, NULL_PARENT, Path, find, parsed_text, path_of
from pipeline.decode.json_texts import (
    ANY_MEMBER,
    Member,
    RefusedError,
    Scopes,
    alone,
    documents_of,
    dump_json,
    replaced,
)
from pipeline.decode.parsed_batch import Reject, canonical, short_label, shown
from pipeline.decode.typed_json import plain_content
from pipeline.decode.unwrapping import unwrap

_REFUSED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)


#: Longest record that is a word or a number with its unit.
_MAX_BARE_BYTES = 64


class BadSample(NamedTuple):
    """Sample that cannot be read: as a record of its own, and the reason."""

    text: bytes
    reject: Reject


@dataclass(slots=True)
class Found:
    """Content of one record.

    points   one row for each good sample, with the fields in the order of ``SampleReader.fields``
    texts    a function for each good sample that returns it as a record of its own
    bad      samples that cannot be read
    """

    points: list[list[Any]] = field(default_factory=list)
    texts: list[Callable[[], bytes]] = field(default_factory=list)
    bad: list[BadSample] = field(default_factory=list)
    whole: bool = True  # the record is one object, the sample itself


class SampleReader:
    """Reader of records of one JSON format."""

    def __init__(
        self, fields: Fields, samples: str | None, numbers: NumberRules, where: Condition | None
    ) -> None:
        """Prepare the paths.

        Args:
            fields: Fields of the format.
            samples: Path of the array of samples, None where the record is the sample.
            numbers: How numbers are written as text.
            where: Condition of the samples that belong to the stream.
        """
        self.fields = fields.all()
        self._form = fields
        self._numbers = numbers
        self._where = where
        self._samples: Path = () if samples in (None, ".") else path_of(samples or "")
        self._named = samples or ""
        inside = [name for name in self.fields if not is_envelope(name) and name != VALUE]
        names = inside + [name for name in (where.fields if where else ()) if not is_envelope(name)]
        self._paths = {name: path_of(name) for name in names}
        self._inside = inside
        self._positional = any(path[0].lstrip("-").isdigit() for path in self._paths.values())
        self._bare = VALUE in self.fields
        self._readers = {name: self._reader(name) for name in self.fields}

    def read(self, value: bytes, envelope: Mapping[str, Any]) -> Found:
        """Return the samples of a record. It never raises.

        ``envelope`` has its fields outside the value.
        """
        found = Found()
        try:
            documents = list(documents_of(unwrap(value)))
        except (RefusedError, *_REFUSED) as error:
            if not (self._bare and (text := _bare_text(value))):
                reject = Reject("malformed", f"{error}: {shown(value)}")
                found.bad.append(BadSample(value, getattr(error, "reject", reject)))
                return found
            documents = [("", text)]
        found.whole = len(documents) == 1 and not self._samples
        for text, document in documents:
            if isinstance(document, Reject):
                found.bad.append(BadSample(text.encode("utf-8", "surrogatepass"), document))
                continue
            try:
                self._read_document(document, envelope, found)
            except RefusedError as refused:
                found.bad.append(BadSample(dump_json(document), refused.reject))
        return found

    def _read_document(self, document: Any, envelope: Mapping[str, Any], found: Found) -> None:
        if isinstance(document, str) and (inner := parsed_text(document)) is not ABSENT:
            document = inner
        for scopes, places in self._expand(document):
            length = self._length_of_arrays(scopes)
            found.whole = found.whole and not places and len(scopes) == 1 and length is None
            for at in (None,) if length is None else range(length):
                self._read_sample(scopes, places, at, envelope, found)

    def _read_sample(
        self,
        scopes: Scopes,
        places: Sequence[Path],
        at: int | None,
        envelope: Mapping[str, Any],
        found: Found,
    ) -> None:
        """Add a sample to ``found``; ``at``: its place in arrays beside each other."""

        def text() -> bytes:
            return dump_json(alone(scopes if at is None else self._cut(scopes, at), places))

        try:
            point = self._point(scopes, envelope, at)
        except RefusedError as refused:
            found.bad.append(BadSample(text(), refused.reject))
            return
        if point is not None:
            found.points.append(point)
            found.texts.append(text)

    def checked(self, name: str, contents: Sequence[Any], unfit: dict[int, Reject]) -> list[Any]:
        """Return a column of the envelope in the type of its field.

        Content that does not fit makes its point unfit.
        """
        read, column = self._readers[name], []
        if name in self._form.times:
            other: Any = 0
        else:
            other = "" if name in self._form.labels else np.nan
        for point, content in enumerate(contents):
            try:
                column.append(read(ABSENT if content is None else content))
            except RefusedError as refused:
                unfit.setdefault(point, refused.reject)
                column.append(other)
        return column

    # ------------------------------------------------------------------------------------------------ samples

    def _expand(self, document: Any) -> Iterator[tuple[Scopes, list[Path]]]:
        """Yield the scopes of each sample, outermost first, and the paths between."""
        for root, in_array in self._flat(document):
            places: list[Path] = [()] if in_array else []
            scopes: Scopes = ([root], root) if in_array else (root,)
            if self._samples:
                yield from self._descend(scopes, places, root, self._samples, ())
            else:
                yield (root,) if not in_array else scopes, places

    def _flat(self, node: Any) -> Iterator[tuple[Any, bool]]:
        """Yield (the samples of arrays in arrays, whether they stand in an array)."""
        if not isinstance(node, list) or self._is_row(node):
            yield node, False
            return
        for element in node:
            for inner, _ in self._flat(element):
                yield inner, True

    def _is_row(self, array: list[Any]) -> bool:
        """Return whether an array is one sample, whose fields are positions."""
        return self._positional and not (array and all(isinstance(one, list) for one in array))

    def _descend(
        self, scopes: Scopes, places: list[Path], node: Any, rest: Path, walked: Path
    ) -> Iterator[tuple[Scopes, list[Path]]]:
        if isinstance(node, str) and rest:
            node = parsed_text(node)
        if isinstance(node, list) and (not rest or not rest[0].lstrip("-").isdigit()):
            for element, _ in self._flat(list(node)) if not self._is_row(node) else [(e, True) for e in node]:
                if rest:
                    yield from self._descend((*scopes, element), [*places, walked], element, rest, ())
                else:
                    yield (*scopes, element), [*places, walked]
        elif rest and rest[0] == ANY_MEMBER and isinstance(node, dict):
            for name, member in node.items():
                yield from self._member(scopes, [*places, walked], name, member, rest[1:])
        elif rest:
            inner = find(node, rest[:1])
            if inner is NULL_PARENT:
                return
            if inner is ABSENT:
                raise RefusedError("missing_field", f"no field {self._named}")
            yield from self._descend(scopes, places, inner, rest[1:], (*walked, rest[0]))
        else:
            raise RefusedError("wrong_type", f"{self._named} is not an array, it is {shown(node)}")

    def _member(
        self, scopes: Scopes, places: list[Path], name: str, member: Any, rest: Path
    ) -> Iterator[tuple[Scopes, list[Path]]]:
        """Yield the samples of a member of an object.

        Other contents than objects are passed over.
        """
        is_sample = not rest and not isinstance(member, list)
        inner = (*scopes, Member(name, is_sample))
        if not is_sample:
            if isinstance(member, dict | list):
                yield from self._descend(inner, places, member, rest, ())
        elif self._bare or isinstance(member, dict):
            yield (*inner, member), [*places, ()]

    # ------------------------------------------------------------------------------------------------- fields

    def _length_of_arrays(self, scopes: Scopes) -> int | None:
        """Return the length of arrays beside each other, None without.

        One of them is that of the times.
        """
        time = self._form.times[0]
        if time not in self._paths or not isinstance(times := self._find(scopes, time), list):
            return None
        arrays = [name for name in self._inside if isinstance(self._find(scopes, name), list)]
        if not times or arrays == [time]:
            return None
        for name in arrays:
            content = self._find(scopes, name)
            if len(content) != len(times):
                raise RefusedError(
                    "wrong_type",
                    f"{name} has {len(content)} elements, {time} has {len(times)}; arrays beside each other "
                    "have one element for each sample",
                )
        return len(times)

    def _cut(self, scopes: Scopes, at: int) -> Scopes:
        """Return scopes with one element in each of the arrays beside each other."""
        cut = list(scopes)
        for path in self._paths.values():
            for place, scope in enumerate(cut):
                if isinstance(content := find(scope, path), list):
                    cut[place] = replaced(scope, path, [content[at]])
        return tuple(cut)

    def _point(self, scopes: Scopes, envelope: Mapping[str, Any], at: int | None = None) -> list[Any] | None:
        """Return the fields of a sample, None if it is left out."""

        def look_up(name: str) -> Any:
            if is_envelope(name):
                return envelope[name]
            content = self._find(scopes, name)
            return content if at is None or not isinstance(content, list) else content[at]

        if self._where is not None and not self._where.holds(lambda name: _or_none(look_up(name))):
            return None
        if not self._bare and not isinstance(scopes[-1], dict | list):
            raise RefusedError("not_an_object", f"not an object: {shown(json.dumps(scopes[-1]))[1:-1]}")
        contents = {name: look_up(name) for name in self.fields}
        parents = [contents[name] for name in self._inside if len(self._paths[name]) > 1]
        if (
            parents
            and all(content is NULL_PARENT for content in parents)
            and len(parents) >= len(self._inside)
        ):
            return None
        return [self._readers[name](contents[name]) for name in self.fields]

    def _find(self, scopes: Scopes, name: str) -> Any:
        if name == VALUE:
            return scopes[-1]
        path, below_null = self._paths[name], False
        for scope in reversed(scopes):
            content = find(scope, path)
            if content is NULL_PARENT:
                below_null = True
            elif content is not ABSENT:
                return plain_content(content)
        return NULL_PARENT if below_null else ABSENT

    def _reader(self, name: str) -> Callable[[Any], Any]:
        form, optional = self._form, name in self._form.optional
        if name == form.event:
            return lambda content: _event(name, content)
        if name in form.labels:
            return lambda content: _label(name, content, optional)
        if name in form.times:
            return lambda content: _time(name, content, form.time_unit)
        if name in form.values or name in form.numbers:
            return lambda content: self._number(name, content, optional)
        return lambda content: _scalar(name, content, optional)

    def _number(self, name: str, content: Any, optional: bool) -> float:
        if content is ABSENT and not optional:
            raise _missing(name)
        if content is ABSENT or content is NULL_PARENT or content is None:
            return np.nan
        if isinstance(content, str):
            try:
                number = self._numbers.read(content)
            except NotANumberError as error:
                raise RefusedError(
                    "wrong_type", f"{name} is not a number, it is {shown(content)}; {error}"
                ) from None
        elif isinstance(content, int | float):  # true is 1
            try:
                number = float(content)
            except OverflowError:
                number = np.inf
        else:
            raise RefusedError("wrong_type", f"{name} is not a number, it is {shown(content)}")
        if np.isinf(number):
            raise RefusedError("not_finite", f"{name} is {shown(content)}")
        return number


def _bare_text(value: bytes) -> str:
    """Return the short text that a record is, such as ON, empty for another one."""
    try:
        text = value.decode().strip() if len(value) <= _MAX_BARE_BYTES else ""
    except UnicodeDecodeError:
        return ""
    return "" if text[:1] in ("{", "[") else text


def _or_none(content: Any) -> Any:
    return None if content is ABSENT or content is NULL_PARENT else content


def _missing(name: str) -> RefusedError:
    return RefusedError("missing_field", f"no field {name}")


def _label(name: str, content: Any, optional: bool) -> str:
    if content is ABSENT or content is NULL_PARENT or content is None:
        if optional:
            return ""
        if content is None:
            why = f"{name} is null; a label that may be absent is `optional`"
            raise RefusedError("missing_field", why)
        raise _missing(name)
    if not isinstance(content, str | int):
        raise RefusedError("wrong_type", f"{name} is a label, it is {shown(content)}")
    return short_label(canonical(content))


def _event(name: str, content: Any) -> str:
    if content is ABSENT or content is NULL_PARENT:
        raise _missing(name)
    if content is None:
        raise RefusedError("missing_field", f"{name} is null; an event has a code")
    if not isinstance(content, str | int):
        raise RefusedError("wrong_type", f"{name} is the code of an event, it is {shown(content)}")
    return canonical(content)


def _time(name: str, content: Any, unit: str) -> int | float | str:
    if content is ABSENT or content is NULL_PARENT:
        raise _missing(name)
    if content is None:
        raise RefusedError("missing_field", f"{name} is null")
    if isinstance(content, bool) or not isinstance(content, int | float | str):
        raise RefusedError("wrong_type", f"{name} is not a time, it is {shown(content)}")
    return str(content) if unit == "iso" else content


def _scalar(name: str, content: Any, optional: bool) -> Any:
    if content is ABSENT or content is NULL_PARENT:
        if optional:
            return None
        raise _missing(name)
    if isinstance(content, dict | list):
        raise RefusedError("wrong_type", f"{name} is not a text or a number, it is {shown(content)}")
    return content
