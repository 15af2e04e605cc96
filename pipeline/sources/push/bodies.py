"""Compressed bodies of requests, with a limit on what they become."""

from __future__ import annotations

import zlib
from enum import IntEnum

import pyarrow as pa


class Compression(IntEnum):
    """Compression of a body; the numbers are in the segments of spools."""

    NONE = 0
    SNAPPY = 1
    GZIP = 2
    ZSTD = 3
    UNKNOWN = 255


_NAMES = {
    "": Compression.NONE,
    "identity": Compression.NONE,
    "snappy": Compression.SNAPPY,
    "gzip": Compression.GZIP,
    "zstd": Compression.ZSTD,
}


class BodyTooLargeError(ValueError):
    """A body is larger than the limit when it is unpacked."""


def compression_of(encoding: str) -> Compression:
    """Return the compression that a header ``Content-Encoding`` names."""
    return _NAMES.get(encoding.strip().lower(), Compression.UNKNOWN)


def unpack(body: bytes, compression: int, limit: int) -> bytes:
    """Return the content of a body.

    Raises:
        BodyTooLargeError: The content has more than ``limit`` bytes.
        ValueError: It is damaged.
    """
    match compression:
        case Compression.NONE:
            content = body
        case Compression.SNAPPY:
            content = _snappy(body, limit)
        case Compression.GZIP:
            content = _gzip(body, limit)
        case Compression.ZSTD:
            content = _zstd(body, limit)
        case _:
            raise ValueError("the Content-Encoding is not one of snappy, gzip, zstd, identity")
    if len(content) > limit:
        raise _too_large(limit)
    return content


def _too_large(limit: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the content has more than {limit:,} bytes")


def _snappy(body: bytes, limit: int) -> bytes:
    """Return the content of a block of Snappy; its length stands before it."""
    length, shift = 0, 0
    for byte in body[:5]:
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    else:
        raise ValueError("snappy: no length")
    if length > limit:
        raise _too_large(limit)
    try:
        return bytes(pa.Codec("snappy").decompress(body, decompressed_size=length))
    except (OSError, ValueError) as error:
        raise ValueError(f"snappy: {error}") from None


def _gzip(body: bytes, limit: int) -> bytes:
    reader = zlib.decompressobj(wbits=31)
    try:
        content = reader.decompress(body, limit + 1)
    except zlib.error as error:
        raise ValueError(f"gzip: {error}") from None
    if len(content) > limit:
        raise _too_large(limit)
    if not reader.eof:
        raise ValueError("gzip: cut off")
    return content


def _zstd(body: bytes, limit: int) -> bytes:
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), "zstd") as stream:
            return bytes(stream.read(limit + 1))
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"zstd: {error}") from None
