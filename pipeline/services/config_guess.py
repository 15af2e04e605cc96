"""Guess of a stream's config from samples, with reasons and questions."""

from __future__ import annotations

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from typing import Any

from pipeline.core.durations import duration_text
from pipeline.core.number_texts import NumberRules
from pipeline.core.time_spellings import why_ambiguous
from pipeline.core.timestamps import parse_times
from pipeline.services.sample_rows import Samples

_TIME_NAME = re.compile(
    r"(^|[._$])(t|ts|time|date|datetime|timestamp|at|when|ts_?ms|.*_(at|time|ts|date))$", re.I
)
_LABEL_NAME = re.compile(
    r"(^|[._])(key|k|dev|device|host|hostname|sensor|site|name|sym|symbol|ticker|instance|n|interface|id|.*[_-]id|uuid)$",
    re.I,
)
_STOCK = re.compile(r"(^|[._])(close|open|high|low|price|p|sym|symbol|ticker|adj.?close)$", re.I)
_NETWORK = re.compile(r"bytes|octets|packets|pkts|flows|interface|usage_|throughput|latency|requests", re.I)
_COUNTER = re.compile(r"(_total|_count|octets|bytes_sent|bytes_recv|counter)$", re.I)
_TWO_PARTS = re.compile(r"\s*(\d{1,2})([./-])(\d{1,2})\2(\d{4})(?:[ T](\d{1,2}:\d{2})(:\d{2})?)?\s*$")
_COMPACT = re.compile(r"(19|20)\d{2}[01]\d[0-3]\d(\d{4}(\d{2})?)?")
_CLOCK = re.compile(r"\s*\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?\s*(am|pm)?\s*$", re.I)
_NUMBER_WITH_UNIT = re.compile(r"[+-]?[\d.,]+\s*([^\d\s.,+-][^\d]*)$")
_DECIMAL_COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|\d+),\d+")
SENTINELS = (-9999.0, -999.0, -99999.0, 9999.0, 99999.0, -9999.9, -999.9)
MIN_SHARE = 0.7  # of the rows in which a field must hold times
MIN_NUMBERS_SHARE = 0.5  # of the rows in which a value must be a number
MAX_MISSING_SHARE = 0.3  # of the rows in which a text can stand for no reading
MAX_SERIES_SHARE = 0.5  # of the rows: a text with more different values is no label


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


def guess_stream(samples: Samples, *, stamped: bool) -> Guess:
    """Guess the config of a stream.

    Args:
        samples: Rows of the data.
        stamped: The records have times of their own (Kafka).
    """
    found = Guess(form=dict(samples.keys))
    for key, reason in samples.why.items():
        found.note(key, samples.keys[key], reason)
    rows = samples.rows
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [row.get(name) for row in rows] for name in names}
    used = _guess_time(found, columns, stamped)
    numbers = {
        name: values
        for name, values in columns.items()
        if name not in used
        and not _is_other_time(name, values)
        and _guess_number(found, name, values, samples.kind)
    }
    labels = _guess_labels(found, columns, used, numbers, len(rows))
    values = [name for name in numbers if name not in labels]
    if not values:
        found.questions["values"] = ("no field holds numbers: which field is the value?", names)
    found.form["values"] = {_short(name): name for name in values} if _nested(values) else values
    found.note("values", ", ".join(values), "the fields with numbers")
    _guess_condition(found, columns, labels, values)
    _guess_optional(found, columns, labels, values)
    _guess_preset(found, names)
    _guess_cadence(found, columns, labels, values)
    return found


def _texts(values: Sequence[Any]) -> list[str]:
    return [str(value).strip() for value in values if value is not None and str(value).strip()]


def _share_of_times(values: Sequence[Any], form: str | None = None) -> float:
    there = [value for value in values if value is not None]
    if not there or any(isinstance(value, bool | list | dict) for value in there):
        return 0.0
    if form is not None:
        there = _texts(there)
    return float((parse_times(there, "auto", "UTC", form) >= 0).mean())


def _guess_time(found: Guess, columns: dict[str, list[Any]], stamped: bool) -> set[str]:
    """Guess the time; return the fields that it uses."""
    rated = []
    for name, values in columns.items():
        named = bool(_TIME_NAME.search(name))
        form = None if _share_of_times(values) >= MIN_SHARE else _order_of(found, name, values, named)
        share = max(_share_of_times(values, form), 1.0 if form == "?" else 0.0)
        numeric = all(
            isinstance(v, int | float) or str(v).lstrip("-").replace(".", "").isdigit()
            for v in _texts(values)
        )
        dates = numeric and all(map(_COMPACT.fullmatch, _texts(values)))
        if share >= MIN_SHARE and (named or dates or not numeric):
            rated.append((named, share, -list(columns).index(name), name, form))
    if not rated:
        if stamped:
            found.form["time"] = "$timestamp"
            found.note("time", "$timestamp", "no field holds times: the record has one")
        else:
            found.questions["time"] = ("no field holds times: which one is the event time?", list(columns))
        return set()
    *_, name, form = max(rated)
    clock = next(
        (
            other
            for other, values in columns.items()
            if other != name and (texts := _texts(values)) and all(map(_CLOCK.match, texts))
        ),
        None,
    )
    whole = all(
        re.fullmatch(r"\d{8}|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}", text) for text in _texts(columns[name])
    )
    if clock is not None and whole:
        found.form["time"] = [name, clock]
        found.note("time", f"{name} and {clock}", "a date and a time of day")
        return {name, clock}
    found.form["time"] = name
    example = _texts(columns[name])[0]
    found.note("time", name, f"times such as {example}")
    if form == "?":
        found.questions["time_format"] = (
            f"{name} is {example}: day or month first?",
            [_format_of(example, "%d", "%m"), _format_of(example, "%m", "%d")],
        )
    elif form is not None:
        found.form["time_format"] = form
        found.note("time_format", form, "a number above 12 can only be a day")
    return {name}


def _is_other_time(name: str, values: Sequence[Any]) -> bool:
    """Return whether a field is a further time, which is no value."""
    return bool(_TIME_NAME.search(name)) and _share_of_times(values) >= MIN_SHARE


def _order_of(found: Guess, name: str, values: Sequence[Any], named: bool) -> str | None:
    """Return the format of dates with day and month, ``?`` where both orders fit."""
    parts = [_TWO_PARTS.match(text) for text in _texts(values)]
    if not parts or not all(parts):
        return None
    matches = [one for one in parts if one is not None]
    first, second = (max(int(one[i]) for one in matches) for i in (1, 3))
    example = matches[0].group(0)
    if first > 12 or matches[0][2] == ".":
        return _format_of(example, "%d", "%m")
    if second > 12:
        return _format_of(example, "%m", "%d")
    return "?" if why_ambiguous(example) else None


def _format_of(example: str, first: str, second: str) -> str:
    match = _TWO_PARTS.match(example)
    assert match is not None
    clock = "" if match[5] is None else " %H:%M" + ("" if match[6] is None else ":%S")
    return f"{first}{match[2]}{second}{match[2]}%Y{clock}"


def _guess_number(found: Guess, name: str, values: Sequence[Any], kind: str) -> bool:
    """Return whether a field holds numbers, and guess their spelling."""
    there = [v for v in values if v is not None and not isinstance(v, bool)]
    texts = _texts(there)
    if not texts or any(isinstance(v, list | dict) for v in there):
        return False
    least = MIN_NUMBERS_SHARE * len(texts)
    plain = [text for text in texts if _plain(text) is not None]
    if len(plain) < least:
        plain += _decimal_commas(found, name, texts, least - len(plain))
    if len(plain) >= least:
        _guess_missing(found, name, texts, plain, kind)
        return True
    units = Counter(m[1].strip() for text in texts if (m := _NUMBER_WITH_UNIT.match(text)))
    if sum(units.values()) < least:
        return False
    found.form["units"] = sorted({*found.form.get("units", ()), *units})
    found.note("units", ", ".join(found.form["units"]), f"{name} is {texts[0]}")
    return True


def _decimal_commas(found: Guess, name: str, texts: list[str], least: float) -> list[str]:
    """Return the texts that are numbers with a decimal comma, if they are ``least``."""
    comma = [text for text in texts if _DECIMAL_COMMA.fullmatch(text)]
    if len(comma) < least or not comma:
        return []
    found.form["decimal"] = ","
    found.note("decimal", ",", f"{name} is {comma[0]}")
    if grouped := [text for text in comma if "." in text]:
        found.form["thousands"] = "."
        found.note("thousands", ".", f"{name} is {grouped[0]}")
    return comma


def _guess_missing(found: Guess, name: str, texts: list[str], plain: list[str], kind: str) -> None:
    """Guess the texts and numbers that mean that there is no reading."""
    nothing = NumberRules().missing_texts  # type: ignore[attr-defined]
    known = set(plain)
    odd = Counter(text for text in texts if text not in known and text.lower() not in nothing)
    missing: list[float | str] = []
    if kind == "csv" and sum(odd.values()) <= MAX_MISSING_SHARE * len(texts):
        missing += list(odd)[:5]
    numbers = [n for text in plain if (n := _plain(text)) is not None]
    largest = max((abs(n) for n in numbers if n not in SENTINELS), default=0.0)
    for sentinel in SENTINELS:
        if numbers.count(sentinel) > 1 and abs(sentinel) > 10 * largest > 0:
            missing.append(int(sentinel) if sentinel.is_integer() else sentinel)
    if missing:
        found.form["missing"] = list(dict.fromkeys([*found.form.get("missing", ()), *missing]))
        found.note("missing", ", ".join(map(str, found.form["missing"])), f"no readings of {name}")


def _plain(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _guess_labels(
    found: Guess, columns: dict[str, list[Any]], used: set[str], numbers: dict[str, list[Any]], rows: int
) -> list[str]:
    """Guess the fields that name the series."""
    labels = []
    for name, values in columns.items():
        texts = _texts(values)
        if name in used or not texts or any(isinstance(v, list | dict | bool) for v in values):
            continue
        different = len(set(texts))
        few = different <= max(2, MAX_SERIES_SHARE * rows)
        named = bool(_LABEL_NAME.search(name))
        whole = all(re.fullmatch(r"-?\d+", text) for text in texts)
        if name in numbers and not (named and whole and few and len(numbers) > 1):
            continue
        if few and (named or different < rows or rows == 1):
            labels.append(name)
    constant = [
        name
        for name in labels
        if len({str(value) for value in columns[name]}) == 1 and not _LABEL_NAME.search(name)
    ]
    labels = [name for name in labels if name not in constant] or constant[:1]
    if len(labels) > 1:  # a label that another one implies says nothing more
        labels = _without_implied(columns, labels)
    found.form["series"] = labels
    count = len({tuple(str(columns[name][i]) for name in labels) for i in range(rows)})
    if labels:
        found.note("series", ", ".join(labels), f"{count} series in {rows} rows")
    else:
        del found.form["series"]
        found.note("series", "$source", "no field names a series: each file or topic is one")
    return labels


def _without_implied(columns: dict[str, list[Any]], labels: list[str]) -> list[str]:
    kept = list(labels)
    for name in labels:
        others = [one for one in kept if one != name]
        if not others or _LABEL_NAME.search(name):
            continue
        seen: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for i, value in enumerate(columns[name]):
            seen[tuple(str(columns[one][i]) for one in others)].add(str(value))
        if all(len(values) == 1 for values in seen.values()):
            kept.remove(name)
    return kept


def _guess_condition(
    found: Guess, columns: dict[str, list[Any]], labels: list[str], values: list[str]
) -> None:
    """Ask which records belong to the stream, if a label decides the values."""
    partial = [name for name in values if any(v is None for v in columns[name])]
    if len(values) < 2 or len(partial) < 2:
        return
    for label in (name for name in columns if name not in values):
        kinds: dict[str, set[str]] = defaultdict(set)
        for i, kind in enumerate(columns[label]):
            kinds[str(kind)] |= {name for name in values if columns[name][i] is not None}
        groups = [frozenset(one) for one in kinds.values()]
        if len(set(groups)) > 1 and all(a == b or not a & b for a in groups for b in groups):
            found.questions["where"] = (
                f"{label} decides which values there are: which records are this stream?",
                [f"{label}={kind}" for kind in kinds],
            )
            return


def _guess_optional(
    found: Guess, columns: dict[str, list[Any]], labels: list[str], values: list[str]
) -> None:
    count = len(next(iter(columns.values()), ()))
    there = [i for i in range(count) if any(columns[name][i] is not None for name in values)]
    absent = [name for name in labels if any(columns[name][i] is None for i in there)]
    if len(values) > 1 and "where" not in found.questions:
        absent += [name for name in values if any(columns[name][i] is None for i in there)]
    if absent:
        nested = isinstance(found.form["values"], dict)
        found.form["optional"] = [_short(name) if nested and name in values else name for name in absent]
        found.note("optional", ", ".join(absent), "absent from some records")


def _guess_preset(found: Guess, names: list[str]) -> None:
    values = list(found.form["values"])
    if sum(bool(_STOCK.search(name)) for name in names) >= 2:
        found.stream["preset"] = "stock"
        found.note("preset", "stock", "fields of prices and symbols")
        found.note("calendar", "none", "for bars of an exchange set `calendar`, for example XNYS")
    elif any(_NETWORK.search(name) for name in [*names, *values]):
        found.stream["preset"] = "network"
        found.note("preset", "network", "fields of rates or traffic")
    else:
        found.note("preset", "sensor", "no field of prices or traffic")


def _guess_cadence(found: Guess, columns: dict[str, list[Any]], labels: list[str], values: list[str]) -> None:
    """Guess the interval between points, and the counters."""
    field_of_time = found.form.get("time")
    if not isinstance(field_of_time, str) or field_of_time not in columns or "time_format" in found.questions:
        return
    form = found.form.get("time_format")
    raw = columns[field_of_time]
    there = [i for i, value in enumerate(raw) if value is not None]
    shown: list[Any] = [str(raw[i]) if form else raw[i] for i in there]
    times = dict(zip(there, parse_times(shown, "auto", "UTC", form).tolist(), strict=True))
    rows: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i in there:
        if times[i] >= 0:
            rows[tuple(str(columns[name][i]) for name in labels)].append(i)
    steps: list[int] = []
    rising: Counter[str] = Counter()
    for places in rows.values():
        ordered = sorted(places, key=lambda i: int(times[i]))
        steps += [int(times[b] - times[a]) for a, b in pairwise(ordered) if times[b] > times[a]]
        for name in values:
            column = [n for i in ordered if (n := _plain(str(columns[name][i]))) is not None]
            rising[name] += len(column) > 4 and column == sorted(column) and column[0] < column[-1]
    if len(steps) >= 3:
        every = statistics.median(steps)
        text = duration_text(timedelta(microseconds=every / 1000))
        found.note("every", text, "usual interval between points of a series; it is learned, not set")
    counters = [name for name in values if _COUNTER.search(name) and rising[name] == len(rows)]
    if counters:
        nested = isinstance(found.form["values"], dict)
        found.stream["counters"] = [_short(name) if nested else name for name in counters]
        found.note("counters", ", ".join(counters), "they only rise, and are named like counters")


def _nested(names: Sequence[str]) -> bool:
    short = [_short(name) for name in names]
    return any("." in name for name in names) and len(set(short)) == len(short)


def _short(name: str) -> str:
    return re.split(r"(?<!\\)\.", name)[-1].replace("\\.", ".")
