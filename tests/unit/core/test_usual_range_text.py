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
        (2.0, "a reading as unusual comes about once in 100 readings (1 h 40 min)"),
        (3.11, "a reading as unusual comes about once in 1,300 readings (21 h 40 min)"),
        (5.0, "nothing as unusual in the 20,160 readings seen (14 d)"),
    ],
)
def test_a_rarity_is_stated_only_where_it_is_rare(decades: float, text: str):
    assert rarity_text(decades, 20_160, 60_000_000_000) == text


def test_a_rarity_without_a_cadence_has_no_duration():
    assert rarity_text(2.0, 20_160) == "a reading as unusual comes about once in 100 readings"


def test_the_rarity_of_one_of_three_channels_is_bounded_by_the_readings_seen():
    assert (
        rarity_text(math.log10(2_200), 6_600, channels=3) == "nothing as unusual in the 6,600 readings seen"
    )
    assert (
        rarity_text(math.log10(1_100), 6_620, channels=3)
        == "among the most unusual of the 6,620 readings seen"
    )
    assert rarity_text(2.9, 6_600, channels=3) == "a reading as unusual comes about once in 790 readings"
