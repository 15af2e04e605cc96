"""Late points around open anomalies, damaged snapshots, checkpoints and wrong clocks.

Each ends with the verdicts and with the states of the order of time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.services import series_revision, state_checkpoints
from pipeline.services.series_replay import SeriesReplay
from tests.faults.feed import record
from tests.support.late_points import LateBench, check_equal

ROWS = 400
#: Second at which something happens; the quantities that the detector learns are settled before.
EVENT = 300
SETTINGS: dict[str, Any] = {
    "lateness": "0s",
    "duplicates": "last",
    "limits": {"v": {"min": 0, "max": 100}},
}

Make = Callable[..., LateBench]


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_revision, "FLUSH_SECONDS", 0.0)


@pytest.fixture
def make(tmp_path: Path, sqlite_template: Path) -> Iterator[Make]:
    made: list[LateBench] = []

    def one(values: Sequence[bytes], **settings: Any) -> LateBench:
        made.append(LateBench(tmp_path / str(len(made)), sqlite_template, values, **SETTINGS | settings))
        made[-1].begin()
        return made[-1]

    yield one
    for bench in made:
        bench.close()


def points(**changes: float) -> list[bytes]:
    """Return a record a second; ``changes``: other values, by ``sNNN``."""
    values = 50 + np.random.default_rng(7).normal(size=ROWS)
    return [record("a", second, changes.get(f"s{second}", values[second])) for second in range(ROWS)]


def moved(ordered: Sequence[bytes], late: int, to: int) -> list[bytes]:
    """Return the records with the one of second ``late`` after that of second ``to``."""
    return [*ordered[:late], *ordered[late + 1 : to + 1], ordered[late], *ordered[to + 1 :]]


def check(make: Make, live: LateBench, ordered: Sequence[bytes], **settings: Any) -> None:
    """Read and revise the rest, and compare."""
    live.read_until(len(live.logs[0].values))
    live.revise_all()
    right = make(ordered, **settings)
    right.read_until(len(ordered))
    check_equal(live, right)


def test_a_late_point_moves_the_peak_of_an_anomaly_that_had_ended_before_it(make: Make):
    ordered = points(s60=200.0, s61=210.0, s62=260.0)
    live = make(moved(ordered, 62, 110))
    check(make, live, ordered)
    (found,) = live.anomalies()
    assert (found.points, found.observed) == (3, [260.0])


def test_a_late_point_ends_an_anomaly_that_is_open(make: Make):
    """With it there are so many rows without a flag that the anomaly is over."""
    ordered = points(s60=200.0)
    live = make(moved(ordered, 65, 72))
    live.read_until(73)
    assert [one.state.value for one in live.anomalies()] == ["open"]
    live.revise_all()
    assert [one.state.value for one in live.anomalies()] == ["closed"]
    check(make, live, ordered)


def test_a_revision_is_counted(make: Make):
    live = make(moved(points(s60=200.0), 65, 72))
    live.read_until(73)
    live.prepare()
    assert metric(live, "late_points_waiting") == 1
    live.revise_all()
    live.prepare()
    assert (metric(live, "late_points_waiting"), metric(live, "late_points_oldest_seconds")) == (0, 0)
    assert metric(live, "revised_series_total") == 1
    kinds = {
        kind: metric(live, "revised_anomalies_total", kind=kind) for kind in ("new", "revised", "retracted")
    }
    assert kinds == {"new": 0, "revised": 1, "retracted": 0}


def metric(bench: LateBench, name: str, **labels: str) -> float | None:
    return bench.metrics.registry.get_sample_value(f"forewatch_{name}", {"stream": "plant"} | labels)


def test_an_open_anomaly_goes_on_with_the_numbers_of_the_points_after_a_crash(make: Make):
    """Two deviations are as far from each other as one anomaly allows; a late point came before both."""
    ordered = points(s60=200.0, s72=200.0)
    live = make(moved(ordered, 50, 63))
    live.read_until(64)
    live.revise_all()
    live.begin()
    check(make, live, ordered)
    assert [one.points for one in live.anomalies()] == [2]


def test_late_points_correct_a_state_that_was_made_again(make: Make):
    """A damaged snapshot is replaced by the records in the order of arrival."""
    ordered = points(**{f"s{second}": 90.0 for second in (*range(200, 240), *range(385, ROWS))})
    live = make([*ordered[:200], *ordered[240:EVENT], *ordered[200:240], *ordered[EVENT:]])
    live.read_until(EVENT)
    live.revise_all()
    live.damage_snapshot()
    live.begin()
    live.drain(live.running)
    assert live.pending() == 40
    check(make, live, ordered)


def test_a_replaced_point_is_not_late(make: Make):
    ordered = points()
    wrong = record("a", EVENT, 500.0)
    live = make([*ordered[:EVENT], wrong, *ordered[EVENT:]], lateness="3s")
    check(make, live, ordered, lateness="3s")
    assert (live.late(), live.position().counts.duplicate) == ([], 1)


def test_points_that_came_between_two_revisions_are_not_lost(make: Make):
    """The second revision was prepared before the first one was applied, which ends its watch."""
    ordered = points(s120=200.0)
    rest = [one for second, one in enumerate(ordered) if second not in (50, 60, 70)]
    start = [*rest[:100], ordered[50], *rest[100:105], ordered[60]]
    live = make([*start, *rest[105:130], ordered[70], *rest[130:]])
    live.read_until(101)
    live.prepare()
    live.read_until(len(start))
    live.prepare()
    live.apply()
    live.read_until(len(start) + 15)
    live.read_until(len(start) + 26)  # the last late point begins another watch
    live.apply()
    (found,) = live.anomalies()
    check(make, live, ordered)
    assert live.anomalies()[0].revision == found.revision, "it was never retracted"


@pytest.mark.parametrize("behind_s", [0, 10_000])
def test_a_checkpoint_that_lacks_a_late_point_is_not_used_after_its_revision(
    make: Make, monkeypatch: pytest.MonkeyPatch, behind_s: int
):
    """The clock of the process that revises is right, or behind that of the checkpoint."""
    monkeypatch.setattr(state_checkpoints, "CHECKPOINT_EVERY_NS", 1)
    monkeypatch.setattr(state_checkpoints, "kept_checkpoints", lambda found, *rest: set(found))
    ordered = points(**{f"s{second}": 90.0 for second in range(250, 260)})
    first = [*ordered[:250], *ordered[260:EVENT], *ordered[250:260]]
    live = make([*first, *ordered[EVENT:330], *ordered[331:ROWS], ordered[330]])
    live.read_until(200)
    live.snapshot()
    live.prepare()  # the checkpoint of 200 points
    live.read_until(EVENT)
    live.snapshot()
    live.prepare()  # the one without the late points
    monkeypatch.setattr(state_checkpoints, "CHECKPOINT_EVERY_NS", 10**15)
    clock = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: clock() - behind_s * 10**9)
    live.revise_all()
    fed: list[int] = []
    feed = SeriesReplay.feed

    def counted(replay: SeriesReplay, some: Any, *pause: Any) -> None:
        fed.append(len(some))
        feed(replay, some, *pause)

    monkeypatch.setattr(SeriesReplay, "feed", counted)
    check(make, live, ordered)
    assert max(fed) == ROWS - 200
