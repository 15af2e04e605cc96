"""Files that are moved out of a followed folder: their series go on in others.

The state of their series is stored under ``ENDED_FILES_PARTITION``, where a file that begins later finds
it, and their snapshot is deleted in the same transaction. A file that is moved while no process runs still has its
snapshot at the next start, which is how it is found then.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from sqlalchemy import Connection

from pipeline.core.types import Partition, Position
from pipeline.engine.offloaded_state import ENDED_FILES_PARTITION, OffloadedSeries, states_of
from pipeline.scoring.stream_scorer import StreamScorer
from storage.results import anomalies
from storage.sql.database import Database
from storage.stream_state import offloaded_series, positions, snapshots


class GoneFiles:
    """Ends the files of one stream that are no longer there."""

    def __init__(
        self, database: Database, reader: str, scorer: StreamScorer, offloaded: OffloadedSeries
    ) -> None:
        """Look at nothing yet.

        Args:
            database: Positions, snapshots and states.
            reader: Name under which positions and snapshots are kept.
            scorer: The state of the series.
            offloaded: Finds the stored series.
        """
        self._database = database
        self._reader = reader
        self._scorer = scorer
        self._offloaded = offloaded

    def missing(self) -> Sequence[Partition]:
        """Return the files that are gone and have a snapshot or an open anomaly.

        Empty for a source that does not follow files. Raises StorageUnavailable.
        """
        if self._scorer.files is None:
            return []
        with self._database.read() as connection:
            known = [p.partition for p in positions.all_of(connection, self._reader)]
            gone = [p for p in known if not os.path.exists(p.topic)]
            return [p for p in gone if self._is_unfinished(connection, p)]

    def keep_series(self, position: Position) -> None:
        """Store the series of a file for later files, and delete its snapshot.

        Raises StorageUnavailable and Fenced.
        """
        slots = self._scorer.series.slots(position.partition)
        with self._database.begin() as connection:
            states = list(states_of(self._scorer, slots))
            known = offloaded_series.restore(
                connection, self._reader, ENDED_FILES_PARTITION, [state.series for state in states]
            )
            newer = [s for s in states if s.series not in known or known[s.series].last_ns < s.last_ns]
            offloaded_series.store(connection, self._reader, ENDED_FILES_PARTITION, newer)
            snapshots.delete(connection, position)
        self._offloaded.forget(ENDED_FILES_PARTITION)

    def _is_unfinished(self, connection: Connection, partition: Partition) -> bool:
        stream = self._scorer.provenance.stream
        return snapshots.exists(connection, self._reader, partition) or bool(
            anomalies.open_of(connection, stream, partition)
        )
