"""The transaction of a batch: the positions first, then all results.

The first statements are the fences of ``storage.stream_state.positions.advance``, in one order for all
owners. After a COMMIT without an answer the position row is read to learn whether it took effect.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from pipeline.core.types import Anomaly, Counts, DeadLetter, LateRecord, Partition, Position
from storage.results import anomalies, dead_letters, late_records
from storage.sql.database import CommitUnknown, Database
from storage.stream_state import positions

#: Called inside the transaction with the changed anomalies; the alerts insert their outbox rows here.
OnChanges = Callable[[Connection, list[Anomaly]], object]


@dataclass(slots=True)
class PartitionCommit:
    """Results of a batch for one partition. ``counts`` are cumulative and include the batch."""

    position: Position
    next_offset: int
    counts: Counts
    watermark_ns: int | None
    broken: bool = False  # too many records do not decode: reading stops after this batch
    dead: list[DeadLetter] = field(default_factory=list)
    late: list[LateRecord] = field(default_factory=list)
    anomalies: list[Anomaly] = field(default_factory=list)


class Committer:
    """Commits batches, and remembers whether the outcome of the last COMMIT is unknown."""

    def __init__(
        self, database: Database, on_changes: OnChanges | None = None, *, late_revise: bool = True
    ) -> None:
        """Commit nothing yet.

        Args:
            database: Receives the results.
            on_changes: Called inside the transaction with the anomalies that it changes.
            late_revise: Late records are left for the daemon to revise verdicts by them.
        """
        self._database = database
        self._late_revise = late_revise
        self._on_changes = on_changes
        self._unknown = False

    def commit(self, parts: list[PartitionCommit]) -> dict[Partition, Position]:
        """Commit all parts in one transaction and return the new positions.

        Raises Fenced (nothing of the batch is visible; ``partition`` names the lost one) and
        StorageUnavailable (call again with the same parts until it succeeds).
        """
        if self._unknown and self._is_committed(parts):
            self._unknown = False
            return {
                p.position.partition: positions.advanced(p.position, p.next_offset, p.counts, p.watermark_ns)
                for p in parts
            }
        try:
            with self._database.begin() as connection:
                after = {
                    p.position.partition: self._fence(connection, p)
                    for p in sorted(parts, key=lambda p: p.position.partition)
                }
                anomalies.upsert(connection, [a for p in parts for a in p.anomalies])
                dead_letters.add(connection, [d for p in parts for d in p.dead])
                late_records.add(connection, [r for p in parts for r in p.late], revise=self._late_revise)
                if self._on_changes is not None and (changes := [a for p in parts for a in p.anomalies]):
                    self._on_changes(connection, changes)
        except CommitUnknown:
            self._unknown = True
            raise
        self._unknown = False
        return after

    def _is_committed(self, parts: list[PartitionCommit]) -> bool:
        """Return True if the last transaction took effect.

        All parts were in one transaction, so a single committed one is enough. A part that another owner has
        acquired since gives no answer, and its fence fails later.
        """
        return any(
            positions.confirm(self._database, p.position, p.next_offset) is positions.CommitOutcome.COMMITTED
            for p in parts
        )

    @staticmethod
    def _fence(connection: Connection, part: PartitionCommit) -> Position:
        return positions.advance(connection, part.position, part.next_offset, part.counts, part.watermark_ns)
