"""Stored state of an acquired partition: its snapshot and its open anomalies."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from pipeline.core.errors import DamagedState
from pipeline.core.types import Anomaly, Position
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.sources.base import OffsetBounds
from storage.results import anomalies
from storage.stream_state import snapshots

#: Most records that are read again in place of a damaged snapshot: some minutes of work. A partition with
#: more of them is reset, so that its new records do not wait for hours.
MAX_REPLAY_RECORDS = 5_000_000

#: Reason why the state of a partition is reset although no snapshot was refused.
NO_SNAPSHOT = "there is no snapshot, and the records that it would be made of are deleted"


@dataclass(frozen=True, slots=True)
class StoredState:
    """State of a partition that was loaded: everything below ``offset``.

    replayable      the source still holds the records from ``offset`` on
    loaded          from a snapshot; False: it is empty
    open_anomalies  those of the position
    damage          reason why the snapshot was refused
    """

    offset: int
    replayable: bool
    loaded: bool
    open_anomalies: list[Anomaly]
    damage: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A partition whose epoch was raised.

    ``state`` is None where the position does not fit the log: a gap, or another log.
    """

    position: Position
    state: StoredState | None


class StateLoader:
    """Loads the states of one reader's partitions into a scorer."""

    def __init__(self, scorer: StreamScorer, reader: str) -> None:
        """Load nothing yet.

        Args:
            scorer: Receives the states.
            reader: Name under which snapshots are kept.
        """
        self._scorer = scorer
        self._reader = reader

    def load(self, connection: Connection, position: Position, bounds: OffsetBounds) -> StoredState:
        """Load the snapshot of a partition; one that is damaged is refused."""
        partition, start = position.partition, position.next_offset
        assert start is not None
        found = anomalies.open_of(connection, self._scorer.provenance.stream, partition)
        damage = ""
        try:
            snapshot = snapshots.load(connection, self._reader, partition)
            if snapshot is not None:
                since = snapshot.offset
                if since > start:
                    raise DamagedState(f"the snapshot is of offset {since}, after the position")
                replayable = since >= bounds.beginning or since == start
                self._scorer.restore(partition, snapshot.meta, snapshot.pages, with_buffer=replayable)
                return StoredState(since, replayable, loaded=True, open_anomalies=found)
        except DamagedState as error:
            self._scorer.drop(partition)
            damage = str(error)
        # Without a snapshot everything since the start is read again: some of those records may be buffered.
        since = position.start_offset or 0
        replayable = since >= bounds.beginning or since == start
        if damage and start - since > MAX_REPLAY_RECORDS:
            replayable = False
        if not replayable and not damage:
            # After a repair, for example. ``on_gap`` does not apply: no record after the position is missing.
            damage = NO_SNAPSHOT
        return StoredState(since, replayable, loaded=False, open_anomalies=found, damage=damage)


def damage_text(position: Position, state: StoredState) -> str:
    """Return the message about a state that is not used, and about what is done."""
    if state.replayable:
        done = f"its records are read again from offset {state.offset}, which gives the same state"
    else:
        done = (
            f"its series start again at offset {position.next_offset} with a warm-up, and records that were "
            "buffered there are not scored (they count as filtered)"
        )
    if state.damage == NO_SNAPSHOT:
        return f"{position.partition}: {NO_SNAPSHOT}; {done}. Run: forewatch db check"
    return (
        f"{position.partition}: the stored snapshot is damaged ({state.damage}) and not used; {done}. "
        "Check the disk of the database, and run: forewatch db check"
    )
