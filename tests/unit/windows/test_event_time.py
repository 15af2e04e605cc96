"""Reordering, late points, duplicates, cadence and gaps; and that none of it depends on how the records are
cut into batches.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decode import Columns
from pipeline.windows.event_time import (
    DUPLICATE,
    LATE,
    MAX_FILLED_POINTS,
    SCORED,
    SUPERSEDED,
    Admitted,
    EventTimeProcessor,
)
from pipeline.windows.reorder_buffer import ReorderBuffer
from tests.support.decoding import PARTITION, columns, stream

S = 10**9
FORM = {"json": {"series": "id", "time": "ts", "values": "a"}}


class Bench:
    """Windows with the little that an engine does around them: slots by name, results put together."""

    def __init__(self, **settings_: Any) -> None:
        self.windows = EventTimeProcessor(stream(FORM, **settings_))
        self.state = self.windows.initial(26)
        self.waiting = self.windows.empty(PARTITION)
        self.parts: list[tuple[Columns, Admitted]] = []

    def take(self, batch: Columns, reload: bool = False) -> None:
        if reload:
            self.waiting = self.windows.load(PARTITION, self.windows.dump(self.waiting))
        self.waiting, ready = self.windows.push(self.waiting, batch)
        self._admit(ready)

    def finish(self) -> Bench:
        self.waiting, ready = self.windows.flush(self.waiting)
        self._admit(ready)
        return self

    def _admit(self, ready: Columns) -> None:
        slots = ready.keys.spread(
            np.array([ord(name[0]) - ord("a") for name in ready.keys.names], np.int32).reshape(-1)
        )
        self.parts.append((ready, self.windows.admit(self.state, slots, ready)))

    def outcomes(self) -> list[tuple[int, int]]:
        """(offset, outcome) in the order of the outcomes."""
        return [
            pair
            for ready, out in self.parts
            for pair in zip(ready.offsets.tolist(), out.outcome.tolist(), strict=True)
        ]

    def points(self) -> list[tuple]:
        """Everything about every point of the detector, in its order."""
        rows = []
        for ready, out in self.parts:
            offsets = [int(ready.offsets[r]) if r >= 0 else -1 for r in out.row.tolist()]
            p = out.points
            cells = (
                p.slot,
                p.time // S,
                p.values[:, 0].round(6),
                p.missed,
                p.every // S,
                out.seq,
                out.restart,
            )
            rows += list(zip(offsets, *(c.tolist() for c in cells), strict=True))
        return rows

    def column(self, name: str) -> list:
        names = ("offset", "slot", "time", "value", "missed", "every", "seq", "restart")
        return [point[names.index(name)] for point in self.points()]


def run(
    series: str,
    times: list[float],
    values: Any = None,
    cuts: tuple[int, ...] = (),
    reload: bool = False,
    **settings_: Any,
) -> Bench:
    """One letter a series; times in seconds."""
    bench = Bench(**settings_)
    whole = columns(list(series), [round(t * S) for t in times], values)
    start = 0
    for size in (*cuts, len(whole)):
        bench.take(whole.take(np.arange(start, min(start + size, len(whole)))), reload)
        start += size
    return bench.finish()


# ------------------------------------------------------------------------------------------------ properties

POINTS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40)), max_size=40)
CUTS = st.lists(st.integers(0, 9), max_size=8).map(tuple)
RULES = st.fixed_dictionaries(
    {"lateness": st.sampled_from(["0s", "3s", "100s"])},
    optional={
        "every": st.sampled_from(["1s", "2s"]),
        "gap": st.sampled_from(
            [{"policy": "hold"}, {"policy": "linear", "restart_after": 4}, {"restart_after": 3}]
        ),
        "counters": st.just(["a"]),
    },
)


@given(POINTS, CUTS, RULES, st.booleans())
@settings(deadline=None)
def test_batches_make_no_difference(points, cuts, rules, reload):
    series, times = "".join(p[0] for p in points), [p[1] for p in points]
    whole = run(series, times, **rules)
    cut = run(series, times, cuts=cuts, reload=reload, **rules)
    assert cut.outcomes() == whole.outcomes()
    np.testing.assert_equal(cut.points(), whole.points())
    for name, array in whole.state.items():
        np.testing.assert_array_equal(array, cut.state[name])
    # Every record has one outcome; what the detector sees is what was scored, and what was filled in.
    assert sorted(offset for offset, _ in whole.outcomes()) == list(range(len(points)))
    scored = [offset for offset, outcome in whole.outcomes() if outcome == SCORED]
    assert [o for o in whole.column("offset") if o >= 0] == scored
    # Per series: time strictly rises, numbers count.
    for slot in range(3):
        mine = [p for p in whole.points() if p[1] == slot]
        assert all(x[2] < y[2] for x, y in pairwise(mine))
        assert [p[6] for p in mine if p[0] >= 0] == list(range(1, sum(p[0] >= 0 for p in mine) + 1))


@given(POINTS, st.integers(0, 8))
@settings(deadline=None)
def test_the_rules_of_time_as_a_slow_machine_would_apply_them(points, lateness):
    """The oracle takes one record at a time and knows no arrays."""
    waiting: list[tuple[int, int, str]] = []
    last: dict[str, int] = {}
    clock = -1
    expected = []

    def let_go(batch: list[tuple[int, int, str]]) -> None:
        batch.sort()
        for i, (time, offset, name) in enumerate(batch):
            again = any(t == time and n == name for t, _, n in batch[i + 1 :])
            before = last.get(name, -1)
            if time < before:
                expected.append((offset, LATE))
            elif time == before:
                expected.append((offset, DUPLICATE))
            elif again:
                expected.append((offset, SUPERSEDED))
            else:
                expected.append((offset, SCORED))
                last[name] = time

    for offset, (name, time) in enumerate(points):
        clock = max(clock, time)
        waiting.append((time, offset, name))
        let_go([w for w in waiting if w[0] <= clock - lateness])
        waiting = [w for w in waiting if w[0] > clock - lateness]
    let_go(waiting)
    bench = run("".join(p[0] for p in points), [p[1] for p in points], lateness=f"{lateness}s")
    assert bench.outcomes() == expected


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60)), unique=True, max_size=30),
    st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_any_order_within_the_lateness_is_the_same(points, random):
    in_time = sorted(points, key=lambda p: p[1])
    # Nobody comes after somebody who is more than the lateness younger.
    shuffled = sorted(in_time, key=lambda p: p[1] + random.uniform(0, 10))
    benches = []
    for order in (in_time, shuffled):
        value_of = [[ord(name) * 100 + time] for name, time in order]
        benches.append(run("".join(p[0] for p in order), [p[1] for p in order], value_of, lateness="10s"))
    per_series = [sorted((p[1], *p[2:]) for p in bench.points()) for bench in benches]
    np.testing.assert_equal(per_series[0], per_series[1])
    assert all(outcome == SCORED for _, outcome in benches[1].outcomes())


@given(st.integers(1, 9), st.integers(1, 9), POINTS)
@settings(deadline=None)
def test_samples_of_one_record_are_counted_by_its_head(first, second, points):
    batch = columns([p[0] for p in points], [p[1] * S for p in points])
    batch.offsets = np.arange(len(batch)) // first
    batch.head = np.diff(batch.offsets, prepend=-1) > 0
    buffer = ReorderBuffer.empty(PARTITION, second * S)
    total = 0
    for part in (batch.take(np.arange(len(batch) // 2)), batch.take(np.arange(len(batch) // 2, len(batch)))):
        buffer, ready = buffer.push(part)
        total += ready.records
        assert (
            total + buffer.records == sum(batch.head[: len(batch) // 2])
            or total + buffer.records == batch.records
        )
    buffer, rest = buffer.flush()
    assert total + (rest.records if rest else 0) == batch.records
    assert buffer.records == 0


# ------------------------------------------------------------------------------------------------ single rules


def test_the_last_write_wins_until_the_point_is_scored():
    bench = run("aaaa", [5, 5, 5, 20], [1, 2, 3, 4], lateness="10s")
    assert bench.outcomes() == [(0, SUPERSEDED), (1, SUPERSEDED), (2, SCORED), (3, SCORED)]
    bench = run("aaa", [5, 20, 5], [1, 2, 3], lateness="10s")
    assert bench.outcomes() == [(0, SCORED), (2, DUPLICATE), (1, SCORED)]
    assert run("aa", [5, 5], [1, 2]).outcomes() == [(0, SCORED), (1, DUPLICATE)]


def test_a_late_device_does_not_make_others_late():
    bench = run("aababb", [100, 101, 3, 102, 4, 2])
    assert [outcome for _, outcome in bench.outcomes()] == [SCORED] * 5 + [LATE]


def test_the_watermark_follows_the_clock_not_the_future():
    batch = columns(["a", "b", "b"], [1000 * S, 5 * S, 6 * S])
    batch.clock = np.array([6, 5, 6]) * S
    buffer, ready = ReorderBuffer.empty(PARTITION, 2 * S).push(batch)
    assert (len(ready), buffer.records, buffer.watermark_ns) == (0, 3, 4 * S)
    buffer, ready = buffer.push(columns(["b"], [8 * S], first=3))
    assert ready.offsets.tolist() == [1, 2]  # the one from the future still waits


def test_an_unknown_partition_has_no_watermark():
    buffer = ReorderBuffer.empty(PARTITION, 0)
    assert buffer.watermark_ns is None
    assert buffer.push(Columns.empty(PARTITION, 1))[0].watermark_ns is None
    assert buffer.push(columns(["a"], [7]))[0].watermark_ns == 7


@pytest.mark.parametrize(
    ("times", "every"),
    [
        ([0, 60, 120, 180], 60),
        ([0, 300, 360, 420, 480], 60),  # begins with a gap
        ([0, 60, 120, 420, 480, 540], 60),
        ([0, 59, 121, 180, 239, 301], 60),  # jitter
        ([60 * t for t in range(60) if t % 5 in (0, 1, 3)], 60),  # 40 % are lost
        ([0, 60, 120, *range(150, 3000, 30)], 30),  # the cadence changed
        ([0, 30, 60, 90, *range(150, 3000, 60)], 60),
        ([0, 1, 50, 51, 52, 1000, 1003, 7000], 0),  # none
    ],
)
def test_the_cadence_is_learned(times, every):
    learned = run("a" * len(times), times).column("every")
    assert learned[-1] == pytest.approx(every, rel=0.05)
    assert learned[:2] == [0, 0]


def test_missed_steps_are_counted():
    bench = run("aaaaaaa", [0, 10, 20, 30, 70, 81, 84])
    assert bench.column("missed") == [0, 0, 0, 0, 3, 0, 0]
    assert run("aa", [0, 35], every="10s").column("missed") == [0, 3]  # 3.5 steps are 4: between them 3
    assert run("aa", [0, 10**9], every="1s").column("missed") == [0, 10**6]


def test_gaps_are_filled_before_the_next_real_point():
    for policy, values in (("hold", [1, 1, 1, 4]), ("linear", [1, 2, 3, 4])):
        bench = run("aa", [0, 3], [1, 4], every="1s", gap={"policy": policy})
        assert bench.column("offset") == [0, -1, -1, 1]
        assert bench.column("time") == [0, 1, 2, 3]
        assert bench.column("value") == values
        assert bench.column("missed") == [0, 0, 0, 0]
        assert bench.column("seq") == [1, 1, 1, 2]


def test_filling_knows_what_is_missing():
    nan = float("nan")
    bench = run("aaa", [0, 2, 4], [1, nan, 5], every="1s", gap={"policy": "linear"})
    # no line leads to a missing value: hold
    np.testing.assert_equal(bench.column("value"), [1, 1, nan, 3, 5])


def test_a_gap_too_long_to_fill_is_left_open():
    bench = run(
        "aaa", [0, MAX_FILLED_POINTS + 1, 2 * MAX_FILLED_POINTS + 3], every="1s", gap={"policy": "hold"}
    )
    assert bench.column("missed")[-1] == MAX_FILLED_POINTS + 1
    assert len(bench.points()) == 3 + MAX_FILLED_POINTS


def test_restart_after():
    bench = run("aaab", [0, 3, 7, 99], [1, 2, 3, 4], every="1s", gap={"policy": "hold", "restart_after": 3})
    assert bench.column("restart") == [False, False, False, False, True, False]
    assert bench.column("missed") == [0, 0, 0, 0, 3, 0]


def test_counters_become_rates():
    nan = float("nan")
    bench = run("aaaaaab", [0, 10, 20, 30, 40, 60, 60], [100, 150, nan, 170, 20, 60, 5], counters=["a"])
    np.testing.assert_equal(bench.column("value"), [nan, 5, nan, 1, nan, 2, nan])
    bench = run("aaa", [0, 1, 9], [1, 2, 3], every="1s", counters=["a"], gap={"restart_after": 2})
    np.testing.assert_equal(bench.column("value"), [nan, 1, nan])


def test_the_columns_that_come_in_are_left_alone():
    batch = columns(["a", "a"], [0, 10 * S], [5, 9])
    bench = Bench(counters=["a"])
    bench.take(batch)
    assert batch.values[:, 0].tolist() == [5, 9]


@given(POINTS)
@settings(deadline=None)
def test_what_waits_survives_a_snapshot(points):
    windows = EventTimeProcessor(stream(FORM, lateness="7s"))
    buffer, _ = windows.push(
        windows.empty(PARTITION), columns([p[0] for p in points], [p[1] * S for p in points])
    )
    again = windows.load(PARTITION, windows.dump(buffer))
    assert isinstance(again, ReorderBuffer)
    assert isinstance(buffer, ReorderBuffer)
    assert (again.clock, again.records) == (buffer.clock, buffer.records)
    assert windows.dump(again) == windows.dump(buffer)
    follower = columns(["z"], [1000 * S], first=99)
    assert (
        windows.push(again, follower)[1].offsets.tolist()
        == windows.push(buffer, follower)[1].offsets.tolist()
    )
