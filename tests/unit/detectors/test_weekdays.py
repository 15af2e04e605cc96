"""Kinds of day: which days of the week are alike is learned from the series."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detectors import DetectorSpec, build
from detectors.base import BASES, State
from detectors.stages.usual_range.lane import WEEKDAYS, WEEKEND, WHOLE_COLUMNS, WHOLE_DAY_VISITS, WHOLE_GROUP
from detectors.stages.usual_range.phase_profile import MISSING
from detectors.stages.usual_range.weekdays import _find_group, close_days, measure_visit, rescale
from tests.unit.detectors.test_usual_range import ROWS_PER_DAY, verdicts_of

MONDAY = 19_723  # 2024-01-01, in days since 1970-01-01
CLOSED_ON = {"Monday": (0,), "Friday and Saturday": (4, 5), "Wednesday and Sunday": (2, 6), "Sunday": (6,)}


def bits(*days: int) -> int:
    return sum(1 << day for day in days)


def shop(closed: tuple[int, ...], weeks: int, seed: int = 0) -> np.ndarray:
    """Return the visitors of a shop that is open from 08:00 to 18:00, one row each ten minutes."""
    rng, row = np.random.default_rng(seed), np.arange(weeks * WEEKDAYS * ROWS_PER_DAY)
    hour, day = row % ROWS_PER_DAY / 6, row // ROWS_PER_DAY % WEEKDAYS
    is_open = (hour >= 8) & (hour < 18) & ~np.isin(day, closed)
    return np.where(is_open, 80 * (1 + rng.normal(0, 0.04, len(row))), 3 + rng.normal(0, 0.3, len(row)))


@pytest.mark.parametrize(
    ("means", "group"),
    [
        ((0, 80, 82, 79, 85, 90, 81), bits(0)),
        ((80, 82, 79, 85, 84, 20, 0), bits(5, 6)),
        ((80, 82, 79, 85, 20, 22, 81), bits(4, 5)),
        ((0, 70, 75, 80, 130, 150, 110), bits(0)),  # days that differ among themselves
        ((10, 20, 30, 40, 50, 60, 70), 0),
        ((50, 50, 50, 50, 50, 50, 50), 0),
        ((50, 50, 50, 52, 50, 50, 50), 0),  # apart, but by less than a tenth of the range
        ((0, 80, 82, 79, 85, 90, MISSING), 0),
    ],
)
def test_the_days_of_a_week_fall_into_two_groups(means, group):
    found, ratio = _find_group(np.array(means, np.int16), np.float32(8))
    assert found == group
    assert (ratio > 0) == (group > 0)


def weeks_of(*weeks: tuple[int, ...]) -> int:
    """Return the group in use after weeks of these daily means."""
    means, whole = np.full(WEEKDAYS, MISSING, np.int16), np.zeros(WHOLE_COLUMNS, np.int8)
    whole[WHOLE_GROUP] = WEEKEND
    for day, value in enumerate(np.array(weeks).ravel().tolist()):
        for _ in range(24):
            measure_visit(means, whole, day % WEEKDAYS, np.float32(value), np.float32(1))
        close_days(means, whole, MONDAY + day, MONDAY + day + 1, 24, np.float32(8))
    return int(whole[WHOLE_GROUP])


def test_a_grouping_is_adopted_when_two_weeks_have_given_it():
    closed, ordinary = (0, 80, 82, 79, 85, 90, 81), (81, 80, 82, 79, 85, 20, 22)
    assert weeks_of(closed) == WEEKEND
    assert weeks_of(closed, closed) == bits(0)
    assert weeks_of(closed, ordinary, closed) == WEEKEND, "one outage each, weeks apart"
    assert weeks_of(ordinary, ordinary, closed, ordinary) == WEEKEND
    assert weeks_of(closed, closed, ordinary, ordinary) == WEEKEND, "the shop has changed its days"


def test_a_day_with_few_rows_and_days_without_rows_are_unknown():
    means, whole = np.full(WEEKDAYS, 5, np.int16), np.zeros(WHOLE_COLUMNS, np.int8)
    whole[WHOLE_DAY_VISITS] = 11
    close_days(means, whole, MONDAY, MONDAY + 3, 24, np.float32(1))
    assert (means == MISSING).tolist() == [True] * 4 + [False] * 3
    close_days(means, whole, MONDAY + 3, MONDAY + 4_000, 24, np.float32(1))
    assert (means == MISSING).all()


def test_means_follow_the_quantum_of_the_profile():
    means = np.array([800, -400, MISSING, 0, 1, 2, 3], np.int16)
    rescale(means, np.float32(1), np.float32(4))
    assert means.tolist() == [200, -100, MISSING, 0, 0, 0, 1]


@pytest.mark.parametrize("tier", ["light", "standard"])
@pytest.mark.parametrize("closed", CLOSED_ON.values(), ids=CLOSED_ON)
def test_ordinary_weeks_with_other_days_of_rest_are_quiet(tier, closed):
    """Before, a shop that is closed on Mondays had three alarms on each of them, for ever."""
    flags = verdicts_of(shop(closed, 9), tier).flag.reshape(9, WEEKDAYS, ROWS_PER_DAY)
    assert flags[4:].any(axis=2).sum() <= 2, "days with an alarm, of 35"


def test_a_day_of_rest_that_is_none_is_told_with_the_range_of_such_days():
    values = shop((0,), 12)
    monday = 11 * WEEKDAYS * ROWS_PER_DAY
    open_ = slice(monday + 48, monday + 108)
    values[open_] = shop((), 1)[48:108]
    found = verdicts_of(values, "standard")
    first = open_.start + int(np.argmax(found.flag[open_]))
    assert found.flag[first]
    assert BASES[found.basis[first]] == "similar_days"


@pytest.mark.parametrize("name", ["state_6_coarse_sizes.npz"])
def test_a_stored_state_begins_with_the_weekend(name):
    stored_file = np.load(Path(__file__).with_name("golden") / name)
    stored: State = {key: stored_file[key] for key in stored_file.files if key != "version"}
    detector = build(DetectorSpec(tier="standard", decision="usual_range"))
    state = detector.convert_state(stored_file["version"].tobytes().decode(), stored)
    assert state is not None
    before, after, whole = stored["usual.head"], state["usual.head"], state["usual.whole"]
    kept = [*range(14), 17, 18, 20, 22, 23, 24, 26]
    np.testing.assert_array_equal(after, before[..., kept])
    np.testing.assert_array_equal(whole[..., :6], before[..., [14, 15, 16, 19, 21, 25]])
    assert (whole[..., WHOLE_GROUP] == WEEKEND).all()
    assert (state["usual.means"] == MISSING).all()
