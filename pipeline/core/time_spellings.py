"""Spellings of a time that are neither an epoch nor ISO 8601.

Covered are a zone as a word (``2026-03-01 00:00:00 UTC``, ``… CET``, ``…Z[UTC]``, ``… Europe/Berlin``), the
hour 24, AM and PM, names of months in six languages, RFC 2822, ``2026/03/01``, ``13.03.2026``, ``14-Mar-26``,
``[14/Mar/2026:13:05:00 +0100]`` of web servers, ``Sat Mar 14 13:05:00 CET 2026`` of ``date``, the clock with
dots or before the date, ``2026年3月14日``, ``/Date(1773446400000)/``, compact digits, and months and quarters
(``2026-03``, ``2026M03``, ``03/2026``, ``Mar 2026``, ``Q1 2026``). A date such as
03/04/2026 has two readings, and is refused.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

#: Beginnings of the names of the months, without accents, in English, German, French, Spanish, Italian,
#: Portuguese and Dutch.
_MONTHS = {
    begin: month
    for month, begins in enumerate(
        (
            "jan ene gen janv",
            "feb fev fevr",
            "mar mrz mrt maa marz mars",
            "apr abr avr",
            "may mai mag mei",
            "jun giu juin",
            "jul lug juil",
            "aug ago aou",
            "sep set sept",
            "oct okt ott out",
            "nov",
            "dec dez dic",
        ),
        1,
    )
    for begin in begins.split()
}
_MAX_CHARACTERS = 80
_BRACKET = re.compile(r"\[([A-Za-z0-9_+\-/]+)\]$")
_UTC_WORD = re.compile(r"\s*(?:UTC|GMT|Z)$", re.IGNORECASE)
#: Zones of RFC 2822, and European ones: hours ahead of UTC.
_ZONES = {"CET": 1, "CEST": 2, "EET": 2, "EEST": 3, "WET": 0, "WEST": 1, "MSK": 3, "JST": 9}
_ZONES |= {"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7}
_ZONE_WORD = re.compile(rf"(?<=[\d\sMm])\s*({'|'.join(_ZONES)})$")
#: Milliseconds as Microsoft's JSON has them.
_DATE_CALL = re.compile(r"/Date\((-?\d{1,15})(?:[+-]\d{4})?\)/")
_OFFSET = re.compile(r"\s*([+-])(\d\d):?(\d\d)$")
_CLOCK = (
    r"(?:[T ,:]+(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?)?"
    r"\s*(?P<half>[AaPp]\.?[Mm]\.?)?)?"
)
_DAY_NAME = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+)?"
_MONTH_NAME = r"(?P<name>[^\W\d_]{3,10})\.?"
_DATES = tuple(
    re.compile(pattern + _CLOCK, re.IGNORECASE)
    for pattern in (
        r"(?P<year>\d{4})[-/.] ?(?P<month>\d{1,2})[-/.] ?(?P<day>\d{1,2})\.?",
        r"(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4})",
        r"(?P<first>\d{1,2})([-/])(?P<other>\d{1,2})\2(?P<year>\d{4})",
        _DAY_NAME + r"(?P<day>\d{1,2})[-/ .]+" + _MONTH_NAME + r"[-/ ,]+(?P<year>\d{4}|\d\d)",
        _DAY_NAME + _MONTH_NAME + r"\s+(?P<day>\d{1,2})(?:st|nd|rd|th)?,?\s+(?P<year>\d{4})",
    )
)
_C_TIME = re.compile(
    _DAY_NAME
    + _MONTH_NAME
    + r"\s+(?P<day>\d{1,2})\s+(?P<clock>\d\d:\d\d:\d\d)(?P<zone>\s+[A-Z]{3,4})?\s+(?P<year>\d{4})",
    re.IGNORECASE,
)
_PLACE = re.compile(r"\s([A-Z][A-Za-z_]+(?:/[A-Z][A-Za-z_+-]+)+)$")
_FIRST_WEEKDAY = re.compile(
    r"^(?:mon|tue|wed|thu|fri|sat|sun|mo|di|mi|do|fr|sa|so|lun|mar|mie|jue|vie|sab|dom|mer|jeu|ven|sam|dim)"
    r"[^\W\d_]*"
    r"[.,]*\s+(?=\d{1,2}[./-]\d|\d{1,2}\.?\s+[^\W\d])",
    re.IGNORECASE,
)
#: Words between the parts of a date: 14 de marzo de 2026, March 14 2026 at 1:05 PM, 14. März 2026 um 13:05.
_SMALL_WORDS = re.compile(r"(?<=[\w.]),?\s+(?:de|del|d'|of|at|um|à|a las|alle|@)\s+(?=\w)", re.IGNORECASE)
_FRENCH_CLOCK = re.compile(r"(?<=\d)\s?[hH]\s?(\d\d)(?!\d)")
_DASHED_CLOCK = re.compile(r"(?<=\d)[_ T](\d\d)-(\d\d)-(\d\d)$")
#: Offset of JavaScript: GMT+0100 (Central European Standard Time); a zone in brackets: (UTC).
_NAMED_OFFSET = re.compile(r"\s*(?:GMT|UTC)([+-]\d\d:?\d\d)(?:\s*\([^)]*\))?$")
#: Offset and zone of Go, and its other clock: +0100 CET m=+0.001.
_GO_OFFSET = re.compile(r"(?<=\d)\s+([+-]\d{4}) [A-Z]{2,5}(?:\s+m=[+-][\d.]+)?$")
_SLASHES_AND_DASH = re.compile(r"^(\d{4}/\d{1,2}/\d{1,2})-(?=\d{1,2}:)")
_ZONE_IN_BRACKETS = re.compile(r"\s*\(([A-Z]{2,4})\)$")
#: An interval, of which the beginning is the time.
_INTERVAL = re.compile(r"(\S.{6,38}\S)(?: [-–—] |/(?=\d{4}-))(\d\S.{2,38})")
_CLOCK_FIRST = re.compile(r"(\d{1,2}:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:\s?[AaPp][Mm])?),?\s+(\S.*\d{2})")
#: A clock with dots after a date: 13.05.00, 2026-03-14-13.05.00.
_DOTTED_CLOCK = re.compile(r"(?<=\d)[ -](\d{1,2})\.(\d\d)(?:\.(\d\d)(\.\d{1,9})?)?(\s?[AaPp][Mm])?$")
#: A day of a year, 2026-073; a month or a quarter, 2026-03, 2026-Q1.
_ORDINAL = re.compile(r"(\d{4})-(\d{3})(?=$|[T ])")
_MONTH_ALONE = re.compile(r"(\d{4})[- ]?(?:(?:(?<=-)|M)(\d\d)|Q([1-4]))")
_MONTH_OR_QUARTER_FIRST = re.compile(r"(0[1-9]|1[0-2]|Q[1-4])[-/. ](\d{4})")
#: A longer word that only begins as a month does is rather a name.
_NAME_OF_MONTH = (
    r"([^\W\d_]{3,4}\.?|january|february|march|april|june|july|august|september|october|november|december)"
)
_NAMED_MONTH = re.compile(rf"(?:(\d{{4}})[- ]{_NAME_OF_MONTH}|{_NAME_OF_MONTH}[- ](\d{{4}}))", re.IGNORECASE)
_CHARACTERS = str.maketrans("年月時时分년월시분−", "--:::--::-", "日秒일초")
_EAST_ASIAN = re.compile(r"(上午|午前|오전|下午|午後|오후)\s*(\d{1,2}:\d\d(?::\d\d)?)")
_FORENOON = ("上午", "午前", "오전")
#: A date of SAS: 14MAR2026:13:05:00.
_JOINED_DATE = re.compile(r"^(\d{1,2})([A-Za-z]{3})(\d{4})(?=$|[:T ])")
#: A text as a formula of a spreadsheet.
_FORMULA = re.compile(r'="([^"]*)"')
_COMPACT = re.compile(r"(\d{4})(\d\d)(\d\d)(?:[ T_-]?(\d\d)(\d\d)(\d\d)?(?:[.,](\d{1,9}))?)?")
_HOUR_24 = re.compile(r"([T ]|^)24(:?00(?::?00(?:[.,]0+)?)?)(?![\d:])")
_HOUR_24_ALONE = re.compile(r"(?<=[\d ]) 24$")
#: Digits of a date and a clock with milliseconds.
_DIGITS_WITH_MILLISECONDS = 17
_DAY = timedelta(days=1)


class Spelled(NamedTuple):
    """Wall-clock time.

    ``nanoseconds`` are those below its microsecond; ``aware`` is True if it is in UTC.
    """

    moment: datetime
    nanoseconds: int
    aware: bool


def read_spelling(text: str) -> Spelled | None:
    """Return the time of a text, None if it is not one or has two readings."""
    if len(text) > _MAX_CHARACTERS:
        return None
    text = text.strip().strip("'")
    if call := _DATE_CALL.fullmatch(text.strip()):
        return _since_1970(int(call[1]))
    if interval := _INTERVAL.fullmatch(text.strip()):
        return _beginning(interval[1], interval[2])
    zone: str | None = None
    if bracket := _BRACKET.search(text) or _PLACE.search(text):
        text, zone = text[: bracket.start()], bracket[1]
    text, offset = _without_offset(_date_first(text))
    try:
        local = _local(text)
        if local is None:
            return None
        moment, nanoseconds = local
        if offset is not None:
            return Spelled(moment - offset, nanoseconds, True)
        if zone is not None:
            there = moment.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC).replace(tzinfo=None)
            return Spelled(there, nanoseconds, True)
        return Spelled(moment, nanoseconds, False)
    except (ValueError, OverflowError, OSError, LookupError):
        return None


def _beginning(first: str, last: str) -> Spelled | None:
    """Return the beginning of an interval, None if it is none."""
    zone = _ZONE_IN_BRACKETS.search(last)
    begin = read_spelling(first + (f" {zone[1]}" if zone else ""))
    return begin if re.match(r"\d{1,2}:\d\d", last) or read_spelling(last) is not None else None


def _date_first(text: str) -> str:
    """Return a text as a date followed by a clock with colons."""
    text = _plain(text.strip().removesuffix("Uhr").rstrip())
    text = _SLASHES_AND_DASH.sub(r"\1 ", _GO_OFFSET.sub(r" \1", text))
    text = _ZONE_IN_BRACKETS.sub(r" \1", _NAMED_OFFSET.sub(r" \1", text))
    text = _FRENCH_CLOCK.sub(r":\1", _SMALL_WORDS.sub(" ", _FIRST_WEEKDAY.sub("", text, count=1)))
    text = _DASHED_CLOCK.sub(r" \1:\2:\3", text)
    if text.isdigit() and len(text) == _DIGITS_WITH_MILLISECONDS:
        text = f"{text[:-3]}.{text[-3:]}"
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    if c_time := _C_TIME.fullmatch(text):
        text = f"{c_time['day']} {c_time['name']} {c_time['year']} {c_time['clock']}{c_time['zone'] or ''}"
    if ordinal := _ORDINAL.match(text):
        day = date(int(ordinal[1]), 1, 1) + timedelta(days=int(ordinal[2]) - 1)
        text = f"{day}{text[ordinal.end() :]}" if day.year == int(ordinal[1]) else text
    text = _first_of_month(text)
    if first := _CLOCK_FIRST.fullmatch(text):
        text = f"{first[2]} {first[1]}"
    if ":" not in text:
        text = _DOTTED_CLOCK.sub(
            lambda clock: f" {clock[1]}:{clock[2]}:{clock[3] or '00'}{clock[4] or ''}{clock[5] or ''}", text
        )
    return text


def _plain(text: str) -> str:
    """Return a text with plain signs, and AM or PM behind its clock."""
    if formula := _FORMULA.fullmatch(text):
        text = formula[1]
    if not text.isascii():
        text = text.translate(_CHARACTERS).rstrip(":")
        text = re.sub(r"(?<=\d:) (?=\d)|(?<=-) (?=\d)", "", text)
        text = _EAST_ASIAN.sub(lambda one: f"{one[2]} {'AM' if one[1] in _FORENOON else 'PM'}", text)
    return _JOINED_DATE.sub(r"\1-\2-\3", text)


def _first_of_month(text: str) -> str:
    """Return the first day of a month or of a quarter; other texts as they are."""
    if first := _MONTH_OR_QUARTER_FIRST.fullmatch(text):
        text = f"{first[2]}-{first[1]}"
    if month := _MONTH_ALONE.fullmatch(text):
        return f"{month[1]}-{month[2] or 3 * int(month[3]) - 2}-1"
    if named := _NAMED_MONTH.fullmatch(text):
        return f"1 {named[2] or named[3]} {named[1] or named[4]}"
    return text


def _without_offset(text: str) -> tuple[str, timedelta | None]:
    """Return the text before its offset from UTC, and the offset; None without one."""
    if word := _UTC_WORD.search(text):
        return text[: word.start()], timedelta()
    if word := _ZONE_WORD.search(text):
        return text[: word.start()], timedelta(hours=_ZONES[word[1]])
    found = _OFFSET.search(text)
    if found is None or not (":" in text[: found.start()] or "T" in text[: found.start()]):
        return text, None
    sign = -1 if found[1] == "-" else 1
    return text[: found.start()], sign * timedelta(hours=int(found[2]), minutes=int(found[3]))


def _since_1970(milliseconds: int) -> Spelled | None:
    try:
        return Spelled(datetime(1970, 1, 1) + timedelta(milliseconds=milliseconds), 0, True)
    except OverflowError:
        return None


def read_format(text: str, form: str) -> datetime | None:
    """Return the time of a text by a format, None if it does not fit.

    The format is one of ``strptime``. Hour 24 is midnight.
    """
    try:
        return datetime.strptime(text, form)
    except ValueError:
        midnight, later = _without_hour_24(text)
        if not later:
            return None
    try:
        return datetime.strptime(midnight, form) + _DAY
    except (ValueError, OverflowError):
        return None


def why_ambiguous(text: str) -> str:
    """Return the advice for a date with two readings, empty for another text."""
    found = _DATES[2].match(text.strip())
    if found is None or int(found["first"]) > 12 or int(found["other"]) > 12:
        return ""
    separator = text.strip()[len(found["first"])]
    return (
        f"it may be day or month first: set time_format, such as '%d{separator}%m{separator}%Y %H:%M' or "
        f"'%m{separator}%d{separator}%Y %H:%M'"
    )


def _without_hour_24(text: str) -> tuple[str, bool]:
    """Return the text with hour 24 as hour 0, and whether there was one."""
    if _HOUR_24_ALONE.search(text):
        return f"{text[:-2]}00", True
    changed, count = _HOUR_24.subn(r"\g<1>00\2", text, count=1)
    return changed, bool(count)


def _local(text: str) -> tuple[datetime, int] | None:
    text, later = _without_hour_24(text.strip())
    shift = _DAY if later else timedelta()
    if compact := _COMPACT.fullmatch(text):
        year, month, day, hour, minute, second, fraction = compact.groups()
        micro, nano = _fraction(fraction)
        clock = int(hour or 0), int(minute or 0), int(second or 0)
        return datetime(int(year), int(month), int(day), *clock, micro) + shift, nano
    for pattern in _DATES:
        if found := pattern.fullmatch(text):
            parts = found.groupdict()
            day_and_month = _day_and_month(parts)
            if day_and_month is None:
                return None
            micro, nano = _fraction(parts["fraction"])
            day, month = day_and_month
            second = int(parts["second"] or 0)
            if second == 60:  # a leap second
                second, shift = 59, shift + timedelta(seconds=1)
            clock = _hour(parts), int(parts["minute"] or 0), second
            year_digits = str(parts["year"])
            full_year = int(year_digits) + 2000 * (len(year_digits) == 2)
            return datetime(full_year, month, day, *clock, micro) + shift, nano
    return None


def _fraction(digits: str | None) -> tuple[int, int]:
    nanoseconds = int((digits or "").ljust(9, "0"))
    return divmod(nanoseconds, 1000)


def _day_and_month(parts: dict[str, str | None]) -> tuple[int, int] | None:
    """Return day and month, None where both orders are possible."""
    if parts.get("name") is not None:
        return int(parts["day"] or 0), _month(str(parts["name"]))
    if parts.get("first") is None:
        return int(parts["day"] or 0), int(parts["month"] or 0)
    first, other = int(parts["first"] or 0), int(parts["other"] or 0)
    if first > 12:
        return first, other
    return (other, first) if other > 12 or first == other else None


def _month(name: str) -> int:
    """Return the month of a name or of its beginning. Raises LookupError."""
    plain = unicodedata.normalize("NFD", name.lower()).encode("ascii", "ignore").decode()
    return _MONTHS.get(plain[:4]) or _MONTHS[plain[:3]]


def _hour(parts: dict[str, str | None]) -> int:
    hour, half = int(parts["hour"] or 0), (parts["half"] or "").lower()
    if not half:
        return hour
    if not 1 <= hour <= 12:
        raise ValueError(f"there is no hour {hour} {half}")
    return hour % 12 + 12 * half.startswith("p")
