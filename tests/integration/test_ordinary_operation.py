"""Verdicts on weeks of ordinary operation with known faults."""

from __future__ import annotations

import pytest

from benchmarks.worlds import judge, offices, workshop

#: Tier → most false events a series and week, fewest faults of 12 that are found. Seed 1 had .10 and 10 in
#: ``light``, .30 and 12 in ``standard``.
BOUNDS = {"light": (0.25, 9), "standard": (0.5, 11)}


@pytest.mark.parametrize("tier", BOUNDS)
def test_weeks_of_ordinary_operation(tier: str) -> None:
    results = [judge(make(1), tier, decision="usual_range") for make in (workshop, offices)]
    false = [line for result in results for line in result.false]
    most, fewest = BOUNDS[tier]
    assert len(false) / sum(result.series_weeks for result in results) <= most, false
    found = sum(len(result.found) for result in results)
    assert found >= fewest, [result.missed for result in results]
    assert sum(result.right for result in results) == found, "a fault that is found is told rightly"
    assert not [line for result in results for line in result.inside], "a stated value lies inside its range"
