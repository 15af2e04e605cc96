"""Aggregates of series whose clock is behind or ahead of that of the others."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.core.types import Partition
from pipeline.decode import make_decoder
from pipeline.windows import series_behind
from pipeline.windows.event_time import SCORED, EventTimeProcessor
from tests.support.decoding import records, stream

T = 1_700_000_040  # the start of a minute
PLACE = Partition("topic", 0)
FORM = {"json": {"series": "s", "time": "t", "values": ["v"]}}
MEANS = {"mean": {"mean": "v"}}
COUNTS = {"mean": {"mean": "v"}, "n": "count"}
HOUR = 3600
Event = tuple[str, int, float]


class Fleet:
    """Points of an aggregate, with the numbers of late and other records."""

    def __init__(self, events: Sequence[Event], cut: int, *, again: bool, values: dict = COUNTS) -> None:
        config = stream(FORM, aggregate={"every": "1m", "values": values}, lateness="5s", future=None)
        event_time, decoder = EventTimeProcessor(config), make_decoder("plant", config)
        buffer = event_time.empty(PLACE)
        self.points: list[tuple[str, int, list[float]]] = []
        self.late = self.folded = 0
        found = [json.dumps({"s": name, "t": T + at, "v": value}).encode() for name, at, value in events]
        for first in range(0, len(found), cut):
            columns, dead = decoder.decode(records(found[first : first + cut], first))
            assert not dead
            _, ready = event_time.push(buffer, columns)
            self._take(ready)
            assert self.late + self.folded + buffer.records == min(first + cut, len(found))
            if again:
                buffer = event_time.load(PLACE, event_time.dump(buffer))
        self._take(event_time.flush(buffer)[1])
        assert buffer.records == 0

    def _take(self, ready) -> None:
        self.late += 0 if ready.late is None else ready.late.records
        self.folded += ready.folded
        times = (ready.time // 10**9 - T).tolist()
        self.points += zip(
            ready.keys.flat(), times, np.nan_to_num(ready.values, nan=-1).tolist(), strict=True
        )

    def of(self, name: str) -> list[tuple[int, list[float]]]:
        return [(at, values) for key, at, values in self.points if key == name]


def steady(name: str, seconds: range, behind: int = 0) -> list[Event]:
    return [(name, at - behind, 1.0) for at in seconds]


def by_arrival(*feeds: tuple[int, list[Event]]) -> list[Event]:
    """Join feeds with a record every 20 seconds; each begins at a second."""
    placed = [
        (begin + 20 * number, order, event)
        for order, (begin, events) in enumerate(feeds)
        for number, event in enumerate(events)
    ]
    return [event for _, _, event in sorted(placed)]


def minutes(found: list[tuple[int, list[float]]]) -> list[int]:
    return [at // 60 for at, values in found if values[-1] > 0]


FEED = {
    "behind from the beginning": by_arrival(
        (0, steady("a", range(0, 1800, 20))),
        (0, steady("b", range(0, 1800, 20))),
        (120, steady("c", range(120, 1800, 20), behind=3 * HOUR)),
    ),
    "kept while there was no network": by_arrival(
        (0, steady("a", range(0, 7200, 20))),
        (0, steady("c", range(0, 600, 20))),
        (3600, steady("c", range(600, 4200, 60))),
        (4860, steady("c", range(4860, 7200, 20))),
    ),
    "ahead": by_arrival(
        (0, steady("a", range(0, 3600, 20))),
        (0, steady("b", range(0, 3600, 20))),
        (600, steady("c", range(600, 1800, 20), behind=-2 * HOUR)),
        (600, steady("d", range(600, 1800, 20), behind=-1 * HOUR)),
    ),
    "all at once": by_arrival(
        (0, steady("a", range(0, 600, 20))),
        (0, steady("b", range(0, 600, 20))),
        (9000, steady("a", range(9000, 9600, 20))),
        (9000, steady("b", range(9000, 9600, 20))),
    ),
}


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("feed", FEED)
@pytest.mark.parametrize("values", [MEANS, COUNTS], ids=["means", "counts"])
def test_no_record_is_late_however_batches_are_cut(feed, again, values, monkeypatch):
    if values is COUNTS and feed == "kept while there was no network":
        monkeypatch.setattr(series_behind, "MAX_SILENT_INTERVALS", 3)
    events = FEED[feed]
    whole = Fleet(events, 10_000, again=False, values=values)
    if not (values is COUNTS and "kept" in feed):  # there the silence was told
        assert whole.late == 0
        for name in {one[0] for one in events}:
            told = [at for at, _ in whole.of(name)]
            assert told == sorted(set(told))
            assert set(minutes(whole.of(name))) == {at // 60 for key, at, _ in events if key == name}
    for cut in (1, 7, 64):
        other = Fleet(events, cut, again=again, values=values)
        assert sorted(other.points) == sorted(whole.points)
        assert (other.late, other.folded) == (whole.late, whole.folded)


def test_points_of_a_series_ahead_are_told_when_the_others_come_there():
    fleet = Fleet(FEED["ahead"], 50, again=False)
    order = [key for key, _, _ in fleet.points]
    assert order.index("c") > order.index("d") > 100
    assert sum(values[1] for _, values in fleet.of("a")) == 180


def test_its_own_old_records_are_late():
    events = [*steady("a", range(0, 600, 20)), ("c", 0, 3.0), ("c", 120, 3.0), ("c", 0, 3.0)]
    fleet = Fleet(events, 4, again=False)
    assert (fleet.late, fleet.of("c")[0]) == (1, (0, [3.0, 1.0]))


def test_a_series_that_falls_silent_is_told_after_a_while():
    events = [("a", 0, 1.0), ("a", 600, 1.0), ("c", 0, 3.0), *steady("a", range(600, 7200, 20))]
    fleet = Fleet(events, 100, again=False)
    assert fleet.of("c") == [(0, [3.0, 1.0]), (60, [-1.0, 0.0])]


def test_too_many_series_behind_are_late(monkeypatch):
    monkeypatch.setattr(series_behind, "MAX_SERIES_BEHIND", 2)
    events = [("a", 6000, 1.0), *((name, 0, 1.0) for name in "cde")]
    for cut in (1, 10):
        assert Fleet(events, cut, again=True).late == 1


def reordered(events: Sequence[Event], cut: int) -> list[int]:
    """Return the outcome of each point of a stream with a lateness."""
    config = stream(FORM, lateness="30s", future=None)
    event_time, decoder = EventTimeProcessor(config), make_decoder("plant", config)
    buffer, state, found = event_time.empty(PLACE), event_time.initial(26), []
    values = [json.dumps({"s": name, "t": T + at, "v": value}).encode() for name, at, value in events]
    for first in range(0, len(values), cut):
        columns = decoder.decode(records(values[first : first + cut], first)).columns
        buffer, ready = event_time.push(buffer, columns)
        parts = [ready]
        if first + cut >= len(values):
            buffer, rest = event_time.flush(buffer)
            parts.append(rest)
        for part in parts:
            slots = part.keys.spread(np.array([ord(name) - 97 for name in part.keys.names], np.int32))
            outcome = event_time.admit(state, slots, part).outcome
            found += zip(part.offsets.tolist(), outcome.tolist(), strict=True)
        buffer = event_time.load(PLACE, event_time.dump(buffer))
    return [outcome for _, outcome in sorted(found)]


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_a_clock_that_is_ahead_lets_the_others_be_reordered(cut):
    ordered = by_arrival(
        (0, steady("a", range(0, 3600, 20))),
        (0, steady("b", range(0, 3600, 20))),
        (600, steady("c", range(600, 3000, 20), behind=-2 * HOUR)),
    )
    rows = [row for row, event in enumerate(ordered) if event[0] == "a"]
    for one, other in zip(rows[::2], rows[1::2], strict=False):
        ordered[one], ordered[other] = ordered[other], ordered[one]
    assert set(reordered(ordered, cut)) == {SCORED}


def test_a_series_that_goes_on_alone_moves_the_clock():
    events = [
        *steady("a", range(0, 600, 20)),
        *steady("b", range(0, 600, 20)),
        *steady("b", range(7200, 7800, 20)),
    ]
    event_time = EventTimeProcessor(stream(FORM, lateness="30s"))
    decoder = make_decoder("plant", stream(FORM, lateness="30s"))
    values = [json.dumps({"s": name, "t": T + at, "v": value}).encode() for name, at, value in events]
    buffer, _ = event_time.push(event_time.empty(PLACE), decoder.decode(records(values)).columns)
    assert buffer.watermark_ns == (T + 7780 - 30) * 10**9
