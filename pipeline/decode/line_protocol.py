"""Line protocol of InfluxDB: ``measurement,tag=x field=1.5,other=2i TIME``."""

from __future__ import annotations

import re
from functools import lru_cache

from pipeline.config.inputs import LineProtocolFormat
from pipeline.core.record_json import encode
from pipeline.decode.translation import Translate

#: Field with the lines of a record.
SAMPLES = "lines"
_BEGINNING = f'{{"{SAMPLES}":['.encode()
#: Texts of measurement and tags whose JSON is kept.
HEADS_CACHED = 65_536
_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
#: A line: measurement, tags, fields, time. A backslash escapes the next character; fields may be in quotes.
_LINE = re.compile(
    r"((?:[^,\s\\]|\\.)+)((?:,(?:[^,\s=\\]|\\.)+=(?:[^,\s=\\]|\\.)+)*)[ ]+"
    r'((?:[^\s"\\]|\\.|"(?:[^"\\]|\\.)*")+)(?:[ ]+(-?\d+))?[ ]*$',
    re.DOTALL,
)
_TAG = re.compile(r",((?:[^,=\\]|\\.)+)=((?:[^,=\\]|\\.)+)")
_FIELD = re.compile(r'((?:[^,=\\]|\\.)+)=("(?:[^"\\]|\\.)*"|[^,"]+)(?:,|$)', re.DOTALL)
_ESCAPED = re.compile(r"\\([,= \"\\])")
_WORDS = dict.fromkeys(("t", "T", "true", "True", "TRUE"), True) | dict.fromkeys(
    ("f", "F", "false", "False", "FALSE"), False
)


def line_translator(form: LineProtocolFormat) -> Translate:
    """Return the translator of line protocol; each line of a record is a sample."""
    factor = _NS[form.precision]

    def translate(value: bytes, stamp: int) -> bytes:
        if value[:1] in (b"{", b"["):  # a dead letter of a part of a record
            return value
        points, bad, last = [], 0, ""
        for line in value.decode().splitlines():
            line = line.strip()
            if not line or line[0] == "#":
                continue
            try:
                points.append(_plain_point(line, factor, stamp) or encode(_point(line, factor, stamp)))
            except ValueError as error:
                last, bad = str(error), bad + 1
                points.append(encode({"line": line, "error": last}))
        if bad and bad == len(points):
            raise ValueError(last)
        return _BEGINNING + b",".join(points) + b"]}"

    return translate


def _plain_point(line: str, factor: int, stamp: int) -> bytes | None:
    """Return a line without escapes and quotes as JSON, None for any other line."""
    parts = line.split(" ")
    count = len(parts)
    if count not in (2, 3) or '"' in line or "\\" in line:
        return None
    try:
        if (head := _head(parts[0])) is None:
            return None
        fields = {}
        for one in parts[1].split(","):
            name, text = one.split("=")
            fields[name] = _value(text)
        time = int(parts[2]) * factor if count == 3 else stamp if stamp >= 0 else None
    except (ValueError, IndexError):
        return None
    return head + encode({"fields": fields, "time": time})[1:]


@lru_cache(HEADS_CACHED)
def _head(text: str) -> bytes | None:
    """Return measurement and tags as the beginning of a JSON object.

    A series repeats them in each line.
    """
    measurement, *tags = text.split(",")
    try:
        named = dict([one.split("=") for one in tags])
    except ValueError:
        return None
    return encode({"measurement": measurement, "tags": named})[:-1] + b","


def _point(line: str, factor: int, stamp: int) -> dict[str, object]:
    """Return a line as an object. Raises ValueError."""
    found = _LINE.match(line)
    if found is None:
        raise ValueError("is no line protocol: measurement,tag=value field=1.5 TIME")
    measurement, tags, fields, time = found.groups()
    values, end = {}, 0
    for one in _FIELD.finditer(fields):
        if one.start() != end:
            break
        values[_plain(one[1])] = _value(one[2])
        end = one.end()
    if end != len(fields):
        raise ValueError(f"the fields cannot be read from {fields[end:][:40]!r} on")
    return {
        "measurement": _plain(measurement),
        "tags": {_plain(name): _plain(text) for name, text in _TAG.findall(tags)} if tags else {},
        "fields": values,
        "time": int(time) * factor if time else stamp if stamp >= 0 else None,
    }


def _plain(text: str) -> str:
    return _ESCAPED.sub(r"\1", text) if "\\" in text else text


def _value(text: str) -> object:
    """Return the value of a field. Raises ValueError."""
    if text[0] == '"':
        return _plain(text[1:-1])
    try:
        return float(text)
    except ValueError:
        return _WORDS[text] if text in _WORDS else int(text.removesuffix("i").removesuffix("u"))
