"""Kafka's record batches straight into columns: kafka-python, but without a tuple and eight function calls
for each record.

kafka-python fetches, checks, groups and rebalances; only the innermost step, from the bytes of a batch to its
records, is done here for a whole batch at once (a bare poll loop: 0.25 M records/s; with this: several M/s).
``Fetcher.PartitionRecords`` is the place: the fetcher asks it for up to n records and advances the position
to its ``next_fetch_offset``; we answer with chunks of columns.

Format: https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError
from kafka.protocol.consumer import IsolationLevel
from numba import njit
from numpy.typing import NDArray

from pipeline.core.types import Partition
from pipeline.sources.base import Headers, Records

NS_PER_MS = 1_000_000
MAX_BATCH_FORMAT = 2  # format of record batches, their "magic" byte
# Rows of the table that ``_scan`` fills, one column a record. Positions are in bytes; an end of −1 means
# null.
_TIME, _OFFSET, _KEY, _KEY_END, _VALUE, _VALUE_END, _HEADERS, _HEADER_COUNT = range(8)


class CorruptBatchError(Exception):
    """A batch that cannot be read; ``reason`` is what the decoder said."""

    def __init__(self, topic_partition: Any, offset: int, reason: Exception) -> None:
        super().__init__(f"{reason!r}")
        self.topic_partition = topic_partition
        self.offset = offset
        self.reason = reason


@dataclass(slots=True)
class Chunk:
    """Records of one batch in offset order; ``next_offset`` is past all that the batch used up, control
    records included.
    """

    offsets: NDArray[np.int64]
    timestamps: NDArray[np.int64]  # ns, −1: none
    values: list[bytes | None]
    keys: list[bytes | None]
    headers: list[Headers] | None
    next_offset: int

    def split(self, count: int) -> tuple[Chunk, Chunk]:
        """The first ``count`` records, and the others."""
        head = replace(
            self,
            offsets=self.offsets[:count],
            timestamps=self.timestamps[:count],
            values=self.values[:count],
            keys=self.keys[:count],
            headers=self.headers[:count] if self.headers else None,
            next_offset=int(self.offsets[count]),
        )
        rest = replace(
            self,
            offsets=self.offsets[count:],
            timestamps=self.timestamps[count:],
            values=self.values[count:],
            keys=self.keys[count:],
            headers=self.headers[count:] if self.headers else None,
        )
        return head, rest


class TakenChunks:
    """Result of one ``take``.

    Its length is the number that the fetcher counts; iteration yields the chunks.
    """

    __slots__ = ("chunks", "records")

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.records = 0

    def add(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self.records += len(chunk.offsets)

    def __len__(self) -> int:
        # a chunk without records still moves the position: it must not look like nothing
        return max(self.records, len(self.chunks))

    def __iter__(self) -> Iterator[Chunk]:
        return iter(self.chunks)


class ColumnRecords(Fetcher.PartitionRecords):
    """The answer to a fetch for one partition, given out as chunks.

    Set it as the ``PartitionRecords`` of a consumer's fetcher.
    """

    def __init__(self, fetch_offset: int, topic_partition: Any, records: Any, **options: Any) -> None:
        super().__init__(fetch_offset, topic_partition, records, **options)
        self.record_iterator = self._chunks(records)
        self._rest: Chunk | None = None
        self._error: CorruptBatchError | None = None

    def take(self, n: int) -> TakenChunks:
        """Up to ``n`` records.

        What precedes a corrupt batch is given out first; then CorruptBatchError, and the fetch is dropped.
        """
        taken = TakenChunks()
        try:
            while (
                len(taken) < n
                and self._error is None
                and (chunk := self._rest or next(self.record_iterator, None)) is not None
            ):
                self._rest, room = None, n - taken.records
                if len(chunk.offsets) > room:
                    chunk, self._rest = chunk.split(room)
                taken.add(chunk)
                self.next_fetch_offset = chunk.next_offset
        except Exception as error:
            # codecs, struct and the client raise all sorts; each of them means: this batch is unreadable
            self._error = CorruptBatchError(self.topic_partition, self.next_fetch_offset, error)
        if self._error is not None and not taken.chunks:
            self.drain()  # otherwise the fetcher would call the failed iterator again and again
            raise self._error
        self.records_read += taken.records
        return taken

    def _chunks(self, records: Any) -> Iterator[Chunk]:
        while (batch := records.next_batch()) is not None:
            # the checksum does not cover the format byte, and the client continues
            if batch.magic > MAX_BATCH_FORMAT:
                raise CorruptRecordError(
                    f"the batch at offset {batch.base_offset} is of format {batch.magic}; {MAX_BATCH_FORMAT} is the newest that is known"
                )
            if self.check_crcs and not batch.validate_crc():
                raise CorruptRecordError(
                    f"the checksum of the batch at offset {batch.base_offset} does not fit"
                )
            self.bytes_read += batch.size_in_bytes
            chunk = self._decode(batch)
            if chunk.next_offset > self.next_fetch_offset:  # else it lies before what was asked for
                yield chunk
        self.drain()

    def _decode(self, batch: Any) -> Chunk:
        if batch.magic < 2:
            return _decode_old(batch, self.fetch_offset)
        self.leader_epoch = batch.leader_epoch
        return _empty(batch.next_offset) if self._is_hidden(batch) else decode(batch, self.fetch_offset)

    def _is_hidden(self, batch: Any) -> bool:
        """Transaction markers, and what aborted transactions wrote (as in the method of kafka-python that we
        replace).
        """
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)


def decode(batch: Any, fetch_offset: int) -> Chunk:
    """Columns of a batch of format 2 (any broker since 0.11), from ``fetch_offset`` on.

    Raises CorruptRecordError and what codecs raise.
    """
    iter(batch)  # decompresses
    raw, count = bytes(batch._buffer), batch.records_count
    if not 0 <= count <= len(raw):
        raise CorruptRecordError(f"the batch at offset {batch.base_offset} claims {count} records")
    fields = np.empty((8, count), np.int64)
    if _scan(np.frombuffer(raw, np.uint8), batch._pos, fields) != len(raw):
        raise CorruptRecordError(
            f"the records of the batch at offset {batch.base_offset} do not add up to its length"
        )
    offsets = fields[_OFFSET] + batch.base_offset
    first = int(np.searchsorted(offsets, fetch_offset))  # a fetch may begin amid a compressed batch
    fields, offsets = fields[:, first:], offsets[first:]
    stamps = (
        np.full(len(offsets), batch.max_timestamp)
        if batch.timestamp_type
        else fields[_TIME] + batch.first_timestamp
    )
    return Chunk(
        offsets=offsets,
        timestamps=_to_ns(stamps),
        values=_slices(raw, fields[_VALUE], fields[_VALUE_END]),
        keys=_slices(raw, fields[_KEY], fields[_KEY_END]),
        headers=_headers(raw, fields) if fields[_HEADER_COUNT].any() else None,
        next_offset=max(batch.next_offset, fetch_offset),
    )


def merge(partition: Partition, first_offset: int, chunks: Sequence[Chunk]) -> Records:
    """The chunks of one poll as one Records that begins at ``first_offset``."""
    headers = None
    if any(chunk.headers for chunk in chunks):
        headers = [header for chunk in chunks for header in chunk.headers or [[] for _ in chunk.values]]
    return Records(
        partition=partition,
        first_offset=first_offset,
        next_offset=chunks[-1].next_offset,
        offsets=np.concatenate([chunk.offsets for chunk in chunks]),
        timestamps=np.concatenate([chunk.timestamps for chunk in chunks]),
        values=list(chain.from_iterable(chunk.values for chunk in chunks)),
        keys=list(chain.from_iterable(chunk.keys for chunk in chunks)),
        headers=headers,
    )


def warm() -> None:
    """Compile before the first batch comes."""
    _scan(np.frombuffer(b"\0", np.uint8), 0, np.empty((8, 0), np.int64))


def _decode_old(batch: Any, fetch_offset: int) -> Chunk:
    """Message sets of formats 0 and 1: old records on brokers before 4.0."""
    records = [record for record in batch if record.offset >= fetch_offset]
    return Chunk(
        offsets=np.array([record.offset for record in records], np.int64),
        timestamps=_to_ns(
            np.array([-1 if record.timestamp is None else record.timestamp for record in records], np.int64)
        ),
        values=[record.value for record in records],
        keys=[record.key for record in records],
        headers=None,
        next_offset=records[-1].offset + 1 if records else fetch_offset,
    )


def _empty(next_offset: int) -> Chunk:
    none = np.empty(0, np.int64)
    return Chunk(none, none, [], [], None, next_offset)


def _to_ns(milliseconds: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.where(milliseconds < 0, -1, milliseconds * NS_PER_MS)


def _slices(raw: bytes, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> list[bytes | None]:
    nulls = ends < 0
    if nulls.all():
        return [None] * len(ends)
    pairs = zip(starts.tolist(), ends.tolist(), strict=True)
    if nulls.any():
        return [raw[start:end] if end >= 0 else None for start, end in pairs]
    return [raw[start:end] for start, end in pairs]


def _headers(raw: bytes, fields: NDArray[np.int64]) -> list[Headers]:
    view = np.frombuffer(raw, np.uint8)
    return [
        _headers_of(raw, view, position, count)
        for position, count in fields[[_HEADERS, _HEADER_COUNT]].T.tolist()
    ]


def _headers_of(raw: bytes, view: NDArray[np.uint8], position: int, count: int) -> Headers:
    found: Headers = []
    for _ in range(count):
        length, start = _varint(view, position)
        size, position = _varint(view, start + length)
        if min(length, position) < 0 or position + max(size, 0) > len(raw):
            raise CorruptRecordError("a record header does not fit in its record")
        found.append(
            (raw[start : start + length].decode(), raw[position : position + size] if size >= 0 else None)
        )
        position += max(size, 0)
    return found


@njit(cache=True)
def _varint(buffer, position):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """(value, next position) of a zigzag varint; position −1 where the buffer ends before it does."""
    value, shift = np.int64(0), 0
    while 0 <= position < buffer.shape[0] and shift < 64:
        byte = np.int64(buffer[position])
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) & 0x7FFFFFFFFFFFFFFF ^ -(value & 1), position
        shift += 7
    return np.int64(0), -1


@njit(cache=True)
def _scan(buffer, position, fields):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Fill ``fields`` (8, records) from the records at ``position``; returns where they end, −1 if one does
    not fit.
    """
    for i in range(fields.shape[1]):
        length, position = _varint(buffer, position)
        end = position + length
        if position < 0 or length < 1 or end > buffer.shape[0]:
            return -1
        fields[_TIME, i], position = _varint(buffer, position + 1)  # the attributes of a record are unused
        fields[_OFFSET, i], position = _varint(buffer, position)
        for row in (_KEY, _VALUE):
            length, position = _varint(buffer, position)
            if position < 0 or length > end - position:
                return -1
            fields[row, i] = position
            fields[row + 1, i] = position + length if length >= 0 else -1
            position += max(length, 0)
        fields[_HEADER_COUNT, i], fields[_HEADERS, i] = _varint(buffer, position)
        if fields[_HEADERS, i] < 0 or fields[_HEADER_COUNT, i] < 0 or fields[_HEADERS, i] > end:
            return -1
        if fields[_HEADER_COUNT, i] == 0 and fields[_HEADERS, i] != end:
            return -1
        position = end
    return position
