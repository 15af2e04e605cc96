"""Compression, registry prefix and byte order mark around a record."""

from __future__ import annotations

import codecs
import zlib

import pyarrow as pa

#: Most bytes that a compressed record may have when it is read.
MAX_UNPACKED_BYTES = 1 << 26
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
#: A zero byte and a schema id of four bytes.
_REGISTRY_BYTES = 5
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MAX_LAYERS = 4


def unwrap(value: bytes) -> bytes:
    """Return the UTF-8 text of a record.

    Raises ValueError if what is around it is damaged. A JSON text never
    begins with any of the bytes that are looked for.
    """
    for _ in range(_MAX_LAYERS):
        if value.startswith(_GZIP):
            value = _gunzip(value)
        elif value.startswith(_ZSTD):
            value = _unzstd(value)
        elif value[:1] == b"\0" and len(value) > _REGISTRY_BYTES:
            value = value[_REGISTRY_BYTES:]
        else:
            for mark, encoding in _MARKS:
                if value.startswith(mark):
                    text = value[len(mark) :]
                    return text if encoding == "utf-8" else text.decode(encoding).encode()
            return value
    return value


def _gunzip(value: bytes) -> bytes:
    reader = zlib.decompressobj(wbits=31)
    try:
        text = reader.decompress(value, MAX_UNPACKED_BYTES)
    except zlib.error as error:
        raise ValueError(f"gzip: {error}") from None
    if reader.unconsumed_tail:
        raise ValueError(f"gzip: more than {MAX_UNPACKED_BYTES >> 20} MiB")
    if not reader.eof:
        raise ValueError("gzip: cut off")
    return text


def _unzstd(value: bytes) -> bytes:
    try:
        with pa.CompressedInputStream(pa.BufferReader(value), "zstd") as stream:
            text = stream.read(MAX_UNPACKED_BYTES + 1)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"zstd: {error}") from None
    if len(text) > MAX_UNPACKED_BYTES:
        raise ValueError(f"zstd: more than {MAX_UNPACKED_BYTES >> 20} MiB")
    return bytes(text)
