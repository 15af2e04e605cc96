"""The processing loop, shared by the daemon and a backfill.

    poll ─► ownership (drop revoked, acquire assigned) ─► score ─► commit ─► snapshot

One thread handles whole batches, and at most one batch is uncommitted. While the database does not answer,
that batch is kept and every partition is paused. Polling goes on, so that the group membership stays and
memory does not grow.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import structlog

from pipeline.core.errors import InputError, OffsetOutOfRange, SourceError, StorageUnavailable
from pipeline.core.types import FaultKind, Partition
from pipeline.engine.batch_commit import BatchCommit
from pipeline.engine.engine_parts import EngineParts, UncommittedBatch
from pipeline.engine.member_partitions import RETRY_SECONDS, MemberPartitions
from pipeline.engine.silent_ends import SilentEnds
from pipeline.scoring.batch_result import BatchResult
from pipeline.sources.base import OffsetBounds, Poll, Records, TableRecords
from storage.stream_state.positions import Fenced

log = structlog.get_logger(__name__)

#: Time between two checks of the lag and of the identity of the logs.
CHECK_SECONDS = 5.0


class Engine:
    """Loop of one stream. One thread calls ``turn`` repeatedly."""

    def __init__(self, parts: EngineParts) -> None:
        """Own no partition yet; ``parts`` are made by ``pipeline.engine.factory``."""
        self.parts = parts
        self.finished = False
        self.uncommitted = UncommittedBatch()
        self._partitions = MemberPartitions(parts, self.uncommitted)
        self._commits = BatchCommit(parts, self.uncommitted, self._partitions)
        self._silent_ends = SilentEnds(parts, self._partitions, self._commits)
        self._source_waits_for = ""  # reason why the source is not complete
        self._checked_at = 0.0

    def turn(self, timeout: float) -> bool:
        """Poll, score and commit one batch.

        Wait up to ``timeout`` seconds for records. Return True if there were any.
        """
        p, partitions, commits = self.parts, self._partitions, self._commits
        if p.writers.outputs:
            partitions.check_outputs()
        poll = self._poll(timeout)
        for partition in poll.revoked:
            if partition not in poll.assigned:
                self._silent_ends.end_file(partition)
            partitions.drop(partition)
            p.faults.release(partition)
        self._silent_ends.end_missing_files()
        now = time.monotonic()
        partitions.assign(poll.assigned, now)
        records = [r for r in poll.records if r.partition in p.ownership.positions]
        if records:
            self._process(records)
        elif poll.finished and not commits.pending and not partitions.to_acquire and not self.finished:
            self._finish()
        if commits.pending and now >= partitions.retry_at:
            commits.commit()
        if not commits.pending:
            self._silent_ends.store_ended()
            self._snapshot()
        if now - self._checked_at >= CHECK_SECONDS:
            self._checked_at = now
            self._check_lag_and_identity()
            if not commits.pending and not self.finished:
                self._silent_ends.end_idle_files()
                self._silent_ends.end_silent()
        return bool(records)

    @property
    def done(self) -> bool:
        """True once a bounded source is read to its end and all of it is committed."""
        return self.finished and not self._commits.pending

    @property
    def waits_for(self) -> str:
        """Reason why the engine is not ready, empty if it is.

        The source is incomplete, a partition is not acquired yet, or a batch is not committed.
        """
        if self._partitions.held:
            return "an output takes no verdicts, so that reading waits"
        return self._source_waits_for or (
            "partitions are not acquired or a batch is not committed"
            if self._partitions.to_acquire or self._commits.pending
            else ""
        )

    @property
    def stopped_by(self) -> str:
        """Reason why no partition is read, empty while one is or none is known."""
        stopped = self._partitions.stopped | self._partitions.unreadable.keys()
        if not stopped or not stopped.issuperset(self.parts.ownership.positions):
            return ""
        faults = self.parts.faults.current
        return "every partition is stopped: " + "; ".join(f.message for f in faults if f.partition in stopped)

    @property
    def between_batches(self) -> bool:
        """True if every batch is committed."""
        return not self._commits.pending

    def commit_between(self, result: BatchResult) -> None:
        """Commit a result that no record has caused; call it between two batches."""
        self._commits.commit_between(result)

    def close(self) -> None:
        """Take a last snapshot of the committed state and leave the group.

        The next owner reads an uncommitted batch again.
        """
        if not self._commits.pending:
            self.parts.snapshots.take_all(self.parts.ownership)
        self.parts.snapshots.close()
        for sink in self.parts.sinks:
            sink.close()
        self.parts.faults.end_all()
        self.parts.source.close()

    def abandon(self) -> None:
        """Close after an error, without a snapshot: the state may hold a part of a batch.

        The faults stay open.
        """
        p = self.parts
        for close in (p.snapshots.close, *(sink.close for sink in p.sinks), p.source.close):
            try:
                close()
            except Exception as error:
                log.warning("a part of a failed stream cannot be closed", error=repr(error))

    # ------------------- the steps

    def _poll(self, timeout: float) -> Poll:
        p = self.parts
        try:
            with p.metrics.stage("poll"):
                poll = p.source.poll(
                    p.max_batch, min(timeout, RETRY_SECONDS) if self._commits.pending else timeout
                )
        except OffsetOutOfRange as error:
            # Acquiring it checks what the source still holds and applies the policy.
            self._partitions.schedule_reacquire(error.partition)
            return Poll()
        except (SourceError, InputError) as error:
            p.faults.open_for(error)
            partition = error.partition if isinstance(error, SourceError) else None
            if partition is not None:
                self._partitions.unreadable[partition] = str(error)
            time.sleep(min(timeout, RETRY_SECONDS))
            return Poll()
        self._source_waits_for = poll.waits_for
        self._note_unreadable(poll)
        for kind in (FaultKind.SOURCE_DOWN, FaultKind.STUCK_STREAM) if poll.records else ():
            p.faults.close(kind)
        return poll

    def _note_unreadable(self, poll: Poll) -> None:
        """Keep the partitions that cannot be read.

        Of a source that does not name them, those that gave records can be read again.
        """
        unreadable: Mapping[Partition, str] | None = poll.unreadable
        if unreadable is None:
            read = {records.partition for records in poll.records}
            unreadable = {p: text for p, text in self._partitions.unreadable.items() if p not in read}
        self._partitions.update_unreadable(unreadable)

    def _process(self, batch: list[Records | TableRecords]) -> None:
        self._commits.read_at = time.monotonic()
        try:
            with self.parts.metrics.stage("score"):
                self._score(batch)
        except StorageUnavailable as error:
            # An offloaded series cannot be restored, and half of the batch is in the state already.
            self.parts.faults.open_for(error)
            for records in batch:
                self._partitions.retry(records.partition)

    def _score(self, batch: list[Records | TableRecords]) -> None:
        ownership, scorer, partitions = self.parts.ownership, self.parts.scorer, self._partitions
        halves = [ownership.split_at_committed(records) for records in batch]
        for records in batch:
            ownership.advance_cursor(records)
        if replayed := [old for old, _ in halves if old is not None]:
            scorer.note_silence({})
            self._replay(replayed)
            partitions.emit_caught_up()
            self._silent_ends.store_ended()
        if fresh := [new for _, new in halves if new is not None and new.partition in ownership.positions]:
            scorer.note_silence(self.parts.silence.end(one.partition for one in fresh))
            if scorer.files is not None:
                result = scorer.process(fresh, next_offsets=partitions.settled_offsets())
                partitions.ended |= result.outcomes.keys() - {records.partition for records in fresh}
            else:
                result = scorer.process(fresh)
            self._commits.stage(result)

    def _replay(self, batch: list[Records | TableRecords]) -> None:
        """Score committed records again.

        An output has written each piece wholly or not at all.
        """
        p, rest = self.parts, []
        for records in batch:
            for at in p.writers.cuts(records.partition, records.first_offset, records.next_offset):
                p.emit(p.scorer.process([records.until(at)], replay=True))
                records = records.since(at)
            rest.append(records)
        p.emit(p.scorer.process(rest, replay=True))

    def _finish(self) -> None:
        """Stage what is buffered at the end of a bounded source."""
        positions = self.parts.ownership.positions
        ends = {q: at.next_offset for q, at in positions.items() if at.next_offset is not None}
        self._commits.stage(self.parts.scorer.flush(ends))
        self.finished = True

    def _snapshot(self) -> None:
        try:
            with self.parts.metrics.stage("snapshot"):
                self.parts.snapshots.take_due(self.parts.ownership)
        except Fenced as error:
            self._partitions.handle_fence(error.partition)

    def _check_lag_and_identity(self) -> None:
        """Update lag and faults, and reacquire partitions whose log was replaced."""
        p = self.parts
        p.faults.synchronise()
        try:
            owned = list(p.ownership.positions)
            found = p.source.bounds(owned)
            for partition, bounds in found.items():
                p.metrics.lag(
                    partition, bounds.end - (p.ownership.positions[partition].next_offset or bounds.beginning)
                )
            replaced = [q for q in owned if p.ownership.is_log_replaced(q)]
        except SourceError as error:
            p.silence.clear()
            p.faults.open_for(error)
            return
        self._observe_silence(found)
        p.faults.close(FaultKind.SOURCE_DOWN)
        for partition in replaced:
            self._partitions.schedule_reacquire(partition)

    def _observe_silence(self, found: Mapping[Partition, OffsetBounds]) -> None:
        p, partitions = self.parts, self._partitions
        if partitions.held or self._commits.pending or (p.silence.together and partitions.to_acquire):
            p.silence.clear()
            return
        unread = partitions.stopped | partitions.unreadable.keys()
        p.silence.observe(
            {
                partition: (at, bounds.end)
                for partition, bounds in found.items()
                if partition not in unread
                and not p.ownership.recovering(partition)
                and (at := p.ownership.positions[partition].next_offset) is not None
            },
            time.monotonic(),
        )
