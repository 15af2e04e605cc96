"""This machine's readings: one row each interval, never two, and a restart goes on where the clock is."""

from __future__ import annotations

import time
from datetime import timedelta
from itertools import pairwise

import pytest

from pipeline.config import schema
from pipeline.sources import make_source
from pipeline.sources.telemetry import SCHEMA

EVERY = timedelta(milliseconds=100)


@pytest.fixture
def source():
    source = make_source("machine", schema.SourceConfig(telemetry=schema.TelemetrySourceConfig(every=EVERY)))
    yield source
    source.close()


def acquire(source, offset=None):
    (partition,) = source.poll(10, 1).assigned
    assert not source.poll(10, 0.2).records, "paused until it is resumed"
    source.seek(partition, source.start_offset(partition) if offset is None else offset)
    source.resume([partition])
    return partition


def collect(source, count):
    found = []
    deadline = time.monotonic() + 120
    while len(found) < count and time.monotonic() < deadline:
        found += source.poll(10, 1.0).records
    return found


def test_rows_follow_each_other_in_time_and_offset(source):
    partition = acquire(source)
    found = collect(source, 5)
    for before, after in pairwise(found):
        assert after.first_offset == before.next_offset
        assert after.offsets[0] > before.offsets[0]
    for records in found:
        assert records.table.schema == SCHEMA
        (row,) = records.table.to_pylist()
        assert row["host"]
        assert 0 <= row["cpu"] <= 100
        assert 0 < row["memory"] <= 100
        stamp = records.table["time"].cast("int64")[0].as_py()
        assert stamp == records.timestamps[0] == records.offsets[0] * 100_000_000
        assert records.next_offset == records.offsets[0] + 1
    assert source.bounds([partition])[partition].end >= found[-1].next_offset


def test_a_restart_skips_what_was_not_read(source):
    """The position of the process before lies in the past: the row is now's, and what lies between counts as
    read.
    """
    past = time.time_ns() // 100_000_000 - 50
    partition = acquire(source, past)
    bounds = source.bounds([partition])[partition]
    assert bounds.beginning <= past <= bounds.end
    (records,) = collect(source, 1)
    assert records.first_offset == past
    assert records.offsets[0] >= past + 50
    assert len(records) == 1


def test_no_row_twice_for_one_interval(source):
    acquire(source)
    (first,) = collect(source, 1)
    poll = source.poll(10, 0)
    assert all(records.offsets[0] > first.offsets[0] for records in poll.records)


def test_another_cadence_is_another_log(source):
    slower = make_source(
        "machine", schema.SourceConfig(telemetry=schema.TelemetrySourceConfig(every=timedelta(seconds=5)))
    )
    assert source.poll(1, 0).assigned != slower.poll(1, 0).assigned


def test_the_first_row_to_come_lies_within_what_the_source_holds(source):
    """A first start begins with the next tick: that is no gap, whenever in a tick it is asked for."""
    (partition,) = source.poll(10, 1).assigned
    for _ in range(3):
        first = source.start_offset(partition)
        assert first <= source.bounds([partition])[partition].end
        time.sleep(0.03)
