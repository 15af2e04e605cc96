"""Whose partition is it, from which epoch on, and where does it read next.

Taking over is: fence the former owner (epoch + 1), load the snapshot and the open anomalies, seek to the
snapshot. The records between the snapshot and the position are scored once more to bring the state up to
date; what they say was committed before and is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import structlog

from pipeline.core.errors import SourceError
from pipeline.core.types import Anomaly, Counts, FaultKind, Partition, Position
from pipeline.engine.commit import Committer, PartitionCommit
from pipeline.engine.fault_log import FaultLog
from pipeline.engine.history_sink import HistorySink
from pipeline.scoring.stream_scorer import BatchResult, StreamScorer
from pipeline.sources.base import OffsetBounds, Records, Source, TableRecords
from storage.results import anomalies
from storage.sql.database import Database
from storage.stream_state import positions, snapshots

AnyRecords = Records | TableRecords

log = structlog.get_logger(__name__)


class Ownership:
    """The partitions of one stream that this process owns."""

    def __init__(
        self,
        scoring: StreamScorer,
        source: Source,
        database: Database,
        faults: FaultLog,
        ledger: str,
        owner: str,
        on_gap: str,
        history: HistorySink | None = None,
    ) -> None:
        """``ledger`` is the stream name in the positions and snapshots, ``owner`` says there who we are."""
        self._committer = Committer(database)
        self._ledger = ledger
        self._history = history
        self._scoring = scoring
        self._source = source
        self._database = database
        self._faults = faults
        self._on_gap = on_gap
        self._owner = owner
        self.positions: dict[Partition, Position] = {}
        #: Where each partition reads next in memory; behind its position while it is recovering.
        self.cursor: dict[Partition, int] = {}
        #: Open anomalies of partitions that are recovering: they stand at the position, so they wait until
        #: the state does.
        self._open: dict[Partition, list[Anomaly]] = {}

    def take_over(self, partition: Partition) -> bool:
        """Become the owner and resume reading. False: the partition is stopped by a fault.

        Raises StorageUnavailable and SourceError (try again), and Fenced (somebody else was faster).
        """
        self.drop(partition)
        identity = self._source.identity(partition)
        bounds = self._source.bounds([partition])[partition]
        position = positions.take_over(self._database, self._ledger, partition, self._owner, identity)
        if position.next_offset is None:
            # Pinned at once: a crash before the first batch must not move ``latest`` on.
            position = self._move(position, self._source.start_offset(partition), Counts())
        if identity and position.identity and identity != position.identity:
            return self._recreated(position, identity, bounds)
        assert position.next_offset is not None
        if not bounds.beginning <= position.next_offset <= bounds.end:
            return self._gap(position, bounds)
        return self._recover(position, bounds)

    def _recover(self, position: Position, bounds: OffsetBounds) -> bool:
        partition, start = position.partition, position.next_offset
        assert start is not None
        with self._database.read() as connection:
            snapshot = snapshots.load(connection, self._ledger, partition)
            # Before the first snapshot everything since the start is read again: it may hold records that
            # wait for the watermark.
            since = snapshot.offset if snapshot is not None else position.start_offset or 0
            replayable = since >= bounds.beginning or since == start
            if snapshot is not None:
                self._scoring.restore(partition, snapshot.meta, snapshot.pages, waiting=replayable)
            self._open[partition] = anomalies.open_of(connection, self._scoring.provenance.stream, partition)
        if not replayable:
            log.warning(
                "records behind the snapshot are gone; the state misses them",
                partition=str(partition),
                snapshot=since,
            )
            if position.counts.held and not self._lost(
                position, bounds, f"{position.counts.held} records that waited for the watermark"
            ):
                return False
            position = self._move(position, start, _without_held(position.counts))
        read_from = since if replayable else start
        self.positions[partition] = position
        self.cursor[partition] = read_from
        if self._history is not None:
            self._history.open(position, read_from)
        self._source.seek(partition, read_from)
        self._source.mirror({partition: start})  # the owner before may have died between its COMMIT and this
        self._source.resume([partition])
        self._faults.resolve(partition)
        log.info(
            "partition taken over",
            partition=str(partition),
            epoch=position.epoch,
            offset=start,
            replay=start - read_from,
        )
        return True

    def caught_up(self) -> Iterator[BatchResult]:
        """Partitions that have reached their position go on with what is open there.

        Gives what was let go at the end of an input, once more.
        """
        for partition in [p for p in self._open if not self.recovering(p)]:
            position = self.positions[partition]
            assert position.next_offset is not None
            if not position.counts.held and self._scoring.held(partition):
                # The input was over, and what waited was scored and committed; the snapshot is from before
                # that.
                yield self._scoring.flush({partition: position.next_offset}, replay=True)
            self._scoring.restore_open(partition, self._open.pop(partition))

    def drop(self, partition: Partition) -> None:
        """Forget a partition: state in memory that is no longer ours is worthless."""
        self.positions.pop(partition, None)
        self.cursor.pop(partition, None)
        self._open.pop(partition, None)
        if self._history is not None:
            self._history.drop(partition)
        self._scoring.drop(partition)

    def expect(self, records: AnyRecords) -> None:
        """Check that a batch goes on exactly where the last one ended, and move the cursor past it."""
        cursor = self.cursor[records.partition]
        if records.first_offset != cursor:
            raise SourceError(
                f"{records.partition}: expected offset {cursor}, the source gave {records.first_offset}",
                records.partition,
            )
        self.cursor[records.partition] = records.next_offset

    def replaced(self, partition: Partition) -> bool:
        """The log behind the partition is not the one that was taken over."""
        known = self.positions[partition].identity
        return bool(known) and self._source.identity(partition) not in ("", known)

    def recovering(self, partition: Partition) -> bool:
        """True while records are read again whose outcome is committed."""
        committed = self.positions[partition].next_offset
        return committed is not None and self.cursor[partition] < committed

    def split(self, records: AnyRecords) -> tuple[AnyRecords | None, AnyRecords | None]:
        """Cut a batch at the committed position: (what was committed before, what is new)."""
        committed = self.positions[records.partition].next_offset
        if committed is None or records.first_offset >= committed:
            return None, records
        if records.next_offset <= committed:
            return records, None
        return records.until(committed), records.since(committed)

    # ------------------------------------------------------------------------------------------------ gaps

    def _gap(self, position: Position, bounds: OffsetBounds) -> bool:
        start = position.next_offset
        assert start is not None
        missing = (
            f"{start} … {bounds.beginning - 1}" if start < bounds.beginning else f"{bounds.end} … {start - 1}"
        )
        if not self._lost(position, bounds, f"offsets {missing}"):
            return False
        # The lost offsets are counted as filtered, so that the sum of outcomes still equals what the position
        # has passed.
        if start > bounds.end:
            position = self._restart(position, position.identity, bounds.beginning)
        else:
            position = self._move(
                position,
                bounds.beginning,
                position.counts + Counts(filtered=bounds.beginning - start, held=position.counts.held),
            )
        return self._recover(position, bounds)

    def _lost(self, position: Position, bounds: OffsetBounds, what: str) -> bool:
        """Say that records are gone for good. True: the policy is to go on."""
        partition = position.partition
        self._faults.open(
            FaultKind.RETENTION_GAP,
            f"{partition}: the next record is offset {position.next_offset}, the source holds {bounds.beginning} … {bounds.end - 1}; "
            f"{what} were never scored. To go on without them set on_gap: resume-earliest.",
            partition,
            missing=what,
        )
        return self._on_gap == "resume-earliest"

    def _move(self, position: Position, offset: int, counts: Counts) -> Position:
        return self._committer.commit([PartitionCommit(position, offset, counts, position.watermark_ns)])[
            position.partition
        ]

    def _recreated(self, position: Position, identity: str, bounds: OffsetBounds) -> bool:
        partition = position.partition
        self._faults.open(
            FaultKind.TOPIC_RECREATED,
            f"{partition}: this is not the log that was read before (it was deleted and made again, or replaced); the position "
            f"{position.next_offset} means nothing in it. To read it from its beginning set on_gap: resume-earliest.",
            partition,
            known=position.identity,
            found=identity,
        )
        if self._on_gap == "fail":
            return False
        return self._recover(self._restart(position, identity, bounds.beginning), bounds)

    def _restart(self, position: Position, identity: str, offset: int) -> Position:
        with self._database.begin() as connection:
            snapshots.delete(connection, position)  # it belongs to the log that is gone
            return positions.restart(connection, position, identity, offset, Counts())


def _without_held(counts: Counts) -> Counts:
    return replace(counts, filtered=counts.filtered + counts.held, held=0)
