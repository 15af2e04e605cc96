"""The engine: the only loop. The daemon and a backfill turn the same object.

    poll ─► ownership (drop revoked, take over assigned) ─► score ─► commit ─► snapshot

One thread, whole batches. At most one batch is uncommitted: while the database does not answer that batch
waits, every partition is paused and polling goes on, so that the group membership stays and memory does not
grow.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from pipeline.core.errors import OffsetOutOfRange, SourceError, StorageUnavailable
from pipeline.core.types import FaultKind, Partition
from pipeline.engine.commit import Committer, PartitionCommit
from pipeline.engine.fault_log import FaultLog
from pipeline.engine.ownership import Ownership
from pipeline.engine.sink import Sink
from pipeline.engine.snapshots import Snapshots
from pipeline.observability.metrics import StreamMetrics
from pipeline.scoring.stream_scorer import BatchResult, StreamScorer
from pipeline.sources.base import Poll, Records, Source, TableRecords
from storage.stream_state.positions import Fenced

log = structlog.get_logger(__name__)

RETRY_SECONDS = 0.5
#: How often lag and the identity of the logs are looked at.
WATCH_SECONDS = 5.0
#: A fenced partition that the group still gives to us is taken back after this long.
FENCED_SECONDS = 10.0


@dataclass(slots=True)
class EngineParts:
    """What an engine is made of; ``pipeline.engine.factory`` puts it together."""

    source: Source
    scoring: StreamScorer
    ownership: Ownership
    committer: Committer
    snapshots: Snapshots
    faults: FaultLog
    metrics: StreamMetrics
    sinks: Sequence[Sink] = ()
    max_batch: int = 20_000


@dataclass(slots=True)
class Engine:
    """One stream's loop. ``turn`` is called again and again by one thread."""

    parts: EngineParts
    finished: bool = False
    _pending: list[PartitionCommit] = field(default_factory=list)
    _result: BatchResult | None = None  # what ``_pending`` was made of
    _waiting: dict[Partition, float] = field(default_factory=dict)  # partition → when to try to take it over
    _stopped: set[Partition] = field(default_factory=set)  # by a fault, until somebody acts
    _source_waits: str = ""  # why not all of the source can come yet
    _read_at: float = 0.0
    _retry_at: float = 0.0
    _watched_at: float = 0.0

    def turn(self, timeout: float) -> bool:
        """Poll, score, commit.

        Waits up to ``timeout`` seconds for records; returns True if there were any.
        """
        p = self.parts
        poll = self._poll(timeout)
        for partition in poll.revoked:
            self._lose(partition)
        now = time.monotonic()
        self._waiting.update(dict.fromkeys(poll.assigned, now))
        self._take_over(now)
        records = [r for r in poll.records if r.partition in p.ownership.positions]
        if records:
            self._process(records)
        elif poll.finished and self._result is None and not self._waiting and not self.finished:
            self._plan(
                p.scoring.flush(
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
            self._snapshot()
        if now - self._watched_at >= WATCH_SECONDS:
            self._watched_at = now
            self._watch()
        return bool(records)

    @property
    def done(self) -> bool:
        """A bounded source has given everything and all of it is committed."""
        return self.finished and self._result is None

    @property
    def waits(self) -> str:
        """What keeps it from being ready: the source is not all there, a partition is not taken over, a batch
        not committed. Empty: nothing.
        """
        return self._source_waits or (
            "taking its partitions over" if self._waiting or self._result is not None else ""
        )

    def close(self) -> None:
        """Take a last snapshot of what is committed, leave the group.

        A batch that is still pending is left to the next owner's replay.
        """
        if self._result is None:
            self.parts.snapshots.take_all(self.parts.ownership)
        for sink in self.parts.sinks:
            sink.close()
        self.parts.source.close()

    # ------------------------------------------------------------------------------------------------ the steps

    def _poll(self, timeout: float) -> Poll:
        try:
            with self.parts.metrics.stage("poll"):
                poll = self.parts.source.poll(
                    self.parts.max_batch, min(timeout, RETRY_SECONDS) if self._result else timeout
                )
        except OffsetOutOfRange as error:
            # taking over looks what the source still holds, and goes by the policy
            self._again(error.partition)
            return Poll()
        except SourceError as error:
            self.parts.faults.trouble(error)
            if error.partition is not None:
                self._stopped.add(error.partition)
            time.sleep(min(timeout, RETRY_SECONDS))
            return Poll()
        self._source_waits = poll.waits
        for kind in (FaultKind.SOURCE_DOWN, FaultKind.STUCK_STREAM) if poll.records else ():
            self.parts.faults.close(kind)
        return poll

    def _take_over(self, now: float) -> None:
        for partition in [p for p, when in self._waiting.items() if when <= now]:
            try:
                owned = self.parts.ownership.take_over(partition)
            except Fenced:  # somebody else was faster than we
                self._waiting[partition] = time.monotonic() + FENCED_SECONDS
                continue
            except (StorageUnavailable, SourceError) as error:
                self.parts.faults.trouble(error)
                # The others would wait as long for the same answer, and meanwhile nobody polls.
                self._waiting.update(dict.fromkeys(self._waiting, time.monotonic() + RETRY_SECONDS))
                return
            del self._waiting[partition]
            if not owned:
                self._stopped.add(partition)
                continue
            self._caught_up()
            if self._retry_at:
                self.parts.source.pause([partition])
            else:
                self.parts.faults.close(FaultKind.DATABASE_DOWN)

    def _process(self, batch: list[Records | TableRecords]) -> None:
        self._read_at = time.monotonic()
        try:
            with self.parts.metrics.stage("score"):
                self._score(batch)
        except StorageUnavailable as error:
            # a series that had left memory cannot be fetched, and half of the batch is in the state
            self.parts.faults.trouble(error)
            for records in batch:
                self._again(records.partition, RETRY_SECONDS)

    def _score(self, batch: list[Records | TableRecords]) -> None:
        ownership, scoring = self.parts.ownership, self.parts.scoring
        halves = [ownership.split(records) for records in batch]
        for records in batch:
            ownership.expect(records)
        if replayed := [old for old, _ in halves if old is not None]:
            self._show(scoring.process(replayed, replay=True))
            self._caught_up()
        if fresh := [new for _, new in halves if new is not None]:
            self._plan(scoring.process(fresh))

    def _caught_up(self) -> None:
        for result in self.parts.ownership.caught_up():
            self._show(result)

    def _show(self, result: BatchResult) -> None:
        for sink in self.parts.sinks:
            sink.append(result)

    def _plan(self, result: BatchResult) -> None:
        """A result becomes what is to be committed."""
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

    def _commit(self) -> None:
        p = self.parts
        try:
            with p.metrics.commit_seconds.time(), p.metrics.stage("commit"):
                after = p.committer.commit(self._pending)
        except Fenced as error:
            self._fenced(error.partition)
            # at once: nothing may be read before the other partitions of the batch are committed
            self._commit()
            return
        except StorageUnavailable as error:
            p.faults.trouble(error)
            p.source.pause(list(p.ownership.positions))
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return
        if self._retry_at:
            self._retry_at = 0.0
            p.source.resume([q for q in p.ownership.positions if q not in self._stopped])
        p.faults.close(FaultKind.DATABASE_DOWN)
        p.metrics.batch_seconds.observe(time.monotonic() - self._read_at)
        p.ownership.positions.update(after)
        p.source.mirror(
            {q: position.next_offset for q, position in after.items() if position.next_offset is not None}
        )
        self._count(self._pending)
        self._judge(self._pending)
        assert self._result is not None
        self._show(self._result)
        self._pending, self._result = [], None

    def _snapshot(self) -> None:
        try:
            with self.parts.metrics.stage("snapshot"):
                self.parts.snapshots.take_due(self.parts.ownership)
        except Fenced as error:
            self._fenced(error.partition)

    def _count(self, parts: list[PartitionCommit]) -> None:
        p = self.parts
        for part in parts:
            p.metrics.committed(part.position.counts, part.counts)
            p.metrics.held(part.position.partition, part.counts.held)
            for letter in part.dead:
                p.metrics.dead_letter(letter.reason)
            for anomaly in part.anomalies:
                if anomaly.revision == 1:
                    p.metrics.anomaly(anomaly.severity.value)
        p.metrics.series.set(len(p.scoring.series))
        p.metrics.open_anomalies.set(len(p.scoring.intervals))

    def _judge(self, parts: list[PartitionCommit]) -> None:
        """A stream whose records no longer decode is stopped: going on would drain it into the dead letters."""
        p = self.parts
        for part in (one for one in parts if one.broken and one.dead):
            partition = part.position.partition
            p.faults.broken(partition, part.dead[-1], part.next_offset)
            p.source.pause([partition])
            self._stopped.add(partition)

    def _fenced(self, partition: Partition) -> None:
        self.parts.metrics.fenced.inc()
        self.parts.faults.open(
            FaultKind.FENCED,
            f"{partition}: another process owns it now; its state here was dropped",
            partition,
        )
        self.parts.faults.close(FaultKind.FENCED, partition)  # an event: nothing lasts
        # The group may not know yet that we lost it; what it still gives to us after a while is taken back.
        self._again(partition, FENCED_SECONDS)

    def _again(self, partition: Partition, wait: float = 0.0) -> None:
        """What is in memory of a partition is worth nothing any more: drop it, and take the partition over
        again.
        """
        self.parts.source.pause([partition])
        self._lose(partition)
        self._waiting[partition] = time.monotonic() + wait

    def _lose(self, partition: Partition) -> None:
        """The partition is no longer ours; an uncommitted batch of it is the new owner's to read again."""
        self._pending = [part for part in self._pending if part.position.partition != partition]
        if self._result is not None:
            self._result.outcomes.pop(partition, None)
        self._waiting.pop(partition, None)
        self._stopped.discard(partition)
        self.parts.ownership.drop(partition)
        self.parts.snapshots.forget(partition)
        self.parts.metrics.forget(partition)

    def _watch(self) -> None:
        """Now and then: lag, faults that were not written, logs that were replaced under us."""
        p = self.parts
        p.faults.write()
        try:
            owned = list(p.ownership.positions)
            for partition, bounds in p.source.bounds(owned).items():
                p.metrics.lag(
                    partition, bounds.end - (p.ownership.positions[partition].next_offset or bounds.beginning)
                )
            replaced = [q for q in owned if p.ownership.replaced(q)]
        except SourceError as error:
            p.faults.trouble(error)
            return
        p.faults.close(FaultKind.SOURCE_DOWN)
        for partition in replaced:
            self._again(partition)
