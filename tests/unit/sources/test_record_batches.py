"""Record batches to columns: the same as kafka-python's own record by record, and nothing but a clear error
for broken ones.
"""

from __future__ import annotations

import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.record import MemoryRecords
from kafka.record.memory_records import MemoryRecordsBuilder

from pipeline.core.types import Partition
from pipeline.sources.kafka.record_batches import ColumnRecords, CorruptBatchError, merge

TOPIC = TopicPartition("topic", 3)
NULLABLE = st.none() | st.binary(max_size=40)
HEADERS = st.lists(st.tuples(st.text(max_size=8), NULLABLE), max_size=3)
RECORD = st.tuples(st.integers(0, 2**41), NULLABLE, NULLABLE, st.just([]) | HEADERS, st.integers(0, 3))
CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def build(records, codec=0, magic=2, first_offset=0):
    """One batch; the last number of a record is how many offsets it leaves out before itself."""
    builder = MemoryRecordsBuilder(magic, codec, 1 << 20, offset=first_offset)
    for timestamp, key, value, headers, skipped in records:
        builder.skip(skipped)
        builder.append(timestamp, key, value, headers if magic == 2 else [])
    builder.close()
    return bytes(builder.buffer())


def read(data, fetch_offset=0, step=1000):
    """All that a fetch gives out, ``step`` records at a time."""
    part = ColumnRecords(fetch_offset, TOPIC, MemoryRecords(data))
    chunks = []
    while part:
        chunks += part.take(step)
    return chunks, part.next_fetch_offset


def expected(data, fetch_offset=0):
    part = Fetcher.PartitionRecords(fetch_offset, TOPIC, MemoryRecords(data))
    return part.take(10**9), part.next_fetch_offset


@settings(max_examples=150, deadline=None)
@given(
    batches=st.lists(st.lists(RECORD, min_size=1, max_size=12), min_size=1, max_size=4),
    codec=st.sampled_from(sorted(CODECS.values())),
    step=st.integers(1, 20),
    data=st.data(),
)
def test_columns_are_what_the_client_itself_reads(batches, codec, step, data):
    raw, end = b"", 1000
    for batch in batches:
        raw += build(batch, codec, first_offset=end)
        end += sum(skipped + 1 for *_, skipped in batch)
    fetch_offset = data.draw(st.integers(1000, end - 1))
    records, next_offset = expected(raw, fetch_offset)
    chunks, ours = read(raw, fetch_offset, step)
    assert ours == next_offset == end
    merged = merge(Partition(*TOPIC), fetch_offset, chunks)
    assert merged.offsets.tolist() == [r.offset for r in records]
    assert merged.timestamps.tolist() == [r.timestamp * 1_000_000 for r in records]
    assert list(merged.values) == [r.value for r in records]
    assert list(merged.keys) == [r.key for r in records]
    headers = [r.headers for r in records]
    assert (list(merged.headers) if merged.headers is not None else [[] for _ in headers]) == headers
    assert (merged.first_offset, merged.next_offset) == (fetch_offset, end)


@pytest.mark.parametrize("magic", [0, 1])
def test_old_formats(magic):
    raw = build([(5, None, b"a", [], 0), (6, b"k", None, [], 0)], magic=magic)
    (chunk,), next_offset = read(raw, 1)
    assert (chunk.offsets.tolist(), chunk.values, chunk.keys) == ([1], [None], [b"k"])
    assert chunk.timestamps.tolist() == [6_000_000 if magic else -1]
    assert next_offset == 2


def test_each_take_is_bounded_and_moves_the_position():
    raw = build([(0, None, b"%d" % i, [], 0) for i in range(10)])
    part = ColumnRecords(0, TOPIC, MemoryRecords(raw))
    sizes, positions = [], []
    while part:
        taken = part.take(4)
        if len(taken):
            sizes.append(len(taken))
            positions.append(part.next_fetch_offset)
    assert (sizes, positions) == ([4, 4, 2], [4, 8, 10])


@settings(max_examples=300, deadline=None)
@given(records=st.lists(RECORD, min_size=1, max_size=8), data=st.data(), codec=st.sampled_from([0, 3]))
def test_damage_is_a_clear_error_and_never_garbage(records, data, codec):
    """Any one byte changed behind the length: the checksum tells.

    With the checksum off, the structure still never reads outside.
    """
    raw = bytearray(build(records, codec))
    position = data.draw(st.integers(struct.calcsize(">qi"), len(raw) - 1))
    raw[position] ^= data.draw(st.integers(1, 255))
    if position >= 16:  # the bytes before are not under the checksum
        with pytest.raises(CorruptBatchError):
            read(bytes(raw))
    part = ColumnRecords(0, TOPIC, MemoryRecords(bytes(raw)), check_crcs=False)
    with suppress(CorruptBatchError):
        while part:
            part.take(100)
    assert not part, "or the fetcher would ask for ever"


@pytest.mark.parametrize("magic", [3, 127])
def test_an_unknown_format_is_rejected(magic):
    raw = bytearray(build([(0, None, b"x", [], 0)]))
    raw[16] = magic  # not under the checksum
    with pytest.raises(CorruptBatchError, match=f"format {magic}"):
        read(bytes(raw))


def test_what_precedes_a_corrupt_batch_is_given_out_first():
    good = build([(0, None, b"%d" % i, [], 0) for i in range(3)])
    bad = bytearray(build([(0, None, b"x", [], 0)], first_offset=3))
    bad[-1] ^= 1
    part = ColumnRecords(0, TOPIC, MemoryRecords(good + bytes(bad)))
    assert np.concatenate([c.offsets for c in part.take(100)]).tolist() == [0, 1, 2]
    with pytest.raises(CorruptBatchError) as caught:
        part.take(100)
    assert caught.value.offset == 3
    assert not part
