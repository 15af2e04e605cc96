"""Snapshots of the state of partitions, and offloading of silent series.

The state is copied between two batches, and written in one transaction under the owner's fence. A thread
writes it while the loop goes on, where the copy is small and no series leaves memory. The same transaction
offloads series that have been silent for long and deletes the stored state of restored ones, so that a
snapshot and the offloaded series always belong together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray
from sqlalchemy import Connection

from pipeline.core.errors import StorageUnavailable
from pipeline.core.types import FaultKind, Partition, Position
from pipeline.decode import Key
from pipeline.engine.fault_log import FaultLog
from pipeline.engine.offloaded_state import OffloadedSeries, states_of
from pipeline.engine.ownership import Ownership
from pipeline.engine.sink import ResultWriters, SnapshotListener
from pipeline.observability.metrics import StreamMetrics
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.sources.base import ReleasingSource, Source
from storage.sql.database import Database
from storage.stream_state import offloaded_series, snapshots
from storage.stream_state.checksums import digest
from storage.stream_state.positions import Fenced

log = structlog.get_logger(__name__)

#: Most series that one snapshot moves to the database: a second or two, in which the loop stands still.
MAX_OFFLOADED_SERIES = 10_000

#: Largest share of the time that snapshots take while several are due. The records of a partition that come
#: while one is taken wait for its end, and would wait for the end of all.
MAX_SNAPSHOT_SHARE = 0.2

#: Most bytes of state that are copied for a thread that writes them. A larger state is written page by page,
#: and the loop waits.
MAX_COPIED_BYTES = 128 << 20

#: Key of the meta data of a snapshot: keys of the series that cannot be scored again from it, because they
#: have an open anomaly, or late points that are not part of their state.
UNFIT_KEY = "unfit"


@dataclass(slots=True, eq=False)
class SnapshotContent:
    """State of a partition after the records below the offset of ``position``.

    ``idle`` are the slots of series that leave memory with the snapshot, of ``silent`` that could.
    ``restored`` are the keys of those that are in memory again, ``open_keys`` those with an open anomaly.
    ``corrected`` is what each listener returned. ``owned`` and ``current`` change while
    it is written: ``current`` is False once the state was changed by something else than its records.
    """

    position: Position
    offset: int
    pages: Iterable[bytes]
    meta: dict[str, Any]
    idle: NDArray[np.int32]
    silent: int
    restored: Sequence[str]
    open_keys: Sequence[Key]
    corrected: Sequence[Sequence[int]]
    started: float
    ended: float = 0.0
    owned: bool = True
    current: bool = True


class Snapshots:
    """Takes the snapshots of one stream's partitions, one after the other."""

    def __init__(
        self,
        database: Database,
        scorer: StreamScorer,
        metrics: StreamMetrics,
        every: float,
        offloaded: OffloadedSeries,
        faults: FaultLog,
        writers: ResultWriters,
        source: Source | None = None,
        listeners: Sequence[SnapshotListener] = (),
    ) -> None:
        self._source = source if isinstance(source, ReleasingSource) else None
        self._listeners = listeners
        self._faults = faults
        self._database = database
        self._scorer = scorer
        self._metrics = metrics
        self._every = every
        self._offloaded = offloaded
        self._writers = writers
        self._taken: dict[Partition, tuple[float, int]] = {}  # (time, commits of the partition)
        self._next_at = 0.0  # time of the next one that is not the first of its partition
        self._longest_pause = every
        self._begun: tuple[Partition, Callable[[], bool]] | None = None  # it and whether it can be taken
        self._thread = ThreadPoolExecutor(1, f"snapshots {scorer.provenance.stream}")
        self._written: tuple[SnapshotContent, Future[tuple[int, int]]] | None = None  # by the thread

    def take_due(self, ownership: Ownership) -> None:
        """Take the most overdue snapshot, if any is due. Raises Fenced.

        All but those that are taken at once, of a new partition or after ``renew``, are spread over time and
        written by a thread, and the recorded history is written in turns before.
        """
        if self._written is not None:
            if not self._written[1].done():
                return
            self._end_written()
        due = [
            p for p in ownership.positions if self._due(ownership, p) and self._age_seconds(p) >= self._every
        ]
        if not due:
            return
        partition = max(due, key=self._age_seconds)
        if partition in self._taken and not self._can_take(partition):
            return
        self._longest_pause = self._every / max(len(ownership.positions), 1)
        at_once, self._begun = partition not in self._taken, None
        if (content := self._copy(ownership, partition)) is None:
            return
        if at_once or not self._fits_thread(content):
            self._end(content, lambda: self._write(content))
            self._space_out(content)
            return
        content.pages = list(content.pages)
        self._written = content, self._thread.submit(self._write, content)

    def _fits_thread(self, content: SnapshotContent) -> bool:
        """Return whether the loop can go on while the content is written.

        Series that leave memory or came back since the last snapshot must not change meanwhile.
        """
        series = self._scorer.series
        size = len(series.keys_of(content.position.partition)) * series.row_bytes
        return not (len(content.idle) or content.restored or size > MAX_COPIED_BYTES)

    def _space_out(self, content: SnapshotContent) -> None:
        """Leave time until the next one that is not the first of its partition."""
        pause = (content.ended - content.started) * (1 / MAX_SNAPSHOT_SHARE - 1)
        self._next_at = content.ended + min(pause, self._longest_pause)

    def wait(self) -> None:
        """Wait until the thread has written; the next call of ``take_due`` notes it."""
        if self._written is not None:
            wait([self._written[1]])

    def close(self) -> None:
        """Wait for the thread and end it."""
        self._thread.shutdown()

    def _can_take(self, partition: Partition) -> bool:
        """Return whether it is time, and the recorded history of before is written."""
        if time.monotonic() < self._next_at:
            return False
        if self._begun is None or self._begun[0] != partition:
            self._begun = partition, self._writers.begin_writing(partition)
        return self._begun[1]()

    def take_all(self, ownership: Ownership) -> None:
        """Take every snapshot that would differ from the stored one, of owned partitions."""
        if self._written is not None:
            with suppress(Fenced):
                self._end_written()
        for partition in [p for p in ownership.positions if self._due(ownership, p)]:
            with suppress(Fenced):
                self.take_now(ownership, partition)

    def take_now(self, ownership: Ownership, partition: Partition) -> bool:
        """Take the snapshot of an owned partition.

        Return False if it is not written. Raises Fenced.
        """
        if self._written is not None and self._written[0].position.partition == partition:
            self._end_written()
        content = self._copy(ownership, partition)
        return content is not None and self._end(content, lambda: self._write(content))

    def renew(self) -> None:
        """Take all of them soon: the state is no longer only what the records made of it."""
        self.renew_each(list(self._taken))

    def renew_each(self, partitions: Iterable[Partition]) -> None:
        """Take those of some partitions soon, as ``renew``."""
        for partition in partitions:
            self._taken.pop(partition, None)
            if self._written is not None and self._written[0].position.partition == partition:
                self._written[0].current = False

    def forget(self, partition: Partition) -> None:
        """The partition is not ours any more; others may write its snapshot and its stored series."""
        self._taken.pop(partition, None)
        if self._written is not None and self._written[0].position.partition == partition:
            self._written[0].owned = False
        self._offloaded.forget(partition)

    def _age_seconds(self, partition: Partition) -> float:
        """Seconds since the last snapshot; for ever, if there was none: the first is taken at once, so that a
        crash has one to begin from.
        """
        return time.monotonic() - self._taken[partition][0] if partition in self._taken else float("inf")

    def _due(self, ownership: Ownership, partition: Partition) -> bool:
        # By commits, not by offset: the end of an input releases points without moving the offset.
        commits = ownership.positions[partition].commits
        return not ownership.recovering(partition) and self._taken.get(partition, (0.0, None))[1] != commits

    def _copy(self, ownership: Ownership, partition: Partition) -> SnapshotContent | None:
        """Return the state of a partition.

        None if what came before it is not written yet: a crash replays it from the snapshot of before.
        """
        position = ownership.positions[partition]
        assert position.next_offset is not None
        if not self._writers.durable(partition, position.next_offset):
            return None
        silent = self._scorer.idle(partition)
        idle = self._longest_silent(silent)
        pages = self._scorer.pages(partition, without=idle)
        return SnapshotContent(
            position,
            position.next_offset,
            pages,
            self._scorer.meta(),
            idle,
            len(silent),
            list(self._offloaded.restored.get(partition, [])),
            self._scorer.open_keys(partition) if self._listeners else [],
            [listener.on_copy(position) for listener in self._listeners],
            time.monotonic(),
        )

    def _write(self, content: SnapshotContent) -> tuple[int, int]:
        """Write a snapshot; return its bytes and the number of series that leave memory.

        Raises Fenced and StorageUnavailable.
        """
        try:
            return self._write_all(content)
        finally:
            content.ended = time.monotonic()

    def _write_all(self, content: SnapshotContent) -> tuple[int, int]:
        position, pages = content.position, content.pages
        # Commits of the loop wait for this transaction: checksums of pages in memory are computed before.
        checked = [(page, digest(page)) for page in pages] if isinstance(pages, list) else pages
        with self._database.begin() as connection:
            meta = content.meta | self._unfit(connection, content)
            size = snapshots.save(connection, position, content.offset, checked, meta=meta)
            offloaded_series.forget(connection, position, content.restored)
            offloaded = offloaded_series.offload(connection, position, states_of(self._scorer, content.idle))
            most = self._scorer.limit.most
            if offloaded and most is not None:
                offloaded_series.trim(connection, position, most)
        return size, offloaded

    def _end_written(self) -> None:
        """Wait for the thread, and note what it has written. Raises Fenced."""
        assert self._written is not None
        (content, written), self._written = self._written, None
        wait([written])
        self._space_out(content)
        try:
            self._end(content, written.result)
        except Fenced:
            if content.owned:
                raise

    def _end(self, content: SnapshotContent, write: Callable[[], tuple[int, int]]) -> bool:
        """Note the outcome of ``write``; return whether it has written. Raises Fenced."""
        partition, commits = content.position.partition, -1
        try:
            size, offloaded = write()
        except StorageUnavailable as error:
            log.warning("snapshot not written", partition=str(partition), error=str(error))
            size = None
        if not content.owned:
            return False
        if size is not None:
            self._note_written(content, size, offloaded)
            # The next one moves further series, also when no record comes.
            commits = content.position.commits if len(content.idle) == content.silent else -1
        if content.current:
            self._taken[partition] = (time.monotonic(), commits)
        return size is not None

    def _note_written(self, content: SnapshotContent, size: int, offloaded: int) -> None:
        partition, series = content.position.partition, self._scorer.series
        series.release(partition, [series.key(slot) for slot in content.idle.tolist()])
        self._writers.settle(partition, content.offset)
        if self._source is not None:
            self._source.release(partition, content.offset)
        if len(content.idle) or content.restored:
            self._offloaded.forget(partition)
        self._faults.close(FaultKind.DAMAGED_STATE, partition)  # this snapshot replaces what was damaged
        self._metrics.snapshot(partition, size)
        self._metrics.snapshot_seconds.observe(content.ended - content.started)
        self._metrics.evictions.inc(offloaded)

    def _longest_silent(self, slots: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the series that leave memory with this snapshot."""
        if len(slots) <= MAX_OFFLOADED_SERIES:
            return slots
        order = np.argsort(self._scorer.last_time(slots), kind="stable")
        return slots[order[:MAX_OFFLOADED_SERIES]]

    def _unfit(self, connection: Connection, content: SnapshotContent) -> dict[str, list[Key]]:
        """Let the listeners write, and return the series under ``UNFIT_KEY``."""
        if not self._listeners:
            return {}
        unfit = set(content.open_keys)
        for listener, corrected in zip(self._listeners, content.corrected, strict=True):
            unfit |= listener.on_snapshot(connection, content.position, corrected)
        return {UNFIT_KEY: sorted(unfit)}
