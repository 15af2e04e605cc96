"""The alert budget holds on undisturbed data, however the scores are calibrated, and lets strong anomalies
through at once.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.alerts.routing.page_budget import DAY_NS, AlertBudget

MONTH = 30


class Month(NamedTuple):
    """``strong``: how many strong anomalies paged; ``pages_per_day``: all others that did."""

    pages_per_day: float
    strong: int


def simulate(
    per_day: float,
    candidates: float,
    seed: int,
    *,
    heavy: float = 1.0,
    cluster: int = 1,
    shift: float = 1.0,
    days: int = MONTH,
    strong: int = 0,
) -> Month:
    """Undisturbed candidates for a month, more by day than by night. ``heavy``: how many times longer than
    calibrated their tail is; ``cluster``: how many come together; ``shift``: the tail's change in the middle
    of the month; ``strong``: true anomalies among them."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, days, rng.poisson(candidates * days * 1.5 / cluster)))
    times = times[rng.uniform(size=len(times)) * 1.5 < 1 + 0.5 * np.sin(2 * np.pi * times)]
    times = np.repeat(times, cluster)
    surprises = 4.0 + rng.exponential(heavy / np.log(10), len(times)) * np.where(times > days / 2, shift, 1.0)
    # Not before the pool is known: without a past nothing is far beyond it.
    true = (
        set(rng.choice(np.arange(len(times) // 4, len(times)), strong, replace=False).tolist())
        if strong
        else set()
    )
    budget, pages, caught = AlertBudget.new(per_day, 0), 0, 0
    for i, (time, usual) in enumerate(
        zip((times * DAY_NS).astype(np.int64).tolist(), surprises.tolist(), strict=True)
    ):
        surprise = 24.0 if i in true else usual
        budget.advance(time)
        decision = budget.decide(surprise)
        if decision.pages:
            budget.record_page(decision, time)
            caught += i in true
            pages += i not in true
        budget.observe(surprise, time)
    return Month(pages / days, caught)


def pages_per_day(per_day: float, candidates: float, seed: int, **nature: Any) -> float:
    return simulate(per_day, candidates, seed, **nature).pages_per_day


@pytest.mark.parametrize(("candidates", "seed"), [(14.4, 1), (14.4, 2), (14.4, 3), (144.0, 1), (144.0, 2)])
@pytest.mark.parametrize(
    "nature", [{}, {"heavy": 3.0}, {"heavy": 2.0, "cluster": 4}, {"shift": 1.5}], ids=str
)
def test_a_month_of_undisturbed_data_keeps_the_budget(candidates: float, nature: dict, seed: int):
    """Within 20 %, where nothing is wrong.

    (14 candidates a day: 10 series; 144: 1,000; 1,440: 10,000; 100,000 series: benchmarks/alerts.py.)
    """
    assert pages_per_day(5.0, candidates, seed, **nature) == pytest.approx(5.0, rel=0.2)


def test_strong_anomalies_come_through_and_the_budget_holds_besides():
    month = simulate(5.0, 144.0, 1, heavy=2.0, strong=50)
    assert month.strong == 50
    assert month.pages_per_day == pytest.approx(5.0, rel=0.2)


def test_many_candidates_keep_the_budget():
    assert pages_per_day(5.0, 1440.0, 1, heavy=2.0) == pytest.approx(5.0, rel=0.2)


def test_a_small_budget_is_kept_too():
    assert pages_per_day(0.5, 144.0, 1, days=120) == pytest.approx(0.5, rel=0.25)


@pytest.fixture(scope="module")
def trained() -> dict:
    """State after ten undisturbed days with 144 candidates a day."""
    rng = np.random.default_rng(7)
    budget = AlertBudget.new(5.0, 0)
    for i in range(1440):
        time, surprise = int(i * DAY_NS / 144), float(4 + rng.exponential(1 / np.log(10)))
        decision = budget.decide(surprise)
        if decision.pages:
            budget.record_page(decision, time)
        budget.observe(surprise, time)
    return budget.dump()


def test_strong_anomalies_come_through_at_once_and_use_up_nothing(trained: dict):
    budget = AlertBudget.load(trained, 5.0)
    now, debt = 10 * int(DAY_NS), budget.debt
    for i in range(200):
        budget.advance(now + i)
        decision = budget.decide(15.0)
        assert decision.pages
        assert decision.strong
        budget.record_page(decision, now + i)
        budget.observe(15.0, now + i)
    assert budget.debt <= debt
    assert budget.used(now + 200) >= 200
    assert not budget.decide(4.3).pages


def test_an_incident_does_not_become_the_normal_case(trained: dict):
    budget = AlertBudget.load(trained, 5.0)
    before = budget.threshold(), budget.p_value(6.0)
    for i in range(500):
        budget.observe(20.0, 10 * int(DAY_NS) + i)
    assert budget.p_value(6.0) == pytest.approx(before[1], rel=0.05)
    assert budget.threshold() == pytest.approx(before[0], rel=0.1)


def test_a_day_with_many_weak_pages_raises_the_bar_and_it_comes_down_again(trained: dict):
    budget = AlertBudget.load(trained, 5.0)
    before = budget.threshold()
    for i in range(40):
        budget.record_page(budget.decide(5.0), 10 * int(DAY_NS) + i)
    assert before * 0.1 < budget.threshold() < before * 0.3
    budget.advance(16 * int(DAY_NS))
    assert budget.threshold() > before * 0.8


def test_new_series_do_not_page_for_days():
    """A thousand times more candidates from one hour to the next."""
    budget = AlertBudget.new(5.0, 0)
    rng = np.random.default_rng(3)
    pages = 0
    for i in range(2880):
        now = int(i * DAY_NS / 14.4) if i < 144 else int(10 * DAY_NS + (i - 144) * DAY_NS / 14_400)
        surprise = float(4 + rng.exponential(1 / np.log(10)))
        decision = budget.decide(surprise)
        if decision.pages:
            budget.record_page(decision, now)
            pages += i >= 144
        budget.observe(surprise, now)
    assert pages < 25


def test_p_values_of_undisturbed_candidates_are_uniform(trained: dict):
    budget = AlertBudget.load(trained, 5.0)
    rng = np.random.default_rng(11)
    p = np.array([budget.p_value(float(4 + rng.exponential(1 / np.log(10)))) for _ in range(4000)])
    for level in (0.01, 0.05, 0.2, 0.5):
        assert np.mean(p <= level) == pytest.approx(level, rel=0.35)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 50), st.integers(0, 10**15)), max_size=60))
def test_the_state_survives_the_database(steps: list[tuple[float, int]]):
    budget, now = AlertBudget.new(3.0, 0), 0
    for surprise, passed in steps:
        now += passed
        budget.observe(surprise, now)
        decision = budget.decide(surprise)
        if decision.pages:
            budget.record_page(decision, now)
    again = AlertBudget.load(json.loads(json.dumps(budget.dump())), 3.0)
    for surprise in (0.0, 3.0, 6.0, 12.0):
        assert again.decide(surprise) == budget.decide(surprise)
    assert again.used(now) == budget.used(now)
    assert 0 < again.threshold() <= 1


def test_a_clock_that_is_set_back_changes_nothing(trained: dict):
    budget = AlertBudget.load(trained, 5.0)
    before = budget.dump()
    budget.advance(0)
    assert budget.dump() == before
