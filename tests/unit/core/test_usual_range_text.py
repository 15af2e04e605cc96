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
        (3.11, ""),  # "once in 1,300 readings" beside 75 times the usual: no rate is known that well
        (3.98, "among the most unusual of the 20,160 readings seen (14 d)"),
        (5.0, "nothing as unusual in the 20,160 readings seen (14 d)"),
    ],
)
def test_a_rarity_is_stated_only_where_it_is_rare(decades: float, text: str):
    assert rarity_text(decades, 20_160, 60_000_000_000) == text


def test_a_rarity_without_a_cadence_has_no_duration():
    assert rarity_text(5.0, 20_160) == "nothing as unusual in the 20,160 readings seen"


def test_the_record_of_a_young_series_is_not_stated():
    assert rarity_text(1.9, 70, 60_000_000_000) == ""


def test_the_rarity_of_one_of_three_channels_is_bounded_by_the_readings_seen():
    assert (
        rarity_text(math.log10(2_200), 6_600, channels=3) == "nothing as unusual in the 6,600 readings seen"
    )
    assert (
        rarity_text(math.log10(1_100), 6_620, channels=3)
        == "among the most unusual of the 6,620 readings seen"
    )
    assert rarity_text(2.9, 6_600, channels=3) == ""
