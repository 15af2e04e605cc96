"""Recorded history: recent points with their verdicts, for ``explain``, training and plots.

    engine ── append ──► queue ──► one thread: a buffer per partition ──► segments on disk ──► merged segments
           ◄─ barrier ── "everything below this offset is on disk"

The owner of a partition appends committed points; a thread writes them. Before a snapshot commits, the owner
waits for a ``barrier`` at its offset. After a crash it replays from there, and so appends again exactly what
the buffer in memory has lost. A disk error loses history and never stops scoring.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.types import Partition
from storage.history import parquet, reduction_files
from storage.history.compaction import compact
from storage.history.reduction_writer import reduce_settled
from storage.history.segments import Segment, SegmentStore, folder_of
from storage.history.unwritten import NEWEST_NS, OLDEST_NS, add_holder, count_holders, remove_holder

#: Longest time that rows wait for their segment. Where writing is cheap they wait less, so that a chart shows
#: a point about a second after its commit.
FLUSH_SECONDS = 10.0
MIN_FLUSH_SECONDS = 1.0
#: Share of time that writing the segments of all streams may take before rows wait longer.
MAX_WRITING_SHARE = 0.05
#: Size of a segment in memory; it is less than half of that on disk.
SEGMENT_BYTES = 8 << 20
MAX_BUFFERED_BYTES = 128 << 20
#: Time that ``append`` waits for room. While writing fails, rows without room are dropped at once.
APPEND_TIMEOUT_SECONDS = 5.0
RETRY_DELAYS_SECONDS = (0.1, 0.5, 2.0)
#: Time between two looks for segments that can be reduced.
REDUCE_SECONDS = 300.0


@dataclass(slots=True)
class HistoryStats:
    """Counts since the start of the writer. ``dropped_rows`` were scored but not recorded."""

    rows: int = 0
    segments: int = 0
    bytes: int = 0
    dropped_rows: int = 0
    errors: int = 0


@dataclass(slots=True)
class _Buffer:
    """Unwritten part of one partition: the offsets [first, next) and their rows."""

    folder: str
    epoch: int
    first: int = 0
    next: int = 0
    tables: list[pa.Table] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    since: float = 0.0
    whole: bool = True  # nothing was lost since the last barrier

    def add(self, first: int, next: int, table: pa.Table | None, size: int) -> None:
        """Add the rows of the offsets [first, next); None has none.

        Args:
            first: First offset. Rows before a gap are written already.
            next: Offset after the last one.
            table: The rows.
            size: Their bytes in memory.
        """
        if first != self.next:
            self.first = first
        self.next = next
        if table is None:
            return
        if not self.rows:
            self.since = time.monotonic()
        self.tables.append(table)
        self.rows += table.num_rows
        self.bytes += size

    def times(self) -> tuple[int, int]:
        """Return bounds of the times of the rows, wide where offsets tell them apart."""
        if self.first != self.next:
            return OLDEST_NS, NEWEST_NS
        found = [pc.min_max(table.column("time")).as_py() for table in self.tables]
        return min(one["min"] for one in found), max(one["max"] for one in found)

    def clear(self) -> None:
        self.first, self.tables, self.rows, self.bytes = self.next, [], 0, 0


class HistoryWriter:
    """Writer of the recorded history of one stream.

    The engine's thread calls the methods; only ``barrier`` and ``close`` wait for the disk. ``on_error`` is
    called with every failure, from the writer's threads.
    """

    def __init__(self, path: str, stream: str, on_error: Callable[[Exception], None] | None = None) -> None:
        self.stats = HistoryStats()
        self._stream = stream
        self._store = SegmentStore(path)
        self._on_error = on_error
        self._folders: dict[Partition, str] = {}  # of the caller's thread
        self._row_bytes: dict[tuple[str, ...], float] = {}  # by the names of the columns
        #: Changed by the writer's thread only, with the lock; readers of rows take the lock.
        self._buffers: dict[Partition, _Buffer] = {}
        self._buffer_lock = threading.Lock()
        self._tasks: deque[Callable[[], None]] = deque()
        self._memory = 0
        self._failing = False
        self._closing = False
        self._flush_seconds = MIN_FLUSH_SECONDS if self._store.is_local else FLUSH_SECONDS
        self._hasten_at = 0.0  # of the writer's thread
        self._changed = threading.Condition()
        add_holder(self)
        self._thread = threading.Thread(target=self._run, name=f"history {stream}", daemon=True)
        self._thread.start()
        self._merger = ThreadPoolExecutor(1, f"history merge {stream}")
        self._merging: dict[str, Future[None]] = {}
        self._reduce_at: dict[str, float] = {}  # of the merger's thread

    def open(self, partition: Partition, identity: str, epoch: int, offset: int) -> None:
        """Start appending to an owned partition at ``offset`` of its snapshot.

        Segments that former owners wrote after it are superseded.
        """
        folder = self._folders[partition] = folder_of(self._stream, partition, identity)

        def begin() -> None:
            with self._buffer_lock:
                self._buffers[partition] = _Buffer(folder, epoch, offset, offset)
            segments, reductions = reduction_files.listed(self._store, folder)
            for segment in segments:
                if segment.epoch < epoch and segment.next > offset:
                    self._store.delete(segment)
            for reduction in reductions:
                if reduction.next > offset:
                    self._store.delete(reduction)

        self._do(begin)

    def append(self, partition: Partition, first_offset: int, next_offset: int, table: pa.Table) -> None:
        """Append the rows (``storage.history.parquet.rows``) of the offsets [first_offset, next_offset).

        They are committed, or being replayed.
        """
        # A batch has one table a partition, all with the same columns.
        names = tuple(table.column_names)
        if names not in self._row_bytes:
            self._row_bytes[names] = parquet.row_bytes(table.schema)
        size = int(table.num_rows * self._row_bytes[names])
        if self._reserve(size):
            self._do(lambda: self._keep(self._buffers[partition], first_offset, next_offset, table, size))
        else:
            self._do(lambda: self._count_dropped(self._buffers[partition], table.num_rows))

    @property
    def root(self) -> str:
        """Folder or URL of the history."""
        return self._store.root

    def unwritten(self) -> dict[Segment, list[pa.Table]]:
        """Return the rows that are not on the disk, by the segment that they would be."""
        with self._buffer_lock:
            return {
                Segment(one.folder, one.first, one.next, one.epoch, *one.times(), 0): one.tables.copy()
                for one in self._buffers.values()
                if one.rows
            }

    def flush(self) -> None:
        """Start writing all buffers, so that a ``barrier`` soon after is short."""
        self._do(self._flush)

    def begin_writing(self, partition: Partition) -> Callable[[], bool]:
        """Start writing a partition's buffer, so that a ``barrier`` is short.

        Return a function that returns whether that is done, or need not be waited for.
        """
        done = threading.Event()

        def write() -> None:
            try:
                if (buffer := self._buffers.get(partition)) is not None:
                    self._write(buffer)
            finally:
                done.set()

        self._do(write)
        return lambda: self._failing or done.is_set()

    def hasten(self) -> None:
        """Write what people look at now, at most once in the usual time of waiting.

        Writing takes at most twice its share of the time, and an object store gets no further files.
        """

        def write() -> None:
            now = time.monotonic()
            if self._store.is_local and now >= self._hasten_at:
                self._hasten_at = now + min(FLUSH_SECONDS, self._flush_seconds)
                self._flush()

        self._do(write)

    def barrier(self, partition: Partition, offset: int, timeout: float = 30.0) -> bool:
        """Wait until everything appended to ``partition`` is on disk, in segments that end by ``offset``.

        Return False if rows were lost since the last barrier, or if the disk is too slow: the recorded history
        has a hole, and scoring goes on.
        """
        done = threading.Event()
        whole: list[bool] = []

        def cut() -> None:
            buffer = self._buffers[partition]
            self._write(buffer)
            whole.append(buffer.whole and buffer.next <= offset)
            buffer.whole = True
            done.set()

        self._do(cut)
        return done.wait(0 if self._failing else timeout) and whole[0]

    def settle(self, partition: Partition, offset: int) -> None:
        """Merge small segments before ``offset``, where a snapshot is committed: they are final.

        Those that are merged no more are reduced for charts.
        """
        folder = self._folders[partition]

        def merge() -> None:
            compact(self._store, folder, offset)
            if time.monotonic() >= self._reduce_at.get(folder, 0.0):
                more = reduce_settled(self._store, folder, offset, time.time())
                self._reduce_at[folder] = time.monotonic() + (0.0 if more else REDUCE_SECONDS)

        if folder not in self._merging or self._merging[folder].done():
            self._merging[folder] = self._merger.submit(self._guarded, merge)

    def drop(self, partition: Partition) -> None:
        """Drop the buffer of a lost partition; its new owner writes those rows."""

        def forget() -> None:
            with self._buffer_lock:
                buffer = self._buffers.pop(partition)
            self._release(buffer.bytes)

        if self._folders.pop(partition, None) is not None:
            self._do(forget)

    def close(self) -> None:
        """Write everything and stop the threads. Calling it twice is allowed."""
        if self._thread.is_alive():
            self._do(self._flush)
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            self._thread.join()
        self._merger.shutdown()
        remove_holder(self)

    # ------------------------------------------------------------------------------------------ the caller's side

    def _do(self, task: Callable[[], None]) -> None:
        with self._changed:
            self._tasks.append(task)
            self._changed.notify_all()

    def _reserve(self, size: int) -> bool:
        """Reserve ``size`` bytes of the buffer; a single batch always fits."""

        def room() -> bool:
            return self._memory == 0 or self._memory + size <= MAX_BUFFERED_BYTES

        with self._changed:
            granted = (
                self._changed.wait_for(lambda: room() or self._failing, APPEND_TIMEOUT_SECONDS) and room()
            )
            if granted:
                self._memory += size
            return granted

    # ------------------------------------------------------------------------------------------ the writer's thread

    def _run(self) -> None:
        while True:
            with self._changed:
                buffered = any(one.rows for one in self._buffers.values())
                pause = 0.0 if self._due() is not None else 0.2 if buffered else 1.0
                self._changed.wait_for(lambda: self._tasks or self._closing, timeout=pause)
                task = self._tasks.popleft() if self._tasks else None
            if task is not None:
                self._guarded(task)
            elif self._closing:
                return
            self._guarded(self._flush_due)

    def _guarded(self, task: Callable[[], object]) -> None:
        try:
            task()
        except Exception as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.stats.errors += 1
        if self._on_error is not None:
            self._on_error(error)

    def _keep(self, buffer: _Buffer, first: int, next: int, table: pa.Table, size: int) -> None:
        if first != buffer.next:
            self._write(buffer)
        kept = parquet.compacted(table) if table.num_rows else None
        with self._buffer_lock:
            buffer.add(first, next, kept, size)

    def _count_dropped(self, buffer: _Buffer, rows: int) -> None:
        self.stats.dropped_rows += rows
        buffer.whole = False

    def _flush_due(self) -> None:
        """Write one buffer that is due; a ``barrier`` is not to wait for all of them."""
        if (buffer := self._due()) is not None:
            self._write(buffer)

    def _due(self) -> _Buffer | None:
        """Return the buffer that must be written next, None if none must be."""
        short = self._memory > MAX_BUFFERED_BYTES // 2
        now, longest = time.monotonic(), min(FLUSH_SECONDS, self._flush_seconds)
        due = [
            one
            for one in self._buffers.values()
            if one.bytes >= SEGMENT_BYTES or (one.rows and (short or now - one.since >= longest))
        ]
        return max(due, key=lambda one: (one.bytes >= SEGMENT_BYTES, now - one.since), default=None)

    def _flush(self) -> None:
        for buffer in self._buffers.values():
            self._write(buffer)

    def _write(self, buffer: _Buffer) -> None:
        if buffer.rows:
            began = time.monotonic()
            table = parquet.joined(buffer.tables)
            times = pc.min_max(table.column("time")).as_py()
            written = int(time.time())
            segment = Segment(
                buffer.folder, buffer.first, buffer.next, buffer.epoch, times["min"], times["max"], written
            )
            if not self._put(segment, parquet.encode(table), buffer.rows):
                self._count_dropped(buffer, buffer.rows)
            self._adapt(time.monotonic() - began)
        with self._buffer_lock:
            size = buffer.bytes
            buffer.clear()
        self._release(size)

    def _adapt(self, lasted: float) -> None:
        """Let rows wait so long that writing all streams takes its share of the time."""
        if self._store.is_local:  # a request to an object store is paid for
            wanted = lasted * len(self._buffers) * count_holders() / MAX_WRITING_SHARE
            self._flush_seconds = max(MIN_FLUSH_SECONDS, 0.8 * self._flush_seconds + 0.2 * wanted)

    def _put(self, segment: Segment, data: bytes, rows: int) -> bool:
        for delay in (*RETRY_DELAYS_SECONDS, None):
            try:
                self._store.write(segment, data)
            except Exception as error:
                self._failed(error)
                self._set_failing(True)
                if delay is not None:
                    time.sleep(delay)
            else:
                self._set_failing(False)
                self.stats.rows += rows
                self.stats.segments += 1
                self.stats.bytes += len(data)
                return True
        return False

    def _set_failing(self, failing: bool) -> None:
        with self._changed:
            self._failing = failing
            self._changed.notify_all()

    def _release(self, size: int) -> None:
        with self._changed:
            self._memory -= size
            self._changed.notify_all()
