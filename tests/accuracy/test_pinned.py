"""A change that makes detection worse on a slice of the open data breaks the build;
``python -m tests.accuracy.pin`` after a change that is meant.
"""

from __future__ import annotations

import pytest

from tests.accuracy.slice import SLICE, TIERS, figures, pinned, worst_allowed


@pytest.mark.parametrize("name", SLICE)
@pytest.mark.parametrize("tier", TIERS)
def test_no_figure_is_worse_than_pinned(tier, name, shared_data, tmp_path):
    now, before = figures(tier, name, shared_data, tmp_path), pinned()[tier][name]
    assert set(now) == set(before)
    worse = {}
    for figure, value in before.items():
        limit = worst_allowed(figure, value)
        if now[figure] > limit if limit > value else now[figure] < limit:
            worse[figure] = f"{now[figure]} (pinned {value}, allowed {limit:.4g})"
    assert not worse


def test_a_worse_figure_is_outside_the_tolerance():
    assert 54.0 < worst_allowed("NAB standard", 60.0) < 60.0
    assert 2.0 < worst_allowed("false alarms per 10,000 rows", 2.0) < 4.0
