"""Guess of a stream's config from samples, with reasons and questions."""

from __future__ import annotations

import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np

from pipeline.core.durations import duration_text
from pipeline.core.timestamps import parse_times
from pipeline.services.guess import Fields, Guess, has_paths, is_former, number_of, short_name
from pipeline.services.guess_labels import (
    guess_changes,
    guess_labels,
    is_label_name,
    is_of_row,
    rows_of_changes,
)
from pipeline.services.guess_numbers import guess_number, is_no_value, states_of
from pipeline.services.guess_times import guess_time, holds_dates, is_time, repeats_time
from pipeline.services.log_samples import is_of_line, log_field
from pipeline.services.sample_rows import Samples

__all__ = ["Guess", "guess_stream"]

#: Keys of the format of a stream of events.
EVENT_KEYS = ("code", "text")
EVENT_ADVICE = "For events give the field of their code, --set code=FIELD; for log lines --set text=FIELD."
_NUMBERS_ADVICE = "; --set values=FIELD takes a number instead"
#: Fewest rows, and the share of them that repeat the time of another one, at which the series is asked for.
MIN_ROWS_OF_REPEATS, MAX_REPEATED_SHARE = 12, 0.5
#: Names of columns that are hours of a day, and the fewest of them.
_HOUR_OF_DAY = re.compile(r"(?:h|hr|hour|he)[ _]?\d{1,2}|\d{1,2}(?:(?::\d\d){1,2}| ?(?:h|uhr|[ap]m))", re.I)
MIN_HOURS = 12
_STOCK = re.compile(r"(^|[._<])(close|open|high|low|price|p|sym|symbol|ticker|adj.?close|px_last)>?$", re.I)
_NETWORK = re.compile(r"bytes|octets|packets|pkts|flows|interface|usage_|throughput|latency|requests", re.I)
_COUNTER = re.compile(r"(_total|_count|octets|bytes_sent|bytes_recv|counter)$", re.I)


def guess_stream(samples: Samples, *, stamped: bool, answers: Mapping[str, Any] | None = None) -> Guess:
    """Guess the config of a stream.

    Args:
        samples: Rows of the data.
        stamped: The records have times of their own (Kafka).
        answers: Keys of the format that are known: time, series, values, and code or text of events.
    """
    found, known = Guess(form=dict(samples.keys)), dict(answers or {})
    for key, reason in samples.why.items():
        found.note(key, samples.keys.get(key, "beside each other"), reason)
    rows = samples.rows
    everything: dict[str, list[Any]] = {
        name: [row.get(name) for row in rows] for name in dict.fromkeys(name for row in rows for name in row)
    }
    columns, kind = rows_of_changes(everything)
    inside = {name: values for name, values in columns.items() if is_of_row(name)}
    guess_changes(found, inside, everything[kind] if kind is not None else None, kind)
    used = (
        set(_listed(known["time"]))
        if "time" in known
        else guess_time(found, columns, stamped, samples.around)
    )
    if not known.keys() & {*EVENT_KEYS, "values"}:
        known |= _guess_log_field(found, columns, used, samples)
    if event := next((key for key in EVENT_KEYS if key in known), None):
        found.form[event] = known[event]
        _guess_events(found, columns, used | {str(known[event])}, len(rows), known)
        return found
    numbers, no_values = _numbers(found, columns, used, samples)
    if "series" in known:
        labels = _listed(known["series"])
    else:
        labels = guess_labels(found, columns, used, numbers, len(rows), no_values)
    values = [name for name in numbers if name not in labels]
    if left := [name for name in values if name in no_values]:
        values = [name for name in values if name not in no_values] or values
        if len(values) + len(left) <= len(numbers):
            found.note(
                "left out", ", ".join(left), "they count, point at something, or stand around the samples"
            )
    if "values" not in known:
        _ask_about_hours(found, columns, values)
    values = _listed(known["values"]) if "values" in known else values
    _guess_values(found, columns, labels, values)
    if "where" not in found.form:
        _leave_out_other_kinds(found, everything, values)
    if "series" not in known and not found.questions:
        _ask_about_repeated_times(found, everything)
    return found


def _guess_log_field(found: Guess, columns: Fields, used: set[str], samples: Samples) -> dict[str, str]:
    """Return the field of log lines as the key ``text``, nothing where there is none."""
    numbers, _ = _numbers(Guess(), columns, used, samples)
    text = log_field(columns, numbers)
    if text is None:
        return {}
    advice = _NUMBERS_ADVICE if numbers else ""
    found.note("text", text, f"log lines: the template of a line is its code{advice}")
    return {"text": text}


def _ask_about_hours(found: Guess, columns: Fields, values: list[str]) -> None:
    """Ask where the columns of a row are the hours of its day."""
    time = found.form.get("time")
    hours = [name for name in values if _HOUR_OF_DAY.fullmatch(name)]
    if len(hours) >= MIN_HOURS and isinstance(time, str) and holds_dates(columns.get(time, ())):
        question = (
            f"{hours[0]} to {hours[-1]} look like hours of the day in {time}, and a row is one point: "
            f'write a row an hour (pandas: frame.melt("{time}")), or name the values of the day'
        )
        found.ask("values", question, [])


def _guess_events(found: Guess, columns: Fields, used: set[str], rows: int, known: Mapping[str, Any]) -> None:
    """Guess the series of a stream of events; its field is among the ``used`` ones."""
    if "series" not in known:
        columns = {name: values for name, values in columns.items() if not is_of_line(name)}
        names = guess_labels(found, columns, used, {}, rows, set())
        found.form["series"] = [name for name in names if name in columns]


def _numbers(
    found: Guess, columns: Fields, used: set[str], samples: Samples
) -> tuple[dict[str, Sequence[Any]], set[str]]:
    """Return the fields that hold numbers, and those of them that are no values."""
    numbers: dict[str, Sequence[Any]] = {
        name: values
        for name, values in columns.items()
        if name not in used
        and not is_former(name)
        and not is_time(name, values)
        and guess_number(found, name, values, samples.kind)
    }
    if found.form.get("decimal") == "," and found.questions.pop("thousands", None):
        found.form["thousands"] = "."
        found.note("thousands", ".", "the comma is the decimal sign")
    no_values = {
        name
        for name, values in numbers.items()
        if is_no_value(name, values)
        or repeats_time(values, [columns[time] for time in used if time in columns])
        or (name in samples.around and len(set(map(str, values))) == 1)
    }
    if not set(numbers) - no_values:
        numbers |= _switches(found, columns, used)
    return numbers, no_values


def _switches(found: Guess, columns: Fields, used: set[str]) -> Fields:
    """Return the fields that are on or off; they are values where no numbers are."""
    switches = {
        name: states
        for name, values in columns.items()
        if name not in used and not is_label_name(name) and (states := states_of(values)) is not None
    }
    words = {word: number for states in switches.values() for word, number in states.items()}
    if words:
        found.form["states"] = words
        found.note("states", ", ".join(f"{word} is {number:g}" for word, number in words.items()), "switches")
    return {name: columns[name] for name in switches}


def _listed(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]


def _guess_values(found: Guess, columns: Fields, labels: list[str], values: list[str]) -> None:
    if not values:
        options = [name for name in columns if name not in labels and name != found.form.get("time")]
        found.ask("values", f"no field holds numbers: which field is the value? {EVENT_ADVICE}", options[:20])
    found.form["values"] = {short_name(name): name for name in values} if has_paths(values) else values
    found.note("values", ", ".join(values), "the fields with numbers")
    if "where" not in found.form:
        _guess_condition(found, columns, labels, values)
    _guess_optional(found, columns, labels, values)
    _guess_preset(found, list(columns))
    _guess_cadence(found, columns, labels, values)


def _guess_condition(found: Guess, columns: Fields, labels: list[str], values: list[str]) -> None:
    """Ask which records belong to the stream, if a label decides the values."""
    partial = [name for name in values if any(v is None for v in columns.get(name, ()))]
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


def _leave_out_other_kinds(found: Guess, columns: Fields, values: list[str]) -> None:
    """Leave out objects with neither a time (or a series) nor a value.

    Those are actions of a bulk request, for example, or lines of a log beside measurements.
    """
    time = found.form.get("time")
    if not isinstance(time, str) or time not in columns or "where" in found.questions:
        return
    if any(time.startswith(f"{name}.") for name in columns):
        return  # a null parent of every field is left out by itself
    there = [name for name in values if name in columns]
    others = sum(
        at is None and all(columns[name][i] is None for name in there) for i, at in enumerate(columns[time])
    )
    labels = [name for name in found.form.get("series", ()) if name in columns]
    if not others and labels and len(there) == 1 and there[0] in values:
        own = [*labels, *there]
        if lines := sum(all(columns[name][i] is None for name in own) for i in range(len(columns[time]))):
            found.form["where"] = {there[0]: {"exists": True}}
            text = f"{lines} of {len(columns[time])} have neither a series nor a value"
            found.note("where", f"{there[0]} exists", text)
            found.form.pop("optional", None)
        return
    if others:
        found.form["where"] = {time: {"exists": True}}
        found.note("where", f"{time} exists", f"{others} of {len(columns[time])} have neither time nor value")
        kept = [i for i, at in enumerate(columns[time]) if at is not None]
        found.form["series"] = [
            name for name in found.form.get("series", ()) if any(columns[name][i] is not None for i in kept)
        ]


def _ask_about_repeated_times(found: Guess, columns: Fields) -> None:
    """Ask where most rows have the series and the time of another one.

    Only one of them counts.
    """
    time = found.form.get("time", ())
    own = [time] if isinstance(time, str) else list(time)
    own += [name for name in found.form.get("series", ()) if name != "$source"]
    if "where" in found.form or not all(name in columns for name in own):
        return
    rows = [row for row in zip(*(columns[name] for name in own), strict=True) if row[0] is not None]
    repeated = len(rows) - len({tuple(map(str, row)) for row in rows})
    others = [name for name, values in columns.items() if name not in own and len(set(map(str, values))) > 1]
    if len(rows) >= MIN_ROWS_OF_REPEATS and repeated > MAX_REPEATED_SHARE * len(rows) and others:
        question = (
            f"{repeated} of {len(rows)} rows have the time and the series of another row, and only "
            "one of them counts. Which field names the series? If one completes the time, answer time with both fields"
        )
        found.ask("series", question, others[:20])


def _guess_optional(found: Guess, columns: Fields, labels: list[str], values: list[str]) -> None:
    labels = [name for name in labels if name in columns]
    values = [name for name in values if name in columns]
    count = len(next(iter(columns.values()), ()))
    there = [i for i in range(count) if any(columns[name][i] is not None for name in values)]
    absent = [name for name in labels if any(columns[name][i] is None for i in there)]
    if len(values) > 1 and "where" not in found.questions:
        absent += [name for name in values if any(columns[name][i] is None for i in there)]
    if absent:
        nested = isinstance(found.form["values"], dict)
        found.form["optional"] = [short_name(name) if nested and name in values else name for name in absent]
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


def _guess_cadence(found: Guess, columns: Fields, labels: list[str], values: list[str]) -> None:
    """Guess the interval between points, and the counters."""
    field_of_time = found.form.get("time")
    if not isinstance(field_of_time, str) or field_of_time not in columns or "time_format" in found.questions:
        return
    labels = [name for name in labels if name in columns]
    values = [name for name in values if name in columns]
    form, unit = found.form.get("time_format"), found.form.get("time_unit", "auto")
    raw = columns[field_of_time]
    there = [i for i, value in enumerate(raw) if value is not None]
    shown: list[Any] = [str(raw[i]) if form else raw[i] for i in there]
    times = dict(zip(there, parse_times(shown, unit, "UTC", form).tolist(), strict=True))
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
            column = [n for i in ordered if (n := number_of(str(columns[name][i]))) is not None]
            rising[name] += len(column) > 4 and column == sorted(column) and column[0] < column[-1]
    if read := [at for at in times.values() if at >= 0]:
        first, last = (str(np.datetime64(at, "ns"))[:19] for at in (min(read), max(read)))
        found.note("period", f"{first} to {last}", "the times of the samples, in UTC or as they are written")
    if len(steps) >= 3:
        every = statistics.median(steps)
        text = duration_text(timedelta(microseconds=every / 1000))
        found.note("every", text, "usual interval between points of a series; it is learned, not set")
    counters = [name for name in values if _COUNTER.search(name) and rising[name] == len(rows)]
    if counters:
        nested = isinstance(found.form["values"], dict)
        found.stream["counters"] = [short_name(name) if nested else name for name in counters]
        found.note("counters", ", ".join(counters), "they only rise, and are named like counters")
