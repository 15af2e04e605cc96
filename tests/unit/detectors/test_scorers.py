"""Single scorers: changes they find, and normal data they ignore."""

from __future__ import annotations

import numpy as np
import pytest

from detectors import DetectorSpec, Limits, build, contract
from detectors.base import CAUSES
from detectors.channel_batch import ChannelBatch
from detectors.scorers.discord import Discord
from detectors.scorers.flatline import Flatline
from detectors.scorers.level_shift import LevelShift
from detectors.scorers.novelty import Novelty
from detectors.scorers.robust_level_shift import RobustLevelShift
from detectors.scorers.seasonal_profile import SeasonalProfile
from detectors.scorers.volatility import Volatility
from detectors.stages.robust_scale import RobustScale
from detectors.stages.seasonality import Seasonality
from detectors.stages.steady_state import SteadyState

HOUR = 3_600_000_000_000


def batch_of(values, period=0):
    n = len(values)
    made = ChannelBatch(
        np.zeros(n, np.int32),
        np.asarray(values, float),
        np.arange(n) * HOUR,
        np.zeros(n, np.int32),
        np.full(n, HOUR),
    )
    RobustScale().run(RobustScale().initial(1), made)
    made.period[:] = period
    return made


def errors(scorer, given):
    out = np.empty((len(given), len(scorer.tracks)), np.float32)
    scorer.run(scorer.initial(1), given, out)
    return dict(zip(scorer.tracks, out.T, strict=True))


@pytest.mark.parametrize("period", [6, 24, 100, 288])
def test_seasonality_finds_the_period(period):
    rng = np.random.default_rng(0)
    t = np.arange(4_000)
    given = batch_of(
        np.sin(2 * np.pi * t / period) + 0.4 * np.sin(4 * np.pi * t / period) + rng.normal(size=4_000) * 0.2
    )
    seasonality = Seasonality(1024, 3)
    seasonality.run(seasonality.initial(1), given)
    assert given.period[-1] == pytest.approx(period, rel=0.05)


def test_seasonality_finds_no_period_in_a_walk():
    given = batch_of(np.random.default_rng(3).normal(size=3_000).cumsum())
    seasonality = Seasonality(256, 2)
    seasonality.run(seasonality.initial(1), given)
    assert (given.period[-500:] == 0).mean() > 0.5


def test_a_shift_of_the_bulk_is_seen_among_spikes_that_hide_it_from_the_mean():
    rng = np.random.default_rng(0)
    values = np.abs(rng.normal(size=3_000))
    values[rng.random(3_000) < 0.02] += 200.0
    values[2_700:] += 3.0
    given = batch_of(values)
    for scorer, found in ((RobustLevelShift(), True), (LevelShift(), False)):
        error = next(iter(errors(scorer, given).values()))
        assert bool(error[2_740:].min() > np.quantile(error[100:2_700], 0.999)) is found


def test_one_spike_of_any_height_hardly_shifts():
    values = np.random.default_rng(1).normal(size=1_000)
    values[900] = 1e9
    found = errors(RobustLevelShift(), batch_of(values))["shift"]
    assert found[900:].max() < 1.5 * found[100:900].max()


def test_novelty_finds_a_value_between_two_modes():
    rng = np.random.default_rng(0)
    values = np.r_[rng.choice([0.0, 10.0], 900) + rng.normal(size=900) * 0.1, 5.0]
    found = errors(Novelty(64), batch_of(values))
    assert found["novelty"][-1] == pytest.approx(5.0, abs=0.7)
    assert found["range"][-1] == 0


def test_the_seasonal_profile_compares_the_same_time_of_day():
    t = np.arange(24 * 10)
    values = np.where(t % 24 == 3, 50.0, 0.0)
    values[-1] = 50.0  # the right value at the wrong hour
    found = errors(SeasonalProfile(24), batch_of(values))["seasonal"]
    assert found[24 * 9 + 3] == 0
    assert found[-1] == 50


def test_the_discord_is_the_one_odd_period():
    t = np.arange(4_000)
    values = np.sin(2 * np.pi * t / 50)
    values[3_000:3_050] = np.abs(values[3_000:3_050])
    found = errors(Discord(1024, (1.0,)), batch_of(values, period=50))["shape1"]
    assert 3_020 <= np.nanargmax(np.where(t > 500, found, 0)) < 3_110


def test_a_flatline_must_last_longer_than_any_run_before():
    rng = np.random.default_rng(0)
    quick = np.r_[rng.normal(size=500), np.full(10, 1.0)]
    assert errors(Flatline(), batch_of(quick))["frozen"][-1] > 0
    assert errors(Flatline(), batch_of(quick))["stuck"][-1] == 0
    assert errors(Flatline(), batch_of(np.r_[quick, np.full(10, 1.0)]))["stuck"][-1] > 0
    slow = np.r_[np.repeat(rng.normal(size=50), 10), np.full(10, 1.0)]
    assert errors(Flatline(), batch_of(slow))["frozen"].max() == 0
    assert errors(Flatline(), batch_of(np.zeros(500)))["frozen"].max() == 0


@pytest.mark.parametrize("ratio", [2, 3, 1.5, 10, 0.5, 0.1])
def test_a_split_is_not_a_crash(ratio):
    price = 100 * np.exp(np.cumsum(np.random.default_rng(0).normal(size=300) * 0.01))
    split, crash = price.copy(), price.copy()
    split[200:] /= ratio
    crash[200:] /= 1.25 * ratio if ratio > 1 else 0.8 * ratio
    assert errors(Volatility(np.ones(1, bool), -1), batch_of(np.log(split)))["return"][200] < 6
    assert errors(Volatility(np.ones(1, bool), -1), batch_of(np.log(crash)))["return"][200] > 10 or ratio in (
        2,
        0.5,
    )


def flags(values, **spec):
    values = np.asarray(values, float).reshape(len(values), -1)
    given = contract.make_points(np.zeros(len(values), np.int32), values, np.arange(len(values)))
    return contract.run_batches(build(DetectorSpec(**spec)), given)


def test_static_limits_guard_from_the_first_point():
    found = flags([5.0, 5.1, 11.0, 5.0], tier="light", limits=(Limits(0, 10),))
    assert found.flag.tolist()[:3] == [False, False, True]
    assert found.forecaster[2] == 1
    assert found.upper[2, 0] <= 10


@pytest.mark.parametrize("tier", ["light", "standard", "strong"])
def test_a_spike_is_flagged_and_explained(tier):
    rng = np.random.default_rng(0)
    values = np.sin(np.arange(3_000) / 10)[:, None] * [1, 2] + rng.normal(size=(3_000, 2)) * 0.1
    values[2_900, 1] += 12
    found = flags(values, tier=tier, channels=("a", "b"))
    assert found.flag[2_900]
    assert found.contribution[2_900].argmax() == 1
    assert found.lower[2_900, 1] < found.expected[2_900, 1] < found.upper[2_900, 1] < values[2_900, 1]
    assert found.flag[500:2_900].mean() < 0.01


def test_direction_and_least_deviation():
    rng = np.random.default_rng(0)
    values = 100 + rng.normal(size=3_000)
    values[2_900] += 40
    assert flags(values, tier="standard").flag[2_900]
    assert not flags(values, tier="standard", direction="down").flag[2_900]
    assert not flags(values, tier="standard", min_deviation=0.5).flag[2_900]


def test_channels_that_part_are_seen_though_each_stays_in_its_band():
    rng = np.random.default_rng(0)
    common = rng.normal(size=3_000)
    values = np.stack([common, common, common], axis=1) + rng.normal(size=(3_000, 3)) * 0.05
    values[2_900:2_910] = rng.normal(size=(10, 3)) * 0.05 + [[1.5, -1.5, 1.5]]
    found = flags(values, tier="standard", channels=("a", "b", "c"))
    assert found.flag[2_900:2_912].any()
    peak = 2_900 + found.surprise[2_900:2_912].argmax()
    assert found.contribution[peak].argmax() == 1
    assert CAUSES[found.cause[peak]] == "multivariate"


def test_the_joint_alarm_needs_the_joint_term():
    rng = np.random.default_rng(0)
    values = rng.normal(size=3_000)
    values[2_900:2_910] = rng.normal(size=10) * 0.05 + 1.5
    assert not flags(values, tier="standard").flag[2_900:2_912].any()


def steady_state(values):
    given = batch_of(values)
    return SteadyState().run(SteadyState().initial(1), given)


def test_a_new_level_of_a_settled_channel_stays_an_error_and_a_walk_never_settles():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=1_200)
    shifted = noise + np.where(np.arange(1_200) >= 900, 4.0, 0.0)
    assert (steady_state(noise)[3:99] == 1).all()
    assert steady_state(noise)[300:].max() < 2.5
    assert steady_state(shifted)[920:1_100].min() > 2.5
    assert np.nanmedian(steady_state(noise.cumsum())[300:]) < 1.5


def test_a_settled_channel_is_back_where_it_was_even_after_a_far_larger_level():
    rng = np.random.default_rng(0)
    noise = 5 + rng.normal(size=1_200)
    assert steady_state(noise + np.where(np.arange(1_200) // 100 == 9, 1e4, 0.0))[1_060:].max() < 2.5


def test_an_event_is_over_when_little_of_it_is_left():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(1_200, 3))
    values[800:1_000, 1] += 20
    values[1_000:, 1] += 2.5
    found = flags(values, tier="light", channels=("a", "b", "c"))
    assert found.flag[810:1_000].all()
    assert {CAUSES[cause] for cause in found.cause[900:1_000]} == {"steady_state"}
    assert not found.flag[1_060:].any()
    values[800:1_000, 1] -= 17.5
    assert flags(values, tier="light", channels=("a", "b", "c")).flag[1_060:].all()


def test_a_verdict_names_the_largest_evidence():
    rng = np.random.default_rng(0)
    values = rng.normal(size=3_000)
    values[2_900] = 12
    values[2_950:] = values[2_949]
    found = flags(values, tier="standard", limits=(Limits(-50, 50),))
    assert CAUSES[found.cause[2_900]] in ("novelty", "range", "forecast")
    assert CAUSES[found.cause[2_999]] == "flatline"
    assert CAUSES[flags([1.0, 60.0], tier="light", limits=(Limits(-50, 50),)).cause[1]] == "static_limit"


def test_few_rows_are_no_evidence_of_a_rare_one():
    values = np.random.default_rng(0).normal(size=400)
    values[[100, 300]] = 40, 90
    found = flags(values, tier="standard")
    assert not found.flag[:193].any()
    assert found.flag[300]
