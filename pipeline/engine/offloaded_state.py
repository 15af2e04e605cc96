"""State of series that are not in memory: offloaded ones, and initial states from the warm start."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import chain

import numpy as np
import structlog
from numpy.typing import NDArray

from pipeline.config.schema import Stream
from pipeline.core.types import Partition
from pipeline.decode import Key
from pipeline.scoring.page_merge import split_page
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.windows.event_time import EventTimeProcessor
from storage.sql.database import Database
from storage.stream_state import offloaded_series, positions

log = structlog.get_logger(__name__)

#: Partition under which ``pipeline.engine.warm_start`` stores states. The partition in which a series will
#: arrive is not known then. The topic is part of the stored key and keeps its first name.
WARM_START_PARTITION = Partition("history", 0)
#: Partition under which the series of files that are gone are stored (see ``pipeline.engine.gone_files``).
ENDED_FILES_PARTITION = Partition("ended files", 0)


def warm_start_reader(reader: str, stream: Stream, state_version: str) -> str | None:
    """Return the reader name of the warm start of ``reader``.

    The name changes with the files and with the form of the state. It is None where the config has no
    ``warm_start``.
    """
    if stream.warm_start is None:
        return None
    identity = json.dumps([str(stream.warm_start), EventTimeProcessor.version, state_version])
    return f"{warm_start_prefix(reader)}{blake2b(identity.encode(), digest_size=4).hexdigest()})"


def warm_start_prefix(reader: str) -> str:
    """Return the beginning of the names of ``warm_start_reader``; they are stored as they are."""
    return f"{reader} (history "


class OffloadedSeries:
    """Series of one reader that are not in memory.

    The database is queried only for partitions that have any.
    """

    def __init__(
        self,
        database: Database,
        reader: str,
        warm_start: str | None = None,
        on_damage: Callable[[Partition, str], None] = lambda partition, message: None,
        file_sequence: bool = False,
    ) -> None:
        """Cache nothing yet.

        Args:
            database: Where the states are stored.
            reader: Name under which the positions of the stream are kept.
            warm_start: The reader name of the initial states, None where there are none.
            on_damage: Called with the partition and a message for a state that is damaged.
            file_sequence: Series go on from file to file.
        """
        self._file_sequence = file_sequence
        self._on_damage = on_damage
        self._database = database
        self._reader = reader
        self._warm_start = warm_start
        self._count: dict[Partition, int] = {}
        #: Restored since the last snapshot. They stay stored, in case that snapshot is replayed.
        self.restored: dict[Partition, list[str]] = {}

    def restore(self, partition: Partition, first_ns: Mapping[Key, int]) -> list[bytes]:
        """Return the pages of those series that are stored.

        ``first_ns`` gives the event time of the next point of each series. Raises StorageUnavailable.
        """
        if partition not in self._count:
            with self._database.read() as connection:
                self._count[partition] = offloaded_series.count(connection, self._reader, partition)
        found: dict[str, offloaded_series.SeriesState] = {}
        if self._count[partition]:
            damaged: list[str] = []
            with self._database.read() as connection:
                found = offloaded_series.restore(
                    connection,
                    self._reader,
                    partition,
                    [json.dumps(key) for key in first_ns],
                    damaged.append,
                )
            self.restored.setdefault(partition, []).extend([*found, *damaged])
            if damaged:
                self._on_damage(partition, _damage_text(partition, damaged))
        pages = [state.state for state in found.values()]
        if self._file_sequence:
            ended = self._load_ended({k: ns for k, ns in first_ns.items() if json.dumps(k) not in found})
            found |= ended
            pages += [state.state for state in ended.values()]
        return pages + self.load_warm_start(
            {key: ns for key, ns in first_ns.items() if not found or json.dumps(key) not in found}
        )

    def _load_ended(self, first_ns: Mapping[Key, int]) -> dict[str, offloaded_series.SeriesState]:
        """Return the states of series at the end of files that are gone."""
        by_text = {json.dumps(key): ns for key, ns in first_ns.items()}
        with self._database.read() as connection:
            if ENDED_FILES_PARTITION not in self._count:
                count = offloaded_series.count(connection, self._reader, ENDED_FILES_PARTITION)
                self._count[ENDED_FILES_PARTITION] = count
            if not self._count[ENDED_FILES_PARTITION]:
                return {}
            found = offloaded_series.restore(
                connection, self._reader, ENDED_FILES_PARTITION, list(by_text), _log_damage
            )
        return {text: state for text, state in found.items() if state.last_ns <= by_text[text]}

    def load_warm_start(self, first_ns: Mapping[Key, int]) -> list[bytes]:
        """Return the initial states of series whose historical points end before their first point.

        A later end is refused, because a verdict must not depend on what came after it. Raises
        StorageUnavailable.
        """
        if self._warm_start is None or not first_ns:
            return []
        with self._database.read() as connection:
            known = positions.get(connection, self._warm_start, WARM_START_PARTITION)
            if known is None or not known.counts.scored:
                return []
            by_text = {json.dumps(key): ns for key, ns in first_ns.items()}
            damaged: list[str] = []
            found = offloaded_series.restore(
                connection, self._warm_start, WARM_START_PARTITION, list(by_text), damaged.append
            )
        if damaged:
            log.warning(
                "series start without warm start: their stored states are damaged", series=damaged[:3]
            )
        pages = [state.state for text, state in found.items() if state.last_ns <= by_text[text]]
        if overlapping := [text for text, state in found.items() if state.last_ns > by_text[text]]:
            log.warning(
                "series start without warm start: the files go on after their first record",
                series=overlapping[:3],
                count=len(overlapping),
            )
        return pages

    def forget(self, partition: Partition) -> None:
        """Drop what is cached of a partition; its stored series may have changed."""
        self._count.pop(partition, None)
        self.restored.pop(partition, None)


def _log_damage(key: str) -> None:
    log.warning("a series starts with a warm-up: its state at the end of a file is damaged", series=key)


def _damage_text(partition: Partition, keys: Sequence[str]) -> str:
    names = ", ".join(keys[:3]) + (", …" if len(keys) > 3 else "")
    return (
        f"{partition}: the stored state of {len(keys)} silent series ({names}) is damaged and not used; "
        "these series start again with a warm-up. Check the disk of the database, and run: forewatch db check"
    )


def states_of(scorer: StreamScorer, slots: NDArray[np.int32]) -> Iterator[offloaded_series.SeriesState]:
    """Yield the state of each series in ``slots``, ready to be stored."""
    table = scorer.series
    states = chain.from_iterable(map(split_page, table.pages(slots)))
    for slot, last, state in zip(slots.tolist(), scorer.last_time(slots).tolist(), states, strict=True):
        yield offloaded_series.SeriesState(json.dumps(table.key(slot)), state, "", last)
