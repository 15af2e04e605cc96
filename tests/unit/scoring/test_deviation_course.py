"""Extremes of a deviation, the value at its end, and their stored form."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import create_engine, update

from pipeline.core.types import Anomaly, DeviationCourse
from storage.results import anomalies
from storage.tables.stream import AnomalyRow, Base
from tests.unit.scoring.test_usual_range import IN, PROVENANCE, Row, scored, tracker

FIRST = 1000


def told(rows: list[Row | None], values: list[float], cut: int = 100) -> Anomaly:
    """Return the only anomaly of rows whose first channel has these values."""
    found, follower = {}, tracker()
    for start in range(0, len(rows), cut):
        batch = scored(rows[start : start + cut], FIRST + start)
        batch.points.values[:, 0] = values[start : start + cut]
        last = np.array([FIRST + min(start + cut, len(rows)) - 1])
        found |= {a.id: a for a in follower.advance(batch, PROVENANCE, last)}
    (one,) = found.values()
    return one


@pytest.mark.parametrize("cut", [100, 1, 5])
def test_extremes_are_those_of_readings_outside_and_the_last_value_that_of_the_end(cut: int) -> None:
    rows = [Row("unusual_value", 20), Row("unusual_value", -30), IN, Row("unusual_step", 90), Row(channel=1)]
    values = [20.0, -30.0, 5.0, 90.0, 99.0] + [float(n) for n in range(16)]
    one = told([*rows, *[IN] * 16], values, cut)
    assert one.course == DeviationCourse(lowest=-30.0, highest=90.0, last=11.0)


def test_a_later_anomaly_in_the_same_batch_leaves_the_end_of_the_first_one() -> None:
    rows: list[Row | None] = [Row(), *[IN] * 20, Row()]
    batch = scored(rows, FIRST)
    batch.points.values[:, 0] = np.arange(len(rows))
    first, second = tracker().advance(batch, PROVENANCE, np.array([FIRST + len(rows) - 1]))
    assert first.course is not None
    assert second.course is not None
    assert (first.course.last, second.course.last) == (12.0, None)


def test_a_missing_value_at_the_end_is_not_known() -> None:
    one = told([Row(), *[IN] * 12], [20.0] + [np.nan] * 12)
    assert one.course is not None
    assert one.course.last is None


def test_the_farthest_reading_keeps_its_time() -> None:
    one = told([Row("relation", 20), *[IN] * 5, Row("unusual_value", 90)], [3.0] * 7)
    assert one.course is not None
    assert one.course.farthest_ns == (FIRST + 6) * 60


def test_a_value_is_not_told_by_a_change() -> None:
    one = told([Row("unusual_value", 20), *[IN] * 5, Row("unusual_step", 90)], [20.0, *[3.0] * 6])
    assert one.context is not None
    assert one.context.farthest is None


def test_a_course_is_stored_and_that_of_a_later_version_is_read() -> None:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    one = told([Row(), *[IN] * 12], [20.0] * 13)
    with engine.begin() as connection:
        anomalies.upsert(connection, [one])
        (stored,) = anomalies.query(connection)
        assert stored.course == one.course
        later = {"uncertain_ns": 5, "key_of_a_later_version": 1}
        connection.execute(update(AnomalyRow).values(course=later))
        assert anomalies.query(connection)[0].course == DeviationCourse(5)
        connection.execute(update(AnomalyRow).values(course=None))
        assert anomalies.query(connection)[0].course is None
