"""First steps: every cause has one, and it names what the anomaly states."""

from __future__ import annotations

from dataclasses import replace

import pytest

from detectors.base import CAUSES
from pipeline.core.farthest_reading import begin_texts
from pipeline.core.first_steps import FIRST_STEPS, first_step
from pipeline.core.types import AnomalyState, DeviationContext
from tests.unit.alerts.test_usual_range_text import anomaly


def test_every_cause_has_a_first_step():
    assert set(FIRST_STEPS) == set(CAUSES) - {"none"}


@pytest.mark.parametrize("cause", CAUSES)
def test_a_first_step_is_one_sentence_or_two_without_gaps(cause):
    text = first_step(replace(anomaly(cause, 1510, 1440, 1460), event=None), "12:30 CET")
    assert text.endswith(".")
    assert "{" not in text
    assert len(text) < 220


def test_a_broken_relation_names_the_channels_that_are_as_expected():
    one = replace(anomaly("relation", -30, -10, 12), channels=["load", "rpm", "flow"])
    one = replace(
        one, observed=[1.0, -30, 9], lower=[0.0, -10, 2], upper=[3.0, 12, 4], contribution=[0.0, 1.0, 0.0]
    )
    assert first_step(one, "12:30 CET").startswith("Compare rpm with load since 12:30 CET")
    both_left = replace(one, observed=[8.0, -30, 9])
    assert first_step(both_left, "12:30 CET").startswith("Compare rpm with load and flow since")


def test_a_single_reading_is_first_compared_with_the_next_one():
    one = replace(anomaly("unusual_value", 1510, 1440, 1460), points=1)
    assert first_step(one, "12:30 CET").startswith(
        "One reading so far: see whether the next one is usual again."
    )
    ended = replace(one, state=AnomalyState.CLOSED)
    assert first_step(ended, "12:30 CET").startswith(
        "One reading raised this alarm; see in the chart whether the next ones were usual. If it comes again:"
    )
    assert first_step(replace(one, points=2), "12:30 CET").startswith("Look for what changed at 12:30 CET")


@pytest.mark.parametrize(
    ("change", "is_split"),
    [(-0.5, True), (-0.498, True), (1.01, True), (-0.75, True), (-0.07, False), (-0.46, False)],
)
def test_a_price_that_changes_by_a_whole_factor_may_be_split(change: float, is_split: bool):
    one = replace(about("price", "unusual_step", change, -0.02, 0.02), relative=True)
    assert ("a split at 12:30" in first_step(one, "12:30")) is is_split


def about(kind, cause, *numbers, value=None, mean=None):
    return replace(anomaly(cause, *numbers), context=DeviationContext("all_hours", value, mean, kind=kind))


@pytest.mark.parametrize(
    ("one", "begin"),
    [
        (
            about("price", "unusual_value", 8251, 82, 83),
            "Compare rpm with a second source: 8,251 is about 100 times",
        ),
        (
            about("price", "unusual_value", 90, 82, 83),
            "Compare rpm with a second source: a wrong quote, or news",
        ),
        (about("price", "flatline", 28, 1, 19), "Check whether trading was halted at 12:30"),
        (about("price", "unusual_step", 5, -2, 2), "Compare rpm with a second source"),
        (
            about("measurement", "unusual_value", 90, 82, 83),
            "Look for what changed at 12:30: maintenance or a release",
        ),
        (about("count", "unusual_noise", 5, 1, 2), "Look at rpm since 12:30 in the chart: retries"),
        (about("volume", "unusual_value", 90, 10, 40), "Look for news at 12:30, or for one large trade"),
        (about("volume", "unusual_value", 0, 10, 40, value=0.0), "Check whether trading was halted at 12:30"),
        (
            about("price", "trend", 0.06, -0.02, 0.02),
            "Compare rpm with a second source, then look for news at 12:30",
        ),
    ],
)
def test_a_price_and_a_count_have_advice_of_their_own(one, begin):
    text = first_step(one, "12:30")
    assert text.startswith(begin)
    assert "loose contact" not in text


def test_a_drift_is_rising_and_a_trend_has_a_rate():
    drift = about("measurement", "unusual_value", 71.8, 65.9, 71.4, value=71.8, mean=70.0)
    assert first_step(drift, "12:50").startswith(
        "rpm is rising (1.8 above its value smoothed over about 8 readings): look for what drives it "
        "since 12:50"
    )
    jump = about("measurement", "unusual_value", 90, 65.9, 71.4, value=90.0, mean=70.0)
    assert first_step(jump, "12:50").startswith("Look for what changed at 12:50")
    trend = about("price", "unusual_noise", 0.00209, 0, 0.00195, value=86.6, mean=85.35)
    trend = replace(trend, relative=True, every_ns=300_000_000_000)
    assert first_step(trend, "14:20").startswith(
        "rpm is rising by about 2.5 % an hour: look for what drives it"
    )


def test_a_mean_can_have_begun_earlier_by_its_window():
    one = replace(anomaly("unusual_level", 68.8, 66.9, 67.9), onset_ns=20 * 60_000_000_000)
    assert begin_texts(one, "") == ("00:20 UTC", "00:12 UTC")
    assert first_step(one, *begin_texts(one, "")).startswith(
        "Look for what changed between 00:12 UTC and 00:20 UTC and stayed"
    )
    assert begin_texts(replace(one, cause="unusual_value"), "") == ("00:20 UTC", "")
