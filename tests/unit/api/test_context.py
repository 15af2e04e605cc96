"""Answers that pages share: made once, no older than asked, and none holds up another."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.api.context import AnswerCache

PATIENCE_SECONDS = 120


def test_an_answer_that_takes_long_holds_up_only_those_who_wait_for_it():
    answers, going_on, asked = AnswerCache(4), threading.Event(), threading.Event()

    def slow() -> str:
        asked.set()
        assert going_on.wait(PATIENCE_SECONDS)
        return "year"

    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(answers.get, "year", slow) for _ in range(3)]
        assert asked.wait(PATIENCE_SECONDS)
        assert pool.submit(answers.get, "hour", lambda: "hour").result(PATIENCE_SECONDS) == "hour"
        going_on.set()
        assert [one.result(PATIENCE_SECONDS) for one in waiting] == ["year"] * 3


def test_an_answer_is_made_once_for_all_who_wait_for_it():
    answers, made, all_there = AnswerCache(4), [], threading.Barrier(8)

    def get() -> int:
        all_there.wait(PATIENCE_SECONDS)
        return answers.get("fleet", lambda: made.append(1) or len(made))

    with ThreadPoolExecutor(8) as pool:
        assert [one.result() for one in [pool.submit(get) for _ in range(8)]] == [1] * 8


def test_an_answer_whose_making_began_before_a_change_is_made_again():
    answers, values = AnswerCache(4), iter(range(10))

    def made_during_a_change() -> int:
        answers.expire()
        return next(values)

    assert answers.get("fleet", made_during_a_change) == 0
    assert answers.get("fleet", lambda: next(values)) == 1
    assert answers.get("fleet", lambda: next(values)) == 1


def test_an_answer_that_failed_is_made_again():
    answers = AnswerCache(4)
    with pytest.raises(ZeroDivisionError):
        answers.get("fleet", lambda: 1 // 0)
    assert answers.get("fleet", lambda: 1) == 1


def test_the_answer_that_was_not_asked_for_longest_goes_first():
    answers, made = AnswerCache(2), []
    for key in ("a", "b", "a", "c", "a", "b"):
        answers.get(key, lambda key=key: made.append(key))
    assert made == ["a", "b", "c", "b"]
