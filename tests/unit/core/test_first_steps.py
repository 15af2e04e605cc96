"""First steps: every cause has one, and it names what the anomaly states."""

from __future__ import annotations

from dataclasses import replace

import pytest

from detectors.base import CAUSES
from pipeline.core.first_steps import FIRST_STEPS, first_step
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
    assert first_step(replace(one, points=2), "12:30 CET").startswith("Look for what changed at 12:30 CET")
