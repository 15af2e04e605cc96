"""Ownership of partitions: the owner, its epoch, and the next offset to read.

Acquiring a partition fences its former owner (epoch + 1), loads the snapshot and the open anomalies, and
seeks to the snapshot. The records between the snapshot and the position are scored once more to bring the
state up to date. Their results were committed before and are dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

import structlog

from pipeline.core.errors import OutputUnavailable, SourceError
from pipeline.core.types import Anomaly, AnomalyState, Counts, EndReason, FaultKind, Partition, Position
from pipeline.engine.commit import Committer, OnChanges, PartitionCommit
from pipeline.engine.fault_log import FaultLog
from pipeline.engine.sink import ResultWriters
from pipeline.engine.stored_state import Claim, StateLoader, StoredState, damage_text
from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.sources.base import OffsetBounds, Records, Source, TableRecords
from storage.results import anomalies, late_records
from storage.sql.database import Database
from storage.stream_state import positions, snapshots
from storage.stream_state.positions import Fenced

_GAP_ADVICE = "To continue without the missing records, or in the new log, set on_gap: resume-earliest."
_FILE_ADVICE = "Put the earlier content back, or give the new content a file name of its own: it is then read from its beginning."

AnyRecords = Records | TableRecords

#: Partitions that one transaction acquires. Their rows are locked for some milliseconds.
MAX_PARTITIONS_PER_CLAIM = 100

log = structlog.get_logger(__name__)


class Ownership:
    """The partitions of one stream that this process owns."""

    def __init__(
        self,
        scorer: StreamScorer,
        source: Source,
        database: Database,
        faults: FaultLog,
        reader: str,
        owner: str,
        on_gap: str | None,
        writers: ResultWriters,
        on_changes: OnChanges | None = None,
    ) -> None:
        """Own no partition yet.

        Args:
            scorer: Receives the restored state.
            source: The records.
            database: Positions, snapshots and open anomalies.
            faults: Receives the faults of a partition.
            reader: Name under which positions and snapshots are kept.
            owner: Name of this process in the positions.
            on_gap: ``fail``, ``resume-earliest``, or None for a source without that key, such as files.
            writers: Recorded history and outputs, which are opened at the offset of the snapshot.
            on_changes: Called inside a transaction that closes anomalies.
        """
        self._committer = Committer(database, on_changes)
        self._states = StateLoader(scorer, reader)
        self._reader = reader
        self._writers = writers
        self._scorer = scorer
        self._source = source
        self._database = database
        self._faults = faults
        self._on_gap = on_gap or "fail"
        self._advice = _FILE_ADVICE if on_gap is None else _GAP_ADVICE
        self._owner = owner
        self.positions: dict[Partition, Position] = {}
        #: Offset that each partition reads next; behind its position while it recovers.
        self.cursor: dict[Partition, int] = {}
        #: Open anomalies of recovering partitions. They belong to the position, so they are restored once the
        #: state has reached it.
        self._open: dict[Partition, list[Anomaly]] = {}

    def claim(self, bounds: Mapping[Partition, OffsetBounds]) -> dict[Partition, Claim]:
        """Become the owner of several partitions in few transactions.

        It also loads their states; ``acquire`` then resumes each. Those that are missing in the result are
        acquired by it alone: their row is locked, or the source gives no answer. Raises StorageUnavailable.
        """
        if not bounds:
            return {}
        identities: dict[Partition, str] = {}
        for partition in bounds:
            self.drop(partition)
            with suppress(SourceError):
                identities[partition] = self._source.identity(partition)
        owned = positions.acquire_all(self._database, self._reader, identities, self._owner)
        owned = self._start_new(owned)
        with self._database.read() as connection:
            return {
                partition: Claim(
                    position,
                    self._states.load(connection, position, bounds[partition])
                    if _fits(position, identities[partition], bounds[partition])
                    else None,
                )
                for partition, position in owned.items()
            }

    def _start_new(self, owned: dict[Partition, Position]) -> dict[Partition, Position]:
        """Commit the start of new partitions at once: a crash must not move ``latest`` on.

        Without an answer of the source, or after a fence, they are left out.
        """
        new = [position for position in owned.values() if position.next_offset is None]
        begun = {partition: at for partition, at in owned.items() if at.next_offset is not None}
        if not new:
            return begun
        try:
            starts = [
                PartitionCommit(one, self._source.start_offset(one.partition), Counts(), one.watermark_ns)
                for one in new
            ]
            return begun | self._committer.commit(starts)
        except (SourceError, Fenced):
            return begun

    def acquire(
        self, partition: Partition, bounds: OffsetBounds | None = None, claim: Claim | None = None
    ) -> bool:
        """Become the owner and resume reading.

        Return False where a fault stops the partition. Raises StorageUnavailable, SourceError and
        OutputUnavailable (try again), and Fenced (another owner was faster). ``bounds`` are
        those of a moment ago, None to ask for them.
        """
        if claim is None:
            self.drop(partition)
        identity = self._source.identity(partition)
        bounds = bounds or self._source.bounds([partition])[partition]
        if claim is not None:
            position = claim.position
        else:
            position = positions.acquire(self._database, self._reader, partition, self._owner, identity)
        if position.next_offset is None:
            position = self._move(position, self._source.start_offset(partition), Counts())
        if identity and position.identity and identity != position.identity:
            return self._handle_recreated_log(position, identity, bounds)
        assert position.next_offset is not None
        if position.next_offset > bounds.end:  # the former owner may have read on since then
            bounds = self._source.bounds([partition])[partition]
        if not bounds.beginning <= position.next_offset <= bounds.end:
            return self._handle_gap(position, bounds)
        return self._recover(position, bounds, claim.state if claim is not None else None)

    def acquire_missing(self, partition: Partition) -> None:
        """Become the owner of a file that is gone, with its last snapshot.

        Raises StorageUnavailable, OutputUnavailable and Fenced.
        """
        self.drop(partition)
        position = positions.acquire(self._database, self._reader, partition, self._owner, "")
        start = position.next_offset
        if start is None:
            return
        bounds = OffsetBounds(start, start)
        with self._database.read() as connection:
            state = self._states.load(connection, position, bounds)
        if not state.replayable:
            position = self._move(position, start, _without_buffered(position.counts))
        self._open_writers(position, start)
        self.positions[partition], self.cursor[partition] = position, start
        self._scorer.restore_open(partition, state.open_anomalies)

    def close_open_anomalies(self, partition: Partition) -> int:
        """Close the anomalies that no state has, and return their number.

        Raises StorageUnavailable and Fenced.
        """
        position = self.positions.get(partition)
        with self._database.read() as connection:
            found = anomalies.open_of(connection, self._scorer.provenance.stream, partition)
        if position is not None and position.next_offset is not None and found:
            closed = [_closed(anomaly) for anomaly in found]
            position = self._move(position, position.next_offset, position.counts, closed)
            self.positions[partition] = position
        return len(found)

    def _recover(self, position: Position, bounds: OffsetBounds, state: StoredState | None = None) -> bool:
        partition, start = position.partition, position.next_offset
        assert start is not None
        if state is None:
            with self._database.read() as connection:
                state = self._states.load(connection, position, bounds)
        found = state.open_anomalies
        if not state.replayable:
            what = f"{position.counts.buffered} buffered records"
            if state.damage:
                log.warning("state is reset", partition=str(partition), offset=start, lost=what)
            else:
                log.warning(
                    "records after the snapshot are deleted; they are missing in the state",
                    partition=str(partition),
                    snapshot=state.offset,
                )
                if position.counts.buffered and not self._may_skip(position, bounds, what):
                    return False
            self._scorer.forget_sessions(partition)
            # No state knows the series of an open anomaly any more, so nothing else would close it.
            ended = [] if state.loaded else [_closed(anomaly) for anomaly in found]
            found = found if state.loaded else []
            position = self._move(position, start, _without_buffered(position.counts), ended)
        if state.damage or (not state.loaded and position.counts.read()):
            self._begin_without_snapshot(position)
        read_from = state.offset if state.replayable else start
        self._open_writers(position, read_from)
        self._open[partition] = found
        self.positions[partition] = position
        self.cursor[partition] = read_from
        self._source.seek(partition, read_from)
        self._source.publish_offsets({partition: start})  # the former owner may have stopped after its COMMIT
        self._source.resume([partition])
        self._faults.resolve(partition)
        if state.damage:
            self._faults.damaged(partition, damage_text(position, state))
        log.info(
            "partition acquired",
            partition=str(partition),
            epoch=position.epoch,
            offset=start,
            replay=start - read_from,
        )
        return True

    def _begin_without_snapshot(self, position: Position) -> None:
        """Remove what belongs to the lost state, and let late points correct the new one.

        Raises StorageUnavailable and Fenced.
        """
        stream = self._scorer.provenance.stream
        with self._database.begin() as connection:
            # A damaged one could be read again later. The state and the recorded history would then begin at
            # its offset, inside what is written now.
            snapshots.delete(connection, position)
            if self._reader == stream:
                late_records.reopen(connection, stream, position.partition)

    def _open_writers(self, position: Position, offset: int) -> None:
        """Open recorded history and outputs.

        Raises OutputUnavailable; the partition is then not owned.
        """
        try:
            self._writers.open(position, offset)
        except OutputUnavailable:
            self.drop(position.partition)
            raise

    def caught_up(self) -> Iterator[BatchResult]:
        """Continue the open anomalies of partitions that have reached their position.

        Yield again the points that the end of an input released.
        """
        for partition in [p for p in self._open if not self.recovering(p)]:
            position = self.positions[partition]
            assert position.next_offset is not None
            yield from self._scorer.replay_silent_intervals(
                partition, position.next_offset, position.watermark_ns
            )
            if (
                not position.counts.buffered and self._scorer.buffered_records(partition)
            ) or self._scorer.has_ended(partition, position.watermark_ns):
                # The input or a partition had ended: its buffered records were scored, or its sessions ended.
                # That was committed after the snapshot.
                yield self._scorer.flush({partition: position.next_offset}, replay=True)
            self._scorer.restore_open(partition, self._open.pop(partition))

    def drop(self, partition: Partition) -> None:
        """Drop the state of a partition that is lost or acquired again."""
        self.positions.pop(partition, None)
        self.cursor.pop(partition, None)
        self._open.pop(partition, None)
        self._writers.drop(partition)
        self._scorer.drop(partition)

    def advance_cursor(self, records: AnyRecords) -> None:
        """Move the cursor past a batch. Raises SourceError unless it starts where the last one ended."""
        cursor = self.cursor[records.partition]
        if records.first_offset != cursor:
            raise SourceError(
                f"{records.partition}: expected offset {cursor}, the source gave {records.first_offset}",
                records.partition,
            )
        self.cursor[records.partition] = records.next_offset

    def is_log_replaced(self, partition: Partition) -> bool:
        """Return True if the log of the partition is not the one that was acquired."""
        known = self.positions[partition].identity
        return bool(known) and self._source.identity(partition) not in ("", known)

    def recovering(self, partition: Partition) -> bool:
        """Return True while records are read again whose outcome is committed."""
        committed = self.positions[partition].next_offset
        return committed is not None and self.cursor[partition] < committed

    def split_at_committed(self, records: AnyRecords) -> tuple[AnyRecords | None, AnyRecords | None]:
        """Cut a batch at the committed position into (committed, new) records."""
        committed = self.positions[records.partition].next_offset
        if committed is None or records.first_offset >= committed:
            return None, records
        if records.next_offset <= committed:
            return records, None
        return records.until(committed), records.since(committed)

    # ------------------------------------------------------------------------------------------------ gaps

    def _handle_gap(self, position: Position, bounds: OffsetBounds) -> bool:
        start = position.next_offset
        assert start is not None
        missing = (
            f"{start} … {bounds.beginning - 1}" if start < bounds.beginning else f"{bounds.end} … {start - 1}"
        )
        if not self._may_skip(position, bounds, f"offsets {missing}"):
            return False
        # The lost offsets count as filtered, so that the outcomes still add up to the offsets read.
        if start > bounds.end:
            position = self._restart(position, position.identity, bounds.beginning)
        else:
            position = self._move(
                position,
                bounds.beginning,
                position.counts
                + Counts(filtered=bounds.beginning - start, buffered=position.counts.buffered),
            )
        return self._recover(position, bounds)

    def _may_skip(self, position: Position, bounds: OffsetBounds, what: str) -> bool:
        """Open the fault for deleted records, and return True if the policy is to go on without them."""
        partition = position.partition
        self._faults.open(
            FaultKind.RETENTION_GAP,
            f"{partition}: the next record is offset {position.next_offset}, the source holds {bounds.beginning} … {bounds.end - 1}; "
            f"{what} are deleted and were not scored. {self._advice}",
            partition,
            missing=what,
        )
        return self._on_gap == "resume-earliest"

    def _move(
        self, position: Position, offset: int, counts: Counts, changed: Sequence[Anomaly] = ()
    ) -> Position:
        part = PartitionCommit(position, offset, counts, position.watermark_ns, anomalies=list(changed))
        return self._committer.commit([part])[position.partition]

    def _handle_recreated_log(self, position: Position, identity: str, bounds: OffsetBounds) -> bool:
        partition = position.partition
        self._faults.open(
            FaultKind.TOPIC_RECREATED,
            f"{partition}: the log was deleted and created again, or replaced; the position {position.next_offset} is not valid "
            f"in the new log. {self._advice}",
            partition,
            known=position.identity,
            found=identity,
        )
        if self._on_gap == "fail":
            return False
        return self._recover(self._restart(position, identity, bounds.beginning), bounds)

    def _restart(self, position: Position, identity: str, offset: int) -> Position:
        with self._database.begin() as connection:
            snapshots.delete(connection, position)  # it belongs to the deleted log
            return positions.restart(connection, position, identity, offset, Counts())


def _fits(position: Position, identity: str, bounds: OffsetBounds) -> bool:
    """Return True if the position lies in the log that the source holds."""
    same_log = not identity or not position.identity or identity == position.identity
    at = position.next_offset
    return same_log and at is not None and bounds.beginning <= at <= bounds.end


def _without_buffered(counts: Counts) -> Counts:
    return replace(counts, filtered=counts.filtered + counts.buffered, buffered=0)


def _closed(anomaly: Anomaly) -> Anomaly:
    return replace(
        anomaly,
        state=AnomalyState.CLOSED,
        end_reason=EndReason.FILE_REMOVED,
        revision=anomaly.revision + 1,
    )
