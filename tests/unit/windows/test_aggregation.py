"""Events become one point a series and interval: against an oracle that takes one record at a time, however
the records are cut.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decode import Columns, make_decoder
from pipeline.windows import aggregation, series_behind
from pipeline.windows.event_time import EventTimeProcessor
from tests.support.decoding import PARTITION, records, stream

S = 10**9
EVERY = 10
VALUES = {
    "n": "count",
    "named": {"count": "who"},
    "people": {"nunique": "who"},
    "total": {"sum": "x"},
    "mean": {"mean": "x"},
    "open": {"open": "x"},
    "high": {"high": "x"},
    "low": {"low": "x"},
    "close": {"close": "x"},
    "last": {"last": "y"},
}
FORM = {"json": {"series": "id", "time": "ts", "time_unit": "s", "values": ["x"], "optional": ["who", "y"]}}


def events(*rows: tuple[str, float, float | None, str | None]) -> list[bytes]:
    """(series, second, x, who) as records; y is the second."""
    return [
        json.dumps({"id": name, "ts": time, "x": x, "who": who, "y": time}).encode()
        for name, time, x, who in rows
    ]


class Bench:
    """Decoder and windows of an aggregating stream, with what they told."""

    def __init__(self, **settings_: Any) -> None:
        config = stream(FORM, **{"aggregate": {"every": f"{EVERY}s", "values": VALUES}, **settings_})
        self.decoder = make_decoder("s", config)
        self.windows = EventTimeProcessor(config)
        self.waiting = self.windows.empty(PARTITION)
        self.points: list[tuple] = []
        self.late: list[int] = []
        self.folded = self.read = 0

    def take(self, values: list[bytes], reload: bool = False) -> None:
        if reload:
            self.waiting = self.windows.load(PARTITION, self.windows.dump(self.waiting))
        decoded = self.decoder.decode(records(values, self.read))
        assert not decoded.dead
        self.read += len(values)
        self.waiting, ready = self.windows.push(self.waiting, decoded.columns)
        self._told(ready)

    def finish(self) -> Bench:
        self.waiting, ready = self.windows.flush(self.waiting)
        self._told(ready)
        assert self.waiting.records == 0
        return self

    def _told(self, ready: Columns) -> None:
        # no point is the head of a record: records are counted when they are folded
        assert ready.records == 0
        self.folded += ready.folded
        if ready.late is not None:
            self.late += ready.late.offsets.tolist()
        assert self.read == self.folded + len(self.late) + self.waiting.records
        cells = (ready.keys.flat(), (ready.time // S).tolist(), ready.offsets.tolist(), ready.values.tolist())
        self.points += list(zip(*cells, strict=True))

    def table(self, *channels: str) -> list[tuple]:
        """(series, time, value of each channel), sorted."""
        at = [list(VALUES).index(c) for c in channels]
        return sorted((name, time, *(values[i] for i in at)) for name, time, _, values in self.points)


def run(values: list[bytes], cuts: tuple[int, ...] = (), reload: bool = False, **settings_: Any) -> Bench:
    bench, start = Bench(**settings_), 0
    for size in (*cuts, len(values)):
        bench.take(values[start : start + size], reload)
        start += size
    return bench.finish()


class SlowMachine:
    """One record at a time, lists only."""

    def __init__(self, lateness: int, idle: int, hole: int, told: list | None = None) -> None:
        self.settings = lateness, idle, hole
        self.points: list[tuple] = [] if told is None else told
        self.late: list[int] = []
        self.clock = self.closed = self.live = None
        self.waiting: dict[int, dict[str, list[tuple]]] = {}
        self.first: dict[str, int] = {}
        self.last: dict[str, int] = {}
        self.behind: dict[str, SlowMachine] = {}
        self.seen: dict[str, int] = {}
        self.is_behind, self.offset = told is not None, 0

    def known(self, name: str) -> int:
        return min(self.last[name] - self.first[name] + 1, self.settings[1])

    def close_up_to(self, stop: int) -> None:
        nan = math.nan
        for b in range(self.closed, stop):
            groups = self.waiting.pop(b, {})
            self.live = b if groups else self.live
            if self.live is None or b - self.live > self.settings[2]:
                continue
            for name in set(groups) | set(self.first):
                if name in groups:
                    if name not in self.first or b - self.last[name] - 1 > self.known(name):
                        self.first[name] = b
                    self.last[name] = b
                    self.points.append((name, b * EVERY, groups[name][-1][0], self.told(groups[name])))
                elif self.last[name] < b and b - self.last[name] <= self.known(name):
                    self.points.append(
                        (name, b * EVERY, self.offset, [0, 0, 0, 0, nan, nan, nan, nan, nan, nan])
                    )
        self.closed = max(self.closed, stop)

    @staticmethod
    def told(group: list[tuple]) -> list[float]:
        by_time = sorted(group, key=lambda g: g[2])
        x = [g[3] for g in by_time if g[3] is not None]
        who = [g[4] for g in group if g[4] is not None]
        latest = max(group, key=lambda g: (g[2], g[0]))[2]
        prices = [sum(x) / len(x), x[0], max(x), min(x), x[-1]] if x else [math.nan] * 5
        return [len(group), len(who), len(set(who)), sum(x) if x else math.nan, *prices, latest]

    def take(self, offset: int, row: tuple) -> None:
        name, time, x, who = row
        self.clock = time if self.clock is None else max(self.clock, time)
        stop = int((self.clock - self.settings[0]) // EVERY)
        self.closed = stop if self.closed is None else self.closed
        opened, interval = max(self.closed, stop), int(time // EVERY)
        if name in self.behind:
            self.leave(name, opened, interval)
        if name in self.behind or (interval < opened and not self.is_behind and self.falls_behind(name)):
            one = self.behind.setdefault(name, SlowMachine(*self.settings, told=self.points))
            self.seen[name] = opened
            one.take(offset, row)
            self.late, one.late = self.late + one.late, []
        elif interval < opened:
            self.late.append(offset)
        else:
            self.waiting.setdefault(interval, {}).setdefault(name, []).append((offset, name, time, x, who))
        self.offset = offset
        self.close_up_to(stop)
        for silent in [one for one in self.behind if self.closed > self.seen[one] + self.settings[2]]:
            self.leave(silent, self.closed, -1)

    def leave(self, name: str, opened: int, interval: int) -> None:
        one, over = self.behind[name], opened > self.seen[name] + self.settings[2]
        if over or interval >= opened:
            one.close_up_to(min(opened, self.seen[name] + self.settings[2] + 1))
            del self.behind[name]
            if not over:
                self.first[name], self.last[name] = one.first[name], opened - 1

    def falls_behind(self, name: str) -> bool:
        """Whether silence is told no longer, or the series is unknown: counts tell it."""
        if any(name in groups for groups in self.waiting.values()):
            return False
        return name not in self.first or self.closed - self.last[name] - 1 > self.known(name)


def oracle(rows: list[tuple], lateness: int, idle: int, hole: int) -> tuple[list[tuple], list[int]]:
    """(series, start of interval, offset, values) of every point, and the offsets that are late."""
    machine = SlowMachine(lateness, idle, hole)
    for offset, row in enumerate(rows):
        machine.take(offset, row)
    for one in [*machine.behind.values(), machine]:
        if one.waiting:
            one.close_up_to(max(one.waiting) + 1)
    return machine.points, machine.late


def same(one: list[tuple], other: list[tuple]) -> None:
    def key(p: tuple) -> tuple:
        return p[1], p[0]

    one, other = sorted(one, key=key), sorted(other, key=key)
    assert [p[:3] for p in one] == [p[:3] for p in other]
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a[3], b[3], rtol=1e-12, err_msg=str(a[:2]))


ROWS = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.integers(0, 60) | st.integers(0, 400),
        st.none() | st.integers(-9, 9),
        st.sampled_from(["u", "v", "w", None]),
    ),
    max_size=40,
)


@pytest.mark.parametrize("hole", [60, 3])
@given(
    rows=ROWS,
    rising=st.booleans(),
    cuts=st.lists(st.integers(0, 9), max_size=8).map(tuple),
    lateness=st.sampled_from([0, 4, 25]),
    idle=st.sampled_from([1, 5, 1000]),
    reload=st.booleans(),
    clear=st.sampled_from([0, 1024]),
)
@settings(deadline=None)
def test_as_a_slow_machine_would_do_it(hole, rows, rising, cuts, lateness, idle, reload, clear):
    rows = sorted(rows, key=lambda r: r[1]) if rising else rows
    points, late = oracle(rows, lateness, idle, hole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aggregation, "MAX_EMPTY_INTERVALS", hole)
        patch.setattr(series_behind, "MAX_SILENT_INTERVALS", hole)
        # forgotten series are cleared away at once, or never: no difference
        patch.setattr(aggregation, "MIN_FORGOTTEN_SERIES", clear)
        bench = run(events(*rows), cuts, reload, lateness=f"{lateness}s", idle_after=f"{idle * EVERY}s")
    assert sorted(bench.late) == sorted(late)
    same(bench.points, points)
    assert bench.folded + len(bench.late) == len(rows)


def test_every_function():
    nan = math.nan
    bench = run(
        events(
            ("a", 12, 5, "u"),
            ("a", 11, 3, "v"),
            ("a", 18, 4, "u"),
            ("a", 19, None, None),
            ("a", 25, None, None),
        )
    )
    ((_, time, offset, first), (_, _, _, second)) = bench.points
    assert (time, offset) == (10, 3)
    assert first == [4, 3, 2, 12, 4, 3, 5, 3, 4, 19]
    # a record without a value: counted, but no sum
    np.testing.assert_equal(second, [1, 0, 0, nan, nan, nan, nan, nan, nan, 25])


def test_a_series_that_falls_silent_is_seen():
    busy = [("b", t, 1, None) for t in range(0, 200, 10)]
    bench = run(events(*[("a", t, 1, "u") for t in range(0, 50, 10)], *busy[5:]))
    assert bench.table("n", "total", "people")[:12] == [("a", t, 1, 1, 1) for t in range(0, 50, 10)] + [
        ("a", t, 0, 0, 0) for t in range(50, 100, 10)
    ] + [
        ("b", 50, 1, 1, 0),
        ("b", 60, 1, 1, 0),
    ]  # five intervals known, five of silence told
    silent = [p for p in bench.points if p[0] == "a" and p[1] >= 50]
    assert [p[2] for p in silent] == [6, 7, 8, 9, 10]  # each known from the record that closed the interval


def test_a_hole_in_the_log_is_no_flood():
    names = [(f"s{i}", 0.0, 1, None) for i in range(50)]
    long_known = [(n, t, x, w) for t in range(0, 2000, 10) for n, _, x, w in names]
    bench = run(events(*long_known, ("s0", 10.0**7, 1, None)))
    assert len(bench.points) == 50 * 200 + 50 * aggregation.MAX_EMPTY_INTERVALS + 1


def test_means_say_nothing_of_silence():
    settings_ = {"aggregate": {"every": "10s", "values": {"x": "mean"}}}
    config = stream(FORM, **settings_)
    windows, decoder = EventTimeProcessor(config), make_decoder("s", config)
    rows = events(("a", 0, 1, None), ("a", 1, 3, None), ("b", 55, 7, None))
    _, ready = windows.push(windows.empty(PARTITION), decoder.decode(records(rows)).columns)
    assert (ready.keys.flat(), ready.values.tolist(), ready.folded) == (["a"], [[2]], 2)


def test_keys_that_are_seen_once_are_forgotten():
    rows = [(f"k{i}", 10 * i, 1, None) for i in range(5000)]
    bench = run(events(*rows), cuts=(1000,) * 5)
    assert len(bench.points) == 2 * 5000 - 1
    _, names = bench.waiting.to_arrays()
    assert len(names) < 3000


def test_the_points_go_on_like_any_other():
    config = stream(FORM, aggregate={"every": "10s", "values": VALUES}, counters=["total"])
    windows, decoder = EventTimeProcessor(config), make_decoder("s", config)
    rows = events(*[("a", t, 10 * t, None) for t in (0, 10, 20, 50, 60)])
    _, ready = windows.push(windows.empty(PARTITION), decoder.decode(records(rows)).columns)
    out = windows.admit(windows.initial(1), ready.keys.spread(np.zeros(1, np.int32)), ready)
    assert out.points.every.tolist() == [10 * S] * 6
    np.testing.assert_equal(out.points.values[:3, 3], [math.nan, 10, 10])


def test_the_watermark():
    bench = Bench(lateness="4s")
    assert bench.waiting.watermark_ns is None
    bench.take(events(("a", 30, 1, None), ("a", 33, 1, None)))
    assert (bench.waiting.watermark_ns, bench.waiting.records) == (29 * S, 2)
