"""First row, last row and readings of a deviation, beside the flagged rows that name the anomaly."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.core.types import Anomaly
from tests.unit.scoring.test_usual_range import IN, PROVENANCE, Row, scored, tracker

EVERY_NS = 60
FIRST = 1000  # event times begin above 0


def told(
    rows: list[Row | None], runs: list[int] | None = None, alone: list[bool] | None = None, cut: int = 100
) -> Anomaly:
    """Return the only anomaly of rows in batches of ``cut``."""
    whole, found, follower = len(rows), {}, tracker()
    for start in range(0, whole, cut):
        at = slice(start, start + cut)
        batch = scored(rows[at], FIRST + start)
        batch.verdicts.run_outside = np.array((runs or [0] * whole)[at], np.int32)
        batch.verdicts.alone = np.array((alone or [True] * whole)[at], np.bool_)
        last = np.array([FIRST + min(start + cut, whole) - 1])
        found |= {a.id: a for a in follower.advance(batch, PROVENANCE, last)}
    (one,) = found.values()
    return one


def span(one: Anomaly) -> tuple[int, int, int]:
    """Return first row, last row and readings."""
    first, last = ((ns // EVERY_NS) - FIRST for ns in (one.began_ns, one.lasted_until_ns))
    return first, last, one.readings


@pytest.mark.parametrize("cut", [100, 1, 3])
def test_a_deviation_begins_with_the_first_row_outside(cut: int) -> None:
    one = told([IN, IN, Row(), Row()], [1, 2, 3, 4], cut=cut)
    assert span(one) == (0, 3, 4)
    assert (one.start_ns // EVERY_NS - FIRST, one.points) == (2, 2)
    assert one.id == Anomaly.identify("plant", "s0", (FIRST + 2) * EVERY_NS)


def test_a_standstill_begins_with_its_first_equal_value() -> None:
    one = told([IN] * 24 + [Row("flatline", 20.0), Row("flatline", 21.0)], [0] * 20 + [1, 2, 3, 4, 5, 6])
    assert span(one) == (4, 25, 22)


@pytest.mark.parametrize("cut", [100, 1])
def test_a_mean_that_stays_outside_does_not_lengthen_a_deviation(cut: int) -> None:
    rows: list[Row | None] = [Row("unusual_level", size) for size in (20, 40, 60, 50, 40, 30, 20)]
    one = told(rows, [1, 2, 3, 4, 5, 6, 7], [True, True, True, False, False, False, False], cut)
    assert span(one) == (0, 2, 3)
    assert (one.end_ns // EVERY_NS - FIRST, one.points) == (6, 7)


@pytest.mark.parametrize(
    "back",
    [Row("forecast", -60), Row("unusual_step", -60), Row("unusual_noise", 40), Row("unusual_value", -11)],
)
def test_the_way_back_does_not_lengthen_a_deviation(back: Row) -> None:
    first: list[Row | None] = [Row("unusual_value", 60), Row("unusual_value", 60)]
    assert span(told([*first, back])) == (0, 1, 2)


def test_an_excursion_by_two_steps_ends_before_the_step_back() -> None:
    assert span(told([Row("unusual_step", -50), IN, IN, Row("unusual_step", 50)])) == (0, 2, 3)


def test_both_sides_of_an_oscillation_belong_to_it() -> None:
    sizes = [60.0, -50.0, 40.0, -60.0]
    rows: list[Row | None] = [Row("unusual_value", size) for size in sizes]
    batch_values = [Row("unusual_step", size) for size in sizes]
    assert span(told([*batch_values[:1], Row("unusual_noise", 30), *batch_values[2:3]])) == (0, 2, 3)
    assert told(rows).points == 4


def test_a_series_without_a_cadence_begins_with_the_flagged_row() -> None:
    batch = scored([IN, Row()], FIRST)
    batch.points.every[:] = 0
    batch.verdicts.run_outside = np.array([1, 2], np.int32)
    (one,) = tracker().advance(batch, PROVENANCE, np.array([FIRST + 1]))
    assert one.began_ns == one.start_ns == (FIRST + 1) * EVERY_NS


def test_an_anomaly_of_an_earlier_version_keeps_the_times_of_its_flagged_rows() -> None:
    follower = tracker()
    (one,) = follower.advance(scored([Row()], FIRST), PROVENANCE, np.array([FIRST]))
    one.onset_ns = one.outside_until_ns = one.span_readings = 0  # as read from its row
    (one,) = follower.advance(scored([Row(), Row()], FIRST + 1), PROVENANCE, np.array([FIRST + 2]))
    assert span(one) == (0, 2, 3)


@pytest.mark.parametrize(("repeated", "first"), [(np.nan, 0), (np.inf, 0), (1e6, 1 - FIRST)])
def test_a_standstill_that_a_detector_states_wrongly_is_no_longer_than_the_series(repeated, first) -> None:
    one = told([Row("flatline", repeated)])
    assert span(one)[0] == first
