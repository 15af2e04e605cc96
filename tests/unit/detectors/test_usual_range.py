"""The decision by usual ranges: ordinary operation is quiet, faults are stated, state keeps its size."""

from __future__ import annotations

import json
from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from detectors import DetectorSpec, Limits, build, contract
from detectors.base import CAUSES, Points
from detectors.composite.tiers import USUAL_RANGE_SIZES
from detectors.composite.usual_range_decision import _confirm
from detectors.local_time import holiday_days, local_ns, possible_clock_changes
from detectors.stages.usual_range import residual_tail, visits
from detectors.stages.usual_range.lane import COL_CHANGE_EVIDENCE, HEAD_COLUMNS, WHOLE_COLUMNS, WHOLE_SHIFT
from detectors.stages.usual_range.stage import UsualRange, minutes_of_a_row, sensitivity
from detectors.stages.usual_range.visits import DAY_NS
from pipeline.demo.simulate import Plant

MINUTE_NS = contract.MINUTE_NS
EVERY_NS, ROWS_PER_DAY, DAYS = 10 * MINUTE_NS, 144, 24
MONDAY_NS = 1_704_067_200_000_000_000  # 2024-01-01, a Monday, 00:00 UTC


def shift_plant(seed: int = 0, days: int = DAYS) -> np.ndarray:
    """Return a machine that runs from 06:00 to 18:00 on Monday to Friday, one row each ten minutes."""
    rng, row = np.random.default_rng(seed), np.arange(days * ROWS_PER_DAY)
    hour, day = row % ROWS_PER_DAY / 6, row // ROWS_PER_DAY
    works = (hour >= 6) & (hour < 18) & (day % 7 < 5)
    return np.where(works, 100.0, 20.0) + rng.normal(0, 1, len(row))


def points_of(values: np.ndarray) -> Points:
    n = len(values)
    every = np.full(n, EVERY_NS, np.int64)
    time = MONDAY_NS + np.arange(n, dtype=np.int64) * EVERY_NS
    return Points(np.zeros(n, np.int32), time, values.reshape(n, -1), np.zeros(n, np.int32), every)


def verdicts_of(values: np.ndarray, tier: str = "light", cuts: tuple[int, ...] = (), **spec):
    return contract.run_batches(
        build(DetectorSpec(tier=tier, decision="usual_range", **spec)), points_of(values), cuts
    )


@pytest.mark.parametrize("tier", ["light", "standard"])
def test_an_ordinary_working_week_is_no_anomaly(tier):
    flags = verdicts_of(shift_plant(), tier).flag
    assert flags[14 * ROWS_PER_DAY :].sum() == 0


@pytest.mark.parametrize("tier", ["light", "standard"])
def test_a_spike_is_stated_with_the_range_that_it_leaves(tier):
    values = shift_plant()
    spike = 21 * ROWS_PER_DAY + 72
    values[spike] += 60
    found = verdicts_of(values, tier)
    assert found.flag[spike]
    assert CAUSES[found.cause[spike]] == "unusual_value"
    assert found.side[spike] == 1
    assert found.observed[spike] == pytest.approx(values[spike], abs=1e-3)
    assert 90 < found.usual_low[spike] < found.usual_high[spike] < values[spike]


def test_a_working_day_that_does_not_come_is_an_anomaly():
    values = shift_plant()
    day = slice(22 * ROWS_PER_DAY + 36, 22 * ROWS_PER_DAY + 108)  # a Tuesday, 06:00 to 18:00
    values[day] = 20 + np.random.default_rng(1).normal(0, 1, 72)
    found = verdicts_of(values, "standard")
    first = day.start + int(np.argmax(found.flag[day]))
    assert found.flag[day].any()
    assert first - day.start <= 12
    assert found.side[first] == -1


def test_a_static_limit_is_stated_as_the_range():
    found = verdicts_of(np.array([1.0, 60.0]), limits=(Limits(-50, 50),))
    assert found.flag.tolist() == [False, True]
    assert CAUSES[found.cause[1]] == "static_limit"
    assert (found.observed[1], found.usual_low[1], found.usual_high[1]) == (60, -50, 50)
    assert found.ratio[1] == pytest.approx(1.2)
    assert found.side[1] == 1


def test_the_direction_of_the_spec_is_kept():
    values = shift_plant()
    values[21 * ROWS_PER_DAY + 72] += 60
    assert verdicts_of(values, direction="up").flag[21 * ROWS_PER_DAY + 72]
    assert not verdicts_of(values, direction="down").flag[21 * ROWS_PER_DAY + 72]


def test_a_channel_that_stands_still_in_the_first_day_has_a_relation_later():
    rng, row = np.random.default_rng(0), np.arange(8 * ROWS_PER_DAY)
    light = np.where(row < 2 * ROWS_PER_DAY, 0.0, 900 * rng.uniform(0, 1, len(row)))  # a spread of about 1e-9
    values = np.stack(
        [light, 20 + rng.normal(0, 1, len(row)), light * 2 + rng.normal(0, 1, len(row))], axis=1
    )
    found = verdicts_of(values, "standard", channels=("light", "air", "power"))
    assert np.isfinite(found.ratio).all()


@pytest.mark.parametrize("tier", ["light", "standard"])
def test_ranges_over_weeks_do_not_depend_on_batches(tier):
    values = shift_plant()
    values[20 * ROWS_PER_DAY + 70 :: 401] *= 1.5
    whole = verdicts_of(values, tier, timezone="Europe/Berlin")
    cut = verdicts_of(values, tier, tuple(range(89, len(values), 89)), timezone="Europe/Berlin")
    for name in ("channel", "side", "cause", "flag"):
        assert np.array_equal(getattr(whole, name), getattr(cut, name)), name
    for name in ("ratio", "observed", "usual_low", "usual_high"):
        np.testing.assert_allclose(getattr(whole, name), getattr(cut, name), rtol=1e-5, err_msg=name)


def test_a_range_of_values_that_were_never_negative_begins_at_zero():
    values = np.abs(np.random.default_rng(0).normal(0, 1, 3_000))
    values[2_500] = 50
    found = verdicts_of(values)
    assert found.flag[2_500]
    assert found.usual_low[2_500] == 0


@pytest.mark.parametrize("preset", ["sensor", "network"])
def test_one_count_more_than_ever_on_a_quiet_host_is_no_alarm(preset):
    values = np.random.default_rng(1).poisson(0.02, 4_000).clip(0, 1).astype(float)
    values[[3_400, 3_700]] = 2, 40
    found = verdicts_of(values, preset=preset)
    assert np.flatnonzero(found.flag[3_000:]).tolist() == [700]


@pytest.mark.parametrize(("tier", "most"), [("light", 1_024), ("standard", 8_192), ("strong", 65_536)])
def test_a_channel_keeps_the_size_of_its_tier(tier, most):
    state = build(DetectorSpec(tier=tier, decision="usual_range")).initial(1)
    assert sum(array.nbytes for array in state.values()) <= most


def residual_ratios(days: int, hour, size: float = 30.0, *, stays: bool = False) -> np.ndarray:
    """Return the largest residual ratio of each day with a spike at ``hour(day)``, one row a minute.

    With ``stays``, the series moves by ``size`` instead, and the forecast follows at once.
    """
    rng, day_rows = np.random.default_rng(3), 1_440
    tail = residual_tail.initial_tail(1)
    counts, head, events = (tail[f"usual.{name}"][0] for name in ("tail", "tail_head", "events"))
    out, level = np.zeros(days), np.float32(0)
    for row in range(days * day_rows):
        day = row // day_rows
        spike = row % day_rows == int(60 * hour(day))
        residual = np.float32(size if spike else rng.normal())
        local = MONDAY_NS + row * MINUTE_NS
        out[day] = max(out[day], residual_tail.residual_ratio(events, head, residual, level, local, False))
        residual_tail.learn_residual(counts, head, abs(residual), np.float32(4.5), np.float32(1e-3))
        level += size if spike and stays else 0
    return out


def test_a_residual_that_comes_at_the_same_time_of_day_is_usual():
    found = residual_ratios(14, lambda day: 6 + 0.5 * (day % 3) / 2)
    assert (found[7:] < 1).all()


def test_a_job_that_begins_at_any_minute_of_ninety_is_usual():
    for seed in range(3):
        hours = np.random.default_rng(seed).uniform(1, 2.5, 16)
        assert (residual_ratios(16, lambda day, hours=hours: hours[day])[6:] < 1).all()


@pytest.mark.parametrize(("rows", "beyond"), [(1_000, 1.5), (10_000, 0.5), (100_000, 0)])
def test_decades_beyond_the_rows_of_a_series_count_twice(rows, beyond):
    for every, decades in ((5 * MINUTE_NS, 4.5), (MINUTE_NS // 10, 3.5)):
        found = residual_tail.decades_at(np.float32(decades), every, np.float32(rows))
        assert found == pytest.approx(4.5 + beyond)


def test_a_residual_that_comes_each_day_at_another_time_is_unusual():
    hours = np.random.default_rng(5).uniform(0, 24, 14)
    found = residual_ratios(14, lambda day: hours[day])
    assert (found[7:] > 1).mean() >= 0.8


def test_a_series_that_moves_between_levels_has_no_unusual_residuals():
    hours = np.random.default_rng(5).uniform(0, 24, 24)
    found = residual_ratios(24, lambda day: hours[day], stays=True)
    assert found[5] > 1
    assert (found[16:] < 1).all()


def test_a_forecast_that_wanders_does_not_hide_spikes():
    """A season moves the forecast by as much as a spike within the rows after which a spike is settled."""
    rng, hours = np.random.default_rng(3), np.random.default_rng(5).uniform(0, 24, 24)
    tail = residual_tail.initial_tail(1)
    counts, head, events = (tail[f"usual.{name}"][0] for name in ("tail", "tail_head", "events"))
    found = np.zeros(24)
    for row in range(24 * 1_440):
        day = row // 1_440
        residual = np.float32(30 if row % 1_440 == int(60 * hours[day]) else rng.normal())
        expected, local = np.float32(200 * np.sin(row / 60)), MONDAY_NS + row * MINUTE_NS
        ratio = residual_tail.residual_ratio(events, head, residual, expected, local, False)
        residual_tail.learn_residual(counts, head, abs(residual), np.float32(4.5), np.float32(1e-3))
        found[day] = max(found[day], ratio)
    assert (found[12:] > 1).mean() >= 0.8


@pytest.mark.parametrize("hours_away", [0.1, 6], ids=["while-it-lasts", "after-hours"])
def test_the_return_from_an_excursion_is_usual_and_what_comes_after_it_is_not(hours_away):
    state = residual_tail.initial_tail(1)
    events, head = state["usual.events"][0], state["usual.tail_head"][0]
    head[[residual_tail.TAIL_LIMIT, residual_tail.TAIL_ROWS]] = 5, 10_000
    row = 0

    def ratio_of(residual: float, expected: float) -> float:
        local = MONDAY_NS + row * MINUTE_NS
        numbers = np.float32(residual), np.float32(expected), local
        return residual_tail.residual_ratio(events, head, *numbers, False)

    def quiet(rows: int, level: float) -> None:
        nonlocal row
        for _ in range(rows):
            row += 1
            assert ratio_of(0.1, level) == 0

    quiet(100, 20)
    assert ratio_of(40, 20) > 1  # from 20 to 60
    quiet(int(60 * hours_away), 60)
    assert ratio_of(-40, 60) == 0  # and back
    quiet(100, 20)
    assert ratio_of(-15, 20) > 1  # a dip
    quiet(400, 20)
    assert ratio_of(40, 20) > 1  # again, not the way back of the return


def test_a_series_faster_than_a_minute_has_alarms_at_the_rate_of_minutes():
    every = np.array([1_000, MINUTE_NS // 60, MINUTE_NS // 6, MINUTE_NS, 5 * MINUTE_NS, 0], np.int64)
    assert minutes_of_a_row(every) == pytest.approx([1 / 60, 1 / 60, 1 / 6, 1, 1, 1])
    noise = np.random.default_rng(1).normal(0, 1, 9_000)
    limits = []
    for cadence in (MINUTE_NS, MINUTE_NS // 60):
        points = points_of(noise[:, None])
        points.every[:] = cadence
        points.time[:] = MONDAY_NS + np.arange(len(points)) * cadence
        detector = build(DetectorSpec(tier="standard", channels=("v",), decision="usual_range"))
        state = detector.initial(1)
        detector.step(state, points)
        limits.append(state["usual.tail_head"][0, 0, residual_tail.TAIL_LIMIT])
    assert limits[1] > 1.1 * limits[0]


def test_a_residual_at_the_usual_time_is_unusual_if_it_is_much_larger():
    sizes = residual_ratios(10, lambda day: 6)
    assert sizes[8] < 1
    counts = residual_tail.initial_tail(1)
    events, head = counts["usual.events"][0], counts["usual.tail_head"][0]
    head[[residual_tail.TAIL_LIMIT, residual_tail.TAIL_ROWS]] = 5, 10_000
    hour_ns = 60 * MINUTE_NS
    for day in range(4):
        head[residual_tail.TAIL_EVENT_SINCE] = 1_000
        local = MONDAY_NS + day * 24 * hour_ns
        residual_tail.residual_ratio(events, head, np.float32(30), np.float32(0), local, False)
    head[residual_tail.TAIL_EVENT_SINCE] = 1_000
    local = MONDAY_NS + 4 * 24 * hour_ns
    assert residual_tail.residual_ratio(events, head, np.float32(30), np.float32(0), local, False) == 0
    assert residual_tail.residual_ratio(events, head, np.float32(90), np.float32(0), local, False) == 18


def test_a_marginal_row_is_an_alarm_only_if_it_lasts_or_follows_one():
    state = np.zeros(1, np.int16)
    ratio = np.array([1.1, 0, 1.1, 1.1, 1.1, 1.1, 1.1, 0, 2.0, 0, 1.1, 0], np.float32)
    slot, no, yes = np.zeros(12, np.int32), np.zeros(12, np.bool_), np.ones(12, np.bool_)
    flag, runs = _confirm(state.copy(), slot, ratio, (no, yes), 1)
    assert np.flatnonzero(flag).tolist() == [6, 8, 10]
    assert runs.tolist() == [1, 0, 1, 2, 3, 4, 5, 0, 1, 0, 1, 0]
    flag, _ = _confirm(state.copy(), slot, ratio, (no, no), 1)
    assert np.flatnonzero(flag).tolist() == [8, 10], "the extreme of hours repeats itself"


def test_the_sensitivity_follows_alarm_rate_and_channels():
    rates = np.float32([1e-4, 1e-5])
    assert sensitivity(rates, 1, 5) == pytest.approx([5, 5 + np.log(10)])
    assert sensitivity(rates, 3, 5) == pytest.approx([5 + np.log(3), 5 + np.log(30)])


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Sydney"])
def test_local_time_is_that_of_the_zone(zone):
    time = MONDAY_NS + np.arange(0, 400 * 86_400, 5_003, dtype=np.int64) * 1_000_000_000
    wall = [datetime.fromtimestamp(t // 1_000_000_000, ZoneInfo(zone)) for t in time.tolist()]
    offsets = [one.utcoffset().total_seconds() for one in wall]
    assert ((local_ns(zone, time) - time) // 1_000_000_000).tolist() == offsets


WORKING_ROWS = slice(6 * 6, 18 * 6)  # of a day of ``shift_plant``


@pytest.mark.parametrize("tier", ["light", "standard"])
def test_a_holiday_is_compared_with_weekends(tier):
    """The plant rests on 15 January and 19 February 2024, two holidays of the US that are Mondays."""
    values, idle = shift_plant(days=53), shift_plant(seed=1, days=7)
    for day in (14, 49):
        values[day * ROWS_PER_DAY : (day + 1) * ROWS_PER_DAY] = idle[5 * ROWS_PER_DAY : 6 * ROWS_PER_DAY]
    rest = slice(49 * ROWS_PER_DAY, 50 * ROWS_PER_DAY)
    assert verdicts_of(values, tier).flag[rest].any()
    known = verdicts_of(values, tier, holidays="US")
    assert not known.flag[30 * ROWS_PER_DAY :].any()


@pytest.mark.parametrize("tier", ["light", "standard"])
def test_work_on_a_holiday_is_as_unusual_as_on_a_weekend(tier):
    found = verdicts_of(shift_plant(days=53), tier, holidays="US")
    day = found.flag[49 * ROWS_PER_DAY : 50 * ROWS_PER_DAY]
    assert day[WORKING_ROWS].any()


def test_holidays_are_those_of_a_country_and_of_its_part():
    def days(country):
        return {str(np.datetime64(int(one), "D")) for one in holiday_days(country)}

    assert {"2026-01-01", "2026-07-04", "2026-11-26"} <= days("US")
    assert "2026-06-04" in days("DE-BY") - days("DE")  # Corpus Christi
    assert days("") == set()
    for wrong in ("XX", "DE-ZZ", "de-"):
        with pytest.raises(ValueError, match=r"not available|does not have"):
            holiday_days(wrong)


def test_clock_changes_are_considered_only_where_the_zone_is_unknown():
    assert len(possible_clock_changes("Europe/Berlin")[0]) == 0
    times, directions = possible_clock_changes("")
    spring = int(datetime(2024, 3, 31, 1, tzinfo=ZoneInfo("UTC")).timestamp()) * 1_000_000_000
    assert directions[np.searchsorted(times, spring)] == 1
    assert spring in times


@pytest.mark.parametrize(("evidence", "adopted"), [(5.0, 1), (-5.0, 0)])
def test_a_clock_change_is_decided_after_seven_days_at_the_latest(evidence, adopted):
    settings = UsualRange(DetectorSpec(tier="standard"), USUAL_RANGE_SIZES["standard"]).settings
    spring = int(datetime(2024, 3, 31, 1, tzinfo=ZoneInfo("UTC")).timestamp()) * 1_000_000_000
    head, whole = np.zeros(HEAD_COLUMNS, np.float32), np.zeros(WHOLE_COLUMNS, np.int8)
    every, hour = 5 * MINUTE_NS, 1
    assert visits._possible_change(head, whole, settings, spring + 60 * MINUTE_NS, every, hour) == hour
    head[COL_CHANGE_EVIDENCE] = evidence  # less than proves it, as in a week with two holidays
    assert visits._possible_change(head, whole, settings, spring + 6 * DAY_NS, every, hour) == hour
    assert whole[WHOLE_SHIFT] == 0
    for days in (8, 9):
        assert visits._possible_change(head, whole, settings, spring + days * DAY_NS, every, hour) == 0
        assert whole[WHOLE_SHIFT] == adopted


def test_daily_bars_have_alarms_at_the_rate_of_their_preset():
    rng = np.random.default_rng(7)
    returns = rng.standard_t(5, (24, 800)) * 0.01
    quotes = 100 * np.exp(np.cumsum(returns, axis=1))
    quotes[:, 700] *= np.exp(0.12)  # one bad quote of nine deviations
    every = 86_400 * 10**9
    detector = build(DetectorSpec(tier="standard", preset="stock", channels=("close",)))
    state, flags = detector.initial(len(quotes)), []
    for day, row in enumerate(quotes.T):
        slots = np.arange(len(row), dtype=np.int32)
        at = np.full(len(row), day * every)
        points = Points(slots, at, row[:, None], np.zeros_like(slots), np.full(len(row), every))
        state, verdicts = detector.step(state, points)
        flags.append(verdicts.flag)
    flag = np.array(flags)
    assert flag[700].mean() >= 0.9
    alarms = flag[250:700] & ~flag[249:699]
    assert 1 / 252 <= alarms.mean() <= 3 / 252


def test_the_ranges_of_counts_do_not_begin_below_zero() -> None:
    values = np.random.default_rng(3).poisson(5, 10 * ROWS_PER_DAY).astype(float)
    values[[10, 300, 500]] = 0  # which the anchor moves by its last bits
    values[-1] = 900
    found = verdicts_of(values, preset="network")
    assert found.ratio[-1] > 1
    assert found.usual_low[-1] == 0
    assert found.lower[400:].min() == 0


def test_after_a_return_the_forecast_may_swing_until_it_is_right_again():
    state = residual_tail.initial_tail(1)
    events, head = state["usual.events"][0], state["usual.tail_head"][0]
    head[[residual_tail.TAIL_LIMIT, residual_tail.TAIL_ROWS]] = 5, 10_000

    def ratio_of(residual: float) -> float:
        numbers = np.float32(residual), np.float32(20 - residual), MONDAY_NS
        return residual_tail.residual_ratio(events, head, *numbers, False)

    residual_tail.begin_return(head, np.float32(20), np.float32(-16))  # from a forecast of 36 after a drift
    assert [ratio_of(residual) for residual in (-9, 6, -5.5, 5.5)] == [0, 0, 0, 0]
    for _ in range(40):
        ratio_of(0.1)
    assert ratio_of(15) == 3


def test_the_forecast_that_repeats_a_fault_of_a_period_ago_raises_no_alarm():
    """Seed 4 of the demo: a pressure that fell for 50 minutes, and its forecast eight hours later."""
    world, values = Plant(4), []
    for tick in range(-world.history_ticks, 700):
        if tick in (40, 280, 520):
            world.inject()
        records = [json.loads(record) for key, record in world.tick(tick * 300) if key == b"b1/press-3"]
        values.append((records[0]["temperature"], records[0]["pressure"]))
    points = points_of(np.array(values))
    points.every[:] = 5 * MINUTE_NS
    points.time[:] = MONDAY_NS + np.arange(len(points)) * 5 * MINUTE_NS
    detector = build(
        DetectorSpec(tier="standard", channels=("temperature", "pressure"), decision="usual_range")
    )
    _, verdicts = detector.step(detector.initial(1), points)
    flagged = np.flatnonzero(verdicts.flag) - world.history_ticks
    assert set(range(520, 530)) <= set(flagged)
    assert not ((flagged > 540) & (flagged < 700)).any()
