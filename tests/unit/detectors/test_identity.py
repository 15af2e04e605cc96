"""Stored version names: the same spec and weights give the name of 0.1.0 (c0e9772).

Otherwise the state of every series would be reset by an upgrade.

The golden file is never written again, but where the state itself changed its form:
``python -m tests.unit.test_detector_identity`` writes it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detectors import DetectorSpec, Limits, build
from detectors.composite.presets import PRESETS
from detectors.composite.tiers import TIERS
from detectors.forecasters import shared_lstm_numba
from detectors.forecasters.per_group_lstm import tensors
from detectors.thresholds import THRESHOLDS

GOLDEN = Path(__file__).with_name("golden") / "detector_identity.json"
CHANNELS = {1: ("value",), 3: ("x", "y z", "Größe")}
INF = float("inf")


def variations(channels: int) -> dict[str, dict[str, Any]]:
    """Name → what differs from the default spec."""
    return {
        "default": {},
        "limits": {"limits": (Limits(-3.5, 80.0), Limits(high=1e6), Limits(low=0.0))[:channels]},
        "no limits given": {"limits": (Limits(),) * channels},
        "alarm rate": {"alarm_rate": 1e-3},
        "whole numbers": {"min_deviation": 1.0, "limits": (Limits(0.0, 100.0),) * channels},
        "up": {"direction": "up", "min_points": 3, "min_deviation": 0.05},
        "down": {"direction": "down", "alarm_rate": 0.00025},
    } | {f"threshold {name}": {"threshold": name} for name in sorted(THRESHOLDS) if name != "static"}


def own_weights() -> dict[str, Any]:
    """Weights of a version that was trained: not those that come with forewatch, and two networks of their
    own."""
    shared = {
        name: (np.asarray(value) * np.float32(0.5)).astype(np.float32)
        for name, value in shared_lstm_numba.read().items()
    }
    stacked = {
        name: np.stack([value, value * np.float32(0.25)])
        for name, value in shared.items()
        if name.startswith("lstm.")
    }
    return shared | tensors([["site=a,sensor=1"], ["Größe", 'x"y']], stacked)


def identities() -> dict[str, dict[str, str]]:
    """Spec in words → its names."""
    found = {}
    for tier in TIERS:
        for preset in PRESETS:
            for count, channels in CHANNELS.items():
                for name, changes in variations(count).items():
                    one = build(DetectorSpec(tier=tier, preset=preset, channels=channels, **changes))
                    found[f"{tier}, {preset}, {count} channels, {name}"] = names_of(one)
        if TIERS[tier].lags:
            for count, channels in CHANNELS.items():
                one = build(DetectorSpec(tier=tier, channels=channels), own_weights())
                found[f"{tier}, own weights, {count} channels"] = names_of(one)
    return found


def names_of(detector: Any) -> dict[str, str]:
    return {"version": detector.version, "state_version": detector.state_version, "weights": detector.weights}


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, str]]:
    return identities()


@pytest.mark.parametrize("name", ["version", "state_version", "weights"])
def test_detectors_are_called_as_they_were(found, name):
    golden = json.loads(GOLDEN.read_text())
    assert found.keys() == golden.keys()
    assert {spec: one[name] for spec, one in found.items()} == {
        spec: one[name] for spec, one in golden.items()
    }


def test_what_decides_is_part_of_the_name():
    """The golden names would prove nothing if they were all alike."""
    golden = json.loads(GOLDEN.read_text())
    assert len({one["version"] for one in golden.values()}) == len(golden)
    assert len({one["state_version"] for one in golden.values()}) > 3 * len(TIERS)


def test_a_key_that_was_added_later_counts_only_with_another_value():
    names = {
        build(DetectorSpec(tier="light", **changes)).version
        for changes in ({}, {"decision": "usual_range"}, {"timezone": "Europe/Berlin"})
    }
    assert len(names) == 3
    assert build(DetectorSpec(tier="light", decision="surprise", timezone="")).version in names


def test_an_unknown_decision_is_refused():
    with pytest.raises(ValueError, match="decision 'majority' is unknown; known are surprise, usual_range"):
        build(DetectorSpec(decision="majority"))


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(identities(), indent=0, ensure_ascii=False) + "\n")
