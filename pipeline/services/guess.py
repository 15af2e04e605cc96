"""Guess of a stream's config, and what its parts share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.core.number_texts import plain_text
from pipeline.core.timestamps import parse_times

#: Fields by name, one content for each row.
Fields = Mapping[str, Sequence[Any]]

_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NO_WORD = re.compile(r"^[^\w@]+|[^\w%]+$")
#: Earlier state of a changed row, and what a change event tells of itself.
_FORMER = re.compile(r"(^|[._])(old|before|previous|prev|former|old_\w+)([._]|$)", re.I)


@dataclass(slots=True)
class Guess:
    """A guessed stream.

    form       keys of the format
    stream     keys of the stream beside source and format
    why        key → (value, reason), as shown
    questions  key → (question, possible answers)
    """

    form: dict[str, Any] = field(default_factory=dict)
    stream: dict[str, Any] = field(default_factory=dict)
    why: dict[str, tuple[str, str]] = field(default_factory=dict)
    questions: dict[str, tuple[str, list[str]]] = field(default_factory=dict)

    def note(self, key: str, value: object, reason: str) -> None:
        """Keep the reason of a guess."""
        self.why[key] = (str(value), reason)

    def ask(self, key: str, question: str, options: Sequence[str]) -> None:
        """Ask for what samples cannot tell; without options the text says what to do."""
        self.questions[key] = (question, list(options))


def words_of(name: str) -> str:
    """Return the name of a field in small letters with underscores: <DATE>, entityId."""
    return _WORDS.sub("_", _NO_WORD.sub("", name)).lower().replace(" ", "_").replace("-", "_")


def is_former(name: str) -> bool:
    """Return whether a field holds the state before a change."""
    return bool(_FORMER.search(words_of(name)))


def texts_of(values: Sequence[Any]) -> list[str]:
    """Return the contents that there are, as texts."""
    return [str(value).strip() for value in values if value is not None and str(value).strip()]


def number_of(text: str) -> float | None:
    """Return the number of a text, None for a word or an identifier such as 0071."""
    text = plain_text(text)
    if re.fullmatch(r"[+-]?0\d+", text) or "_" in text:  # 2_000 is a number to Python only
        return None
    try:
        return float(text)
    except ValueError:
        return None


def is_numeric(values: Sequence[Any]) -> bool:
    """Return whether all contents are numbers."""
    texts = texts_of(values)
    return bool(texts) and all(number_of(text) is not None for text in texts)


def share_of_times(values: Sequence[Any], form: str | None = None, unit: str = "auto") -> float:
    """Return the share of the contents that are times."""
    there: list[Any] = [value for value in values if value is not None]
    if not there or any(isinstance(value, bool | list | dict) for value in there):
        return 0.0
    if form is not None:
        there = texts_of(there)
    elif all(isinstance(value, str) for value in there):
        there = [value.strip() for value in there]
    return float((parse_times(there, unit, "UTC", form) >= 0).mean())


def short_name(name: str) -> str:
    """Return the last part of a path."""
    return re.split(r"(?<!\\)\.", name)[-1].replace("\\.", ".").removeprefix("$")


def has_paths(names: Sequence[str]) -> bool:
    """Return whether names are paths whose last parts differ."""
    short = [short_name(name) for name in names]
    return (
        any("." in name or name == "$value" for name in names)
        and len(set(short)) == len(short)
        and all(short)
    )
