"""Commit of a staged batch: positions, metrics, faults and sinks follow it."""

from __future__ import annotations

import time

from pipeline.core.errors import StorageUnavailable
from pipeline.core.types import FaultKind
from pipeline.decode import series_names
from pipeline.engine.commit import PartitionCommit
from pipeline.engine.engine_parts import EngineParts, UncommittedBatch
from pipeline.engine.member_partitions import MemberPartitions
from pipeline.scoring.batch_result import BatchResult
from storage.stream_state.positions import Fenced


class BatchCommit:
    """Commits the staged batch of one stream."""

    def __init__(self, parts: EngineParts, batch: UncommittedBatch, partitions: MemberPartitions) -> None:
        """Commit nothing yet.

        Args:
            parts: The parts of the engine.
            batch: The batch to commit.
            partitions: Stops reading while the database does not answer.
        """
        self._parts = parts
        self._batch = batch
        self._partitions = partitions
        #: Time at which the batch was read, for its duration.
        self.read_at = 0.0

    @property
    def pending(self) -> bool:
        """True while a batch is not committed."""
        return self._batch.result is not None

    def stage(self, result: BatchResult) -> None:
        """Make a result the next batch to commit."""
        self._batch.stage(result, self._parts.ownership.positions)

    def commit_between(self, result: BatchResult) -> None:
        """Commit a result that no record has caused; call it between two batches."""
        self.stage(result)
        self.commit()

    def commit(self) -> None:
        """Commit the batch. If the database does not answer, it stays and reading waits."""
        p, batch = self._parts, self._batch
        try:
            with p.metrics.commit_seconds.time(), p.metrics.stage("commit"):
                after = p.committer.commit(batch.commits)
        except Fenced as error:
            self._partitions.handle_fence(error.partition)
            # At once: nothing may be read before the other partitions of the batch are committed.
            self.commit()
            return
        except StorageUnavailable as error:
            p.faults.open_for(error)
            self._partitions.wait_for_database()
            return
        self._partitions.resume_after_commit()
        p.metrics.batch_seconds.observe(time.monotonic() - self.read_at)
        p.ownership.positions.update(after)
        p.source.publish_offsets(
            {q: position.next_offset for q, position in after.items() if position.next_offset is not None}
        )
        assert batch.result is not None
        self._count(batch.commits)
        self._stop_broken_partitions(batch.commits)
        if p.scorer.files is not None:
            p.snapshots.renew_each(p.scorer.files.take_left())
        self._report_series_limit(batch.result)
        self._report_new_codes(batch.result)
        p.emit(batch.result)
        batch.clear()

    def _count(self, commits: list[PartitionCommit]) -> None:
        p = self._parts
        for part in commits:
            p.metrics.committed(part.position.counts, part.counts)
            p.metrics.buffered(part.position.partition, part.counts.buffered)
            for letter in part.dead:
                p.metrics.dead_letter(letter.reason)
            for anomaly in part.anomalies:
                if anomaly.revision == 1:
                    p.metrics.anomaly(anomaly.severity.value)
        p.metrics.series.set(len(p.scorer.series))
        p.metrics.open_anomalies.set(len(p.scorer.tracker))

    def _stop_broken_partitions(self, commits: list[PartitionCommit]) -> None:
        """Stop partitions whose records no longer decode.

        All of them would become dead letters.
        """
        for part in (one for one in commits if one.broken and one.dead):
            partition = part.position.partition
            self._parts.faults.broken(partition, part.dead[-1], part.next_offset)
            self._partitions.stop(partition)

    def _report_series_limit(self, result: BatchResult) -> None:
        """Count the records of series over the limit.

        The fault lasts until there is room again.
        """
        p, limit = self._parts, self._parts.scorer.limit
        p.metrics.series_refused.inc(sum(outcome.refused for outcome in result.outcomes.values()))
        if limit.ended():
            p.faults.close(FaultKind.SERIES_LIMIT)
        else:
            p.faults.series_limit(limit.most or 0, series_names(p.scorer.stream, limit.examples))

    def _report_new_codes(self, result: BatchResult) -> None:
        """Keep the fault of each partition where new codes raise no alarm any more."""
        if (events := self._parts.scorer.events) is None:
            return
        exhausted = events.exhausted()
        for partition in result.outcomes:
            if partition in exhausted:
                self._parts.faults.new_codes(partition)
            else:
                self._parts.faults.close(FaultKind.NEW_CODES, partition)
