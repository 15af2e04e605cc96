"""Ends that no record brings.

Sessions and intervals of silent partitions, idle files of a followed folder, and files that are gone.
"""

from __future__ import annotations

import time

import structlog

from pipeline.core.errors import OutputUnavailable, StorageUnavailable
from pipeline.core.types import Partition
from pipeline.engine.batch_commit import BatchCommit
from pipeline.engine.engine_parts import EngineParts
from pipeline.engine.member_partitions import MemberPartitions
from pipeline.scoring.batch_result import BatchResult
from storage.stream_state.positions import Fenced

log = structlog.get_logger(__name__)


class SilentEnds:
    """Commits what silence has ended, and stores the state after it."""

    def __init__(self, parts: EngineParts, partitions: MemberPartitions, commits: BatchCommit) -> None:
        """End nothing yet.

        Args:
            parts: The parts of the engine.
            partitions: The partitions of this process.
            commits: Commits a batch.
        """
        self._parts = parts
        self._partitions = partitions
        self._commits = commits
        self._missing_files = True  # those that are gone since the last run are not ended yet

    def end_idle_files(self) -> None:
        """Commit the end of what waits in followed files.

        Buffered records come first, then open anomalies.
        """
        scorer, ready = self._parts.scorer, self._partitions.settled_offsets()
        if scorer.files is None:
            return
        if buffered := scorer.files.idle_buffers(ready):
            self._commit_ended(scorer.flush(buffered))
        elif (result := scorer.files.close_idle(ready)) is not None:
            self._commits.commit_between(result)

    def end_silent(self) -> None:
        """Commit the ends of sessions and intervals of silent partitions."""
        if self._commits.pending:
            return
        positions, scorer = self._parts.ownership.positions, self._parts.scorer
        silent = {
            partition: (at, seconds)
            for partition, seconds in self._parts.silence.seconds(time.monotonic()).items()
            if partition in positions and (at := positions[partition].next_offset) is not None
        }
        if (result := scorer.end_silent(silent)) is not None:
            self._commit_ended(result)
        for partition, (at, seconds) in silent.items():
            # One commit each, which an output has written or not as a whole.
            while not self._commits.pending and (
                result := scorer.end_silent_interval(partition, at, seconds)
            ):
                self._commit_ended(result)

    def _commit_ended(self, result: BatchResult) -> None:
        """Commit what silence or an idle file ended, and store the state."""
        self._partitions.ended |= result.outcomes.keys()
        self._commits.commit_between(result)
        if not self._commits.pending:
            self.store_ended()

    def store_ended(self) -> None:
        """Store the state of partitions in which silence or a later file ended something.

        No record of theirs is read before. A replay from an earlier snapshot would take it for one of the
        session or interval that has ended, and would score buffered records again. Where it cannot be stored,
        the partition is acquired again.
        """
        ended = self._partitions.ended
        while ended:
            partition = ended.pop()
            try:
                stored = self._parts.snapshots.take_now(self._parts.ownership, partition)
            except Fenced as error:
                self._partitions.handle_fence(error.partition)
                continue
            if not stored:
                self._partitions.retry(partition)

    def end_file(self, partition: Partition) -> None:
        """End a followed file that is gone.

        None of its rows releases records or closes anomalies any more. Its buffered records are scored, its
        open anomalies are closed, and its series are kept for later files.
        """
        ownership, scorer = self._parts.ownership, self._parts.scorer
        at = ownership.positions.get(partition)
        if at is None or at.next_offset is None or self._commits.pending or scorer.files is None:
            return
        if ownership.recovering(partition):
            return  # its state is not that of its position; the next start ends it
        if (result := scorer.end_file(partition, at.next_offset)) is not None:
            self._commits.commit_between(result)
        if (result := scorer.files.close_file(partition, at.next_offset)) is not None:
            log.warning("file is gone; its open anomalies are closed", file=partition.topic)
            self._commits.commit_between(result)
        if not self._commits.pending and partition in ownership.positions:
            self._parts.snapshots.wait()
            try:
                self._parts.gone_files.keep_series(ownership.positions[partition])
            except (StorageUnavailable, Fenced) as error:
                log.warning(
                    "series of a file that is gone are not kept", file=partition.topic, error=str(error)
                )

    def end_missing_files(self) -> None:
        """End the files that were moved away while no process followed them."""
        if not self._missing_files or self._commits.pending:
            return
        try:
            for partition in self._parts.gone_files.missing():
                self._parts.ownership.acquire_missing(partition)
                self.end_file(partition)
                if self._parts.ownership.close_open_anomalies(partition):
                    log.warning("file is gone; its open anomalies are closed", file=partition.topic)
                self._partitions.drop(partition)
        except (StorageUnavailable, OutputUnavailable, Fenced) as error:
            log.warning("files that are gone are not ended yet", error=str(error))
            return
        self._missing_files = False
