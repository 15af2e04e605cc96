"""Guess of the series: which fields name it, and which records belong to the stream."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from pipeline.services.guess import Fields, Guess, is_former, number_of, texts_of, words_of
from pipeline.services.guess_numbers import states_of
from pipeline.services.guess_times import is_time

_NAME = re.compile(
    r"(^|[._])(key|k|dev|device|host|hostname|sensor|site|name|sym|symbol|ticker|security|isin|instance|n|interface|"
    r"register|address|addr|mmsi|imo|id|.*[_-]id|uuid|tag|node|channel|entity|metric|measurement|target|scope|item|station|meter|asset|machine|eui|"
    r"(item|host|device|dev|sensor|station|object|tag|node|meter|asset|machine|plant|point|channel|unit|site)s?_?"
    r"(id|name|no|nr|number|code))$"
)
#: Identifiers of a record, not of what it is about.
_OF_RECORD = re.compile(
    r"(^|[._])(message|msg|event|request|trace|span|correlation|transaction|deduplication|record)_?(id|no|nr|number)$"
)
_QUALITY = re.compile(
    r"(^|[._])(.*quality.*|q|qn_\d+|status|status_?(code|text)|state|flag|flags|eor|severity|unit|units|"
    r".*_units?|.*_?units\..*|unit_of_measurement|uom|einheit|unidad|unite|qualitaet|"
    r"qualität|gueltig|valid|validity|origin|data_?type|type_?name)$"
)
#: Texts that people write about a reading, and the version of what wrote it.
_REMARK = re.compile(
    r"(^|[._])(comments?|remarks?|notes?|annotations?|bemerkung|kommentar|anmerkung|observaciones|"
    r"commentaires?|\w*version)$"
)
#: Units, and words for a good reading: a column of one of them names no series.
_NO_NAMES = """
degc degf °c °f c f cel k % pct percent wh kwh mwh gwh w kw mw gw v mv kv a ma bar mbar pa kpa hpa mpa
psi mm cm m km m3 m³ m3/h m³/h l l/min l/h l/s ms s min h hz khz mhz ghz rpm 1/min ppm ppb lx lux ph db
dba dbm g kg t kg/h n nm j mj gj m/s km/h kn deg ° µg/m3 ug/m3 µg/m³ mg/l mg/m3 mg/m³ ntu µs/cm us/cm var
kvar va kva usd eur gbp bytes b kb mb gb bps count ratio good ok valid bad normal raw
"""
_OPERATION = re.compile(
    r"(^|[._])(op|__op|operation|type|kind|action|event_?type|op_type|operation_type|event_name)$"
)
_ROW = re.compile(r"(^|\.)(after|data|NewImage|fullDocument)\.")
_CHANGES = frozenset(
    [
        "c",
        "r",
        "u",
        "d",
        "create",
        "read",
        "update",
        "delete",
        "insert",
        "i",
        "tombstone",
        "bootstrap-insert",
        "snapshot",
        "modify",
        "remove",
        "replace",
    ]
)
_DELETIONS = ("d", "delete", "tombstone", "remove")
MAX_SERIES_SHARE = 0.5  # of the rows: a text with more different values is no label
MAX_QUALITIES = 5


def is_label_name(name: str) -> bool:
    """Return whether a field is named like an identifier of a series."""
    return bool(_NAME.search(words_of(name)))


def rows_of_changes(columns: Fields) -> tuple[dict[str, Sequence[object]], str | None]:
    """Return the fields of the changed rows, and the field of the kind of change.

    Change events of Debezium and GoldenGate have the row under ``after``, those of Maxwell under ``data``, of
    DynamoDB under ``NewImage``, and of MongoDB under ``fullDocument``.
    """
    kind = next(
        (
            name
            for name, values in columns.items()
            if _OPERATION.search(words_of(name))
            and (texts := {text.lower() for text in texts_of(values)})
            and texts <= _CHANGES
        ),
        None,
    )
    if kind is None:
        return dict(columns), None
    inside = {name: values for name, values in columns.items() if is_of_row(name)}
    if not inside:
        return dict(columns), kind
    own = kind.rpartition(".")[0]
    times = {n: v for n, v in columns.items() if n.rpartition(".")[0] == own and is_time(n, v)}
    return inside | {name: values for name, values in times.items() if name not in inside}, kind


def is_of_row(name: str) -> bool:
    """Return whether a field belongs to the row of a change event."""
    return bool(_ROW.search(name))


def guess_changes(found: Guess, columns: Fields, kinds: Sequence[object] | None, kind: str | None) -> None:
    """Leave deletions of rows out, if they hold the row.

    Args:
        found: The guess.
        columns: Fields of the changed rows.
        kinds: Kind of change of each, None without one.
        kind: The field of it.
    """
    if kind is None or kinds is None:
        return
    there = {str(kinds[i]) for values in columns.values() for i, one in enumerate(values) if one is not None}
    gone = sorted(one for one in there if one.lower() in _DELETIONS)
    if gone:
        found.form["where"] = {kind: {"not": gone[0] if len(gone) == 1 else gone}}
        found.note("where", f"{kind} is not {' or '.join(gone)}", "deleted rows are no readings")


def guess_labels(
    found: Guess, columns: Fields, used: set[str], numbers: Fields, rows: int, no_values: set[str]
) -> list[str]:
    """Guess the fields that name the series.

    Args:
        found: The guess.
        columns: All fields.
        used: Fields of the time.
        numbers: Fields that hold numbers.
        rows: Number of rows.
        no_values: Numbers that may name a series, but are no values.
    """
    labels: list[str] = []
    left_out: list[str] = []
    for name, values in columns.items():
        texts = texts_of(values)
        if name in used or not _may_be_label(name, values):
            continue
        different = len(set(texts))
        few = different <= max(2, MAX_SERIES_SHARE * rows)
        named = is_label_name(name)
        whole = all(re.fullmatch(r"-?\d+", text) for text in texts)
        alone = len(numbers) <= 1 and name not in no_values
        if name in numbers and (alone or not (named and whole and few)):
            continue
        if _is_quality(found, name, different):
            continue
        of_record = bool(_OF_RECORD.search(words_of(name))) and different > 1
        if few and not of_record and (named or different < rows or rows == 1):
            labels.append(name)
        elif name not in numbers:
            left_out.append(name)
    labels = _distinguishing(columns, labels)
    if left_out:
        found.note("no label", ", ".join(left_out), "the text differs in most rows; --set series= takes it")
    if not labels:
        found.note("series", "$source", "no field names a series: each file or topic is one")
        return labels
    found.form["series"] = labels
    count = len({tuple(str(columns[name][i]) for name in labels) for i in range(rows)})
    found.note("series", ", ".join(labels), f"{count} series in {rows} rows")
    return labels


def _distinguishing(columns: Fields, labels: list[str]) -> list[str]:
    """Return the labels without those that say nothing more than the others."""
    constant = [one for one in labels if len(set(map(str, columns[one]))) == 1 and not is_label_name(one)]
    names = [one for one in constant if str(columns[one][0]).strip().lower() not in _NO_NAMES.split()]
    labels = [name for name in labels if name not in constant] or names[:1]
    return _without_implied(columns, labels) if len(labels) > 1 else labels


def _may_be_label(name: str, values: Sequence[object]) -> bool:
    if not texts_of(values) or any(isinstance(one, list | dict | bool) for one in values):
        return False
    if _REMARK.search(words_of(name)) or (states_of(values) is not None and not is_label_name(name)):
        return False
    return not is_former(name) and not is_time(name, values)


def _is_quality(found: Guess, name: str, different: int) -> bool:
    """Return whether a field tells how good a reading is, or in what unit."""
    if not _QUALITY.search(words_of(name)) or different > MAX_QUALITIES:
        return False
    if different > 1 and "where" not in found.form:
        found.note(name, "not used", f"to leave readings out by it: where: {{{name}: ...}}")
    return True


def _without_implied(columns: Fields, labels: list[str]) -> list[str]:
    kept = list(labels)
    for name in labels:
        others = [one for one in kept if one != name]
        if not others or is_label_name(name):
            continue
        seen: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for i, value in enumerate(columns[name]):
            seen[tuple(str(columns[one][i]) for one in others)].add(str(value))
        if all(len(values) == 1 for values in seen.values()):
            kept.remove(name)
    return kept


def is_identifier(values: Sequence[object]) -> bool:
    """Return whether texts of digits are identifiers: 0071, which is no number."""
    texts = texts_of(values)
    return any(re.match(r"0\d", text) for text in texts) and not any(number_of(text) for text in texts)
