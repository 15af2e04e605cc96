"""Fields of Protobuf messages, one at a time."""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_BAD = "is no request of remote write"


def fields_of(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, kind, begin and end of each field of a message. Raises ValueError."""
    while at < end:
        tag, at = read_varint(data, at, end)
        match tag & 7:
            case 0:
                begin, (_, at) = at, read_varint(data, at, end)
            case 1:
                begin, at = at, at + 8
            case 2:
                length, begin = read_varint(data, at, end)
                at = begin + length
            case 5:
                begin, at = at, at + 4
            case _:
                raise ValueError(_BAD)
        if at > end:
            raise ValueError(f"{_BAD}: it is cut off")
        yield tag >> 3, tag & 7, begin, at


def read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Return an integer of variable length and the position after it.

    Raises ValueError.
    """
    number = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
    raise ValueError(f"{_BAD}: it is cut off")
