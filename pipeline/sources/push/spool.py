"""Durable queue of received records in segment files, with offsets.

Any thread may append; an append returns when its record is on the disk. Records that are appended at the same
time share one ``fsync``. One thread reads. A segment is deleted after all of its records are released, which
the engine does once they are part of a snapshot.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import uuid
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import structlog

from pipeline.core.errors import SourceError, SourceUnavailable
from pipeline.core.private_files import make_private_folder
from pipeline.sources.push.segments import (
    Entry,
    first_offsets,
    pack,
    position_of,
    read_entry,
    segment_path,
    sync_folder,
    valid_end,
)

#: Bounds of the size of a segment; a spool has room for about sixty-four.
MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES = 1 << 16, 1 << 24
#: Age of the last segment from which on it is ended once it is released.
MIN_SEGMENT_SECONDS = 60.0
#: Largest number of bytes, as received, of the records of one read.
MAX_READ_BYTES = 1 << 24

log = structlog.get_logger(__name__)


class SpoolFullError(Exception):
    """No room: the records that are there are not released yet."""


class SpoolWriteError(Exception):
    """The disk refused a record; nothing of it is kept."""


class _Ticket:
    """Record on its way to the disk."""

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.offset = -1
        self.error: OSError | None = None

    @property
    def done(self) -> bool:
        return self.offset >= 0 or self.error is not None


class Spool:
    """Queue in a folder that one process uses at a time."""

    def __init__(self, folder: Path, max_bytes: int, keep_seconds: float = 0.0) -> None:
        """Open or create the queue.

        A record that is cut off at its end is removed: its sender was not answered.

        Args:
            folder: Folder of the segments.
            max_bytes: Size above which records are refused.
            keep_seconds: Time for which a released segment is kept, if there is room.

        Raises:
            SourceUnavailable: Another process uses it, or it cannot be opened.
        """
        self.folder = folder
        self.max_bytes = max_bytes
        self._segment_bytes = max(MIN_SEGMENT_BYTES, min(MAX_SEGMENT_BYTES, max_bytes // 64))
        self._keep_seconds = keep_seconds
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        self._queue: list[_Ticket] = []
        self._queued_bytes = 0
        self._released = 0
        self._sizes: dict[int, int] = {}  # first offset of a segment → bytes
        self._active = -1  # descriptor of the last segment
        self._active_first = 0
        self._reading: tuple[int, int, int, int] | None = None  # segment, descriptor, next offset, byte
        self._closed = False
        try:
            self._open()
        except OSError as error:
            self.close()
            raise SourceUnavailable(
                f"the spool {folder} cannot be used: {error.strerror or error}. Check its folder and its disk"
            ) from None
        except SourceUnavailable:
            self.close()
            raise

    def _open(self) -> None:
        make_private_folder(self.folder)
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SourceUnavailable(
                f"the spool {self.folder} is used by another process; stop it, or set another `spool`"
            ) from None
        self.identity = self._read_identity()
        firsts = first_offsets(self.folder)
        for first, path in [(first, segment_path(self.folder, first)) for first in firsts]:
            self._sizes[first] = path.stat().st_size
        if firsts:
            self._repair(firsts[-1])
        else:
            self._begin_segment(0)

    def _read_identity(self) -> str:
        path = self.folder / "id"
        try:
            return path.read_text().strip()
        except FileNotFoundError:
            identity = uuid.uuid4().hex
            temporary = self.folder / "id.part"
            temporary.write_text(identity)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            temporary.rename(path)
            sync_folder(self.folder)
            return identity

    def _repair(self, first: int) -> None:
        """Cut the last segment behind its last complete record."""
        path = segment_path(self.folder, first)
        count, end = valid_end(path)
        cut = self._sizes[first] - end
        self._active = os.open(path, os.O_RDWR)
        if cut:
            os.ftruncate(self._active, end)
            os.fsync(self._active)
            log.warning("end of the spool was cut off and is removed", spool=str(self.folder), bytes=cut)
        self._sizes[first] = end
        self._active_first, self._end = first, first + count
        self._durable_end = self._end

    def _begin_segment(self, first: int) -> None:
        path = segment_path(self.folder, first)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.fsync(file)
            sync_folder(self.folder)
        except OSError:
            os.close(file)
            raise
        if self._active >= 0:
            os.close(self._active)
        with self._changed:
            self._active, self._active_first = file, first
            self._sizes[first] = 0
            self._end = self._durable_end = first

    @property
    def end(self) -> int:
        """Offset of the next record."""
        with self._changed:
            return self._durable_end

    @property
    def beginning(self) -> int:
        """Oldest offset that is there."""
        with self._changed:
            return min(self._sizes)

    @property
    def size(self) -> int:
        """Bytes on the disk and on the way there."""
        with self._changed:
            return sum(self._sizes.values()) + self._queued_bytes

    def append(self, entry: Entry) -> int:
        """Write a record and return its offset once it is durable.

        Raises:
            SpoolFullError: There is no room.
            SpoolWriteError: The disk refused it.
        """
        ticket = _Ticket(pack(entry))
        if self.size + len(ticket.frame) > self.max_bytes:
            self._delete_released(at_once=True)
        with self._changed:
            if self._closed:
                raise SpoolWriteError("the spool is closed")
            if sum(self._sizes.values()) + self._queued_bytes + len(ticket.frame) > self.max_bytes:
                raise SpoolFullError
            self._queue.append(ticket)
            self._queued_bytes += len(ticket.frame)
        with self._writing:
            if not ticket.done:  # otherwise the thread before wrote it
                with self._changed:
                    batch, self._queue = self._queue, []
                self._write(batch)
        if ticket.error is not None:
            raise SpoolWriteError(ticket.error.strerror or str(ticket.error))
        return ticket.offset

    def _write(self, batch: Sequence[_Ticket]) -> None:
        frames = b"".join(ticket.frame for ticket in batch)
        error: OSError | None = None
        try:
            if self._sizes[self._active_first] >= self._segment_bytes:
                self._begin_segment(self._end)
            _write_durably(self._active, frames, self._sizes[self._active_first])
        except OSError as refused:
            error = refused
            log.error("cannot write to the spool", spool=str(self.folder), error=str(refused))
        with self._changed:
            self._queued_bytes -= len(frames)
            for number, ticket in enumerate(batch):
                ticket.error = error
                ticket.offset = -1 if error else self._end + number
            if error is None:
                self._end += len(batch)
                self._sizes[self._active_first] += len(frames)
                self._durable_end = self._end
                self._changed.notify_all()

    def wait(self, offset: int, seconds: float) -> bool:
        """Wait until there is a record at ``offset``; return whether there is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._durable_end > offset or self._closed, seconds)

    def read(self, offset: int, max_points: int) -> list[tuple[int, Entry]]:
        """Return records with their offsets, from the first offset ≥ ``offset`` on.

        It is at least one, if there is any.

        Raises:
            SourceError: A segment is damaged.
        """
        end, points, size = self.end, 0, 0
        found: list[tuple[int, Entry]] = []
        while offset < end and (not found or (points < max_points and size < MAX_READ_BYTES)):
            offset, entry = self._read_one(offset, end)
            if entry is None:
                break
            found.append((offset, entry))
            points, size = points + max(entry.points, 1), size + len(entry.body)
            offset += 1
        return found

    def _read_one(self, offset: int, end: int) -> tuple[int, Entry | None]:
        """Return the record at ``offset``, or the first one after it that is there."""
        with self._changed:
            firsts = sorted(self._sizes)
        first = max((one for one in firsts if one <= offset), default=firsts[0])
        offset = max(offset, first)
        if self._reading is None or self._reading[0] != first or self._reading[2] != offset:
            self._seek(first, offset)
        read = None
        if self._reading is not None:
            read = read_entry(self._reading[1], self._reading[3])
            if read is None and self._reading[3] < os.fstat(self._reading[1]).st_size:
                raise self._damaged(first, f"record {offset} does not have its checksum")
        if read is None or self._reading is None:  # the segment that had it was moved away
            later = [one for one in firsts if one > offset]
            return self._read_one(later[0], end) if later else (end, None)
        self._reading = (first, self._reading[1], offset + 1, read[1])
        return offset, read[0]

    def _seek(self, first: int, offset: int) -> None:
        """Open the segment at a record; without that record no segment is open."""
        self._close_reader()
        try:
            file = os.open(segment_path(self.folder, first), os.O_RDONLY)
        except FileNotFoundError:
            return
        at = position_of(file, offset - first)
        if at is None:
            os.close(file)
        else:
            self._reading = (first, file, offset, at)

    def _damaged(self, first: int, why: str) -> SourceError:
        path = segment_path(self.folder, first)
        return SourceError(
            f"the segment {path} is damaged: {why}. Check the disk; to go on without its records, "
            "move the file away and restart the process"
        )

    def release(self, offset: int) -> None:
        """Allow the deletion of all records before ``offset``."""
        self._released = max(self._released, offset)
        self._delete_released(at_once=False)

    def _delete_released(self, at_once: bool) -> None:
        """Delete segments whose records are all released.

        The last segment stays, and with it the offset.
        """
        with self._writing:
            if self._active < 0:
                return
            if (
                self._released >= self._end
                and self._sizes[self._active_first]
                and (at_once or self._is_old())
            ):
                self._begin_segment(self._end)
            with self._changed:
                firsts = sorted(self._sizes)
            for first, after in pairwise(firsts):
                if after > self._released or not self._delete(first, at_once):
                    break

    def _is_old(self) -> bool:
        age = time.time() - os.fstat(self._active).st_mtime
        return age >= max(self._keep_seconds, MIN_SEGMENT_SECONDS)

    def _delete(self, first: int, at_once: bool) -> bool:
        path = segment_path(self.folder, first)
        try:
            if not at_once and time.time() - path.stat().st_mtime < self._keep_seconds:
                return False
            path.unlink()
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("cannot delete a segment of the spool", path=str(path), error=str(error))
            return False
        with self._changed:
            del self._sizes[first]
        return True

    def close(self) -> None:
        """Release the folder. A second call does nothing."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        with self._writing:
            self._close_reader()
            for file in (self._active, getattr(self, "_lock", -1)):
                if file >= 0:
                    os.close(file)
            self._active = -1

    def _close_reader(self) -> None:
        if self._reading is not None:
            os.close(self._reading[1])
            self._reading = None


def _write_durably(file: int, frames: bytes, at: int) -> None:
    """Write at a position; after an error the file ends there again. Raises OSError."""
    try:
        left = memoryview(frames)
        place = at
        while left:
            written = os.pwrite(file, left, place)
            left, place = left[written:], place + written
        os.fsync(file)
    except OSError:
        os.ftruncate(file, at)
        raise
