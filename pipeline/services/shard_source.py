"""Source of a part of a backfill: ranges of offsets, and the rows of some series."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.core.errors import ForewatchError
from pipeline.core.types import Partition
from pipeline.decode.parsed_batch import short_label
from pipeline.sources.base import OffsetBounds, Poll, Records, Source, TableRecords
from pipeline.sources.range_reading import take_before

if TYPE_CHECKING:
    from collections.abc import Callable


#: Labels whose hashes are kept: each piece of a file has most of them again.
MAX_CACHED_LABELS = 200_000
#: Reads of one poll beside the first: reads of other groups' rows must not take long without a commit.
MAX_FURTHER_READS = 15


@dataclass(frozen=True, slots=True)
class SeriesGroup:
    """Series of a file, chosen by the contents of the columns of labels.

    The series are spread over ``count`` groups by a hash of their labels. With ``low`` or ``high`` they are
    those whose only label is at least ``low`` and less than ``high``, as bytes of UTF-8; None is no limit.
    A missing label counts as an empty text.
    """

    fields: tuple[str, ...]
    index: int = 0
    count: int = 1
    low: bytes | None = None
    high: bytes | None = None

    @property
    def by_range(self) -> bool:
        """True if the group is a range of labels."""
        return self.low is not None or self.high is not None

    def selects(self, table: pa.Table) -> NDArray[np.bool_]:
        """Return a mask of the rows of this group (N,)."""
        if self.by_range:
            return np.asarray(_spread(_column(table, self.fields[0]), self._between), np.bool_)
        return np.asarray(groups_of(table, self.fields, self.count) == self.index)

    def has_labels(self, labels: Sequence[str]) -> bool:
        """Return whether the series with these labels is of this group."""
        texts = [label.encode("utf-8", "surrogatepass") for label in labels]
        if self.by_range:
            return self._between(texts[0])
        columns = [np.array([_hash_of(text)], np.uint32) for text in texts]
        return int(_combined(columns, self.count)[0]) == self.index

    def _between(self, label: bytes) -> bool:
        return (self.low is None or label >= self.low) and (self.high is None or label < self.high)


def groups_of(table: pa.Table, fields: Sequence[str], count: int) -> NDArray[np.uint32]:
    """Return the group of each row (N,), from 0 to ``count`` − 1."""
    return _combined([_spread(_column(table, name), _hash_of).astype(np.uint32) for name in fields], count)


def _combined(hashes: Sequence[NDArray[np.uint32]], count: int) -> NDArray[np.uint32]:
    """Return groups from the hashes of each label."""
    total = np.zeros_like(hashes[0])
    for one in hashes:
        total = total * np.uint32(31) + one
    # The low bits of the sums of similar names are alike.
    total = (total ^ (total >> np.uint32(16))) * np.uint32(0x45D9F3B)
    return np.asarray((total >> np.uint32(8)) % np.uint32(count))


@lru_cache(maxsize=MAX_CACHED_LABELS)
def _hash_of(label: bytes) -> int:
    """Return a hash of the text that names the series."""
    try:
        text = short_label(label.decode())
    except UnicodeDecodeError:
        return zlib.crc32(label)
    return zlib.crc32(text.encode())


def _column(table: pa.Table, name: str) -> pa.DictionaryArray:
    """Return a column of labels, of nulls if it is absent or named twice."""
    places = table.schema.get_all_field_indices(name)
    if len(places) != 1:
        return pa.nulls(len(table), pa.string()).dictionary_encode()
    column = table.column(places[0])
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    return array if pa.types.is_dictionary(array.type) else array.dictionary_encode()


def _spread(column: pa.DictionaryArray, value: Callable[[bytes], int]) -> NDArray[np.int64]:
    """Return the value of each row's label, computed once for each label."""
    labels = column.dictionary
    if not pa.types.is_string(labels.type):
        labels = labels.cast(pa.string())
    texts = [text or b"" for text in labels.cast(pa.binary()).to_pylist()]
    values = np.array([*map(value, texts), value(b"")], np.int64)
    codes = column.indices.fill_null(len(labels)).to_numpy(zero_copy_only=False)
    return np.asarray(values[codes])


@dataclass(slots=True)
class ShardSource:
    """Source of ranges of partitions of ``inner``, and there of the rows of some series.

    ``ranges`` maps each partition to its first offset and its end, −1 for the end of the source.
    """

    inner: Source
    ranges: Mapping[Partition, OffsetBounds]
    group: SeriesGroup | None = None
    _next: dict[Partition, int] = field(default_factory=dict)
    _error: ForewatchError | None = None

    def poll(self, max_records: int, timeout: float) -> Poll:
        """Return records of the part.

        Most rows that a group reads belong to other groups, so that it reads several times for a batch: a
        batch of fewer rows costs as much as one of many.
        """
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        poll = more = self._read(max_records, timeout)
        for _ in range(MAX_FURTHER_READS if self.group is not None else 0):
            if not more.records or poll.finished or _count(poll) + _count(more) > max_records:
                break
            try:
                more = self._read(max_records - _count(poll), 0.0)
            except ForewatchError as error:
                self._error = error
                break
            if not _have_same_columns([*poll.records, *more.records]):
                for one in more.records:  # read again by the next poll
                    self.seek(one.partition, one.first_offset)
                break
            poll.records = _joined([*poll.records, *more.records])
            poll.finished = more.finished
        return poll

    def _read(self, max_records: int, timeout: float) -> Poll:
        poll = self.inner.poll(max_records * (self.group.count if self.group else 1), timeout)
        poll.assigned = [one for one in poll.assigned if one in self.ranges]
        poll.revoked = [one for one in poll.revoked if one in self.ranges]
        for partition in poll.assigned:
            self._next.setdefault(partition, self.ranges[partition].beginning)
        poll.records = [taken for one in poll.records if (taken := self._taken(one)) is not None]
        limited = all(end.end >= 0 for end in self.ranges.values())
        if limited:
            poll.finished = all(self._next.get(one, -1) >= at.end for one, at in self.ranges.items())
        return poll

    def _taken(self, records: Records | TableRecords) -> Records | TableRecords | None:
        end = self.ranges[records.partition].end
        taken = take_before(self.inner, records, end if end >= 0 else sys.maxsize, self._next)
        return taken if taken is None or self.group is None else _rows_of(taken, self.group)

    def start_offset(self, partition: Partition) -> int:
        """Return the first offset of the part."""
        return self.ranges[partition].beginning

    def bounds(self, partitions: Sequence[Partition]) -> Mapping[Partition, OffsetBounds]:
        """Return those of the whole partitions."""
        return self.inner.bounds(partitions)

    def identity(self, partition: Partition) -> str:
        """Return the identity of the log or file."""
        return self.inner.identity(partition)

    def seek(self, partition: Partition, offset: int) -> None:
        """Read ``partition`` from the first offset ≥ ``offset``."""
        self._next[partition] = offset
        self.inner.seek(partition, offset)

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Return no record of these until ``resume``."""
        self.inner.pause(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Read on, but not what is read to its end."""
        unlimited = [one for one in partitions if not 0 <= self.ranges[one].end <= self._next[one]]
        self.inner.resume(unlimited)

    def publish_offsets(self, positions: Mapping[Partition, int]) -> None:
        """Do nothing: a backfill must not change the lag that operators see."""

    def close(self) -> None:
        """Close the source."""
        self.inner.close()


def _have_same_columns(records: Sequence[Records | TableRecords]) -> bool:
    """Return True if the records of each partition can be joined."""
    schemas: dict[Partition, pa.Schema] = {}
    return all(
        isinstance(one, TableRecords)
        and one.table.schema.equals(schemas.setdefault(one.partition, one.table.schema))
        for one in records
    )


def _count(poll: Poll) -> int:
    return sum(map(len, poll.records))


def _joined(records: Sequence[Records | TableRecords]) -> list[Records | TableRecords]:
    """Join the records of each partition that follow each other."""
    found: dict[Partition, Records | TableRecords] = {}
    for one in records:
        before = found.get(one.partition)
        found[one.partition] = one if before is None else _followed_by(before, one)
    return list(found.values())


def _followed_by(first: Records | TableRecords, second: Records | TableRecords) -> TableRecords:
    if isinstance(first, Records) or isinstance(second, Records):
        raise TypeError("only rows of a table are divided by series")
    return TableRecords(
        first.partition,
        first.first_offset,
        second.next_offset,
        np.concatenate([first.offsets, second.offsets]),
        np.concatenate([first.timestamps, second.timestamps]),
        pa.concat_tables([first.table, second.table]).unify_dictionaries().combine_chunks(),
        first.rejected + second.rejected,
        first.sparse,
    )


def _rows_of(records: Records | TableRecords, group: SeriesGroup) -> Records | TableRecords:
    """Return the rows of a group; the first one has the lines that are no rows."""
    if isinstance(records, Records):
        raise TypeError("only rows of a table are divided by series")
    rows = np.flatnonzero(group.selects(records.table))
    return TableRecords(
        records.partition,
        records.first_offset,
        records.next_offset,
        records.offsets[rows],
        records.timestamps[rows],
        records.table.take(pa.array(rows)),
        records.rejected if group.index == 0 and group.low is None else [],
        records.sparse,
    )
