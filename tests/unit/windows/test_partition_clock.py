"""The clock of a partition: leaps that count, and logs whose points are far apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.types import Partition
from pipeline.decode.columns import Columns, SeriesKeys
from pipeline.windows.partition_clock import RECENT_POINTS, PartitionClock

MINUTE = 60 * 10**9


def columns(points: list[tuple[str, int]]) -> Columns:
    """Return points of (series, minute)."""
    time = np.array([minute * MINUTE for _, minute in points], np.int64)
    return Columns(
        partition=Partition("t", 0),
        offsets=np.arange(len(points)),
        head=None,
        keys=SeriesKeys([name for name, _ in points]),
        time=time,
        clock=time,
        values=np.ones((len(points), 1)),
    )


def clocks(points: list[tuple[str, int]], cuts: list[int] | None = None) -> list[int]:
    """Return the clock after each point in minutes, with a snapshot at each cut."""
    clock, found = PartitionClock.begin(MINUTE), []
    edges = [0, *sorted(set(cuts or [])), len(points)]
    for first, end in itertools.pairwise(edges):
        if first == end:
            continue
        clock, each = clock.advance(columns(points[first:end]))
        found += (each // MINUTE).tolist()
        clock = PartitionClock.begin(MINUTE).from_bytes(clock.ns, clock.to_bytes())
    return found


SILENT = [(name, 0) for name in "abcd"]


@pytest.mark.parametrize("cadence", [15, 60])
def test_points_far_apart_wait_twice_and_then_no_longer(cadence: int) -> None:
    points = SILENT + [("a", cadence * n) for n in range(1, 12)]
    found = clocks(points)[len(SILENT) :]
    behind = [cadence * n - clock for n, clock in enumerate(found, 1)]
    assert set(behind[3:]) == {0}
    assert len(behind) < RECENT_POINTS


def test_a_clock_that_is_years_ahead_waits_after_such_steps() -> None:
    points = SILENT + [("a", 15 * n) for n in range(1, 8)] + [("b", 10**7), ("a", 120), ("a", 135)]
    assert clocks(points)[-3:] == [105, 120, 135]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 500)), min_size=1, max_size=60),
    st.lists(st.integers(0, 60), max_size=6),
)
def test_batches_and_snapshots_change_nothing(points: list[tuple[str, int]], cuts: list[int]) -> None:
    assert clocks(points, [min(cut, len(points)) for cut in cuts]) == clocks(points)


def test_a_snapshot_of_before_the_steps_is_read() -> None:
    clock, _ = PartitionClock.begin(MINUTE).advance(columns(SILENT))
    assert len(clock.to_bytes().tobytes()) == len(b'[null, true, ["a", "b", "c", "d"], {}, [], null]')
    assert clock.from_bytes(clock.ns, clock.to_bytes()) == clock
