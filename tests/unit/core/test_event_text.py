"""Sentences on alarms in sequences of events."""

from __future__ import annotations

import pytest

from pipeline.core.event_text import event_statement

EXPECTED = [("cool", 0.71), ("adjust", 0.28), ("dry", 0.001)]


@pytest.mark.parametrize(
    ("cause", "probability", "sentence"),
    [
        ("unexpected_event", 9e-5, "“drain” came after “stir”, “sample”, as it does once in 11,000 cases"),
        ("unexpected_event", 0.03, "“drain” came after “stir”, “sample”, as it does in 3 % of cases"),
        (
            "unexpected_event",
            0.0,
            "“drain” came after “stir”, “sample”, as it does less than once in a million cases",
        ),
        ("new_event", 0.0, "“drain” came after “stir”, “sample” and was never seen before"),
    ],
)
def test_the_sentence_says_what_came_how_often_it_does_and_what_was_expected(cause, probability, sentence):
    told = event_statement(cause, "drain", probability, ["heat", "stir", "sample"], EXPECTED)
    assert told == f"{sentence}; usual here: “cool” (71 % of cases) or “adjust” (28 %)"


def test_a_session_that_ended_names_the_step_that_was_due():
    told = event_statement("missing_event", "", 2.5e-3, ["heat", "stir", "sample"], [("cool", 0.998)])
    assert told == (
        "no event came after “stir”, “sample”, which happens once in 400 cases; "
        "“cool” (more than 99 % of cases) was due"
    )


def test_the_first_event_of_a_session_has_none_before_it():
    told = event_statement("unexpected_event", "open", 0.001, [], [])
    assert told == "“open” came first, as it does once in 1,000 cases"
