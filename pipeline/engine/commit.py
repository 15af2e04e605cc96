"""The one transaction of a batch: position first, then everything that the batch says.

The first statements are the fences of ``storage.stream_state.positions.advance``, in one order for everybody.
A COMMIT whose answer was lost is neither assumed to have happened nor not: the position row is read again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import Connection

from pipeline.core.types import Anomaly, Counts, DeadLetter, LateRecord, Partition, Position
from storage.results import anomalies, dead_letters, late_records
from storage.sql.database import CommitUnknown, Database
from storage.stream_state import positions

#: Called inside the transaction with what changed; the alerts insert their outbox rows here.
OnChanges = Callable[[Connection, list[Anomaly]], object]


@dataclass(slots=True)
class PartitionCommit:
    """What a batch means for one partition. ``counts`` are the cumulative ones after it."""

    position: Position
    next_offset: int
    counts: Counts
    watermark_ns: int | None
    broken: bool = False  # too many records do not decode: reading stops after this
    dead: list[DeadLetter] = field(default_factory=list)
    late: list[LateRecord] = field(default_factory=list)
    anomalies: list[Anomaly] = field(default_factory=list)


class Committer:
    """Commits batches; remembers whether the last COMMIT has an unknown outcome."""

    def __init__(self, database: Database, on_changes: OnChanges | None = None) -> None:
        self._database = database
        self._on_changes = on_changes
        self._unknown = False

    def commit(self, parts: list[PartitionCommit]) -> dict[Partition, Position]:
        """Commit all parts in one transaction and return the new positions.

        Raises Fenced (nothing of the batch is visible; ``partition`` says which part is no longer ours) and
        StorageUnavailable (call again with the same parts until it goes through).
        """
        if self._unknown and self._happened(parts):
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
                late_records.add(connection, [r for p in parts for r in p.late])
                if self._on_changes is not None and (changes := [a for p in parts for a in p.anomalies]):
                    self._on_changes(connection, changes)
        except CommitUnknown:
            self._unknown = True
            raise
        self._unknown = False
        return after

    def _happened(self, parts: list[PartitionCommit]) -> bool:
        """All parts were in one transaction, so one of them tells.

        A part that others took since tells nothing: its fence will.
        """
        return any(
            positions.confirm(self._database, p.position, p.next_offset) is positions.Outcome.COMMITTED
            for p in parts
        )

    @staticmethod
    def _fence(connection: Connection, part: PartitionCommit) -> Position:
        return positions.advance(connection, part.position, part.next_offset, part.counts, part.watermark_ns)
