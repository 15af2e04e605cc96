"""Guess of the event time: its fields, unit and format."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pipeline.core.durations import DAY_NS, SECOND_NS
from pipeline.core.time_origins import DAYS_AT_EPOCH
from pipeline.core.time_spellings import why_ambiguous
from pipeline.core.timestamps import parse_times
from pipeline.services.guess import (
    Fields,
    Guess,
    is_former,
    is_numeric,
    number_of,
    share_of_times,
    texts_of,
    words_of,
)

_NAME = re.compile(
    r"(^|[._@$])(t|ts|time|times|clock|date|datetime|timestamp|time_?stamp|at|when|ts_?ms|epoch|ticks|moment|"
    r"uhrzeit|zeit|zeitstempel|datum|messzeit|mess_datum|fecha|hora|heure|horodate|tijd|data_ora|"
    r".*_(at|time|ts|date|datetime|timestamp|tstamp|changed|fired|datum|clock))$"
)
_UTC = re.compile(r"(^|[._])(utc|gmt)([._]|$)")
#: Times at which a row was written, not those of its event.
_BOOKKEEPING = re.compile(
    r"(row_?)?(insert(ed)?|ingest(ed|ion)?|load(ed)?|received|updated?|modified|created?|stored|written)"
    r"(_(at|on|ts|time|date|timestamp))?$"
)
_TWO_PARTS = re.compile(
    r"\s*(\d{1,2})([./-])(\d{1,2})\2(\d{4}|\d{2})"
    r"(?:([ T])(\d{1,2}:\d{2})(:\d{2})?(\.\d+)?( ?[AaPp][Mm])?)?\s*$"
)
_COMPACT = re.compile(r"(19|20)\d{2}[01]\d[0-3]\d(\d{4}(\d{2})?)?")
_COMPACT_HOUR = re.compile(r"(19|20)\d{2}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])([01]\d|2[0-3])")
_CLOCK = re.compile(r"\s*(\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?\s*(am|pm)?|\d{4,6})\s*$", re.I)
_WHOLE_DAY = re.compile(r"\d{8}|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{1,2}[- ][A-Za-z]{3}[- ]\d{2,4}")
_DECIMAL_COMMA = re.compile(r"\d+,\d+")
#: Units of days, and the days from 1970 to the oldest time that is guessed: a modified Julian date of the
#: last 15 years is a day of the far future in a spreadsheet.
_OLDEST_DAYS = {"spreadsheet": 0.0, "matlab": 0.0, "julian": 0.0, "mjd": 14_600.0}
_DAYS = tuple(_OLDEST_DAYS)
#: A time that a unit brings so near to the present may be one of that unit.
_RECENT_DAYS = 400
_MIN_YEARS_AGO = 5
_RECENT = ("gps", "since_1904", "since_2000", "since_2001")
_HOUR = re.compile(
    r"(^|[._])(h|hr|(\w+_)?hour(_(ending|end|beginning|begin|starting|start|of_day|no|number))?|"
    r"he|opr_hr|std|stunde|heure|hora|ora|uur)$"
)
#: Names of the parts of a date, and their letters in a format.
_PARTS = (
    (("year", "yyyy", "jahr", "annee", "ano"), "%Y"),
    (("month", "mm", "mon", "monat", "mois", "mes"), "%m"),
    (("day", "dd", "tag", "jour", "dia"), "%d"),
    (("hour", "hh", "hr", "stunde", "heure", "hora"), "%H"),
    (("minute", "min", "minuto"), "%M"),
    (("second", "sec", "sekunde", "segundo"), "%S"),
)
_MONTHS = frozenset(_PARTS[1][0])
_DAYS_OF_YEAR = frozenset(("doy", "day_of_year", "dayofyear", "yday", "jday", "julian_day"))
_PARTS_OF_YEAR = (_PARTS[0], (tuple(_DAYS_OF_YEAR), "%j"), *_PARTS[3:])
MIN_SHARE = 0.7  # of the rows in which a field must hold times
_YEAR_SECONDS = 366 * 86_400


class _Rated(NamedTuple):
    """A field that may be the time; the greatest one is."""

    now: bool  # neither of a state before a change nor of the writing of the row
    named: bool
    inside: bool  # of the sample, not of what is around it
    share: float
    utc: bool  # said to be in UTC
    place: int  # minus that of the column
    name: str
    form: str | None
    unit: str


def is_bookkeeping(name: str) -> bool:
    """Return whether a field is named like the time at which its row was written."""
    return bool(_BOOKKEEPING.match(words_of(name)))


def is_time_name(name: str) -> bool:
    """Return whether a field is named like a time."""
    return bool(_NAME.search(words_of(name)))


def is_time(name: str, values: Sequence[Any]) -> bool:
    """Return whether a field is a time, and so neither a value nor a label."""
    if is_numeric(values):
        return is_time_name(name) and share_of_times(values) >= MIN_SHARE
    return share_of_times(values) >= MIN_SHARE


def holds_dates(values: Sequence[Any]) -> bool:
    """Return whether all contents are dates without a clock."""
    texts = texts_of(values)
    return bool(texts) and all(map(_WHOLE_DAY.fullmatch, texts))


def repeats_time(values: Sequence[Any], times: Sequence[Sequence[Any]]) -> bool:
    """Return whether numbers are epochs of the event times or of their ends."""
    if len(times) != 1:
        return False
    pairs = [(number_of(str(one)), at) for one, at in zip(values, times[0], strict=True) if at is not None]
    if len({one for one, _ in pairs}) < 2 or any(one is None for one, _ in pairs):
        return False
    epochs = parse_times([one for one, _ in pairs], "auto", "UTC")
    moments = parse_times([at for _, at in pairs], "auto", "UTC")
    later = epochs - moments
    return bool((epochs >= 0).all() and np.ptp(later) < SECOND_NS and abs(int(later[0])) <= DAY_NS)


def _parts_of_dates(found: Guess, columns: Fields) -> set[str]:
    """Guess a time in columns of year, month, day and more; return these."""
    by_word = {words_of(name): name for name in columns}
    parts: list[tuple[str, str]] = []
    for words, letter in (
        _PARTS_OF_YEAR if not _MONTHS & by_word.keys() and _DAYS_OF_YEAR & by_word.keys() else _PARTS
    ):
        name = next((by_word[word] for word in words if word in by_word), None)
        if name is None or not all(re.fullmatch(r"\d{1,4}", text) for text in texts_of(columns[name])):
            break
        parts.append((name, letter))
    if "%d" not in (letters := [letter for _, letter in parts]) and "%j" not in letters:
        return set()
    found.form["time"] = [name for name, _ in parts]
    found.form["time_format"] = " ".join(letter for _, letter in parts)
    found.note("time", ", ".join(found.form["time"]), "the parts of a date")
    return set(found.form["time"])


def guess_time(
    found: Guess, columns: Fields, stamped: bool, around: frozenset[str] = frozenset()
) -> set[str]:
    """Guess the time; return the fields that it uses.

    Args:
        found: The guess.
        columns: All fields.
        stamped: The records have times of their own.
        around: Fields outside the array of samples.
    """
    rated = [
        one
        for place, name in enumerate(columns)
        if (one := _rated(name, columns[name], -place, name not in around))
        and not _is_constant(columns, name)
    ]
    if not rated and (parts := _parts_of_dates(found, columns)):
        return parts
    if not rated:
        _ask(found, columns, stamped)
        return set()
    best = max(rated, key=lambda one: one[:6])
    values = columns[best.name]
    example = texts_of(values)[0]
    clock = _clock_beside(columns, best.name) if all(map(_WHOLE_DAY.fullmatch, texts_of(values))) else None
    if clock is not None:
        found.form["time"] = [best.name, clock]
        found.note("time", f"{best.name} and {clock}", "a date and a time of day")
        both = [f"{a} {b}" for a, b in zip(texts_of(values), texts_of(columns[clock]), strict=False)]
        if share_of_times(both) < 1 and (form := _order_of(both)) is not None:
            _set_format(found, best.name, both[0], form)
        return {best.name, clock}
    days = all(map(_WHOLE_DAY.fullmatch, texts_of(values)))
    if (
        days
        and (hour := _hour_beside(columns)) is not None
        and (order := _order_of(texts_of(values)) or "%Y-%m-%d")
    ):
        found.form["time"] = [best.name, hour]
        found.note("time", f"{best.name} and {hour}", "a date and an hour; 24 is the end of the day")
        _set_format(found, best.name, example, order)
        if "time_format" in found.form:
            found.form["time_format"] += " %H"
        return {best.name, hour}
    _set_time(found, best, values, example)
    return {best.name}


def _set_time(found: Guess, best: _Rated, values: Sequence[Any], example: str) -> None:
    """Take a field as the time, with its unit or format."""
    found.form["time"] = best.name
    found.note("time", best.name, f"times such as {example}")
    if best.unit != "auto":
        found.form["time_unit"] = best.unit
        found.note("time_unit", best.unit, f"{best.name} is {example}")
    elif is_numeric(values) and (others := _other_origins(texts_of(values))):
        moment = str(np.datetime64(int(parse_times([number_of(example)], "auto", "UTC")[0]), "ns"))[:19]
        question = (
            f"{best.name} is {example}: from 1970 on it is {moment}; a unit that counts from another moment "
            "makes it a time of the last year. Which one is it?"
        )
        found.ask("time_unit", question, [*others, "auto"])
    elif best.form is not None:
        _set_format(found, best.name, example, best.form)


def _set_format(found: Guess, name: str, example: str, form: str) -> None:
    if form == "?":
        question = f"{name} is {example}: day or month first?"
        found.ask("time_format", question, [_format_of(example, "%d", "%m"), _format_of(example, "%m", "%d")])
        return
    found.form["time_format"] = form
    why = "digits of a date and an hour" if form == "%Y%m%d%H" else "a number above 12 can only be a day"
    found.note("time_format", form, why)


def _rated(name: str, values: Sequence[Any], place: int, inside: bool) -> _Rated | None:
    texts = texts_of(values)
    if not texts:
        return None
    if all(map(_DECIMAL_COMMA.fullmatch, texts)):
        texts = [text.replace(",", ".") for text in texts]
    named, numeric = is_time_name(name), is_numeric(texts)
    now, utc = not is_former(name) and not is_bookkeeping(name), bool(_UTC.search(words_of(name)))
    if numeric and (unit := _unit_of(named, texts)) is not None:
        return _Rated(now, named, inside, 1.0, utc, place, name, None, unit)
    if all(map(_COMPACT_HOUR.fullmatch, texts)) and len(texts[0]) == 10 and int(texts[0]) > time.time():
        return _Rated(now, named, inside, 1.0, utc, place, name, "%Y%m%d%H", "auto")
    share, form = share_of_times(values), None
    if share < 1 and (order := _order_of(texts)) is not None:
        form, share = order, 1.0 if order == "?" else share_of_times(values, order)
    dates = numeric and all(map(_COMPACT.fullmatch, texts))
    if share < MIN_SHARE or not (named or dates or not numeric or _epochs(texts)):
        return None
    return _Rated(now, named or dates, inside, share, utc, place, name, form, "auto")


def _is_constant(columns: Fields, name: str) -> bool:
    """Return whether a field has one content, and is no date beside a clock."""
    texts = texts_of(columns[name])
    if len(texts) < 3 or len(set(texts)) > 1:
        return False
    return not (_WHOLE_DAY.fullmatch(texts[0]) and _clock_beside(columns, name))


def _unit_of(named: bool, texts: Sequence[str]) -> str | None:
    """Return the unit of numbers that are no epochs."""
    numbers = [number_of(text) or 0.0 for text in texts]
    for unit in _DAYS:
        first, last = (DAYS_AT_EPOCH[unit] + days for days in (_OLDEST_DAYS[unit], _days_now() + 366))
        if named and all(first < number < last for number in numbers):
            return unit
    whole = [int(text) for text in texts if text.isdigit()]
    for unit in ("ticks", "filetime"):
        if len(whole) == len(texts) and all(len(text) == 18 for text in texts):
            times = parse_times(whole, unit, "UTC") / 1e9
            if all(0 < one < time.time() + _YEAR_SECONDS for one in times.tolist()) and times.min() > 9.4e8:
                return unit
    return None


def _days_now() -> float:
    return time.time() / 86_400


def _other_origins(texts: Sequence[str]) -> list[str]:
    """Return the units by which epochs of another decade are recent times.

    Seconds of GPS, for example, are ten years behind those since 1970.
    """
    numbers = [number_of(text) for text in texts]
    if not numbers or any(number is None for number in numbers):
        return []
    newest = parse_times(numbers, "auto", "UTC").max() / 1e9
    now = time.time()
    if now - _MIN_YEARS_AGO * _YEAR_SECONDS < newest < now + _YEAR_SECONDS:
        return []
    moved = {unit: max(float(parse_times([n], unit, "UTC")[0]) for n in numbers) / 1e9 for unit in _RECENT}
    return [unit for unit, at in moved.items() if now - _RECENT_DAYS * 86_400 < at < now + 86_400]


def _epochs(texts: Sequence[str]) -> bool:
    """Return whether numbers of an unnamed field are epochs of the last years."""
    times = parse_times([number_of(text) for text in texts], "auto", "UTC") / 1e9
    now = time.time()
    recent = bool(((times > now - 15 * _YEAR_SECONDS) & (times < now + _YEAR_SECONDS)).all())
    return recent and len(texts) > 2 and len(np.unique(times)) > 1 and len(texts[0].split(".")[0]) >= 10


def _order_of(texts: Sequence[str]) -> str | None:
    """Return the format of dates with day and month, ``?`` where both orders fit."""
    matches = [one for text in texts if (one := _TWO_PARTS.match(text))]
    if not matches or len(matches) < len(texts):
        return None
    first, second = (max(int(one[i]) for one in matches) for i in (1, 3))
    example = matches[0].group(0)
    short_year = len(matches[0][4]) == 2
    if first > 12 or (matches[0][2] == "." and not short_year):
        return _format_of(example, "%d", "%m")
    if second > 12:
        return _format_of(example, "%m", "%d")
    return "?" if short_year or any(why_ambiguous(text) for text in texts) else None


def _format_of(example: str, first: str, second: str) -> str:
    match = _TWO_PARTS.match(example)
    assert match is not None
    year = "%Y" if len(match[4]) == 4 else "%y"
    hour, half = ("%I", match[9].replace(match[9].strip(), "%p")) if match[9] else ("%H", "")
    seconds = ("" if match[7] is None else ":%S") + ("" if match[8] is None else ".%f")
    clock = "" if match[6] is None else f"{match[5]}{hour}:%M{seconds}{half}"
    return f"{first}{match[2]}{second}{match[2]}{year}{clock}"


def _clock_beside(columns: Fields, date: str) -> str | None:
    for name, values in columns.items():
        texts = texts_of(values)
        clocks = name != date and bool(texts) and all(map(_CLOCK.match, texts))
        if clocks and (any(":" in text for text in texts) or is_time_name(name)):
            return name
    return None


def _hour_beside(columns: Fields) -> str | None:
    """Return the column of the hour of a day, by its name."""
    for name, values in columns.items():
        texts = texts_of(values)
        hours = bool(_HOUR.search(words_of(name))) and all(re.fullmatch(r"\d{1,2}", text) for text in texts)
        if hours and len(set(texts)) > 1 and max(map(int, texts)) <= 24:
            return name
    return None


def _ask(found: Guess, columns: Fields, stamped: bool) -> None:
    if stamped:
        found.form["time"] = "$timestamp"
        found.note("time", "$timestamp", "no field holds times: the record has one")
        return
    lists = [name for name, values in columns.items() if any(isinstance(one, list) for one in values)]
    if lists:
        question = (
            f"no field holds times, and {', '.join(lists[:4])} hold arrays. Arrays are samples if they hold "
            "objects of JSON, or if one of them holds times: write one object a point."
        )
        found.ask("time", question, [])
        return
    named = sorted(columns, key=lambda name: not is_time_name(name))
    found.ask("time", "no field holds times: which one is the event time?", named[:20])
