"""The view of anomalies for SQL tools, the same on both databases."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import text

from pipeline.core.types import AnomalyState
from storage.results import anomalies, labels
from storage.sql.views import ANOMALIES_VIEW
from tests.contract.test_storage_rows import anomaly
from tests.docs.pages import ROOT, blocks

#: Stable: columns may be added, and none may be renamed or removed.
COLUMNS = {
    *("id", "stream", "series", "labels", "state", "severity", "direction", "cause", "channel"),
    *("observed", "expected", "lower", "upper", "ratio", "points", "score", "surprisal"),
    *("started", "ended", "peaked", "updated", "duration_seconds", "end_reason", "event"),
    *("forecaster", "model", "review", "reviewer", "review_comment"),
    *("topic", "partition", "first_offset", "last_offset", "revision", "readings"),
}
NOW_NS = 1_764_028_800_123_456_789


def queries() -> list[str]:
    """Return the queries of the page, in the spelling of SQLite."""
    (block,) = blocks(ROOT / "docs/how-to/write-verdicts.md", "sql")
    return [one for one in block.text.split(";") if one.strip()]


@pytest.fixture
def rows(database):
    """Read the view as mappings by series."""
    one = anomaly("a", NOW_NS, end_ns=NOW_NS + 90 * 10**9, peak_ns=NOW_NS + 10**9, ratio=2.5)
    two = anomaly("b", NOW_NS, contribution=[0.25, 0.75], state=AnomalyState.OPEN)
    gone = anomaly("c", NOW_NS, points=0)
    with database.begin() as connection:
        anomalies.upsert(connection, [one, two, gone])
        labels.put(connection, one.id, "false", "ada", "a test of the pump", NOW_NS)
    with database.read() as connection:
        found = connection.execute(text(f"SELECT * FROM {ANOMALIES_VIEW} ORDER BY series")).mappings().all()
    return one, {row["series"]: dict(row) for row in found}


def test_each_anomaly_is_a_row_without_retracted_ones(rows):
    one, found = rows
    assert list(found) == ["a", "b"]
    assert set(found["a"]) >= COLUMNS
    assert UUID(str(found["a"]["id"])) == one.id
    assert str(found["a"]["id"]) == str(one.id)
    assert (found["a"]["state"], found["b"]["state"]) == ("closed", "open")


def test_the_numbers_are_those_of_the_leading_channel(rows):
    _, found = rows
    a, b = found["a"], found["b"]
    assert (a["channel"], a["observed"], a["expected"], a["lower"], a["upper"]) == (
        *("temperature", 81.5, 20.25, 19.0, 21.5),
    )
    assert (b["channel"], b["observed"], b["lower"]) == ("pressure", None, None)  # inf has no number in JSON
    assert math.isclose(b["upper"], 1.7976931348623157e308)
    assert (a["ratio"], b["ratio"]) == (2.5, None)


def test_times_and_reviews_are_readable(rows):
    a, b = rows[1]["a"], rows[1]["b"]
    started = a["started"] if isinstance(a["started"], datetime) else datetime.fromisoformat(a["started"])
    assert started.replace(microsecond=0) == datetime.fromtimestamp(NOW_NS // 10**9, UTC)
    assert abs(started.microsecond - 123_456) < 1000
    assert float(a["duration_seconds"]) == 90.0
    assert (a["review"], a["reviewer"], a["review_comment"]) == ("false", "ada", "a test of the pump")
    assert b["review"] is None


def test_times_are_those_of_the_deviation(database):
    minute = 60 * 10**9
    times = {"onset_ns": NOW_NS - minute, "outside_until_ns": NOW_NS + 3 * minute, "span_readings": 5}
    one = anomaly("d", NOW_NS, end_ns=NOW_NS + 9 * minute, points=10, **times)
    with database.begin() as connection:
        anomalies.upsert(connection, [one])
    with database.read() as connection:
        (row,) = connection.execute(text(f"SELECT * FROM {ANOMALIES_VIEW}")).mappings().all()
        assert anomalies.get(connection, str(one.id)).readings == 5
    assert (float(row["duration_seconds"]), row["readings"], row["points"]) == (240.0, 5, 10)


def test_the_queries_of_the_page_find_rows(database, rows):
    if database.dialect != "sqlite":
        pytest.skip("the page has the spelling of PostgreSQL in comments")
    with database.read() as connection:
        found = [connection.exec_driver_sql(query).all() for query in queries()]
    assert len(found) == 5
    assert all(found)
    assert [row[1] for row in found[0]] == ["b"]
    assert found[3] == [("plant", 1, 1.0)]
    assert found[4] == [("hall", 2)]
