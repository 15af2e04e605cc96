"""Conditions on the fields of a record: ``where`` of a format.

They are parsed, never evaluated as code. A text has comparisons (``==``, ``!=``, ``<``, ``<=``, ``>``,
``>=``, ``in``, ``not in``, ``like``), ``exists(field)``, ``not``, ``and``, ``or`` and parentheses. A mapping
has a value, a list, or a glob for each field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

#: Content of a field that is not there.
ABSENT: Any = None

Lookup = Callable[[str], Any]
_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:\\.|[^'\\])*'|\"(?:\\.|[^\"\\])*\")|(?P<sign>==|!=|<=|>=|=|<|>|[()\[\],])"
    r"|(?P<number>[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.]))|(?P<word>`[^`]+`|[^\s()\[\],=!<>'\"`]+))"
)
_WORDS = {"true": True, "false": False, "null": None}
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_MAX_CHARACTERS = 4000


@dataclass(frozen=True)
class Condition:
    """Condition on ``fields``.

    ``holds`` gets a function that returns the content of a field.
    """

    fields: tuple[str, ...]
    holds: Callable[[Lookup], bool]


def parse_condition(given: str | Sequence[str] | dict[str, Any]) -> Condition:
    """Return the condition of a text, a list or a mapping.

    All texts of a list must hold. Raises ValueError with the reason.
    """
    if isinstance(given, str):
        return _Parser(given).parse()
    parts = (
        [_field_condition(name, wanted) for name, wanted in given.items()]
        if isinstance(given, dict)
        else [_Parser(text).parse() for text in given]
    )
    if not parts:
        raise ValueError("is empty: name at least one condition")
    return _all_of(parts)


def equal(found: Any, wanted: Any) -> bool:
    """Return whether a field has a value.

    Numbers and texts of numbers are equal, as CSV has no types.
    """
    if isinstance(found, bool) or isinstance(wanted, bool):
        return _text(found) == _text(wanted)
    if isinstance(found, int | float) and isinstance(wanted, int | float):
        return found == wanted
    if found is None or wanted is None:
        return found is wanted
    if isinstance(found, int | float) != isinstance(wanted, int | float):
        try:
            return float(found) == float(wanted)
        except (TypeError, ValueError):
            return False
    return bool(found == wanted)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _all_of(parts: Sequence[Condition]) -> Condition:
    fields = tuple(dict.fromkeys(name for part in parts for name in part.fields))
    return Condition(fields, lambda of: all(part.holds(of) for part in parts))


def _field_condition(name: str, wanted: Any) -> Condition:
    if isinstance(wanted, dict):
        known = {"not", "exists"}
        if len(wanted) != 1 or not set(wanted) <= known:
            raise ValueError(f"{name}: write a value, a list, a glob, {{not: …}} or {{exists: true}}")
        ((kind, content),) = wanted.items()
        if kind == "exists":
            return Condition((name,), lambda of: (of(name) is not None) == bool(content))
        inner = _field_condition(name, content)
        return Condition((name,), lambda of: not inner.holds(of))
    if isinstance(wanted, list):
        values = list(wanted)
        return Condition((name,), lambda of: any(_fits(of(name), one) for one in values))
    return Condition((name,), lambda of: _fits(of(name), wanted))


def _fits(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, str) and any(mark in wanted for mark in "*?["):
        return found is not None and fnmatchcase(_text(found), wanted)
    return equal(found, wanted)


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        if len(text) > _MAX_CHARACTERS:
            raise ValueError(f"is longer than {_MAX_CHARACTERS} characters")
        self._tokens: list[tuple[str, str]] = []
        place = 0
        while text[place:].strip():
            found = _TOKEN.match(text, place)
            if found is None:
                raise ValueError(f"cannot be read at {text[place : place + 20].strip()!r}")
            kind = str(found.lastgroup)
            self._tokens.append((kind, found[kind]))
            place = found.end()
        self._at = 0
        self._depth = 0

    def parse(self) -> Condition:
        found = self._either()
        if self._at < len(self._tokens):
            raise ValueError(f"does not end before {self._tokens[self._at][1]!r}")
        return found

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "the end")

    def _take(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def _word(self, *words: str) -> bool:
        kind, text = self._peek()
        if kind == "word" and text.lower() in words:
            self._at += 1
            return True
        return False

    def _sign(self, sign: str) -> bool:
        if self._peek() == ("sign", sign):
            self._at += 1
            return True
        return False

    def _need(self, sign: str) -> None:
        if not self._sign(sign):
            raise ValueError(f"needs {sign!r} before {self._peek()[1]!r}")

    def _either(self) -> Condition:
        parts = [self._both()]
        while self._word("or", "||"):
            parts.append(self._both())
        if len(parts) == 1:
            return parts[0]
        fields = _all_of(parts).fields
        return Condition(fields, lambda of: any(part.holds(of) for part in parts))

    def _both(self) -> Condition:
        parts = [self._one()]
        while self._word("and", "&&"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else _all_of(parts)

    def _one(self) -> Condition:
        self._depth += 1
        if self._depth > 50:
            raise ValueError("is nested too deeply")
        try:
            if self._word("not"):
                inner = self._one()
                return Condition(inner.fields, lambda of: not inner.holds(of))
            if self._sign("("):
                inner = self._either()
                self._need(")")
                return inner
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Condition:
        name = self._field()
        if name == "exists" and self._sign("("):
            inner = self._field()
            self._need(")")
            return Condition((inner,), lambda of: of(inner) is not None)
        negated = self._word("not")
        if self._word("in"):
            values = self._values()
            return Condition((name,), lambda of: any(equal(of(name), v) for v in values) != negated)
        if self._word("like"):
            pattern = str(self._value())
            return Condition((name,), lambda of: _fits(of(name), pattern + "") != negated)
        if self._word("exists"):
            return Condition((name,), lambda of: (of(name) is not None) != negated)
        kind, sign = self._take()
        if kind != "sign" or sign not in ("==", "=", "!=", *_ORDER):
            raise ValueError(f"needs a comparison after {name!r}, such as {name} == 'value'")
        wanted = self._value()
        if sign in _ORDER:
            return Condition((name,), lambda of: _ordered(sign, of(name), wanted))
        return Condition((name,), lambda of: equal(of(name), wanted) == (sign != "!="))

    def _field(self) -> str:
        kind, text = self._take()
        if kind != "word":
            raise ValueError(f"needs the name of a field where it has {text!r}")
        return text.strip("`")

    def _values(self) -> list[Any]:
        close = "]" if self._sign("[") else ")"
        if close == ")":
            self._need("(")
        values = [self._value()]
        while self._sign(","):
            values.append(self._value())
        self._need(close)
        return values

    def _value(self) -> Any:
        kind, text = self._take()
        if kind == "text":
            return re.sub(r"\\(.)", r"\1", text[1:-1])
        if kind == "number":
            return float(text) if set(text) & set(".eE") else int(text)
        if kind == "word" and text.lower() in _WORDS:
            return _WORDS[text.lower()]
        if kind == "word":
            return text
        raise ValueError(f"needs a value where it has {text!r}")


def _ordered(sign: str, found: Any, wanted: Any) -> bool:
    """Compare as numbers if both are, otherwise as texts.

    A field that is absent fits nothing.
    """
    if found is None or wanted is None:
        return False
    try:
        return _ORDER[sign](float(found), float(wanted))
    except (TypeError, ValueError):
        return _ORDER[sign](_text(found), _text(wanted))
