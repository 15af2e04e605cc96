"""Records of other formats as JSON."""

from __future__ import annotations

import base64
import datetime
import decimal
import uuid

import msgspec


def as_json(thing: object) -> object:
    """Return a value of a record as something that JSON has."""
    if isinstance(thing, datetime.datetime):
        return (thing if thing.tzinfo else thing.replace(tzinfo=datetime.UTC)).isoformat()
    if isinstance(thing, datetime.date | datetime.time):
        return thing.isoformat()
    if isinstance(thing, decimal.Decimal | uuid.UUID):
        return str(thing)
    if isinstance(thing, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(thing)).decode()
    raise ValueError(f"{ascii(thing)[:80]} has no form in JSON")


def encode(record: object) -> bytes:
    """Return a record as JSON. Raises ValueError."""
    try:
        return msgspec.json.encode(record, enc_hook=as_json)
    except (TypeError, msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
