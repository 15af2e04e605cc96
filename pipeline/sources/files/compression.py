"""Files that can only be read on: compressed, or in a wide encoding."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import IO, Protocol

import pyarrow as pa

#: Errors of a compressed file that is cut off or damaged.
UNPACKING_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, pa.ArrowException)
#: First bytes of files that are no table of text: what they are, and what to do.
_BINARY = {
    b"\x1f\x8b": "it is compressed by gzip: add .gz to its name",
    b"\x28\xb5\x2f\xfd": "it is compressed by zstd: add .zst to its name",
    b"BZh": "it is compressed by bzip2: add .bz2 to its name",
    b"\xfd7zXZ": "it is compressed by xz: add .xz to its name",
    b"\x04\x22\x4d\x18": "it is compressed by lz4: add .lz4 to its name",
    b"PK\x03\x04": "it is a spreadsheet (.xlsx) or a ZIP archive: save the sheet as CSV, or unpack it",
    b"\xd0\xcf\x11\xe0": "it is a spreadsheet (.xls): save the sheet as CSV",
    b"PAR1": "it is Parquet: its name must end in .parquet",
    b"Obj\x01": "it is Avro: its name must end in .avro",
    b"SQLite format 3": "it is a database of SQLite: give its URL, sqlite:///PATH",
    b"\x89HDF": "it is HDF5: write its table as CSV or Parquet",
    b"ARROW1": "it is an Arrow file: write its table as Parquet",
    b"ORC": "it is ORC: write its table as Parquet",
    b"%PDF": "it is a PDF: write its table as CSV",
    b"<?xml": "it is XML: write its records as CSV or as lines of JSON",
    b"<!DOCTYPE": "it is a page of HTML, perhaps with an error of a server: fetch the data itself",
    b"<html": "it is a page of HTML, perhaps with an error of a server: fetch the data itself",
}


def binary_kind(beginning: bytes) -> str:
    """Return the kind of a file that is no text and what to do, empty for text."""
    beginning = beginning.removeprefix(codecs.BOM_UTF8)
    return next((kind for begin, kind in _BINARY.items() if beginning.startswith(begin)), "")


class ByteStream(Protocol):
    """Open file that can only be read on."""

    def read1(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class _ArrowStream:
    def __init__(self, path: Path, codec: str) -> None:
        self._stream = pa.CompressedInputStream(pa.OSFile(str(path), "rb"), codec)

    def read1(self, size: int, /) -> bytes:
        return bytes(self._stream.read(size))

    def close(self) -> None:
        self._stream.close()


_OPENERS: dict[str, Callable[[Path], ByteStream]] = {
    ".gz": gzip.GzipFile,
    ".zst": lambda path: _ArrowStream(path, "zstd"),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
    ".lz4": lambda path: _ArrowStream(path, "lz4"),
}
#: Endings of compressed files.
COMPRESSED = tuple(_OPENERS)


class _Raw:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read1(self, size: int, /) -> bytes:
        return self._file.read(size)

    def close(self) -> None:
        self._file.close()


class _Transcoded:
    """Bytes of another encoding as UTF-8."""

    def __init__(self, stream: ByteStream, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self._ended = False

    def read1(self, size: int, /) -> bytes:
        while not self._ended:
            raw = self._stream.read1(size)
            self._ended = not raw
            if text := self._decoder.decode(raw, final=self._ended):
                return text.encode("utf-8", "backslashreplace")
        return b""

    def close(self) -> None:
        self._stream.close()


def first_bytes(path: Path, count: int) -> bytes:
    """Return the first bytes of the content of a file."""
    content = b""
    with closing(open_stream(path, None)) as stream:
        while len(content) < count and (piece := stream.read1(count - len(content))):
            content += piece
    return content


def open_stream(path: Path, encoding: str | None) -> ByteStream:
    """Open a file; ``encoding`` is None if it is like ASCII."""
    opener = _OPENERS.get(path.suffix)
    stream = _Raw(open(path, "rb", buffering=0)) if opener is None else opener(path)  # noqa: SIM115
    return stream if encoding is None else _Transcoded(stream, encoding)
