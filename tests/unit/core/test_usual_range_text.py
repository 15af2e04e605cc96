"""The rarity of a deviation in words."""

from __future__ import annotations

import math

import pytest

from pipeline.core.usual_range_text import rarity_text


@pytest.mark.parametrize(
    ("decades", "text"),
    [
        (math.nan, ""),
        (0.3, ""),  # "about 1 in 2 points" stood below a major alert
        (1.9, ""),
        (2.0, "about 1 in 100 readings is as unusual by any measure"),
        (3.11, "about 1 in 1,300 readings is as unusual by any measure"),
        (5.0, "nothing as unusual by any measure in 20,160 readings"),
    ],
)
def test_a_rarity_is_stated_only_where_it_is_rare(decades: float, text: str):
    assert rarity_text(decades, 20_160) == text
