"""SenML (RFC 8428): samples and base fields that hold for those after them."""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.core.record_json import encode
from pipeline.decode.unwrapping import unwrap

#: A smaller time counts from the time of the record.
LEAST_ABSOLUTE_SECONDS = 1 << 28
#: Base fields, and the fields that they are added to or stand for.
_ADDED = {"bn": "n", "bt": "t", "bv": "v", "bs": "s"}
#: Fields that only a sample of SenML has, and the others that it may have.
BASE_FIELDS = frozenset({*_ADDED, "bu", "bver"})
SAMPLE_FIELDS = frozenset({"n", "t", "u", "v", "vb", "vs", "vd", "s", "ut"})


def resolve_pack(value: bytes, stamp: int) -> bytes:
    """Return a pack as an array of samples with names and times of their own.

    Raises ValueError.
    """
    try:
        pack = msgspec.json.decode(unwrap(value))
    except msgspec.DecodeError as error:
        raise ValueError(f"is no JSON: {error}") from None
    base: dict[str, Any] = {}
    samples = []
    for entry in pack if isinstance(pack, list) else [pack]:
        if not isinstance(entry, dict):
            raise ValueError("a pack is an array of objects")
        base |= {name: content for name, content in entry.items() if name in BASE_FIELDS}
        if {"v", "vb", "s"} & entry.keys() or ("bv" in base and not {"vs", "vd"} & entry.keys()):
            samples.append(_sample(entry, base, stamp))
    return encode(samples)


def _sample(entry: dict[str, Any], base: dict[str, Any], stamp: int) -> dict[str, Any]:
    """Return a sample with its whole name, time, unit and value."""
    number = entry.get("vb", entry.get("v"))
    if number is None and "s" not in entry:
        number = 0
    if "bv" in base and isinstance(number, int | float) and "vb" not in entry:
        number += _number(base, "bv")
    time = _number(base, "bt") + _number(entry, "t")
    if time < LEAST_ABSOLUTE_SECONDS:
        if stamp < 0:
            raise ValueError("the time counts from now, and the record has no time of its own")
        time += stamp / 1e9
    found = {"n": f"{base.get('bn', '')}{entry.get('n', '')}", "t": time, "v": number}
    if "s" in entry:
        found["s"] = _number(base, "bs") + _number(entry, "s")
    unit = entry.get("u", base.get("bu"))
    return found if unit is None else found | {"u": unit}


def _number(entry: dict[str, Any], name: str) -> float:
    content = entry.get(name, 0)
    if isinstance(content, bool) or not isinstance(content, int | float):
        raise ValueError(f"{name} is not a number")
    return content
