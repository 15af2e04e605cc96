"""Random late points, snapshots, crashes and clocks: everything ends as in the order of time.

The long version: ``python -m pytest -q -m long tests/integration/test_random_revisions.py``.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from pipeline.engine import member_partitions
from pipeline.services import series_revision, state_checkpoints
from tests.support.late_points import LateBench, check_equal, random_late_points

SECONDS = 150
LONG_SECONDS = 300


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_revision, "FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(member_partitions, "REACQUIRE_SECONDS", 0.0)


@pytest.mark.parametrize("seed", range(6))
def test_everything_ends_as_in_the_order_of_time(tmp_path, sqlite_template, monkeypatch, seed):
    check_seed(tmp_path, sqlite_template, monkeypatch, seed, SECONDS)


@pytest.mark.long
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", range(100, 300))
def test_everything_ends_as_in_the_order_of_time_long(tmp_path, sqlite_template, monkeypatch, seed):
    check_seed(tmp_path, sqlite_template, monkeypatch, seed, LONG_SECONDS)


def check_seed(
    folder: Path, template: Path, monkeypatch: pytest.MonkeyPatch, seed: int, seconds: int
) -> None:
    rng = random.Random(seed)
    corrections = rng.random() < 0.5
    points = random_late_points(rng, seconds, corrections=corrections)
    settings = {
        "lateness": rng.choice(("0s", "3s")),
        "duplicates": "last" if corrections else "first",
        "limits": {"v": {"min": 0, "max": 100}},
    }
    if rng.random() < 0.5:
        monkeypatch.setattr(state_checkpoints, "CHECKPOINT_EVERY_NS", 1)
        monkeypatch.setattr(state_checkpoints, "kept_checkpoints", lambda found, *rest: set(found))
    right = LateBench(folder / "right", template, points.ordered, **settings)
    live = LateBench(folder / "live", template, points.arrived, **settings)
    try:
        right.begin()
        right.read_until(len(points.ordered))
        live.begin()
        disturb(live, rng, len(points.arrived), monkeypatch)
        live.revise_all()
        check_equal(live, right)
    finally:
        right.close()
        live.close()


def disturb(live: LateBench, rng: random.Random, records: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read all records, with revisions, snapshots, crashes, damage and wrong clocks in between."""
    clock = time.time_ns
    read = 0
    while read < records:
        read = min(records, read + rng.randrange(1, 25))
        live.read_until(read)
        if rng.random() < 0.25:
            live.prepare()
        if rng.random() < 0.25:
            live.apply()
        if rng.random() < 0.15:
            live.snapshot()
        if rng.random() < 0.05:
            if rng.random() < 0.3:
                live.damage_snapshot()
            live.begin()
            live.drain(live.running)
        if rng.random() < 0.1:
            ahead = rng.randrange(-40, 40) * 10**9
            monkeypatch.setattr(time, "time_ns", lambda ahead=ahead: clock() + ahead)
