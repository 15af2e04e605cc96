"""Amounts of data in units that people read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline.core.data_units import data_unit, in_data_unit
from pipeline.core.types import DeviationContext, DeviationCourse
from pipeline.core.usual_range_text import relation_text, usual_range_text
from tests.unit.alerts.test_usual_range_text import anomaly


@pytest.mark.parametrize(
    ("unit", "size", "shown", "factor"),
    [
        ("B", 9_999.0, "B", 1.0),
        ("B", 36_780_000.0, "MB", 1e-6),
        ("bytes", -36_780_000.0, "MB", 1e-6),
        ("bit/s", 2.5e9, "Gbit/s", 1e-9),
        ("bps", 12_000.0, "kbps", 1e-3),
        ("B", 1e30, "EB", 1e-18),
        ("B", float("nan"), "B", 1.0),
        ("°C", 1e6, "°C", 1.0),
        ("1/min", 48_000.0, "1/min", 1.0),
        (None, 1e6, None, 1.0),
    ],
)
def test_only_large_amounts_of_data_have_a_prefix(unit, size, shown, factor):
    assert data_unit(unit, size) == (shown, pytest.approx(factor))


def test_all_numbers_of_a_sentence_have_one_unit():
    one = anomaly("unusual_value", 36_780_000, 524_000, 12_000_000)
    assert usual_range_text(one, "B") == "rpm is 36.8 MB, usual 0.5 to 12 MB"
    assert one.observed[one.leading_channel] == 36_780_000  # the stored numbers stay


def test_the_course_of_an_anomaly_has_the_unit_of_its_sentence():
    context = DeviationContext("none", 2.0e6, 1.5e6, implied=1.0e6)
    course = DeviationCourse(lowest=1e3, highest=4e6, last=None)
    one = replace(anomaly("unusual_value", 2_000_000, 0, 1_000_000), context=context, course=course)
    scaled, unit = in_data_unit(one, "B")
    assert unit == "MB"
    assert scaled.context == replace(context, value=2.0, recent_mean=1.5, implied=1.0)
    assert scaled.course == replace(course, lowest=0.001, highest=4.0)


def test_a_relation_in_shares_keeps_its_shares():
    context = DeviationContext("none", 4.0e6, 3e6, partner="flows", partner_value=54, implied=1.0e6)
    one = replace(anomaly("relation", 3.0, -0.5, 0.5), context=context, relative=True)
    scaled, unit = in_data_unit(one, "B")
    assert (unit, scaled.observed, scaled.upper) == ("MB", one.observed, one.upper)
    assert scaled.context is not None
    assert scaled.context.implied == 1.0
    assert relation_text(one, {"rpm": "B"}) == "beside flows of 54, rpm is usually near 1 MB, not 4 MB"


def test_a_value_that_repeats_keeps_its_digits():
    one = replace(anomaly("flatline", 8, float("nan"), 1), context=DeviationContext("none", 3_827_787, 1e6))
    assert in_data_unit(one, "B") == (one, "B")
