"""Leases of faults: the open faults of a process that ended without closing them are ended by another one.

The owner of a fault raises its ``beat`` while the fault lasts. An observer takes the owner for dead once, on
its own monotonic clock, the beat has not changed for long enough. No clock time is compared between processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from sqlalchemy import Connection, Select, select, update

from pipeline.core.types import FaultKind
from storage.tables.stream import FaultRow

#: An owner whose beat has not changed for this long is dead. An engine beats every 5 s, later while calls to
#: a broker that is away block it.
FAULT_LEASE_SECONDS = 30.0


class FaultLeases:
    """Observed beats of open faults.

    ``alone``: the database serves one process only (SQLite), so every other owner is dead.
    """

    def __init__(self, *, alone: bool = False, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._patience = 0.0 if alone else FAULT_LEASE_SECONDS
        self._monotonic = monotonic
        self._seen: dict[int, tuple[int, float]] = {}

    def expired(
        self, connection: Connection, *, stream: str | None = None, me: str = ""
    ) -> list[tuple[int, str]]:
        """Return (id, owner) of open faults whose owner is dead.

        Args:
            connection: A transaction.
            stream: Only faults of this stream; None for all.
            me: The owner whose faults are not observed.
        """
        now = self._monotonic()
        rows = connection.execute(_leases(stream, me)).all()
        self._seen = {
            row.id: self._seen[row.id] if self._seen.get(row.id, (None,))[0] == row.beat else (row.beat, now)
            for row in rows
        }
        return [(row.id, row.owner) for row in rows if now - self._seen[row.id][1] >= self._patience]


def beat(connection: Connection, stream: str, owner: str) -> None:
    """Renew the lease of the open faults of an owner."""
    mine = (FaultRow.stream == stream, FaultRow.owner == owner, FaultRow.ended_ns.is_(None))
    connection.execute(update(FaultRow).where(*mine).values(beat=FaultRow.beat + 1))


def end(connection: Connection, ids: Collection[int], ended_ns: int) -> int:
    """End open faults by id, and return their number."""
    which = (FaultRow.id.in_(list(ids)), FaultRow.ended_ns.is_(None))
    return connection.execute(update(FaultRow).where(*which).values(ended_ns=ended_ns)).rowcount


def _leases(stream: str | None, me: str) -> Select[int, str, int]:
    statement = select(FaultRow.id, FaultRow.owner, FaultRow.beat).where(
        FaultRow.ended_ns.is_(None),
        FaultRow.owner.not_in(("", me)),
        FaultRow.kind != FaultKind.ENDPOINT_FAILING.value,  # owned by an endpoint, not by a process
    )
    return statement if stream is None else statement.where(FaultRow.stream == stream)
