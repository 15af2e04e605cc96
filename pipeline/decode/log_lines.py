"""Log lines as text: the time that is in a line, and the rest of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from pipeline.config.inputs import LogLinesFormat
from pipeline.core.record_json import encode
from pipeline.decode.line_protocol import SAMPLES
from pipeline.decode.translation import Translate

#: Beginning of a line in which its time is.
MAX_CHARS_BEFORE_TIME: Final = 200
MESSAGE: Final = "message"
TIME: Final = "time"
_NO_TIME = (
    f"no date with a time in the first {MAX_CHARS_BEFORE_TIME} characters; `time: $timestamp` takes "
    "the time of the record"
)

#: Beginning of a dead letter of a part of a record.
_PART = f'{{"{SAMPLES}":'.encode()
#: Characters between a time and the rest of a line.
_SEPARATORS = " \t-|:,"
_CLOCK = r"\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_MONTH = f"(?:{'|'.join(_MONTHS)})[a-z]*"
_YEAR = r"(?:19|20)\d\d"
_OFFSET = r"(?:Z\b|\ ?UTC\b|\ ?[+-]\d\d:?\d\d\b)"
_TIME = re.compile(
    rf"""
      (?P<iso>(?<!\d){_YEAR}[-/.]\d\d[-/.]\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{{1,9}})?)?{_OFFSET}?)
    | (?P<day_first>(?<!\d)\d{{1,2}}[-/ ]{_MONTH}[-/ ]{_YEAR}[ :T]{_CLOCK}(?:\ [+-]\d{{4}})?)
    | (?:\b(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*,?\ +)?\b(?P<month>{_MONTH})\ +(?P<day>\d{{1,2}})
      (?:,?\ (?P<year>{_YEAR}))?,?\ +(?P<clock>{_CLOCK})
      (?:(?P<zone>\ [A-Z]{{3,4}})?\ (?P<year_last>{_YEAR})\b)?
    | ^[IWEFD]?(?P<month_number>\d\d)-?(?P<day_number>\d\d)\ +(?P<clock_after>{_CLOCK})
    | ^(?P<digits>(?:20)?\d{{6}}[ -]\d{{6}})(?=\s)
    | (?:^(?:\S{{1,16}}\ )?\W{{0,2}}|\bts=|\btime=|\baudit\()
      (?P<epoch>1\d{{9}}(?:\.\d{{1,9}})?|1\d{{12}})(?=[\s\],;:)]|$)
    | (?P<numbers>(?<!\d)\d{{1,2}}[./]\d{{1,2}}[./]{_YEAR},?\ {_CLOCK}(?:\ ?[AaPp][Mm]\b)?)
    """,
    re.VERBOSE | re.IGNORECASE,
)
#: Lines that go on with the event before them, and comments.
_GOES_ON = re.compile(
    r"\s|\#|at\ \S+\(|Caused\ by:|Suppressed:|Traceback\ \(|During\ handling\ of"
    r"|The\ above\ exception|\.\.\.\ \d"
    r"|[\w.$]*(?:Error|Exception|Throwable|Warning|Interrupt)(?::|\s*$)|[)\]}]+[,;]?\s*$",
    re.VERBOSE,
)


#: Words of a header: level, thread, process, logger, and others in capitals; a hash is none of them.
_HEADER_WORD = re.compile(
    r"(?![0-9a-f]*\d[0-9a-f]{6,}$)(?:[A-Z][A-Z0-9_:.-]+|\d[\d.:,-]*|<\d+>\d?|[A-Za-z]\w*(?:[.$/]\w+)+:?"
    r"|[\[(](?![0-9a-f-]{6,}[\])])[\w.$:/#@=-]{1,80}[\])])$"
)
_LEVEL = re.compile(r"[\[(<]?(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|CRITICAL|FATAL|SEVERE)[\])>:]?$")
#: Program of syslog, after the host.
_PROGRAM = re.compile(r"[\w.$/-]+(?:\([\w-]+\))?(?:\[\d+\])?:$")
#: Words that stand between others, and the first words among which a level ends a header.
_SEPARATOR_WORDS, _LEVEL_WORDS = frozenset(("-", "--", "---", "|", ":")), 4
#: What a request or a client is, in brackets after a header.
_CONTEXT = re.compile(r"\[[^\]]*\s[^\]]*\]\s+")


class LogLine(NamedTuple):
    """A line without its time, and the time: text, an epoch, or None without one.

    That of a line that lacks the year begins with its month: ``06-14 15:16:01``.
    """

    message: str
    time: str | float | None
    lacks_year: bool = False


def split_line(line: str) -> LogLine:
    """Return the time of a line and the rest of it."""
    found = _TIME.search(line, 0, MAX_CHARS_BEFORE_TIME)
    if found is None:
        return LogLine(line.strip(), None)
    begin, end = found.span("epoch") if found["epoch"] else found.span()
    before, after = line[:begin].strip(), line[end:].strip()
    if before[-1:] == "[" and after[:1] == "]":
        before, after = before[:-1], after[1:]
    parts = before.strip(), after.lstrip(_SEPARATORS)
    return LogLine(_joined_header(" ".join(part for part in parts if part)), *_time_of(found))


def _joined_header(message: str) -> str:
    """Return a message whose header is one word.

    ``INFO  [main] app.web - user bob is in`` becomes ``INFO|[main]|app.web user bob is in``. A line and a
    template are compared by their share of equal words, of which a header would have most. Brackets after
    it with several words, such as those of a request, are left out.
    """
    words = message.split()
    if len(words) > 2 and _PROGRAM.match(words[1]):
        return f"{words[0]}|{' '.join(words[1:])}"
    levels = [place for place, word in enumerate(words[:_LEVEL_WORDS]) if _LEVEL.match(word)]
    end = min(levels[-1] + 1 if levels else 0, len(words) - 1)
    while end < len(words) - 1 and (words[end] in _SEPARATOR_WORDS or _HEADER_WORD.match(words[end])):
        end += 1
    header = [word for word in words[:end] if word not in _SEPARATOR_WORDS]
    if len(header) < 2:
        return message
    return f"{'|'.join(header)} {_without_context(' '.join(words[end:]))}"


def _without_context(text: str) -> str:
    found = _CONTEXT.match(text)
    return text[found.end() :] if found else text


def _time_of(found: re.Match[str]) -> tuple[str | float, bool]:
    """Return the time of a match, and whether it lacks the year."""
    if iso := found["iso"]:
        return iso.replace(",", ".").replace("/", "-"), False
    if epoch := found["epoch"]:
        return (float(epoch) if "." in epoch else int(epoch)), False
    if digits := found["digits"]:
        day, clock = digits[:-7][-6:], digits[-6:]
        return f"20{day[:2]}-{day[2:4]}-{day[4:]} {clock[:2]}:{clock[2:4]}:{clock[4:]}", False
    if text := found["day_first"] or found["numbers"]:
        return text.replace(",", ".") if found["day_first"] else text, False
    if found["month"]:
        month = _MONTHS.index(found["month"][:3].lower()) + 1
        text = f"{month:02d}-{int(found['day']):02d} {found['clock'].replace(',', '.')}"
        year = found["year"] or found["year_last"]
        return (f"{year}-{text}{found['zone'] or ''}", False) if year else (text, True)
    return f"{found['month_number']}-{found['day_number']} {found['clock_after'].replace(',', '.')}", True


def goes_on(line: str) -> bool:
    """Return whether a line without a time belongs to the event before it.

    A comment does, too.
    """
    return _GOES_ON.match(line) is not None


def log_translator(form: LogLinesFormat) -> Translate:
    """Return the translator of log lines; each line of a record is an event."""

    def translate(value: bytes, stamp: int) -> bytes | None:
        if value.startswith(_PART):
            return value
        lines = [line for line in value.decode().splitlines() if line.strip()]
        if not lines:
            raise ValueError("the line is empty")
        events = [event for line in lines if (event := _event(line, stamp, form)) is not None]
        errors = [str(event["error"]) for event in events if "error" in event]
        if errors and len(errors) == len(events):
            raise ValueError(errors[-1])
        return encode({SAMPLES: events}) if events else None

    return translate


def _event(line: str, stamp: int, form: LogLinesFormat) -> dict[str, object] | None:
    """Return a line as an object, or why it is none; None if it goes on with another."""
    message, time, lacks_year = split_line(line)
    if time is None and goes_on(line):
        return None
    if time is None and TIME in form.time_fields:
        return {"line": line, "error": _NO_TIME}
    if lacks_year:
        if form.year is None and stamp < 0:
            return {"line": line, "error": f"the time {time} has no year: set `year`"}
        time = f"{form.year or _nearest_year(str(time), stamp)}-{time}"
    return {TIME: time, MESSAGE: message}


def _nearest_year(text: str, stamp: int) -> int:
    """Return the year that brings a time nearest to that of its record.

    Args:
        text: Month, day and clock.
        stamp: Time of the record in ns.
    """
    logged = datetime.fromtimestamp(stamp / 1e9, UTC).replace(tzinfo=None)
    away: dict[int, timedelta] = {}
    for year in (logged.year - 1, logged.year, logged.year + 1):
        try:
            away[year] = abs(datetime.fromisoformat(f"{year}-{text[:14]}") - logged)
        except ValueError:  # 29 February
            continue
    return min(away, key=lambda year: away[year]) if away else logged.year
