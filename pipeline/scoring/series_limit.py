"""Limit on the number of series of a stream in one process.

A label that changes with every record would otherwise make a series of each record, and fill memory and database.
Series that are known go on; the records of further ones are refused until known series become idle.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import islice

import numpy as np

from pipeline.core.types import Partition
from pipeline.decode import Columns, Key
from pipeline.scoring.series_table import SeriesTable
from pipeline.windows.event_time import PartitionBuffer

EXAMPLES = 3
#: Share of the limit below which it counts as no longer reached.
BELOW_RATIO = 0.95


class SeriesLimit:
    """Decision which decoded points belong to a series that may be kept.

    ``examples`` holds keys that were refused since the limit was reached; it is empty below the limit.
    """

    def __init__(
        self,
        most: int | None,
        table: SeriesTable,
        buffers: Mapping[Partition, PartitionBuffer],
        *,
        go_on: bool = False,
    ) -> None:
        """Keep references to what holds the series.

        Args:
            most: The largest number of series, None for no limit.
            table: The series that have state.
            buffers: The points that wait for the watermark; their series may not have state yet.
            go_on: Series go on from partition to partition, so that a key counts once.
        """
        self._go_on = go_on
        self.most = most
        self.examples: list[Key] = []
        self._table = table
        self._buffers = buffers

    def admit(self, partition: Partition, columns: Columns) -> Columns:
        """Return the points of known series, and of new ones while there is room."""
        if self.most is None:
            return columns
        names, known = columns.keys.names, self._table.keys_of(partition)
        new = list(dict.fromkeys(name for name in names if name not in known))
        if not new or len(self._table) + self._buffered() + len(new) <= self.most:
            return columns
        waiting = self._keys() if self._go_on else self._buffered_keys(partition)
        new = [name for name in new if name not in waiting]
        room = max(0, self.most - self._known())
        if len(new) <= room:
            return columns
        refused = set(islice(new, room, None))
        self.examples += new[room : room + max(0, EXAMPLES - len(self.examples))]
        kept = np.fromiter((name not in refused for name in names), np.bool_, len(names))
        return columns.take(columns.keys.spread(kept))

    def ended(self) -> bool:
        """Return whether the limit is not reached (any more), and begin to collect examples again."""
        if self.examples and self.most is not None and self._known() <= BELOW_RATIO * self.most:
            self.examples = []
        return not self.examples

    def _keys(self) -> set[Key]:
        """Return the keys of all partitions."""
        partitions = {*self._table.partitions(), *self._buffers}
        return set().union(
            *map(self._table.keys_of, partitions), *(buffer.known_keys() for buffer in self._buffers.values())
        )

    def _buffered_keys(self, partition: Partition) -> Collection[Key]:
        buffer = self._buffers.get(partition)
        return () if buffer is None else buffer.known_keys()

    def _buffered(self) -> int:
        """Return an upper bound of the number of series that only the buffers know."""
        return sum(buffer.most_keys() for buffer in self._buffers.values())

    def _known(self) -> int:
        """Return the number of series with state or with buffered points."""
        if self._go_on:
            return len(self._keys())
        return len(self._table) + sum(
            _missing(buffer.known_keys(), self._table.keys_of(partition))
            for partition, buffer in self._buffers.items()
        )


def _missing(keys: Collection[Key], known: Collection[Key]) -> int:
    return sum(key not in known for key in keys)
