"""States that version 5 stored go on in the narrower form of today.

The stored states in ``golden/state_5.npz`` were written by commit 32f9067, the last one of version 5, after
2,880 rows of ``shift_plant`` (two channels: 600 rows).
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from detectors import DetectorSpec, build, contract
from detectors.base import ConvertsState, Points, State
from tests.unit.detectors.test_usual_range import ROWS_PER_DAY, points_of, shift_plant

STORED = np.load(Path(__file__).with_name("golden") / "state_5.npz")
VERSIONS: dict[str, str] = json.loads(STORED["versions"].tobytes())
CUT = 20 * ROWS_PER_DAY


def stored(key: str) -> State:
    return {name.removeprefix(f"{key}/"): STORED[name] for name in STORED.files if name.startswith(f"{key}/")}


def detector_of(key: str):
    tier, decision, what = key.split()
    channels = ("a", "b") if what == "two" else ("value",)
    return build(DetectorSpec(tier=tier, decision=decision, channels=channels))


@pytest.mark.parametrize("key", VERSIONS)
def test_a_state_has_the_form_of_today(key):
    detector = detector_of(key)
    assert isinstance(detector, ConvertsState)
    state, new = detector.convert_state(VERSIONS[key], stored(key)), detector.initial(1)
    assert state is not None
    assert {name: (a.shape, a.dtype) for name, a in state.items()} == {
        name: (a.shape, a.dtype) for name, a in new.items()
    }
    for name in (name for name in state if name.endswith("calibration.counts")):
        head = state[name.replace("counts", "head")]
        assert (state[name].sum(axis=-1) + head[..., 1] == head[..., 0]).all()
    if not key.endswith("former"):
        fresh = [name for name in state if np.array_equal(state[name], new[name], equal_nan=True)]
        before = stored(key)
        assert all(name.startswith(("usual.", "hidden.own")) or not before[name].any() for name in fresh), (
            fresh
        )


@pytest.mark.parametrize("key", VERSIONS)
def test_only_another_decision_starts_usual_ranges_anew(key):
    tier, decision, what = key.split()
    assert not detector_of(key).starts_usual_ranges(VERSIONS[key])
    of_ranges = detector_of(f"{tier} usual_range {what}")
    assert of_ranges.starts_usual_ranges(VERSIONS[key]) is (decision == "surprise")


@pytest.mark.parametrize("key", [key for key in VERSIONS if not key.endswith("two")])
def test_its_verdicts_are_those_of_a_series_that_was_never_stored(key):
    values = shift_plant()
    values[[3_000, 3_300]] += 60
    detector = detector_of(key)
    whole = contract.run_batches(detector, points_of(values))
    rest = points_of(values)
    rest = Points(*(getattr(rest, field.name)[CUT:] for field in fields(Points)))
    state = detector.convert_state(VERSIONS[key], stored(key))
    found = contract.run_batches(detector, rest, state=state)
    if "usual_range" in key:  # limits of the stored state are those of the sensitivity of that time
        assert found.flag[[3_000 - CUT, 3_300 - CUT]].all()
        assert (found.flag == whole.flag[CUT:]).mean() > 0.98
    if key.endswith("now"):
        np.testing.assert_allclose(found.surprise, whole.surprise[CUT:], atol=0.5)
    assert (found.forecaster == whole.forecaster[CUT:]).mean() > 0.9
    np.testing.assert_allclose(found.expected, whole.expected[CUT:], atol=2.0)


def test_a_state_of_an_unknown_form_is_not_converted():
    key = "standard usual_range now"
    assert detector_of(key).convert_state("5-other", stored(key)) is None
    assert detector_of(key).convert_state(VERSIONS[key].replace("5-", "4-"), stored(key)) is None


@pytest.mark.parametrize("key", [key for key in VERSIONS if "usual_range two" in key and "light" not in key])
def test_levels_of_evidence_of_related_channels_start_anew(key):
    """The map of that time had no evidence of relations, so that its levels were too high."""
    detector = detector_of(key)
    before, state, new = stored(key), detector.convert_state(VERSIONS[key], stored(key)), detector.initial(1)
    np.testing.assert_array_equal(state["usual.own"], new["usual.own"])
    assert not np.array_equal(before["usual.own"], new["usual.own"])
    np.testing.assert_array_equal(state["usual.limits"], before["usual.limits"])
    again = detector.convert_state(detector.state_version, state | {"usual.own": before["usual.own"]})
    np.testing.assert_array_equal(again["usual.own"], before["usual.own"])
