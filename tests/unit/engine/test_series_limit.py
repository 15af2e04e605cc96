"""A stream with more series than ``max_series``: what is scored, counted, reported and stored."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from pipeline.core.types import FaultKind
from storage.tables.stream import SeriesStateRow
from tests.faults.feed import Log, record

MOST = 10


def changing_ids(count: int, first: int = 0) -> Log:
    """Records of 4 steady series, and between them one series for each record."""
    values = []
    for number in range(count):
        second = first + number // 8
        values.append(record(f"steady-{number % 4}", second, 20.0 + number % 5))
        values.append(record(f"id-{first}-{number}", second, 20.0))
    return Log(values, ["scored"] * len(values))


def open_faults(bench) -> list:
    return [fault for fault in bench.faults() if fault.kind is FaultKind.SERIES_LIMIT and not fault.ended_ns]


@pytest.mark.parametrize(
    "changes", [{}, {"lateness": "0s"}, {"aggregate": {"every": "5s", "values": {"v": "mean"}}}]
)
def test_an_id_that_changes_with_every_record_is_bounded(make, changes):
    log = changing_ids(2000)
    bench = make([log], max_series=MOST, engine={"max_batch": 100}, **changes)
    bench.fill()
    engine = bench.drain(bench.engine())
    counts = bench.position().counts
    assert len(engine.parts.scorer.series) <= MOST
    assert counts.read() == len(log.values), "every record has an outcome"
    assert counts.filtered == 2000 - (MOST - 4)
    metric = engine.parts.metrics._metrics.registry.get_sample_value
    assert metric("forewatch_series_limit_records_total", {"stream": "plant"}) == counts.filtered
    (fault,) = open_faults(bench)
    assert f"stream plant has reached max_series ({MOST})" in fault.message
    assert "id-0-6, id-0-7, id-0-8" in fault.message


def test_all_partitions_share_the_limit(make):
    logs = [changing_ids(300), changing_ids(300, first=1000)]
    bench = make(logs, max_series=MOST)
    bench.fill()
    engine = bench.drain(bench.engine())
    assert len(engine.parts.scorer.series) <= MOST
    assert [bench.position(n).counts.read() for n in (0, 1)] == [600, 600]


def test_below_the_limit_nothing_changes(make, logs):
    bench = make(logs, max_series=1000)
    bench.fill()
    bench.drain(bench.engine())
    bench.check()
    assert open_faults(bench) == []


def test_a_restart_gives_the_same_series(make):
    log = changing_ids(500)
    bench = make([log], max_series=MOST, engine={"max_batch": 50}, storage={"snapshot_every": "0s"})
    bench.fill(lambda log: len(log.values) // 2)
    before = set(bench.drain(bench.engine()).parts.scorer.names())
    bench.fill()
    engine = bench.drain(bench.engine())
    assert set(engine.parts.scorer.names()) == before
    assert bench.position().counts.read() == len(log.values)


def test_the_fault_ends_when_series_become_idle_and_the_database_is_bounded(make):
    """Rounds of new ids, so late that the series of the round before are idle."""
    rounds = [changing_ids(100, first=number * 100_000) for number in range(5)]
    log = Log([v for one in rounds for v in one.values], ["scored"] * 1000)
    bench = make(
        [log], max_series=MOST, idle_after="1h", storage={"snapshot_every": "0s"}, lateness="0s", future=None
    )
    engine = bench.engine()
    for number in range(1, 6):
        bench.fill(lambda log, number=number: 200 * number)
        bench.drain(engine)
    assert len(open_faults(bench)) == 1
    # Steady series alone, a day later: the others are idle and leave the memory.
    late = [record(f"steady-{n % 4}", 1_000_000 + n // 4, 20.0) for n in range(40)]
    bench.log.extend(late)
    bench.drain(engine)
    bench.log.extend([record("steady-0", 1_000_100, 20.0)])
    bench.drain(engine)
    assert open_faults(bench) == []
    with bench.database.read() as connection:
        stored = connection.execute(select(func.count()).select_from(SeriesStateRow)).scalar_one()
    assert 0 < stored <= MOST
    assert bench.position().counts.read() == 1041
