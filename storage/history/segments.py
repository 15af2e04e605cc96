"""Segments of recorded history: Parquet files on any fsspec path, chosen by their names alone.

    <root>/<stream>/<topic>/<partition>/<log>/<first>-<next>.e<epoch>.t<oldest>_<newest>.w<written>.parquet

``first`` and ``next`` are positions: the file holds what came of reading the offsets in [first, next).
``log`` is a hash of the source's identity of the log, so that a topic that was made again does not mix with
what it was. ``epoch`` is the owner's: an owner that takes over replays from its snapshot and writes again
what lies behind it, so that of two files that overlap the one of the higher epoch is valid. ``oldest`` and
``newest`` are event times in ns, ``written`` is the wall clock in s.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

import pyarrow as pa
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from pipeline.core.errors import ConfigError
from pipeline.core.private_files import make_private_folder, private_opener
from pipeline.core.types import Partition
from storage.history import parquet

AnySegment = TypeVar("AnySegment", bound="Segment")

_NAME = re.compile(r"(\d+)-(\d+)\.e(\d+)\.t(-?\d+)_(-?\d+)\.w(\d+)\.parquet")


@dataclass(frozen=True, slots=True)
class Segment:
    """File of recorded history. ``size_bytes`` is 0 before it is written."""

    folder: str  # below the root: that of one log
    first: int
    next: int
    epoch: int
    oldest_ns: int
    newest_ns: int
    written_s: int
    size_bytes: int = 0

    @property
    def path(self) -> str:
        """Path below the root."""
        return f"{self.folder}/{self.first}-{self.next}.e{self.epoch}.t{self.oldest_ns}_{self.newest_ns}.w{self.written_s}.parquet"

    @staticmethod
    def parse(path: str, size_bytes: int) -> Segment | None:
        """Return the segment of a path below the root, None for any other file."""
        folder, _, name = path.rpartition("/")
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        first, next_, epoch, oldest, newest, written = map(int, found.groups())
        return Segment(folder, first, next_, epoch, oldest, newest, written, size_bytes)


def spanning(parts: Sequence[Segment]) -> Segment:
    """Return the segment that stands for adjacent parts; it is not written yet."""
    return Segment(
        folder=parts[0].folder,
        first=parts[0].first,
        next=parts[-1].next,
        epoch=max(one.epoch for one in parts),
        oldest_ns=min(one.oldest_ns for one in parts),
        newest_ns=max(one.newest_ns for one in parts),
        written_s=max(one.written_s for one in parts),
    )


class DamagedSegment(Exception):
    """File of recorded history that cannot be read; the message names it."""

    def __init__(self, segment: Segment, path: str, error: Exception) -> None:
        super().__init__(f"{path}: {error}")
        self.segment = segment


def folder_of(stream: str, partition: Partition | None = None, identity: str | None = None) -> str:
    """Return the folder below the root of a stream, of a partition, or of one log of it."""
    folder = _quoted(stream)
    if partition is not None:
        folder += f"/{_quoted(partition.topic)}/{partition.number}"
        if identity is not None:
            folder += f"/{blake2b(identity.encode(), digest_size=4).hexdigest()}"
    return folder


def _quoted(text: str) -> str:
    """Return a folder's name; one that is too long for a file system ends in a hash."""
    name = quote(text, safe="").replace(".", "%2E")
    return name if len(name) <= 200 else f"{name[:180]}{blake2b(text.encode(), digest_size=8).hexdigest()}"


def valid(segments: Iterable[AnySegment]) -> list[AnySegment]:
    """Return the segments that together hold each offset once, in order.

    A higher epoch supersedes a lower one; within an epoch a merged file its parts, which are deleted only
    after it is written. Segments between two offsets hold what silence ended, each for its times.
    """
    chosen: list[AnySegment] = []
    for _, same_log in groupby(sorted(segments, key=attrgetter("folder")), attrgetter("folder")):
        kept: list[AnySegment] = []  # sorted by first
        for segment in sorted(
            same_log, key=lambda s: (-s.epoch, s.first - s.next, s.first, s.oldest_ns - s.newest_ns)
        ):
            begin = bisect_left(kept, _place(segment)[:2], key=lambda s: (s.first, s.next))
            end = bisect_right(kept, _place(segment)[:2], key=lambda s: (s.first, s.next))
            if not any(overlap(segment, other) for other in kept[max(0, begin - 1) : end + 1]):
                kept.insert(bisect_left(kept, _place(segment), key=_place), segment)
        chosen += kept
    return chosen


def _place(segment: Segment) -> tuple[int, int, int]:
    return segment.first, segment.next, segment.oldest_ns


def overlap(one: Segment, other: Segment) -> bool:
    """Return True if two segments of one log hold the same rows.

    They hold the same offset, or the same times between two offsets.
    """
    if one.first == one.next == other.first == other.next:
        return one.oldest_ns <= other.newest_ns and other.oldest_ns <= one.newest_ns
    if one.epoch != other.epoch:
        later, earlier = (one, other) if one.epoch > other.epoch else (other, one)
        if earlier.first == earlier.next:  # the later owner has read the record before, and ended the silence
            return later.first < earlier.first <= later.next
    return (one.first < other.next and other.first < one.next) or (one.first, one.next) == (
        other.first,
        other.next,
    )


class SegmentStore:
    """Store of segments below one root.

    Raises OSError, or what the fsspec file system raises, and ConfigError for a root that cannot be used.
    """

    def __init__(self, path: str) -> None:
        try:
            self.fs, root = url_to_fs(path)
        except (ImportError, ValueError) as error:
            # a protocol that fsspec does not know, or whose package is not installed
            raise ConfigError(f"storage.history_path: cannot use {path}: {error}") from None
        self.root = root.rstrip("/")
        #: The segments are files of this machine, or of one that it has mounted.
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def list(self, folder: str = "") -> list[Segment]:
        """Return every segment below a folder, including superseded ones."""
        return [one for path, size in self.files(folder) if (one := Segment.parse(path, size)) is not None]

    def files(self, folder: str = "") -> Iterator[tuple[str, int]]:
        """Yield path below the root and size in bytes of every file below ``folder``."""
        below = f"{self.root}/{folder}".rstrip("/")
        if self.is_local:
            yield from _local_files(below, len(self.root) + 1)
            return
        self.fs.invalidate_cache()
        found = self.fs.find(below, detail=True) if self.fs.exists(below) else {}
        for path, info in found.items():
            yield path.removeprefix(self.root).lstrip("/"), int(info.get("size") or 0)

    def write(self, segment: Segment, data: bytes) -> None:
        """Write the file atomically; it is on the disk when this returns."""
        self.put(segment.path, data)

    def put(self, below: str, data: bytes | memoryview) -> None:
        """Write a file whose path is below the root, as ``write`` does."""
        path = f"{self.root}/{below}"
        folder = path.rpartition("/")[0]
        if not self.is_local:
            self.fs.makedirs(folder, exist_ok=True)
            self.fs.pipe_file(path, bytes(data))  # object stores show a file when it is complete
            return
        make_private_folder(folder)
        partial = f"{path}.{os.getpid()}.partial"
        try:
            with open(partial, "wb", opener=private_opener) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError:
            if os.path.exists(partial):
                os.unlink(partial)
            raise
        self._sync_folder(folder)

    def open(self, segment: Segment) -> BinaryIO | pa.NativeFile:
        """Open a segment for reading.

        Raises FileNotFoundError if it was merged, superseded or pruned since it was listed.
        """
        path = f"{self.root}/{segment.path}"
        if self.is_local:
            return pa.OSFile(path)
        file: BinaryIO = self.fs.open(path, "rb")
        return file

    def read(self, segment: Segment, **selected: Any) -> pa.Table:
        """Return the rows of a segment; ``selected`` is passed to ``parquet.decode``.

        Raises FileNotFoundError as ``open`` does, and DamagedSegment.
        """
        try:
            with self.open(segment) as file:
                table = parquet.decode(file, **selected)
            wanted = {"series", "time"}.intersection(selected.get("columns") or ("series", "time"))
            if missing := wanted.difference(table.column_names):
                raise ValueError(f"it has no column {', '.join(sorted(missing))}")
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise DamagedSegment(segment, f"{self.root}/{segment.path}", error) from error
        return table

    def sweep(self, before_s: float) -> int:
        """Delete half-written files from before ``before_s``, and return their number."""
        swept = 0
        for path in Path(self.root).rglob("*.partial") if self.is_local else ():
            with suppress(FileNotFoundError):  # it was finished meanwhile
                if path.stat().st_mtime < before_s:
                    path.unlink()
                    swept += 1
        return swept

    def delete(self, segment: Segment) -> None:
        """Delete a segment, which may be deleted already."""
        with suppress(FileNotFoundError):
            self.fs.rm_file(f"{self.root}/{segment.path}")

    @staticmethod
    def _sync_folder(folder: str) -> None:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _local_files(below: str, cut: int) -> Iterator[tuple[str, int]]:
    """Yield path, from the character ``cut`` on, and size of files below a folder, in order of their names."""
    for folder, inner, names in os.walk(below):
        inner.sort()
        for name in sorted(names):
            path = f"{folder}/{name}"
            with suppress(FileNotFoundError):  # merged or pruned meanwhile
                yield path[cut:], os.stat(path).st_size
