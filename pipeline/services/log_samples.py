"""Samples of text for the import wizard: its encoding, and lines of a log."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.core.errors import InputError
from pipeline.decode.log_lines import MAX_CHARS_BEFORE_TIME, MESSAGE, TIME, goes_on, split_line
from pipeline.services.guess import Fields, texts_of, words_of

NO_LOG = (
    f"its lines have no date with a time in their first {MAX_CHARS_BEFORE_TIME} characters, and no columns; "
    "send the lines to a topic, whose records have a time"
)
#: Least share of the lines of a log that have a time, or go on with the line before.
MIN_LOG_SHARE = 0.8
#: A line with so many words beside its time is one of a log, and no row of numbers.
MIN_WORDS = 2
_WORD = re.compile(r"[^\W\d_]{2,}")
#: Fields of a line that tell nothing of what wrote it, or would cut its order.
_OF_LINE = re.compile(
    r"(^|[._@])(pid|tid|seq|line(_?(no|nr|number))?|thread\w*|(log_?)?level|lvl|severity|priority|logger|caller|"
    r"file(name)?|func(tion)?|stream)$"
)
#: Fewest different lines of a field of log lines; one of a few remarks is none.
MIN_LINES = 3
#: Three letters with accents, or signs, on end: words of other languages that are read as Windows-1252.
_NOT_WESTERN = re.compile(r"[^\x00-\x7f]{3,}")
_NAME = re.compile(
    r"(^|[._@])(message|msg|log|line|log_?line|log_message|(short|full)_message|original|body|text)$"
)


def rows_of_log(lines: Sequence[str], year: int = 2000) -> tuple[list[dict[str, Any]], bool]:
    """Return the rows of the lines of a log, and whether their times lack the year.

    There are none if the lines are no log. The header of a table has no time, and its rows have no words.

    Args:
        lines: The lines.
        year: Year of times without one.
    """
    split = [split_line(line) for line in lines]
    timed = [one for one in split if one.time is not None]
    known = len(timed) + sum(
        one.time is None and goes_on(line) for one, line in zip(split, lines, strict=True)
    )
    worded = sum(len(_WORD.findall(one.message)) >= MIN_WORDS for one in timed)
    if not timed or known < MIN_LOG_SHARE * len(lines) or worded < MIN_LOG_SHARE * len(timed):
        return [], False
    if split[0].time is None and not goes_on(lines[0]):
        return [], False
    rows: list[dict[str, Any]] = [
        {TIME: f"{year}-{one.time}" if one.lacks_year else one.time, MESSAGE: one.message} for one in timed
    ]
    return rows, any(one.lacks_year for one in timed)


def rows_without_time(lines: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of lines of words without a time, none if they are no such."""
    worded = [
        line for line in lines if len(line.split()) > MIN_WORDS and len(_WORD.findall(line)) >= MIN_WORDS
    ]
    return [{MESSAGE: line} for line in worded] if len(worded) >= MIN_LOG_SHARE * len(lines) else []


def is_of_line(name: str) -> bool:
    """Return whether a field describes a line and no series."""
    return bool(_OF_LINE.search(words_of(name)))


def log_field(columns: Fields, numbers: Collection[str]) -> str | None:
    """Return the field of log lines, None if there is none or rows hold measurements.

    Args:
        columns: All fields.
        numbers: Fields that hold numbers; those with fractions are measurements.
    """
    if any("." in text for name in numbers for text in texts_of(columns[name])):
        return None
    for name, values in columns.items():
        texts = texts_of(values) if _NAME.search(words_of(name)) else []
        words = sum(len(_WORD.findall(text)) >= MIN_WORDS for text in texts)
        if len(set(texts)) >= MIN_LINES and words >= MIN_LOG_SHARE * len(texts):
            return name
    return None


def decoded_text(raw: bytes, given: str | None, path: Path) -> tuple[str, str]:
    """Return text and encoding. Raises InputError."""
    if given is not None:
        try:
            return raw.decode(given, "replace"), given
        except LookupError:
            raise InputError(f"there is no encoding {given!r}") from None
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16", "ignore"), "utf-16"
    if (wide := raw[:4:2] if raw[1:4:2] == b"\0\0" else b"") and b"\0" not in wide:
        return raw.decode("utf-16-le", "ignore"), "utf-16-le"
    try:
        return raw.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError as error:
        if error.start > len(raw) - 4:  # only cut off
            return raw[: error.start].decode("utf-8-sig"), "utf-8"
    with suppress(UnicodeDecodeError):
        text = raw.decode("cp1252")
        if not any(len(set(run)) > 1 for run in _NOT_WESTERN.findall(text)):
            return text, "cp1252"
    raise InputError(
        f"{path} is neither UTF-8 nor, by its letters, Windows-1252: name its encoding with "
        "--set encoding=NAME, such as cp932, gb18030, euc_kr, cp1251, mac_roman or cp1252"
    )
