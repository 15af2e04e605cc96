"""Snapshots of the state of partitions, and offloading of silent series.

A snapshot is taken between two batches, in one transaction under the owner's fence. The same transaction
offloads series that have been silent for long and deletes the stored state of restored ones, so that a
snapshot and the offloaded series always belong together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

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
from storage.stream_state.positions import Fenced

log = structlog.get_logger(__name__)

#: Most series that one snapshot moves to the database: a second or two, in which the loop stands still.
MAX_OFFLOADED_SERIES = 10_000

#: Largest share of the time that snapshots take while several are due. The records of a partition that come
#: while one is taken wait for its end, and would wait for the end of all.
MAX_SNAPSHOT_SHARE = 0.2

#: Key of the meta data of a snapshot: keys of the series that cannot be scored again from it, because they
#: have an open anomaly, or late points that are not part of their state.
UNFIT_KEY = "unfit"


class Snapshots:
    """Takes the snapshots of one stream's partitions, at most one in a turn of the loop."""

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
        self._begun: tuple[Partition, Callable[[], bool]] | None = None  # it and whether it can be taken

    def take_due(self, ownership: Ownership) -> None:
        """Take the most overdue snapshot, if any is due. Raises Fenced.

        All but those that are taken at once, of a new partition or after ``renew``, are spread over time, and
        the recorded history is written in turns before.
        """
        due = [
            p for p in ownership.positions if self._due(ownership, p) and self._age_seconds(p) >= self._every
        ]
        if not due:
            return
        partition = max(due, key=self._age_seconds)
        if partition in self._taken and not self._can_take(partition):
            return
        started = time.monotonic()
        self._take(ownership, partition)
        self._begun, ended = None, time.monotonic()
        longest = self._every / max(len(ownership.positions), 1)
        self._next_at = ended + min((ended - started) * (1 / MAX_SNAPSHOT_SHARE - 1), longest)

    def _can_take(self, partition: Partition) -> bool:
        """Return whether it is time, and the recorded history of before is written."""
        if time.monotonic() < self._next_at:
            return False
        if self._begun is None or self._begun[0] != partition:
            self._begun = partition, self._writers.begin_writing(partition)
        return self._begun[1]()

    def take_all(self, ownership: Ownership) -> None:
        """Take every snapshot that would differ from the stored one, of owned partitions."""
        for partition in [p for p in ownership.positions if self._due(ownership, p)]:
            with suppress(Fenced):
                self._take(ownership, partition)

    def take_now(self, ownership: Ownership, partition: Partition) -> bool:
        """Take the snapshot of an owned partition.

        Return False if it is not written. Raises Fenced.
        """
        return self._take(ownership, partition)

    def renew(self) -> None:
        """Take all of them soon: the state is no longer only what the records made of it."""
        self.renew_each(list(self._taken))

    def renew_each(self, partitions: Iterable[Partition]) -> None:
        """Take those of some partitions soon, as ``renew``."""
        for partition in partitions:
            self._taken.pop(partition, None)

    def forget(self, partition: Partition) -> None:
        """The partition is not ours any more; others may write its snapshot and its stored series."""
        self._taken.pop(partition, None)
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

    def _take(self, ownership: Ownership, partition: Partition) -> bool:
        position = ownership.positions[partition]
        assert position.next_offset is not None
        if not self._writers.durable(partition, position.next_offset):
            return False  # the next turn tries again; a crash before replays from the snapshot of before
        silent = self._scorer.idle(partition)
        idle = self._longest_silent(silent)
        pages = self._scorer.pages(partition, without=idle)
        started = time.monotonic()
        try:
            with self._database.begin() as connection:
                meta = self._scorer.meta() | self._unfit(connection, position)
                size = snapshots.save(connection, position, position.next_offset, pages, meta=meta)
                offloaded_series.forget(connection, position, self._offloaded.restored.get(partition, []))
                offloaded = offloaded_series.offload(connection, position, states_of(self._scorer, idle))
                most = self._scorer.limit.most
                if offloaded and most is not None:
                    offloaded_series.trim(connection, position, most)
        except StorageUnavailable as error:
            log.warning("snapshot not written", partition=str(partition), error=str(error))
            self._taken[partition] = (time.monotonic(), -1)
            return False
        self._scorer.series.release(partition, [self._scorer.series.key(slot) for slot in idle.tolist()])
        self._writers.settle(partition, position.next_offset)
        if self._source is not None:
            self._source.release(partition, position.next_offset)
        self._offloaded.forget(partition)
        # The next one moves further series, also when no record comes.
        self._taken[partition] = (time.monotonic(), position.commits if len(idle) == len(silent) else -1)
        self._faults.close(FaultKind.DAMAGED_STATE, partition)  # this snapshot replaces what was damaged
        self._metrics.snapshot(partition, size)
        self._metrics.snapshot_seconds.observe(time.monotonic() - started)
        self._metrics.evictions.inc(offloaded)
        return True

    def _longest_silent(self, slots: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return the series that leave memory with this snapshot."""
        if len(slots) <= MAX_OFFLOADED_SERIES:
            return slots
        order = np.argsort(self._scorer.last_time(slots), kind="stable")
        return slots[order[:MAX_OFFLOADED_SERIES]]

    def _unfit(self, connection: Connection, position: Position) -> dict[str, list[Key]]:
        """Let the listeners write, and return the series under ``UNFIT_KEY``."""
        if not self._listeners:
            return {}
        unfit = set(self._scorer.open_keys(position.partition))
        for listener in self._listeners:
            unfit |= listener.on_snapshot(connection, position)
        return {UNFIT_KEY: sorted(unfit)}
