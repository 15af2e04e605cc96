"""Networks of their own for some series: the live step is the LSTM's, only they are changed by it, and files
that are not whole are refused.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import build
from detectors.artifacts import CorruptArtifact
from detectors.base import DetectorSpec
from detectors.forecasters import lstm_features, per_group_lstm
from detectors.forecasters.shared_lstm import HIDDEN, SharedLSTM, network
from detectors.training.sequences import FinetuneSettings, stacked
from pipeline.models import registry
from pipeline.training.group_networks import train_group_networks
from tests.support.retraining import points_of, sensors
from tests.support.trainings import henon

SPEC = DetectorSpec(channels=("v",))


def networks(count: int) -> list[SharedLSTM]:
    torch.manual_seed(0)
    return [SharedLSTM().requires_grad_(False) for _ in range(count)]


def tensors(members: list[list[str]]) -> per_group_lstm.Arrays:
    """The packaged LSTM, and a random network for each of ``members``."""
    modules = networks(len(members))
    weights = {
        name: np.stack([module.state_dict()[name].numpy() for module in modules])
        for name in modules[0].state_dict()
    }
    return {
        name: value.numpy() for name, value in network(None).state_dict().items()
    } | per_group_lstm.tensors(members, weights)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 60))
def test_a_row_goes_through_the_network_of_its_lane_wherever_the_batch_was_cut(
    lanes: list[int], cut: int
) -> None:
    lane = np.array(lanes, np.int32)
    inputs = (
        np.random.default_rng(len(lanes)).normal(0, 2, (len(lane), lstm_features.FEATURES)).astype(np.float32)
    )
    live = per_group_lstm.GroupNetworks.of(tensors([["a"], ["b", "c"]]))
    assert live is not None
    of_lane = live.of_series(["unknown", "a", "b", "c"])
    assert of_lane.tolist() == [0, 1, 2, 2]
    h, c = np.zeros((2, 4, HIDDEN), np.float32)
    out = np.full((len(lane), HIDDEN), np.nan, np.float32)
    for rows in (slice(0, cut), slice(cut, None)):
        live.run(of_lane[lane[rows]], inputs[rows], lane[rows], h, c, out[rows])
    for number, module in enumerate(networks(2), 1):
        for mine in (np.flatnonzero(lane == one) for one in np.flatnonzero(of_lane == number)):
            if len(mine):
                expected = module.lstm(torch.from_numpy(inputs[mine])[:, None])[0][:, 0].detach().numpy()
                np.testing.assert_allclose(out[mine], expected, atol=2e-6)
    assert np.isnan(out[of_lane[lane] == 0]).all()
    assert not h[0].any()


def test_only_the_series_that_have_one_are_changed_by_it() -> None:
    points = points_of(sensors(3, 6))
    names = ["a", "b", "c"]

    def verdicts(weights):
        detector = build(SPEC, weights)
        state = detector.initial(3)
        detector.register_series(state, np.arange(3, dtype=np.int32), names)
        return detector, detector.step(state, points)[1]

    without, usual = verdicts(None)
    with_one, other = verdicts(tensors([["b", "gone"]]))
    same = usual.expected == other.expected
    assert np.isclose(usual.expected, other.expected, atol=1e-4, equal_nan=True)[points.slot != 1].all()
    assert not same[(points.slot == 1) & np.isfinite(usual.expected[:, 0])].all()
    assert with_one.version != without.version
    assert with_one.weights != without.weights
    assert with_one.state_version == without.state_version


def test_a_version_with_networks_comes_back_from_its_files(tmp_path: Path) -> None:
    made = tensors([["a"], ["b", "c"]])
    about = {"architecture": "shared_lstm", "features": {"version": lstm_features.VERSION}}
    path, sha256 = registry.publish(str(tmp_path), "plant", made, about)
    again = registry.weights_of(path, sha256)
    assert per_group_lstm.members(again) == [["a"], ["b", "c"]]
    assert build(SPEC, again).version == build(SPEC, made).version


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"own.network": np.array([0, 7], np.int32)}, "not among the 1"),
        ({"own.network": np.array([0, -1], np.int32)}, "not among the 1"),
        ({"own.series": np.frombuffer(b"[1, 2]", np.uint8)}, "does not name a series"),
        ({"own.series": np.frombuffer(b"[", np.uint8)}, "Expecting value"),
        ({"own.series": np.frombuffer(b'["\xff"]', np.uint8)}, "codec can't decode"),
        ({"own.hidden": np.zeros((1, 4 * HIDDEN, 3), np.float32)}, "own.hidden"),
        ({"own.bias": np.zeros((2, 4 * HIDDEN), np.float32)}, "own.bias"),
        ({"own.weights": np.zeros(3, np.float32)}, "own.weights"),
    ],
)
def test_files_that_are_not_whole_are_refused(
    tmp_path: Path, change: dict[str, np.ndarray], message: str
) -> None:
    made = tensors([["a", "b"]]) | change
    about = {"architecture": "shared_lstm", "features": {"version": lstm_features.VERSION}}
    path, sha256 = registry.publish(str(tmp_path), "plant", made, about)
    with pytest.raises(CorruptArtifact, match=message):
        registry.weights_of(path, sha256)


def test_a_group_gets_a_network_only_where_that_forecasts_better() -> None:
    """Two groups follow a rule that the shared network does not know (Hénon's map, upright and upside down);
    in the third there is none.
    """
    rng = np.random.default_rng(0)
    noise = [rng.normal(size=1500) for _ in range(2)]
    series = [f"s{i}" for i in range(6)]
    lanes = stacked([*(henon(rng, sign) for sign in (1, 1, -1, -1)), *noise])
    weights = {name: value.numpy() for name, value in network(None).state_dict().items()}
    groups = {"up": [0, 1], "down": [2, 3], "noise": [4, 5]}
    made, about = train_group_networks(
        weights, lanes, series, groups, FinetuneSettings(epochs=4, chunk=64, memory=128, learning_rate=3e-3)
    )
    assert per_group_lstm.members(made) == [["s2", "s3"], ["s0", "s1"]]
    assert about["kept"] == 2
    assert all(one["error"] < 0.5 * one["shared"] for one in about["networks"])
    assert json.dumps(about)
