"""Guess of the values: which fields hold numbers, and how these are written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

from pipeline.core.number_texts import NumberRules, plain_text
from pipeline.services.guess import Guess, number_of, texts_of, words_of

_AFTER = re.compile(r"[+-]?[\d.,'’]+\s*([^\d\s.,+'’-][^\d]*)$")
_BEFORE = re.compile(r"(USD|EUR|GBP|CHF|US\$|[$€£¥₹])\s*[+-]?[\d.,'’]+$")
_DECIMAL_COMMA = re.compile(r"[+-]?(\d{1,3}(\.\d{3})+|0|[1-9]\d*),\d+(?:[eE][+-]?\d+)?")
_GROUPED = re.compile(
    r"[+-]?(?:\d{1,3}(?=[,.' _]\d{3})|\d{1,2}(?:,\d\d)+(?=,))([,.' _])\d{3}(?:\1\d{3})*(?:([.,])\d+)?"
)
_FACTORS = {"K": 1e3, "k": 1e3, "M": 1e6, "Mil": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}
_PREFIXES = {"n": 1e-9, "µ": 1e-6, "u": 1e-6, "m": 1e-3, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
#: Words for no reading, in records of JSON. In CSV any rare text is one.
_NO_READING = frozenset(
    [
        "unavailable",
        "unknown",
        "offline",
        "bad",
        "error",
        "fault",
        "timeout",
        "invalid",
        "undefined",
        "no_data",
        "nodata",
        "---",
        "--",
        "-",
        "n/v",
    ]
)
#: Whole numbers that count or point at something.
_NO_VALUE = re.compile(
    r"(^|[._])(id|xid|lsn|seq|seqno|sequence|offset|row|rownum|index|idx|no|nr|line|port|f_?cnt|f_?port|version|pid|"
    r"ns|(offset_in_)?nano(s|seconds)|"
    r"openint|.*_id|fcnt|fport|schema_version|qn_\d+|table|record|register|mmsi|imo|.*sequence_?number|"
    r".*quality|quality_?detail)$"
)
#: A version of a format or of a program.
_VERSION = re.compile(r"version$")
#: Words of switches: that of 0 and that of 1.
_SWITCHES = (
    ("false", "true"),
    ("off", "on"),
    ("closed", "open"),
    ("no", "yes"),
    ("stopped", "running"),
    ("inactive", "active"),
    ("disabled", "enabled"),
    ("aus", "ein"),
    ("zu", "auf"),
    ("nein", "ja"),
)
SENTINELS: tuple[float, ...] = (-9999.0, -999.0, -99999.0, 9999.0, 99999.0, -9999.9, -999.9, -99.9)
#: Largest numbers of registers, and fill values of netCDF and of historians.
SENTINELS += (32_767.0, -32_768.0, 65_535.0, 999_999.0, -999_999.0, 2_147_483_647.0, -2_147_483_648.0)
SENTINELS += (
    9999.9,
    99_999.9,
    -999.25,
    -9998.0,
    -9998.9,
    -8888.0,
    8888.0,
    -7777.0,
    -888.0,
    -6999.0,
    1e31,
    -1e31,
    -1e34,
)
SENTINELS += (9.96921e36, 9.969209968386869e36, 1e20, -1e20, 1e30, -1e30)
#: A sentinel is this many times the largest number, if it is negative or positive.
LEAST_RATIO_BELOW, LEAST_RATIO_ABOVE = 2, 10
#: First rows whose numbers tell whether a column counts the rows.
MIN_ROWS_COUNTED = 100
#: Most units of a field; identifiers such as 12ab have more endings.
MAX_UNITS = 5
_HEXADECIMAL = re.compile(r"[\da-f]{3,}")
#: Footnote of a number: 20.1*, 20.1 (est.), 20.1 [r].
_MARK = re.compile(r".|[(\[][^)\]]*[)\]]")
_THREE_DIGITS = re.compile(r"[+-]?\d{1,3}(\.\d{3})*")
_PLACE = re.compile(r"(^|[._])(lat|lon|lng|long|latitude|longitude|coordinates\.\d|elevation|altitude)$")
MAX_WORDS = 8  # for no reading in one field
MIN_NUMBERS_SHARE = 0.5  # of the rows in which a value must be a number
MAX_MISSING_SHARE = 0.3  # of the rows in which a text can stand for no reading


def guess_number(found: Guess, name: str, values: Sequence[Any], kind: str) -> bool:
    """Return whether a field holds numbers, and guess their spelling.

    Args:
        found: The guess.
        name: Name of the field.
        values: Its contents.
        kind: Kind of the samples; in ``csv`` every rare text can mean that there is no reading.
    """
    there = [v for v in values if v is not None and not isinstance(v, bool)]
    texts = list(map(plain_text, texts_of(there)))
    if not texts or any(isinstance(v, list | dict) for v in there):
        return False
    least = MIN_NUMBERS_SHARE * len(texts)
    if found.form.get("delimiter") == ";" and all(map(_THREE_DIGITS.fullmatch, texts)):
        _ask_for_thousands(found, name, texts)
    plain = [text for text in texts if number_of(text) is not None]
    if len(plain) < least:
        plain += _spelled(found, name, texts, plain, least)
    if len(plain) >= least:
        marks = Counter(unit for text in set(texts) - set(plain) if _MARK.fullmatch(unit := _unit_of(text)))
        if marks:  # as in 20.1*
            _add_units(found, name, marks, next(text for text in texts if _unit_of(text) in marks))
            plain += [text for text in texts if _unit_of(text) in marks]
        _guess_missing(found, name, texts, plain, kind)
        return True
    units = Counter(unit for text in texts if (unit := _unit_of(text)))
    if sum(units.values()) < least or len(units) > MAX_UNITS or all(map(_HEXADECIMAL.fullmatch, texts)):
        return False
    bare = [text.replace(unit, "").strip() for text in texts if (unit := _unit_of(text))]
    _spelled(found, name, bare, [], MIN_NUMBERS_SHARE * len(bare))
    _add_units(found, name, units, texts[0])
    scales = {unit.lower().strip("°º. ").removeprefix("deg").strip() for unit in units}
    if len(scales) > 1 and set(_factors_of(units).values()) == {1.0}:
        question = (
            f"{name} has numbers in {', '.join(sorted(units))}: do they mean the same? Else convert them"
        )
        found.ask("units", question, [",".join(sorted(units))])
    _guess_missing(found, name, texts, [text for text in texts if _unit_of(text)], kind)
    return True


def _ask_for_thousands(found: Guess, name: str, texts: Sequence[str]) -> None:
    """Ask whether 20.100 is twenty or twenty thousand."""
    dotted = [text for text in texts if "." in text]
    if "thousands" in found.form or len(dotted) < MIN_NUMBERS_SHARE * len(texts) or len(set(dotted)) < 2:
        return
    if not any(text.lstrip("+-").startswith("0.") for text in dotted):
        question = f"{name} is {dotted[0]}: does the point separate thousands? (none: it is the decimal sign)"
        found.ask("thousands", question, [".", "none"])


def is_row_number(values: Sequence[Any]) -> bool:
    """Return whether each number is one more than that of the row before."""
    texts = texts_of(values)
    if len(texts) < 3 or len(texts) < len(values) or not all(map(str.isdigit, texts)):
        return False
    first = int(texts[0])
    return texts[:MIN_ROWS_COUNTED] == [str(first + i) for i in range(len(texts[:MIN_ROWS_COUNTED]))]


def states_of(values: Sequence[Any]) -> dict[str, float] | None:
    """Return the words of a switch with their numbers, None for no switch.

    Without words for true and false, which need no setting.
    """
    there = [value for value in values if value is not None and value != ""]
    words = {str(value).strip() for value in there}
    pair = next((pair for pair in _SWITCHES if words and {word.lower() for word in words} <= set(pair)), None)
    if (
        pair is None
        or len(words) > 2
        or any(isinstance(value, int | float) and value not in (True, False) for value in there)
    ):
        return None
    return {} if pair == _SWITCHES[0] else {word: float(pair.index(word.lower())) for word in sorted(words)}


def is_no_value(name: str, values: Sequence[Any]) -> bool:
    """Return whether numbers count or point at something, or are a place."""
    texts = texts_of(values)
    if _PLACE.search(words_of(name)) and len(set(texts)) == 1:
        return True
    if _VERSION.search(words_of(name)) and len(set(texts)) == 1:
        return True
    unnamed = not name.strip() or name.lower().startswith("unnamed:")
    if (unnamed or words_of(name) == "n") and is_row_number(values):
        return True
    return bool(_NO_VALUE.search(words_of(name))) and all(re.fullmatch(r"[+-]?\d+", text) for text in texts)


def _unit_of(text: str) -> str:
    if found := _AFTER.match(text):
        return found[1].strip()
    return found[1] if (found := _BEFORE.match(text)) else ""


def _add_units(found: Guess, name: str, units: Counter[str], example: str) -> None:
    before = found.form.get("units", {})
    known = before if isinstance(before, dict) else dict.fromkeys(before, 1.0)
    known |= _factors_of(units)
    plain = all(factor == 1 for factor in known.values())
    found.form["units"] = sorted(known) if plain else dict(sorted(known.items()))
    found.note("units", ", ".join(sorted(known)), f"{name} is {example}")


def _factors_of(units: Collection[str]) -> dict[str, float]:
    """Return the factor of each unit: kW and MW count in W if both are there."""
    scaled = {unit: _PREFIXES.get(unit[:1], 0.0) for unit in units}
    bases = {unit[1:] if scaled[unit] and len(unit) > 1 else unit for unit in units}
    plain = [unit for unit in units if unit in bases]
    if len(units) > 1 and len(bases) == 1:
        return {unit: 1.0 if unit in plain else scaled[unit] for unit in units}
    return {unit: _FACTORS.get(unit, 1.0) for unit in units}


def _spelled(found: Guess, name: str, texts: list[str], plain: list[str], least: float) -> list[str]:
    """Return the texts that are numbers with a decimal comma or separated thousands."""
    comma = [text for text in texts if _DECIMAL_COMMA.fullmatch(text)]
    grouped = [(text, match) for text in texts if (match := _GROUPED.fullmatch(text))]
    points = {match[2] for _, match in grouped if match[2]}
    many = any(text.count(match[1]) > 1 for text, match in grouped)
    english = found.form.get("delimiter", ",") != ";" and all(text in dict(grouped) for text in comma)
    if grouped and (points or many or english or grouped[0][1][1] not in ",."):
        separator = grouped[0][1][1]
        others = [text for text in comma if text not in {one for one, _ in grouped}]
        number = [text for text, _ in grouped] + (others if points == {","} else [])
        if len(number) + len(plain) >= least:
            if points == {","}:
                found.form["decimal"] = ","
                found.note("decimal", ",", f"{name} is {number[0]}")
            found.form["thousands"] = separator
            found.note("thousands", separator, f"{name} is {grouped[0][0]}")
            return number
    if len(comma) + len(plain) < least or not comma:
        return []
    found.form["decimal"] = ","
    found.note("decimal", ",", f"{name} is {comma[0]}")
    return comma


def _guess_missing(found: Guess, name: str, texts: list[str], plain: list[str], kind: str) -> None:
    """Guess the texts and numbers that mean that there is no reading."""
    nothing = NumberRules().missing_texts  # type: ignore[attr-defined]
    known = set(plain)
    odd = Counter(text for text in texts if text not in known and text.lower() not in nothing)
    odd = Counter({text: count for text, count in odd.items() if number_of(text) is None})
    missing: list[float | str] = []
    if kind == "csv" and sum(odd.values()) <= MAX_MISSING_SHARE * len(texts):
        missing += [text for text in odd if "#" in text or not _unit_of(text)][:MAX_WORDS]
    elif kind != "csv":
        missing += [text for text in odd if text.lower().replace(" ", "_") in _NO_READING]
    numbers = [n for text in plain if (n := number_of(text)) is not None]
    largest = max((abs(n) for n in numbers if n not in SENTINELS), default=0.0)
    for sentinel in SENTINELS:
        ratio = LEAST_RATIO_BELOW if sentinel < 0 else LEAST_RATIO_ABOVE
        if numbers.count(sentinel) > 1 and abs(sentinel) > ratio * largest > 0:
            missing.append(int(sentinel) if sentinel.is_integer() else sentinel)
    if missing:
        found.form["missing"] = list(dict.fromkeys([*found.form.get("missing", ()), *missing]))
        found.note("missing", ", ".join(map(str, found.form["missing"])), f"no readings of {name}")
