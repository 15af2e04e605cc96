"""What leaves its range at the same time on some days of each week becomes usual.

The stored state in ``golden/state_before_departures.npz`` was written by commit c73dfd39, the last one
without departures, after twenty days of ``shift_plant``.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import DetectorSpec, build, contract
from detectors.base import Points
from detectors.stages.usual_range.departures import DAYS, initial_departures, is_habit, keep_departure
from detectors.stages.usual_range.residual_events import DAYS_KEPT, EVENT_SIZE, size_step
from tests.unit.detectors.test_usual_range import ROWS_PER_DAY, points_of, shift_plant, verdicts_of

STORED = np.load(Path(__file__).with_name("golden") / "state_before_departures.npz")
KEY = "standard usual_range now"
MINUTE_NS, DAY_ROWS = 60_000_000_000, 1_440
DAY_NS = DAY_ROWS * MINUTE_NS
NINE = 9 * 60 * MINUTE_NS


def queue_of_letters(days: int, letters: dict[int, float]) -> np.ndarray:
    """Return the length of a queue by minutes, with a burst each hour.

    ``letters`` gives the hour of a newsletter on some days.
    """
    rng, row = np.random.default_rng(5), np.arange(days * DAY_ROWS)
    values = rng.poisson(2 + 20.0 * (row % 60 < 3)).astype(float)
    for day, hour in letters.items():
        first = day * DAY_ROWS + int(hour * 60)
        values[first : first + 25] += 3_000 * np.minimum(np.arange(1, 26) / 10, 1)
    return values


def days_of_alarms(values: np.ndarray) -> set[int]:
    points = points_of(values)
    given_points = Points(
        **{field.name: getattr(points, field.name) for field in fields(Points)}
        | {
            "time": np.arange(len(values)) * MINUTE_NS,
            "every": np.full(len(values), MINUTE_NS),
        }
    )
    spec = DetectorSpec(tier="standard", decision="usual_range", preset="network")
    return set((np.flatnonzero(contract.run_batches(build(spec), given_points).flag) // DAY_ROWS).tolist())


def test_a_newsletter_on_two_days_of_the_week_is_usual_in_the_third_week():
    mornings = {day: 9 + 0.04 * (day % 5) for day in range(28) if day % 7 in (1, 3)}
    alarms = days_of_alarms(queue_of_letters(28, mornings))
    assert alarms
    assert alarms <= {1, 3, 8, 10}


@pytest.mark.parametrize("hour", [4.0, 14.0])
def test_a_newsletter_at_another_time_is_an_alarm(hour):
    mornings = {day: 9.0 for day in range(28) if day % 7 in (1, 3)}
    assert 25 in days_of_alarms(queue_of_letters(28, mornings | {25: hour}))


@given(st.lists(st.tuples(st.integers(0, DAYS_KEPT - 1), st.floats(1.01, 1e4), st.booleans()), max_size=60))
def test_each_day_keeps_its_largest_departure(departures):
    kept = initial_departures(1)["usual.departures"][0]
    for day, ratio, up in sorted(departures):
        keep_departure(kept, np.float32(ratio if up else -ratio), day * DAY_NS + NINE)
    newest: dict[int, tuple[int, float]] = {}
    for day, ratio, _ in sorted(departures):
        largest = newest.get(day % DAYS, (day, 0.0))
        newest[day % DAYS] = (day, max(ratio, largest[1] if largest[0] == day else 0.0))
    for at, (_, ratio) in newest.items():
        assert kept[at, EVENT_SIZE] == size_step(np.float32(ratio))


@pytest.mark.parametrize(
    ("days", "ratio", "hours_later", "habit"),
    [
        ((7,), 3.0, 0, False),  # once is no habit
        ((7, 14), 3.0, 0, True),
        ((7, 21), 3.0, 0, True),
        ((1, 2), 3.0, 0, True),
        ((2, 3, 5), 3.0, 0, True),
        ((7, 14), 9.0, 0, False),  # three times as large
        ((7, 14), -3.0, 0, False),  # the other side
        ((7, 14), 3.0, 3, True),  # it lasts
        ((7, 14), 3.0, 4, False),  # another time of day
        ((7, 14), 3.0, -2, False),
        ((8, 15), 3.0, 0, False),  # another weekday
    ],
)
def test_a_habit_comes_back_at_its_time_and_size(days, ratio, hours_later, habit):
    kept, today = initial_departures(1)["usual.departures"][0], 100
    for ago in sorted(days, reverse=True):
        keep_departure(kept, np.float32(3.0), (today - ago) * DAY_NS + NINE)
    local = today * DAY_NS + NINE + hours_later * 60 * MINUTE_NS
    assert is_habit(kept, np.float32(ratio), local) is habit


def test_a_state_without_departures_goes_on():
    version = json.loads(STORED["versions"].tobytes())[KEY]
    before = {name.removeprefix(f"{KEY}/"): STORED[name] for name in STORED.files if name.startswith(KEY)}
    detector = build(DetectorSpec(tier="standard", decision="usual_range", channels=("value",)))
    state, new = detector.convert_state(version, before), detector.initial(1)
    assert state is not None
    assert {name: (a.shape, a.dtype) for name, a in state.items()} == {
        name: (a.shape, a.dtype) for name, a in new.items()
    }
    kept = set(before) - {"bounds.seen", "bounds.used"}
    assert all(np.array_equal(state[name], before[name], equal_nan=True) for name in kept)
    few, many = (one["bounds.seen"][0, 0, : int(one["bounds.used"][0, 0])] for one in (state, before))
    assert len(few) == 32
    assert set(few) <= set(many)
    assert (few[0], few[-1]) == (many[0], many[-1])
    values = shift_plant()
    values[[3_000, 3_300]] += 60
    cut, points = 20 * ROWS_PER_DAY, points_of(values)
    rest = Points(*(getattr(points, field.name)[cut:] for field in fields(Points)))
    found = contract.run_batches(detector, rest, state=state)
    np.testing.assert_array_equal(found.flag, verdicts_of(values, "standard").flag[cut:])
