"""State of series that are not in memory: those that were silent for long, and those that past points tell of
before their first record.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b

import numpy as np
import structlog
from numpy.typing import NDArray

from pipeline.core.types import Partition
from pipeline.decode import Key
from pipeline.scoring.stream_scorer import StreamScorer
from storage.sql.database import Database
from storage.stream_state import offloaded_series, positions

log = structlog.get_logger(__name__)

#: Where ``pipeline.engine.warm_start`` keeps what it learnt: nobody knows yet which partition a series will
#: come in.
WARM_START_PARTITION = Partition("history", 0)


def warm_start_reader(ledger: str, scoring: StreamScorer) -> str | None:
    """Where the past of the series of ``ledger`` is: elsewhere for each form of the state and for other
    files; None where the config names no past.
    """
    stream = scoring.stream
    if stream.warm_start is None:
        return None
    what = json.dumps([str(stream.warm_start), scoring.windows.version, scoring.detector.state_version])
    return f"{warm_start_prefix(ledger)}{blake2b(what.encode(), digest_size=4).hexdigest()})"


def warm_start_prefix(ledger: str) -> str:
    """How the names of all of those begin."""
    return f"{ledger} (history "


class OffloadedSeries:
    """Series of one ledger that are not in memory: asks the database only where there are any."""

    def __init__(self, database: Database, ledger: str, past: str | None = None) -> None:
        """``past`` is the ledger of what the series know before their first record."""
        self._database = database
        self._ledger = ledger
        self._count: dict[Partition, int] = {}
        self.past = past
        #: Came back since the last snapshot; still stored, in case that snapshot is replayed.
        self.revived: dict[Partition, list[str]] = {}

    def revive(self, partition: Partition, first_ns: Mapping[Key, int]) -> list[bytes]:
        """Pages of those of the series that are stored, each with the event time of its first point now.

        Raises StorageUnavailable.
        """
        if partition not in self._count:
            with self._database.read() as connection:
                self._count[partition] = offloaded_series.count(connection, self._ledger, partition)
        found: dict[str, offloaded_series.SeriesState] = {}
        if self._count[partition]:
            with self._database.read() as connection:
                found = offloaded_series.revive(
                    connection, self._ledger, partition, [json.dumps(key) for key in first_ns]
                )
            self.revived.setdefault(partition, []).extend(found)
        pages = [state.state for state in found.values()]
        return pages + self.of_past(
            {key: ns for key, ns in first_ns.items() if not found or json.dumps(key) not in found}
        )

    def of_past(self, first_ns: Mapping[Key, int]) -> list[bytes]:
        """Pages of those series that the past tells of up to their first point, and no further: a verdict
        must not know what came after it.

        Raises StorageUnavailable.
        """
        if self.past is None or not first_ns:
            return []
        with self._database.read() as connection:
            known = positions.get(connection, self.past, WARM_START_PARTITION)
            if known is None or not known.counts.scored:
                return []
            by_text = {json.dumps(key): ns for key, ns in first_ns.items()}
            found = offloaded_series.revive(connection, self.past, WARM_START_PARTITION, list(by_text))
        pages = [state.state for text, state in found.items() if state.last_ns <= by_text[text]]
        if beyond := [text for text, state in found.items() if state.last_ns > by_text[text]]:
            log.warning(
                "series begin without their past: the files go on after their first record",
                series=beyond[:3],
                count=len(beyond),
            )
        return pages

    def forget(self, partition: Partition) -> None:
        """The number may have changed: somebody else wrote, or we did."""
        self._count.pop(partition, None)
        self.revived.pop(partition, None)


def states_of(scoring: StreamScorer, slots: NDArray[np.int32]) -> Iterator[offloaded_series.SeriesState]:
    """What is known of series, one by one, to be stored."""
    table = scoring.series
    for slot, last in zip(slots, scoring.last_time(slots).tolist(), strict=True):
        (page,) = table.pages(np.array([slot]))
        yield offloaded_series.SeriesState(json.dumps(table.key(slot)), page, "", last)
