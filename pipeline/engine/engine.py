"""The processing loop, shared by the daemon and a backfill.

    poll ─► ownership (drop revoked, acquire assigned) ─► score ─► commit ─► snapshot

One thread handles whole batches, and at most one batch is uncommitted. While the database does not answer,
that batch is kept and every partition is paused. Polling goes on, so that the group membership stays and
memory does not grow.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from pipeline.core.errors import (
    InputError,
    OffsetOutOfRange,
    OutputUnavailable,
    SourceError,
    StorageUnavailable,
)
from pipeline.core.types import FaultKind, Partition
from pipeline.decode import series_names
from pipeline.engine.commit import Committer, PartitionCommit
from pipeline.engine.fault_log import FaultLog
from pipeline.engine.gone_files import GoneFiles
from pipeline.engine.ownership import MAX_PARTITIONS_PER_CLAIM, Ownership
from pipeline.engine.silence import Silence
from pipeline.engine.sink import ResultWriters, Sink
from pipeline.engine.snapshots import Snapshots
from pipeline.engine.stored_state import Claim
from pipeline.observability.metrics import StreamMetrics
from pipeline.scoring.stream_scorer import BatchResult, StreamScorer
from pipeline.sources.base import OffsetBounds, Poll, Records, Source, TableRecords
from storage.stream_state.positions import Fenced

log = structlog.get_logger(__name__)

RETRY_SECONDS = 0.5
#: Time between two checks of the lag and of the identity of the logs.
CHECK_SECONDS = 5.0
#: Time until a fenced partition that the group still assigns to this member is acquired again.
REACQUIRE_SECONDS = 10.0


@dataclass(slots=True)
class EngineParts:
    """Parts of an engine; ``pipeline.engine.factory`` builds them."""

    source: Source
    scorer: StreamScorer
    ownership: Ownership
    committer: Committer
    snapshots: Snapshots
    faults: FaultLog
    metrics: StreamMetrics
    gone_files: GoneFiles
    writers: ResultWriters
    silence: Silence
    sinks: Sequence[Sink] = ()
    max_batch: int = 20_000


@dataclass(slots=True)
class Engine:
    """Loop of one stream. One thread calls ``turn`` repeatedly."""

    parts: EngineParts
    finished: bool = False
    _pending: list[PartitionCommit] = field(default_factory=list)
    _result: BatchResult | None = None  # the source of ``_pending``
    _to_acquire: dict[Partition, float] = field(default_factory=dict)  # partition → time of the next attempt
    _stopped: set[Partition] = field(default_factory=set)  # by a fault, until an operator acts
    _ended: set[Partition] = field(default_factory=set)  # by silence or a later file; no snapshot has that
    _unreadable: dict[Partition, str] = field(default_factory=dict)  # the source tries them again by itself
    _missing_files: bool = True  # those that are gone since the last run are not ended yet
    _held: bool = False  # reading waits until an output has written more
    _source_waits_for: str = ""  # reason why the source is not complete
    _read_at: float = 0.0
    _retry_at: float = 0.0
    _checked_at: float = 0.0

    def turn(self, timeout: float) -> bool:
        """Poll, score and commit one batch.

        Wait up to ``timeout`` seconds for records. Return True if there were any.
        """
        p = self.parts
        if p.writers.outputs:
            self._check_outputs()
        poll = self._poll(timeout)
        for partition in poll.revoked:
            if partition not in poll.assigned:
                self._end_file(partition)
            self._drop_partition(partition)
            self.parts.faults.release(partition)
        self._end_missing_files()
        now = time.monotonic()
        self._to_acquire.update(dict.fromkeys(poll.assigned, now))
        self._acquire_due(now)
        records = [r for r in poll.records if r.partition in p.ownership.positions]
        if records:
            self._process(records)
        elif poll.finished and self._result is None and not self._to_acquire and not self.finished:
            self._stage_commit(
                p.scorer.flush(
                    {
                        q: at.next_offset
                        for q, at in p.ownership.positions.items()
                        if at.next_offset is not None
                    }
                )
            )
            self.finished = True
        if self._result is not None and now >= self._retry_at:
            self._commit()
        if self._result is None:
            self._store_ended()
            self._snapshot()
        if now - self._checked_at >= CHECK_SECONDS:
            self._checked_at = now
            self._check_lag_and_identity()
            if self._result is None and not self.finished:
                self._close_idle()
                self._end_silent()
        return bool(records)

    @property
    def done(self) -> bool:
        """True once a bounded source is read to its end and all of it is committed."""
        return self.finished and self._result is None

    @property
    def waits_for(self) -> str:
        """Reason why the engine is not ready, empty if it is.

        The source is incomplete, a partition is not acquired yet, or a batch is not committed.
        """
        if self._held:
            return "an output takes no verdicts, so that reading waits"
        return self._source_waits_for or (
            "partitions are not acquired or a batch is not committed"
            if self._to_acquire or self._result is not None
            else ""
        )

    @property
    def stopped_by(self) -> str:
        """Reason why no partition is read, empty while one is or none is known."""
        stopped = self._stopped | self._unreadable.keys()
        if not stopped or not stopped.issuperset(self.parts.ownership.positions):
            return ""
        faults = self.parts.faults.current
        return "every partition is stopped: " + "; ".join(f.message for f in faults if f.partition in stopped)

    @property
    def between_batches(self) -> bool:
        """True if every batch is committed."""
        return self._result is None

    def commit_between(self, result: BatchResult) -> None:
        """Commit a result that no record has caused; call it between two batches."""
        self._stage_commit(result)
        self._commit()

    def close(self) -> None:
        """Take a last snapshot of the committed state and leave the group.

        The next owner reads an uncommitted batch again.
        """
        if self._result is None:
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
        try:
            with self.parts.metrics.stage("poll"):
                poll = self.parts.source.poll(
                    self.parts.max_batch, min(timeout, RETRY_SECONDS) if self._result else timeout
                )
        except OffsetOutOfRange as error:
            # Acquiring it checks what the source still holds and applies the policy.
            self._schedule_reacquire(error.partition)
            return Poll()
        except (SourceError, InputError) as error:
            self.parts.faults.open_for(error)
            partition = error.partition if isinstance(error, SourceError) else None
            if partition is not None:
                self._unreadable[partition] = str(error)
            time.sleep(min(timeout, RETRY_SECONDS))
            return Poll()
        self._source_waits_for = poll.waits_for
        self._note_unreadable(poll)
        for kind in (FaultKind.SOURCE_DOWN, FaultKind.STUCK_STREAM) if poll.records else ():
            self.parts.faults.close(kind)
        return poll

    def _note_unreadable(self, poll: Poll) -> None:
        """Open the fault of each partition that cannot be read, and close those of partitions that can."""
        faults, before = self.parts.faults, self._unreadable
        if poll.unreadable is None:
            read = {records.partition for records in poll.records}
            self._unreadable = {p: text for p, text in before.items() if p not in read}
        else:
            self._unreadable = dict(poll.unreadable)
        for partition in before.keys() - self._unreadable.keys():
            faults.close(FaultKind.STUCK_STREAM, partition)
        for partition, message in self._unreadable.items():
            faults.open(FaultKind.STUCK_STREAM, message, partition)

    def _acquire_due(self, now: float) -> None:
        if due := [p for p, when in self._to_acquire.items() if when <= now]:
            self._acquire(due)
            self.parts.faults.write()  # those that ended, in one transaction

    def _acquire(self, partitions: Sequence[Partition]) -> None:
        bounds = self._bounds_of(partitions)
        for first in range(0, len(partitions), MAX_PARTITIONS_PER_CLAIM):
            some = partitions[first : first + MAX_PARTITIONS_PER_CLAIM]
            try:
                claims = self.parts.ownership.claim({p: bounds[p] for p in some if p in bounds})
            except StorageUnavailable as error:
                self._acquire_later(error)
                return
            for partition in some:
                if not self._acquire_one(partition, bounds.get(partition), claims.get(partition)):
                    return

    def _acquire_one(self, partition: Partition, bounds: OffsetBounds | None, claim: Claim | None) -> bool:
        """Acquire a partition, and return False if the others must wait."""
        try:
            owned = self.parts.ownership.acquire(partition, bounds, claim)
        except Fenced:  # another owner was faster
            self._to_acquire[partition] = time.monotonic() + REACQUIRE_SECONDS
            return True
        except (StorageUnavailable, SourceError, OutputUnavailable) as error:
            if isinstance(error, SourceError) and error.partition is not None:
                self.parts.faults.open_for(error)
                self._to_acquire[partition] = time.monotonic() + REACQUIRE_SECONDS
                return True
            self._acquire_later(error)
            return False
        del self._to_acquire[partition]
        if not owned:
            self._stopped.add(partition)
            return True
        self._emit_caught_up()
        if self._retry_at or self._held:
            self.parts.source.pause([partition])
        if not self._retry_at:
            self.parts.faults.close(FaultKind.DATABASE_DOWN)
        return True

    def _acquire_later(self, error: StorageUnavailable | SourceError | OutputUnavailable) -> None:
        """Try all partitions again later.

        Each would wait as long for the same answer, without a poll.
        """
        self.parts.faults.open_for(error)
        self._to_acquire.update(dict.fromkeys(self._to_acquire, time.monotonic() + RETRY_SECONDS))

    def _bounds_of(self, partitions: Sequence[Partition]) -> Mapping[Partition, OffsetBounds]:
        """Return the bounds of several partitions, nothing if one request fails."""
        try:
            return self.parts.source.bounds(partitions) if len(partitions) > 1 else {}
        except SourceError:
            return {}

    def _process(self, batch: list[Records | TableRecords]) -> None:
        self._read_at = time.monotonic()
        try:
            with self.parts.metrics.stage("score"):
                self._score(batch)
        except StorageUnavailable as error:
            # An offloaded series cannot be restored, and half of the batch is in the state already.
            self.parts.faults.open_for(error)
            for records in batch:
                self._schedule_reacquire(records.partition, RETRY_SECONDS)

    def _score(self, batch: list[Records | TableRecords]) -> None:
        ownership, scorer = self.parts.ownership, self.parts.scorer
        halves = [ownership.split_at_committed(records) for records in batch]
        for records in batch:
            ownership.advance_cursor(records)
        if replayed := [old for old, _ in halves if old is not None]:
            scorer.note_silence({})
            self._replay(replayed)
            self._emit_caught_up()
            self._store_ended()
        if fresh := [new for _, new in halves if new is not None and new.partition in ownership.positions]:
            scorer.note_silence(self.parts.silence.end(one.partition for one in fresh))
            if scorer.is_file_sequence:
                result = scorer.process(fresh, next_offsets=self._settled_offsets())
                self._ended |= result.outcomes.keys() - {records.partition for records in fresh}
            else:
                result = scorer.process(fresh)
            self._stage_commit(result)

    def _replay(self, batch: list[Records | TableRecords]) -> None:
        """Score committed records again.

        An output has written each piece wholly or not at all.
        """
        rest = []
        for records in batch:
            for at in self.parts.writers.cuts(records.partition, records.first_offset, records.next_offset):
                self._emit(self.parts.scorer.process([records.until(at)], replay=True))
                records = records.since(at)
            rest.append(records)
        self._emit(self.parts.scorer.process(rest, replay=True))

    def _emit_caught_up(self) -> None:
        for result in self.parts.ownership.caught_up():
            self._emit(result)
            self._ended |= result.outcomes.keys()

    def _emit(self, result: BatchResult) -> None:
        for sink in self.parts.sinks:
            sink.append(result)

    def _stage_commit(self, result: BatchResult) -> None:
        """Turn a result into the parts of the next commit."""
        positions, self._result = self.parts.ownership.positions, result
        self._pending = [
            PartitionCommit(
                position=positions[partition],
                next_offset=outcome.next_offset,
                counts=positions[partition].counts + outcome.counts,
                watermark_ns=outcome.watermark_ns,
                broken=outcome.broken,
                dead=outcome.dead,
                late=outcome.late,
                anomalies=[a for a in result.anomalies if a.partition == partition],
            )
            for partition, outcome in result.outcomes.items()
        ]
        # The anomaly of a series that goes on in another file belongs to the file before.
        self._pending[0].anomalies += [a for a in result.anomalies if a.partition not in result.outcomes]

    def _commit(self) -> None:
        p = self.parts
        try:
            with p.metrics.commit_seconds.time(), p.metrics.stage("commit"):
                after = p.committer.commit(self._pending)
        except Fenced as error:
            self._handle_fence(error.partition)
            # At once: nothing may be read before the other partitions of the batch are committed.
            self._commit()
            return
        except StorageUnavailable as error:
            p.faults.open_for(error)
            p.source.pause(list(p.ownership.positions))
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return
        if self._retry_at:
            self._retry_at = 0.0
            self._resume()
        p.faults.close(FaultKind.DATABASE_DOWN)
        p.metrics.batch_seconds.observe(time.monotonic() - self._read_at)
        p.ownership.positions.update(after)
        p.source.publish_offsets(
            {q: position.next_offset for q, position in after.items() if position.next_offset is not None}
        )
        self._count_committed(self._pending)
        self._stop_broken_partitions(self._pending)
        assert self._result is not None
        p.snapshots.renew_each(p.scorer.take_left_files())
        self._report_series_limit(self._result)
        self._report_new_codes(self._result)
        self._emit(self._result)
        self._pending, self._result = [], None

    def _resume(self) -> None:
        """Read again, unless something else still waits."""
        if not self._retry_at and not self._held:
            self.parts.source.resume([q for q in self.parts.ownership.positions if q not in self._stopped])

    def _check_outputs(self) -> None:
        """Stop reading while an output has no room; keep the fault of failing ones."""
        p = self.parts
        if problems := [one.problem for one in p.writers.outputs if one.problem]:
            p.faults.open(FaultKind.OUTPUT_DOWN, problems[0])
        elif not self._to_acquire:
            p.faults.close(FaultKind.OUTPUT_DOWN)
        held, self._held = self._held, any(one.full for one in p.writers.outputs)
        if self._held and not held:
            p.source.pause(list(p.ownership.positions))
        elif held and not self._held:
            self._resume()

    def _settled_offsets(self) -> dict[Partition, int]:
        """Return the next offset of each partition whose state is that of its position."""
        ownership = self.parts.ownership
        return {
            partition: at.next_offset
            for partition, at in ownership.positions.items()
            if at.next_offset is not None and not ownership.recovering(partition)
        }

    def _close_idle(self) -> None:
        """Commit the end of what waits in followed files: buffered records first, then open anomalies."""
        ready = self._settled_offsets()
        if buffered := self.parts.scorer.idle_buffers(ready):
            self._commit_ended(self.parts.scorer.flush(buffered))
        elif (result := self.parts.scorer.close_idle(ready)) is not None:
            self.commit_between(result)

    def _end_silent(self) -> None:
        """Commit the ends of sessions and intervals of silent partitions."""
        if self._result is not None:
            return
        positions, scorer = self.parts.ownership.positions, self.parts.scorer
        silent = {
            partition: (at, seconds)
            for partition, seconds in self.parts.silence.seconds(time.monotonic()).items()
            if partition in positions and (at := positions[partition].next_offset) is not None
        }
        if (result := scorer.end_silent(silent)) is not None:
            self._commit_ended(result)
        for partition, (at, seconds) in silent.items():
            # One commit each, which an output has written or not as a whole.
            while self._result is None and (result := scorer.end_silent_interval(partition, at, seconds)):
                self._commit_ended(result)

    def _commit_ended(self, result: BatchResult) -> None:
        """Commit what silence or an idle file ended, and store the state."""
        self._ended |= result.outcomes.keys()
        self.commit_between(result)
        if self._result is None:
            self._store_ended()

    def _store_ended(self) -> None:
        """Store the state of partitions in which silence or a later file ended something.

        No record of theirs is read before. A replay from an earlier snapshot would take it for one of the
        session or interval that has ended, and would score buffered records again. Where it cannot be stored,
        the partition is acquired again.
        """
        while self._ended:
            partition = self._ended.pop()
            try:
                stored = self.parts.snapshots.take_now(self.parts.ownership, partition)
            except Fenced as error:
                self._handle_fence(error.partition)
                continue
            if not stored:
                self._schedule_reacquire(partition, RETRY_SECONDS)

    def _end_file(self, partition: Partition) -> None:
        """End a followed file that is gone.

        None of its rows releases records or closes anomalies any more. Its buffered records are scored, its
        open anomalies are closed, and its series are kept for later files.
        """
        ownership, scorer = self.parts.ownership, self.parts.scorer
        at = ownership.positions.get(partition)
        if at is None or at.next_offset is None or self._result is not None or not scorer.is_file_sequence:
            return
        if ownership.recovering(partition):
            return  # its state is not that of its position; the next start ends it
        if (result := scorer.end_file(partition, at.next_offset)) is not None:
            self._stage_commit(result)
            self._commit()
        if (result := scorer.close_partition(partition, at.next_offset)) is not None:
            log.warning("file is gone; its open anomalies are closed", file=partition.topic)
            self._stage_commit(result)
            self._commit()
        if self._result is None and partition in ownership.positions:
            self.parts.snapshots.wait()
            try:
                self.parts.gone_files.keep_series(ownership.positions[partition])
            except (StorageUnavailable, Fenced) as error:
                log.warning(
                    "series of a file that is gone are not kept", file=partition.topic, error=str(error)
                )

    def _end_missing_files(self) -> None:
        """End the files that were moved away while no process followed them."""
        if not self._missing_files or self._result is not None:
            return
        try:
            for partition in self.parts.gone_files.missing():
                self.parts.ownership.acquire_missing(partition)
                self._end_file(partition)
                if self.parts.ownership.close_open_anomalies(partition):
                    log.warning("file is gone; its open anomalies are closed", file=partition.topic)
                self._drop_partition(partition)
        except (StorageUnavailable, OutputUnavailable, Fenced) as error:
            log.warning("files that are gone are not ended yet", error=str(error))
            return
        self._missing_files = False

    def _snapshot(self) -> None:
        try:
            with self.parts.metrics.stage("snapshot"):
                self.parts.snapshots.take_due(self.parts.ownership)
        except Fenced as error:
            self._handle_fence(error.partition)

    def _count_committed(self, parts: list[PartitionCommit]) -> None:
        p = self.parts
        for part in parts:
            p.metrics.committed(part.position.counts, part.counts)
            p.metrics.buffered(part.position.partition, part.counts.buffered)
            for letter in part.dead:
                p.metrics.dead_letter(letter.reason)
            for anomaly in part.anomalies:
                if anomaly.revision == 1:
                    p.metrics.anomaly(anomaly.severity.value)
        p.metrics.series.set(len(p.scorer.series))
        p.metrics.open_anomalies.set(len(p.scorer.tracker))

    def _report_series_limit(self, result: BatchResult) -> None:
        """Count the records of series over the limit; the fault lasts until there is room again."""
        p, limit = self.parts, self.parts.scorer.limit
        p.metrics.series_refused.inc(sum(outcome.refused for outcome in result.outcomes.values()))
        if limit.ended():
            p.faults.close(FaultKind.SERIES_LIMIT)
        else:
            p.faults.series_limit(limit.most or 0, series_names(p.scorer.stream, limit.examples))

    def _report_new_codes(self, result: BatchResult) -> None:
        """Keep the fault of each partition where new codes raise no alarm any more."""
        if (events := self.parts.scorer.events) is None:
            return
        exhausted = events.exhausted()
        for partition in result.outcomes:
            if partition in exhausted:
                self.parts.faults.new_codes(partition)
            else:
                self.parts.faults.close(FaultKind.NEW_CODES, partition)

    def _stop_broken_partitions(self, parts: list[PartitionCommit]) -> None:
        """Stop partitions whose records no longer decode: all of them would become dead letters."""
        p = self.parts
        for part in (one for one in parts if one.broken and one.dead):
            partition = part.position.partition
            p.faults.broken(partition, part.dead[-1], part.next_offset)
            p.source.pause([partition])
            self._stopped.add(partition)

    def _handle_fence(self, partition: Partition) -> None:
        self.parts.metrics.fenced.inc()
        self.parts.faults.open(
            FaultKind.FENCED,
            f"{partition}: another process owns the partition now; its state in this process is dropped",
            partition,
        )
        self.parts.faults.close(FaultKind.FENCED, partition)  # an event without duration
        self.parts.faults.release(partition)
        # The group may not know of the loss yet. What it still assigns after a while is acquired again.
        self._schedule_reacquire(partition, REACQUIRE_SECONDS)

    def _schedule_reacquire(self, partition: Partition, wait: float = 0.0) -> None:
        """Drop the state of a partition and acquire it again after ``wait`` seconds."""
        self.parts.source.pause([partition])
        self._drop_partition(partition)
        self._to_acquire[partition] = time.monotonic() + wait

    def _drop_partition(self, partition: Partition) -> None:
        """Drop a partition that is lost; its new owner reads an uncommitted batch again."""
        self._pending = [part for part in self._pending if part.position.partition != partition]
        if self._result is not None:
            self._result.outcomes.pop(partition, None)
        self._to_acquire.pop(partition, None)
        self._stopped.discard(partition)
        self._ended.discard(partition)
        self.parts.silence.forget(partition)
        self.parts.ownership.drop(partition)
        self.parts.snapshots.forget(partition)
        self.parts.metrics.forget(partition)

    def _check_lag_and_identity(self) -> None:
        """Update the lag, synchronise the faults, and reacquire partitions whose log was replaced."""
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
            self._schedule_reacquire(partition)

    def _observe_silence(self, found: Mapping[Partition, OffsetBounds]) -> None:
        p = self.parts
        if self._held or self._result is not None or (p.silence.together and self._to_acquire):
            p.silence.clear()
            return
        unread = self._stopped | self._unreadable.keys()
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
