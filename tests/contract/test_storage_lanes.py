"""Spans of lanes on both databases: their order, their limit, and the index that finds them."""

from __future__ import annotations

import json

from sqlalchemy import text

from pipeline.core.types import Severity
from storage.results import anomalies, lanes
from tests.support.alerting import NOON, SECOND, anomaly, closed


def test_spans_are_those_that_end_in_the_range_with_labels_and_rank(database):
    old = closed(anomaly("b/1", NOON - 9000 * SECOND))
    lasting = anomaly("b/2", NOON - 9000 * SECOND, end_ns=NOON, severity=Severity.CRITICAL)
    new = closed(anomaly("b/3", NOON, severity=Severity.INFO))
    with database.begin() as connection:
        anomalies.upsert(connection, [old, lasting, new, anomaly("b/4", stream="other")])
    with database.read() as connection:
        found = lanes.spans(connection, "plant", NOON - SECOND, 10)
        assert [(one.series, one.severity, one.open) for one in found] == [
            ("b/3", 0, False),
            ("b/2", 3, True),
        ]
        assert json.loads(found[0].labels) == new.labels
        assert (found[1].start_ns, found[1].end_ns) == (lasting.start_ns, NOON)
        assert [one.series for one in lanes.spans(connection, "plant", 0, 1)] == ["b/3"]
        assert lanes.count_open(connection) == 2
        assert lanes.newest_end_ns(connection, "plant") == new.end_ns
        assert lanes.newest_end_ns(connection, "nowhere") is None


def test_spans_of_a_short_range_are_found_by_an_index(database):
    with database.begin() as connection:
        anomalies.upsert(connection, [closed(anomaly(f"b/{n}", NOON + n * SECOND)) for n in range(3000)])
    where = "WHERE stream = 'plant' AND end_ns >= :since"
    query = f"SELECT series FROM anomalies {where} ORDER BY end_ns DESC LIMIT 9"
    explain = "EXPLAIN QUERY PLAN " if database.url.drivername.startswith("sqlite") else "EXPLAIN "
    with database.begin() as connection:
        if explain == "EXPLAIN ":
            connection.execute(text("ANALYZE anomalies"))
        plan = "\n".join(str(row[-1]) for row in connection.execute(text(explain + query), {"since": NOON}))
    assert "ix_anomalies_stream_end_ns" in plan
