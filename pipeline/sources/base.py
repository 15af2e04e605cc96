"""Source protocol: ordered, seekable partitions, read in batches by one thread.

A source is written in one file here and registered in ``pipeline.sources.SOURCES``;
``tests/contract/test_sources.py`` is its contract. The engine calls it like this::

    while not stopped:
        poll = source.poll(max_records, timeout)
        drop(poll.revoked)                      # state of partitions that are lost
        for partition in poll.assigned:         # paused until the engine seeks and resumes them
            source.seek(partition, position)
            source.resume([partition])
        process(poll.records)
        source.publish_offsets(positions)       # after the COMMIT, for operators: the database holds the truth
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pipeline.core.types import Partition

if TYPE_CHECKING:
    import pyarrow as pa

Headers = list[tuple[str, bytes | None]]


@dataclass(slots=True)
class Records:
    """Consecutive records of one partition, as bytes, in offset order.

    ``offsets`` and ``timestamps`` are int64 (N,); timestamps are the log's own in ns (−1: it has none).
    ``next_offset`` is where the partition reads on; it may be past ``offsets[-1] + 1`` (compacted or control
    records: *filtered*). ``first_offset`` is where this batch began to read, so offsets read = next_offset −
    first_offset, always.
    """

    partition: Partition
    first_offset: int
    next_offset: int
    offsets: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    values: Sequence[bytes | None]
    keys: Sequence[bytes | None]
    headers: Sequence[Headers] | None = None  # None: no record has any

    def __len__(self) -> int:
        return len(self.offsets)

    def until(self, offset: int) -> Self:
        """Return the records before ``offset``."""
        return self._cut(slice(0, int(np.searchsorted(self.offsets, offset))), self.first_offset, offset)

    def since(self, offset: int) -> Self:
        """Return the records from ``offset`` on."""
        return self._cut(slice(int(np.searchsorted(self.offsets, offset)), None), offset, self.next_offset)

    def _cut(self, rows: slice, first_offset: int, next_offset: int) -> Self:
        headers = None if self.headers is None else self.headers[rows]
        columns = (self.offsets[rows], self.timestamps[rows], self.values[rows], self.keys[rows], headers)
        return type(self)(self.partition, first_offset, next_offset, *columns)


@dataclass(slots=True)
class TableRecords:
    """Consecutive records of a columnar source: row i of ``table`` has offset ``offsets[i]``.

    ``rejected`` holds rows that the reader could not split: (offset, original bytes, reason).
    ``sparse`` offsets do not number rows: several rows may have one, and one without rows does not count.
    """

    partition: Partition
    first_offset: int
    next_offset: int
    offsets: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    table: pa.Table
    rejected: list[tuple[int, bytes, str]] = field(default_factory=list)
    sparse: bool = False

    def __len__(self) -> int:
        return len(self.offsets)

    def until(self, offset: int) -> Self:
        """Return the records before ``offset``."""
        return self._cut(slice(0, int(np.searchsorted(self.offsets, offset))), self.first_offset, offset)

    def since(self, offset: int) -> Self:
        """Return the records from ``offset`` on."""
        return self._cut(
            slice(int(np.searchsorted(self.offsets, offset)), len(self)), offset, self.next_offset
        )

    def _cut(self, rows: slice, first_offset: int, next_offset: int) -> Self:
        table = self.table.slice(rows.start, rows.stop - rows.start)
        rejected = [r for r in self.rejected if first_offset <= r[0] < next_offset]
        return type(self)(
            self.partition,
            first_offset,
            next_offset,
            self.offsets[rows],
            self.timestamps[rows],
            table,
            rejected,
            self.sparse,
        )


class OffsetBounds(NamedTuple):
    """``beginning`` is the oldest offset still held, ``end`` the offset of the next record to be written."""

    beginning: int
    end: int


@dataclass(slots=True)
class Poll:
    """Result of one ``poll``: at most one batch per partition.

    ``finished`` is True once a bounded source is read to its end.

    ``waits_for`` is the reason why the source is not complete yet (its group is not joined, a topic does not
    exist), empty if it is.

    ``unreadable`` maps each partition that cannot be read now to the reason; the source tries it again by itself.
    None: this source raises such errors instead.
    """

    records: list[Records | TableRecords] = field(default_factory=list)
    assigned: list[Partition] = field(default_factory=list)
    revoked: list[Partition] = field(default_factory=list)
    finished: bool = False
    waits_for: str = ""
    unreadable: dict[Partition, str] | None = None


class Source(Protocol):
    """Set of partitions that may grow, shrink and move between members of a group."""

    def poll(self, max_records: int, timeout: float) -> Poll:
        """Wait up to ``timeout`` seconds for records or changes.

        A newly ``assigned`` partition is paused: no record of it comes before ``seek`` and
        ``resume``. Raises OffsetOutOfRange (with ``partition``) and SourceUnavailable; both leave the source
        usable.
        """
        ...

    def bounds(self, partitions: Sequence[Partition]) -> Mapping[Partition, OffsetBounds]:
        """Return the offsets that each partition holds now."""
        ...

    def start_offset(self, partition: Partition) -> int:
        """Return the first offset of a partition without a position, by the configured start."""
        ...

    def identity(self, partition: Partition) -> str:
        """Return the identity of the log, which changes when it is recreated ("" if unknown)."""
        ...

    def seek(self, partition: Partition, offset: int) -> None:
        """Read ``partition`` from the first offset ≥ ``offset``."""
        ...

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Return no record of these until ``resume``; polling goes on, so that the group membership stays."""
        ...

    def resume(self, partitions: Sequence[Partition]) -> None: ...

    def publish_offsets(self, positions: Mapping[Partition, int]) -> None:
        """Publish committed offsets for operators, who look there for the lag.

        It never waits, and only logs failures.
        """
        ...

    def close(self) -> None:
        """Leave the group and release everything. Calling it twice is allowed."""
        ...


@runtime_checkable
class ReleasingSource(Protocol):
    """Source that keeps its records itself, until they are part of a snapshot."""

    def release(self, partition: Partition, offset: int) -> None:
        """Delete the records before ``offset``, now or later; they are not read again.

        It only logs failures.
        """
        ...
