"""Partitions that the group assigns to this process.

They are acquired here, may have to wait or stop, and are dropped when they are lost.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence

from pipeline.core.errors import OutputUnavailable, SourceError, StorageUnavailable
from pipeline.core.types import FaultKind, Partition
from pipeline.engine.engine_parts import EngineParts, UncommittedBatch
from pipeline.engine.ownership import MAX_PARTITIONS_PER_CLAIM
from pipeline.engine.stored_state import Claim
from pipeline.sources.base import OffsetBounds
from storage.stream_state.positions import Fenced

#: Time until what has failed is tried again.
RETRY_SECONDS = 0.5
#: Time until a fenced partition that the group still assigns to this member is acquired again.
REACQUIRE_SECONDS = 10.0


class MemberPartitions:
    """Partitions of this process, and why some of them are not read."""

    def __init__(self, parts: EngineParts, batch: UncommittedBatch) -> None:
        """Have no partition yet.

        Args:
            parts: The parts of the engine.
            batch: Its uncommitted batch, which a lost partition leaves.
        """
        self._parts = parts
        self._batch = batch
        #: Partitions that are not acquired yet, and the time of the next attempt.
        self.to_acquire: dict[Partition, float] = {}
        #: Partitions that a fault has stopped, until an operator acts.
        self.stopped: set[Partition] = set()
        #: Partitions in which silence or a later file has ended something that no snapshot has.
        self.ended: set[Partition] = set()
        #: Partitions that cannot be read, and why. The source tries them again by itself.
        self.unreadable: dict[Partition, str] = {}
        #: True while reading waits until an output has written more.
        self.held = False
        #: Time of the next attempt to commit, 0 while the database answers.
        self.retry_at = 0.0

    def assign(self, partitions: Iterable[Partition], now: float) -> None:
        """Take partitions of the group, and acquire those that are due.

        Args:
            partitions: The new ones.
            now: Monotonic time, seconds.
        """
        self.to_acquire.update(dict.fromkeys(partitions, now))
        if due := [p for p, when in self.to_acquire.items() if when <= now]:
            self._acquire(due)
            self._parts.faults.write()  # those that ended, in one transaction

    def _acquire(self, partitions: Sequence[Partition]) -> None:
        bounds = self._bounds_of(partitions)
        for first in range(0, len(partitions), MAX_PARTITIONS_PER_CLAIM):
            some = partitions[first : first + MAX_PARTITIONS_PER_CLAIM]
            try:
                claims = self._parts.ownership.claim({p: bounds[p] for p in some if p in bounds})
            except StorageUnavailable as error:
                self._acquire_later(error)
                return
            for partition in some:
                if not self._acquire_one(partition, bounds.get(partition), claims.get(partition)):
                    return

    def _acquire_one(self, partition: Partition, bounds: OffsetBounds | None, claim: Claim | None) -> bool:
        """Acquire a partition, and return False if the others must wait."""
        p = self._parts
        try:
            owned = p.ownership.acquire(partition, bounds, claim)
        except Fenced:  # another owner was faster
            self.to_acquire[partition] = time.monotonic() + REACQUIRE_SECONDS
            return True
        except (StorageUnavailable, SourceError, OutputUnavailable) as error:
            if isinstance(error, SourceError) and error.partition is not None:
                p.faults.open_for(error)
                self.to_acquire[partition] = time.monotonic() + REACQUIRE_SECONDS
                return True
            self._acquire_later(error)
            return False
        del self.to_acquire[partition]
        if not owned:
            self.stopped.add(partition)
            return True
        self.emit_caught_up()
        if self.retry_at or self.held:
            p.source.pause([partition])
        if not self.retry_at:
            p.faults.close(FaultKind.DATABASE_DOWN)
        return True

    def _acquire_later(self, error: StorageUnavailable | SourceError | OutputUnavailable) -> None:
        """Try all partitions again later.

        Each would wait as long for the same answer, without a poll.
        """
        self._parts.faults.open_for(error)
        self.to_acquire.update(dict.fromkeys(self.to_acquire, time.monotonic() + RETRY_SECONDS))

    def _bounds_of(self, partitions: Sequence[Partition]) -> Mapping[Partition, OffsetBounds]:
        """Return the bounds of several partitions, nothing if one request fails."""
        try:
            return self._parts.source.bounds(partitions) if len(partitions) > 1 else {}
        except SourceError:
            return {}

    def emit_caught_up(self) -> None:
        """Emit what partitions that have reached their position had released before."""
        for result in self._parts.ownership.caught_up():
            self._parts.emit(result)
            self.ended |= result.outcomes.keys()

    def settled_offsets(self) -> dict[Partition, int]:
        """Return the next offset of each partition whose state is that of its position."""
        ownership = self._parts.ownership
        return {
            partition: at.next_offset
            for partition, at in ownership.positions.items()
            if at.next_offset is not None and not ownership.recovering(partition)
        }

    # ------------------- reading waits

    def wait_for_database(self) -> None:
        """Stop reading until the database answers; polling goes on."""
        self._parts.source.pause(list(self._parts.ownership.positions))
        self.retry_at = time.monotonic() + RETRY_SECONDS

    def resume_after_commit(self) -> None:
        """Read again if the database did not answer before."""
        if self.retry_at:
            self.retry_at = 0.0
            self._resume()
        self._parts.faults.close(FaultKind.DATABASE_DOWN)

    def _resume(self) -> None:
        """Read again, unless something else still waits."""
        if not self.retry_at and not self.held:
            self._parts.source.resume([q for q in self._parts.ownership.positions if q not in self.stopped])

    def check_outputs(self) -> None:
        """Stop reading while an output has no room; keep the fault of failing ones."""
        p = self._parts
        if problems := [one.problem for one in p.writers.outputs if one.problem]:
            p.faults.open(FaultKind.OUTPUT_DOWN, problems[0])
        elif not self.to_acquire:
            p.faults.close(FaultKind.OUTPUT_DOWN)
        held, self.held = self.held, any(one.full for one in p.writers.outputs)
        if self.held and not held:
            p.source.pause(list(p.ownership.positions))
        elif held and not self.held:
            self._resume()

    def stop(self, partition: Partition) -> None:
        """Read no more of a partition until an operator acts."""
        self._parts.source.pause([partition])
        self.stopped.add(partition)

    def update_unreadable(self, found: Mapping[Partition, str]) -> None:
        """Open the fault of each partition in ``found``, and close those of the others.

        ``found`` maps partitions that cannot be read to the reason.
        """
        faults, before = self._parts.faults, self.unreadable
        self.unreadable = dict(found)
        for partition in before.keys() - self.unreadable.keys():
            faults.close(FaultKind.STUCK_STREAM, partition)
        for partition, message in self.unreadable.items():
            faults.open(FaultKind.STUCK_STREAM, message, partition)

    # ------------------- lost partitions

    def handle_fence(self, partition: Partition) -> None:
        """Drop a partition that another process owns now."""
        p = self._parts
        p.metrics.fenced.inc()
        p.faults.open(
            FaultKind.FENCED,
            f"{partition}: another process owns the partition now; its state in this process is dropped",
            partition,
        )
        p.faults.close(FaultKind.FENCED, partition)  # an event without duration
        p.faults.release(partition)
        # The group may not know of the loss yet. What it still assigns after a while is acquired again.
        self.schedule_reacquire(partition, REACQUIRE_SECONDS)

    def schedule_reacquire(self, partition: Partition, wait: float = 0.0) -> None:
        """Drop the state of a partition and acquire it again after ``wait`` seconds."""
        self._parts.source.pause([partition])
        self.drop(partition)
        self.to_acquire[partition] = time.monotonic() + wait

    def retry(self, partition: Partition) -> None:
        """Drop the state of a partition and acquire it again soon."""
        self.schedule_reacquire(partition, RETRY_SECONDS)

    def drop(self, partition: Partition) -> None:
        """Drop a partition that is lost; its new owner reads an uncommitted batch again."""
        p = self._parts
        self._batch.drop(partition)
        self.to_acquire.pop(partition, None)
        self.stopped.discard(partition)
        self.ended.discard(partition)
        p.silence.forget(partition)
        p.ownership.drop(partition)
        p.snapshots.forget(partition)
        p.metrics.forget(partition)
