"""The paired test, and reports that can and cannot be compared."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.core.errors import InputError
from pipeline.evaluate.paired_test import compare, load, p_value


def report(name="x", **metrics):
    keys = ("nab_gain", "vus_pr", "auc_pr", "hit", "event_f1", "row_f1")
    rows = len(next(iter(metrics.values())))
    series = [
        {"name": f"s{i}"} | {key: metrics.get(key, [None] * rows)[i] for key in keys} for i in range(rows)
    ]
    return {"dataset": name, "series": series, "metrics": {}}


def test_p_value_is_exact_for_few_series():
    # All of 5 differences point one way: 2 of the 2^5 sign patterns are as extreme.
    assert p_value(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == 2 / 32
    assert p_value(np.array([1.0, -1.0])) == 1.0
    assert p_value(np.zeros(7)) == 1.0
    assert p_value(np.array([0.0, 0.0, 3.0])) == 1.0


def test_p_value_by_draws_agrees_with_chance_and_with_a_clear_difference():
    rng = np.random.default_rng(0)
    by_chance = [p_value(rng.normal(0, 1, 30)) for _ in range(60)]
    assert 0.3 < np.mean(by_chance) < 0.7
    assert p_value(rng.normal(2, 1, 30)) < 0.001
    assert p_value(np.ones(40)) == pytest.approx(1 / 20_001)


def test_compare_counts_wins_over_the_series_that_both_have():
    a = report(vus_pr=[0.5, 0.6, 0.7], hit=[True, False, True])
    b = report(vus_pr=[0.6, 0.6, 0.9], hit=[True, True, True])
    b["series"].append({"name": "only here", "vus_pr": 0.0})
    vus, hit = compare(a, b)
    assert (vus.metric, vus.series, vus.wins_a, vus.wins_b, vus.p) == ("VUS-PR", 3, 0, 2, 0.5)
    assert (vus.mean_a, vus.mean_b) == (pytest.approx(0.6), pytest.approx(0.7))
    assert (hit.metric, hit.wins_b) == ("UCR hit", 1)


def test_reports_that_cannot_be_compared(tmp_path):
    with pytest.raises(InputError, match="no series in common"):
        compare(report(vus_pr=[1.0]), {"dataset": "y", "series": [], "metrics": {}})
    path = tmp_path / "r.json"
    for text in ("{", "[]", json.dumps({"series": 1})):
        path.write_text(text)
        with pytest.raises(InputError, match=r"r\.json"):
            load(path)
    with pytest.raises(InputError, match="gone"):
        load(tmp_path / "gone.json")
