"""Whose partition is it, from which epoch on, and where does it read next.

Taking over is: fence the former owner (epoch + 1), load the snapshot and the open anomalies, seek to the snapshot. The records between the
snapshot and the position are scored once more to bring the state up to date; what they say was committed before and is dropped.
"""

from __future__ import annotations

import structlog

from pipeline.commit import Committer, Part
from pipeline.errors import SourceError
from pipeline.faults import FaultLog
from pipeline.history import History
from pipeline.records import Counts, FaultKind, Partition, Position
from pipeline.scoring import Scoring
from pipeline.sources.base import Bounds, Records, Source, TableRecords
from storage import anomalies, positions, snapshots
from storage.session import Database

AnyRecords = Records | TableRecords

log = structlog.get_logger(__name__)


class Ownership:
    """The partitions of one stream that this process owns."""

    def __init__(
        self,
        scoring: Scoring,
        source: Source,
        database: Database,
        faults: FaultLog,
        ledger: str,
        owner: str,
        on_gap: str,
        history: History | None = None,
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

    def take_over(self, partition: Partition) -> bool:
        """Become the owner and resume reading. False: the partition is stopped by a fault. Raises StorageUnavailable, SourceUnavailable."""
        identity = self._source.identity(partition)
        bounds = self._source.bounds([partition])[partition]
        position = positions.take_over(self._database, self._ledger, partition, self._owner, identity)
        if position.next_offset is None:
            # Pinned at once: a crash before the first batch must not move ``latest`` on.
            start = self._source.start_offset(partition)
            position = self._committer.commit([Part(position, start, Counts(), None)])[partition]
        else:
            start = position.next_offset
        if identity and position.identity and identity != position.identity:
            return self._recreated(position, identity, bounds)
        if not bounds.beginning <= start <= bounds.end:
            return self._gap(position, start, bounds)
        self._recover(position, start, bounds)
        return True

    def _recover(self, position: Position, start: int, bounds: Bounds) -> None:
        partition = position.partition
        with self._database.read() as connection:
            snapshot = snapshots.load(connection, self._ledger, partition)
            if snapshot is not None:
                self._scoring.restore(partition, snapshot.meta, snapshot.pages)
            open_anomalies = anomalies.open_of(connection, self._scoring.provenance.stream, partition)
        read_from = start
        if snapshot is not None:
            if snapshot.offset >= bounds.beginning:
                read_from = min(snapshot.offset, start)
            else:
                log.warning(
                    "records behind the snapshot are gone; the state misses them", partition=str(partition), snapshot=snapshot.offset
                )
        self._scoring.restore_open(partition, open_anomalies)
        self.positions[partition] = position
        self.cursor[partition] = read_from
        if self._history is not None:
            self._history.open(position, read_from)
        self._source.seek(partition, read_from)
        self._source.resume([partition])
        log.info("partition taken over", partition=str(partition), epoch=position.epoch, offset=start, replay=start - read_from)

    def drop(self, partition: Partition) -> None:
        """Forget a partition: state in memory that is no longer ours is worthless."""
        self.positions.pop(partition, None)
        self.cursor.pop(partition, None)
        if self._history is not None:
            self._history.drop(partition)
        self._scoring.drop(partition)

    def expect(self, records: AnyRecords) -> None:
        """Check that a batch goes on exactly where the last one ended, and move the cursor past it."""
        cursor = self.cursor[records.partition]
        if records.first_offset != cursor:
            raise SourceError(f"{records.partition}: expected offset {cursor}, the source gave {records.first_offset}", records.partition)
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

    def gap(self, partition: Partition) -> bool:
        """The source refused to read where we stand (retention passed us by). True: it goes on, by policy."""
        position = self.positions.get(partition)
        if position is None:
            return False
        bounds = self._source.bounds([partition])[partition]
        start = self.cursor[partition]
        self.drop(partition)
        return self._gap(position, start, bounds)

    def _gap(self, position: Position, start: int, bounds: Bounds) -> bool:
        partition = position.partition
        missing = f"{start} … {bounds.beginning - 1}" if start < bounds.beginning else f"{bounds.end} … {start - 1}"
        self._faults.open(
            FaultKind.RETENTION_GAP,
            f"{partition}: the next record is offset {start}, but the source holds {bounds.beginning} … {bounds.end - 1}; "
            f"offsets {missing} were never scored. To go on without them set on_gap: resume-earliest.",
            partition,
            missing=missing,
        )
        if self._on_gap == "fail":
            return False
        # The lost offsets are counted as filtered, so that the sum of outcomes still equals what the position has passed.
        skipped = max(0, bounds.beginning - start)
        if start > bounds.end:
            position = self._restart(position, position.identity, bounds.beginning)
        else:
            counts = position.counts + Counts(filtered=skipped, held=position.counts.held)
            position = self._committer.commit([Part(position, bounds.beginning, counts, position.watermark_ns)])[partition]
        self._recover(position, bounds.beginning, bounds)
        return True

    def _recreated(self, position: Position, identity: str, bounds: Bounds) -> bool:
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
        self._recover(self._restart(position, identity, bounds.beginning), bounds.beginning, bounds)
        return True

    def _restart(self, position: Position, identity: str, offset: int) -> Position:
        with self._database.begin() as connection:
            snapshots.delete(connection, position)  # it belongs to the log that is gone
            return positions.restart(connection, position, identity, offset, Counts())
