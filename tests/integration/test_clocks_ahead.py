"""A clock that is wrong costs its own records only, in a daemon and in a backfill."""

from __future__ import annotations

import csv
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.schema import Config
from pipeline.core.types import Counts
from pipeline.services.backfill import run_backfill
from tests.faults.feed import START_MS, Log, config_tree, record
from tests.faults.stage import Silent
from tests.integration.test_replay_parity import csv_file
from tests.support.engines import Bench

ROWS = 400
#: Rows of the tests with batches of one record: each batch is a transaction.
FEW_ROWS = 120
HOUR = 3600
YEAR = 365 * 24 * HOUR
#: Seconds from the feed's times to the year 2036, and to an hour from now.
TO_2036 = 2_082_758_400 - START_MS / 1000
TO_THE_FUTURE = time.time() - START_MS / 1000 + 2 * HOUR

Points = list[tuple[str, float]]


def in_time(rows: int = ROWS) -> Points:
    return [(name, second) for second in range(rows) for name in "abc"]


def one_ahead(seconds: float, row: int = 300, rows: int = ROWS) -> Points:
    points = in_time(rows)
    points[row] = (points[row][0], seconds)
    return points


def jumps_back() -> Points:
    """The clock of one series is five hours ahead for a while, and then right."""
    return [(s, t + 5 * HOUR if s == "a" and 200 <= t < 230 else t) for s, t in in_time()]


def begins_again() -> Points:
    return [(s, t - 5 * HOUR if s == "a" and t >= 300 else t) for s, t in in_time()]


def behind() -> Points:
    return [(s, t - 5 * HOUR if s == "a" else t) for s, t in in_time()]


def all_ahead() -> Points:
    """All series are in the future for a while: a backfill of the future."""
    return [(s, t + TO_THE_FUTURE if 200 <= t < 210 else t) for s, t in in_time()]


#: Points, and the dead and late records that they may cost.
CASES: dict[str, tuple[Points, int, int]] = {
    "year 2036": (one_ahead(TO_2036), 1, 0),
    "three hours ahead": (one_ahead(300 + 3 * HOUR), 1, 0),
    "first record of the partition": (one_ahead(3 * HOUR, row=0), 1, 0),
    "first record in 2036": (one_ahead(TO_2036, row=0), 1, 0),
    "clock that jumps back": (jumps_back(), 30, 0),
    "series that begins again": (begins_again(), 0, ROWS - 300),
    "series hours behind": (behind(), 0, 0),
    "all series ahead": (all_ahead(), 30, 0),
}
#: Points of a clock that is years ahead. No later record is needed to see that.
YEARS_AHEAD: dict[str, tuple[Points, int]] = {
    "one record": (one_ahead(TO_2036, row=90, rows=FEW_ROWS), 1),
    "first record": (one_ahead(TO_2036, row=0, rows=FEW_ROWS), 1),
    "one series only": ([("a", TO_2036 if 60 <= t < 63 else t) for t in range(FEW_ROWS)], 3),
    "one series only, from the first record on": (
        [("a", TO_2036 if t < 3 else t) for t in range(FEW_ROWS)],
        3,
    ),
}
KINDS: dict[str, dict[str, Any]] = {
    "points": {"lateness": "0s"},
    "buffered": {"lateness": "5s"},
    "aggregated": {
        "lateness": "5s",
        "aggregate": {"every": "10s", "values": {"v": "mean"}},
        "every": None,
        "limits": {},
    },
}


@pytest.fixture
def bench(tmp_path: Path, sqlite_template: Path) -> Iterator[Any]:
    made: list[Bench] = []

    def make(log: Log, **settings: Any) -> Bench:
        made.append(Bench(tmp_path / "live", sqlite_template, [log], **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def outcome(counts: Counts) -> Counter[str]:
    return Counter(dead=counts.dead_lettered, late=counts.late, read=counts.read())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_a_wrong_clock_costs_its_own_records_only(bench, tmp_path, sqlite_template, case, kind):
    points, dead, late = CASES[case]
    values = [record(name, second, 20.0 + number % 7) for number, (name, second) in enumerate(points)]
    wanted = Counter(dead=dead, late=late, read=len(values))

    live = bench(Log(values, ["any"] * len(values)), **KINDS[kind])
    live.fill()
    live.drain(live.engine())
    assert outcome(live.position().counts) == wanted

    path = csv_file(tmp_path / "records.csv", values)
    (tmp_path / "backfill.db").write_bytes(sqlite_template.read_bytes())
    source = {"files": {"paths": [str(path)]}}
    tree = config_tree(f"sqlite:///{tmp_path}/backfill.db", source, **KINDS[kind])
    tree["streams"]["plant"]["format"] = {"csv": {"series": "s", "time": "t", "values": ["v"]}}
    config = Config.model_validate(tree)
    scores = tmp_path / "scores.csv"
    report = run_backfill(config, "plant", [path], None, None, scores, Silent())
    assert outcome(report.counts) == wanted
    if case == "series hours behind":  # it has all its points, or all its intervals, like the others
        each = ROWS // 10 if kind == "aggregated" else ROWS
        with scores.open(newline="") as file:
            assert Counter(row["series"] for row in csv.DictReader(file)) == dict.fromkeys("abc", each)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 7])
@pytest.mark.parametrize("case", YEARS_AHEAD)
def test_a_clock_that_is_years_ahead_costs_its_own_records_only_in_batches_of_any_size(
    bench, kind, batch, case
):
    points, dead = YEARS_AHEAD[case]
    values = [record(name, second, 20.0 + number % 7) for number, (name, second) in enumerate(points)]
    live = bench(Log(values, ["any"] * len(values)), engine={"max_batch": batch}, **KINDS[kind])
    live.fill()
    live.drain(live.engine())
    assert outcome(live.position().counts) == Counter(dead=dead, late=0, read=len(values))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 7])
def test_a_leap_within_the_past_makes_no_other_series_late_in_batches_of_any_size(bench, kind, batch):
    values = [record(name, second, 20.0) for name, second in one_ahead(300 * 24 * HOUR, 90, FEW_ROWS)]
    live = bench(Log(values, ["any"] * len(values)), engine={"max_batch": batch}, **KINDS[kind])
    live.fill()
    engine = live.engine()
    live.drain(engine)
    table = engine.parts.scorer.series
    counted = {table.key(slot): int(table.state["windows"]["seq"][slot]) for slot in range(len(table))}
    each = FEW_ROWS // 10 if kind == "aggregated" else FEW_ROWS
    assert min(counted["b"], counted["c"]) >= each - 6  # the newest wait for the watermark
    assert live.position().counts.late < FEW_ROWS  # those of the series itself
