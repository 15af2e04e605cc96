"""Segment files of a spool: consecutive records, each with a checksum.

A segment is named by the offset of its first record. A record is a header, the type of its content, and the
body as it was received::

    uint32  length of type and body          uint32  CRC-32 of what follows
    int64   time of arrival, ns              uint32  points
    uint8   length of the type               uint8   kind of the compression
    type, body

The end of the last segment can be cut off after a crash; ``valid_end`` finds the last complete record.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

_HEADER = struct.Struct("<II")
_FIXED = struct.Struct("<qIBB")
_ENDING = ".seg"
_OFFSET_DIGITS = 20
#: Largest number of bytes of the type of a content.
MAX_TYPE_BYTES = 255


class Entry(NamedTuple):
    """Record as it was received.

    ``points`` is the number of points that the receiver found in it; it only limits the size of a batch.
    """

    received_ns: int
    points: int
    content_type: str
    compression: int
    body: bytes


def pack(entry: Entry) -> bytes:
    """Return the bytes of a record in a segment."""
    kind = entry.content_type.encode("ascii", "replace")[:MAX_TYPE_BYTES]
    rest = _FIXED.pack(entry.received_ns, min(entry.points, 2**32 - 1), len(kind), entry.compression)
    rest += kind + entry.body
    return _HEADER.pack(len(kind) + len(entry.body), zlib.crc32(rest)) + rest


def read_entry(file: int, at: int) -> tuple[Entry, int] | None:
    """Return the record at a byte position of an open file and the position after it.

    None where no complete record with its checksum begins.
    """
    head = os.pread(file, _HEADER.size, at)
    if len(head) < _HEADER.size:
        return None
    length, checksum = _HEADER.unpack(head)
    size = _FIXED.size + length
    rest = os.pread(file, size, at + _HEADER.size)
    if len(rest) < size or zlib.crc32(rest) != checksum:
        return None
    received, points, kind_bytes, compression = _FIXED.unpack_from(rest)
    if kind_bytes > length:
        return None
    begin = _FIXED.size + kind_bytes
    kind = rest[_FIXED.size : begin].decode("ascii", "replace")
    return Entry(received, points, kind, compression, rest[begin:]), at + _HEADER.size + size


def position_of(file: int, number: int) -> int | None:
    """Return the byte position of record ``number`` of an open file, from 0.

    None if the file ends before it.
    """
    at, end = 0, os.fstat(file).st_size
    for _ in range(number):
        head = os.pread(file, _HEADER.size, at)
        if len(head) < _HEADER.size:
            return None
        at += _HEADER.size + _FIXED.size + _HEADER.unpack(head)[0]
    return at if at <= end else None


def valid_end(path: Path) -> tuple[int, int]:
    """Return the number of complete records of a segment, and the byte after them."""
    file = os.open(path, os.O_RDONLY)
    try:
        count, at = 0, 0
        while (found := read_entry(file, at)) is not None:
            count, at = count + 1, found[1]
        return count, at
    finally:
        os.close(file)


def segment_path(folder: Path, offset: int) -> Path:
    """Return the path of the segment whose first record has ``offset``."""
    return folder / f"{offset:0{_OFFSET_DIGITS}d}{_ENDING}"


def first_offsets(folder: Path) -> list[int]:
    """Return the first offsets of the segments in a folder, ascending."""
    found = (path.stem for path in folder.glob(f"*{_ENDING}"))
    return sorted(int(stem) for stem in found if stem.isdigit() and len(stem) == _OFFSET_DIGITS)


def sync_folder(folder: Path) -> None:
    """Make the names of new and deleted files durable."""
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
