"""Networks of a stream: what runs live without torch forecasts what was trained with it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import nbinom

from detectors import DetectorSpec, Points, artifacts, build
from detectors.base import State
from detectors.forecasters import frozen_network, lstm_features
from detectors.forecasters.frozen_network import FrozenNetwork, weight_shapes
from detectors.forecasters.network_spec import (
    SPEC_TENSOR,
    WEIGHT_PREFIX,
    Activation,
    Kind,
    NetworkSpec,
    Output,
    conflicts,
    default_activation,
    default_head,
    spec_of,
)
from detectors.forecasters.stream_network import (
    StreamNetwork,
    count_mean,
    negative_binomial_loss,
    stream_network,
)

MINUTE = 60_000_000_000
EVERY = 4 * 60 * MINUTE
BEFORE_SUMMER_TIME = 1_774_051_200 * 10**9  # 2026-03-21, eight days before the clock change
LIVE_KINDS = [kind for kind in Kind if kind != Kind.BIDIRECTIONAL]
RNN_ACTIVATIONS = [word for word in Activation if word != Activation.SOFTMAX]


def spec(kind: str, **more: Any) -> NetworkSpec:
    base = {"head": default_head(kind), "activation": default_activation(kind), "hidden": 12, "window": 5}
    return NetworkSpec(kind=str(kind), **{**base, "memory": 6, **more})


INPUTS = {"inputs": "calendar,lags", "zone": "Europe/Berlin", "holidays": "DE-BY"}
SPECS = {
    **{str(kind): spec(kind) for kind in LIVE_KINDS},
    "gru 2 layers": spec("gru", layers=2),
    "lstm 3 layers": spec("lstm", layers=3, hidden=9),
    "feedforward 2 layers": spec("feedforward", layers=2),
    "attention 2 layers": spec("attention", layers=2),
    "one to one": spec("feedforward", window=1, head="one_to_one"),
    "many to one": spec("gru", head="many_to_one"),
    "one to many": spec("lstm", head="one_to_many"),
    **{f"rnn {word}": spec("rnn", activation=str(word)) for word in RNN_ACTIVATIONS},
    **{f"feedforward {word}": spec("feedforward", activation=str(word)) for word in RNN_ACTIVATIONS},
    **{f"gru {output}": spec("gru", output=str(output)) for output in Output},
    **{f"{kind} with inputs": spec(kind, **INPUTS) for kind in LIVE_KINDS},
    **{f"gru {output} with lags": spec("gru", output=str(output), inputs="lags") for output in Output},
    "lstm with a calendar": spec("lstm", inputs="calendar", holidays="US"),
}


def tensors_of(one: NetworkSpec, seed: int = 0) -> dict[str, np.ndarray]:
    return StreamNetwork(one, seed).tensors()


@dataclass
class Inputs:
    """Points of interleaved series, and their inputs without those of the calendar."""

    rows: lstm_features.FeatureRows
    slot: np.ndarray
    time: np.ndarray
    x: np.ndarray

    def of(self, net: FrozenNetwork, state: State, part: Any = slice(None)) -> np.ndarray:
        """Return the inputs of some points."""
        rows = lstm_features.FeatureRows(
            *(getattr(self.rows, one.name)[part] for one in fields(lstm_features.FeatureRows))
        )
        time = self.time[part]
        clock = time, np.full(len(time), EVERY)
        return net.calendar.advance(state, self.slot[part], clock, self.x[part], rows)


def rows_of(series: int, points: int, seed: int = 0) -> Inputs:
    """Inputs of ``series`` interleaved series, whole numbers as counts are, over a clock change of Berlin."""
    rng = np.random.default_rng(seed)
    values = np.round(30 + 8 * np.sin(np.arange(points) / 7)[:, None] + rng.normal(0, 3, (points, series)))
    slot = np.tile(np.arange(series, dtype=np.int32), points)
    state = lstm_features.initial(series, 64)
    found = lstm_features.advance(state, slot, values.reshape(-1), np.zeros(len(slot), np.int32))
    time = np.repeat(BEFORE_SUMMER_TIME + np.arange(points) * EVERY, series)
    return Inputs(found, slot, time, values.reshape(-1))


@pytest.mark.parametrize("name", SPECS)
def test_live_and_training_agree(name: str) -> None:
    one, series, points = SPECS[name], 3, 60
    module = StreamNetwork(one)
    assert {f"{WEIGHT_PREFIX}{key}" for key in weight_shapes(one)} | {SPEC_TENSOR} == set(module.tensors())
    for key, shape in weight_shapes(one).items():
        assert list(module.tensors()[f"{WEIGHT_PREFIX}{key}"].shape) == shape, key
    given = rows_of(series, points)
    rows, net = given.rows, FrozenNetwork(module.tensors())
    state = net.initial(series)
    live = given.of(net, state)
    hidden = net.run(live, given.slot, state)
    said = net.locations(hidden, live, rows).reshape(points, series, -1)
    inputs = torch.from_numpy(live).view(points, series, -1)
    with torch.no_grad():
        wanted, _ = module.advance(inputs)
        parameters = module.parameters_of(wanted, inputs)
        location = module.forecaster.output.location(parameters)
        if one.output == Output.NEGATIVE_BINOMIAL:
            last, unit = (
                torch.from_numpy(part).float().view(points, series, 1) for part in (rows.last, rows.unit)
            )
            location = (count_mean(location, last, unit) - last) / unit
    np.testing.assert_allclose(hidden.reshape(wanted.shape), wanted, atol=3e-5)
    close = np.abs(location.numpy()) < frozen_network.MAX_LOCATION_UNITS
    np.testing.assert_allclose(said[close], location.numpy()[close], atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("name", SPECS)
def test_numbers_do_not_depend_on_the_batch(name: str) -> None:
    """Bit by bit: other series beside it, and its points cut into other batches, change nothing."""
    net = FrozenNetwork(tensors_of(SPECS[name]))
    series = 70
    inputs = rows_of(series, 60 if net.spec.inputs else 12)
    slot, state = inputs.slot, net.initial(series)
    live = inputs.of(net, state)
    together = net.run(live, slot, state)
    for some, size in (([69], 1), ([0, 1], 3), ([3, 5, 8, 13, 21], 7), (list(range(66)), 100)):
        given, alone = np.flatnonzero(np.isin(slot, some)), net.initial(series)
        for at in range(0, len(given), size):
            part = given[at : at + size]
            own = inputs.of(net, alone, part)
            np.testing.assert_array_equal(own, live[part])
            np.testing.assert_array_equal(net.run(own, slot[part], alone), together[part])
        for key in state:
            np.testing.assert_array_equal(alone[key][some], state[key][some])


def test_state_bytes() -> None:
    """Bytes of each kind at 32 units, one layer, as the reference page states them."""
    found = {
        str(kind): FrozenNetwork(
            tensors_of(NetworkSpec(kind=kind, head=default_head(kind), activation=default_activation(kind)))
        ).state_bytes
        for kind in LIVE_KINDS
    }
    assert found == {
        "feedforward": 31 * 22 * 4,
        "rnn": 128,
        "lstm": 256,
        "gru": 128,
        "encoder_decoder": 256,
        "attention": 128 + 64 * 128 + 8,
    }


def points_of(series: int, points: int) -> Points:
    """Series that swing without a fixed period, so that neither season nor last value forecasts them best."""
    rng = np.random.default_rng(1)
    x = np.zeros((points, series))
    for t in range(2, points):
        x[t] = 1.8 * x[t - 1] - 0.9 * x[t - 2] + rng.normal(0, 1, series)
    slot = np.tile(np.arange(series, dtype=np.int32), points)
    time = np.repeat(np.arange(points, dtype=np.int64) * MINUTE, series)
    every = np.full(len(slot), MINUTE, np.int64)
    return Points(slot, time, x.reshape(-1, 1), np.zeros(len(slot), np.int32), every)


@pytest.mark.parametrize("tier", ["standard", "strong"])
@pytest.mark.parametrize("name", ["gru", "attention", "feedforward", "many to one"])
def test_a_detector_scores_with_a_network_and_goes_on_with_another(tier: str, name: str) -> None:
    """The shared LSTM, then a network, then the shared LSTM again: scale, season and level stay learnt."""
    shared = build(DetectorSpec(tier=tier, decision="usual_range"))
    other = build(DetectorSpec(tier=tier, decision="usual_range"), tensors_of(SPECS[name]))
    assert shared.state_version != other.state_version
    assert shared.weights != other.weights
    points = points_of(2, 200)
    state, _ = shared.step(shared.initial(2), points)
    moved = other.convert_state(shared.state_version, state)
    assert moved is not None
    other.on_weights_changed(moved)
    np.testing.assert_array_equal(moved["scale.moments"], state["scale.moments"])
    assert {key: value.shape for key, value in moved.items()} == {
        key: value.shape for key, value in other.initial(2).items()
    }
    later = points_of(2, 600)
    moved, verdicts = other.step(moved, later)
    assert np.isfinite(verdicts.score).all()
    assert (verdicts.forecaster == 7).any(), "the network forecast some rows"
    assert not (verdicts.forecaster == 4).any(), "the LSTM none"
    back = shared.convert_state(other.state_version, moved)
    assert back is not None
    shared.on_weights_changed(back)
    _, verdicts = shared.step(back, later)
    assert (verdicts.forecaster == 4).any()


def test_state_of_another_form_is_not_converted() -> None:
    one = build(DetectorSpec(tier="standard", decision="usual_range"), tensors_of(SPECS["gru"]))
    other = build(DetectorSpec(tier="strong", decision="usual_range"))
    assert one.convert_state(other.state_version, other.initial(1)) is None


def test_what_makes_no_sense_is_refused_with_the_reason() -> None:
    def reasons(**choice: Any) -> str:
        values = {"kind": "lstm", "head": default_head(choice.get("kind", "lstm")), **choice}
        return " ".join(f"{one.key}: {one.reason}" for one in conflicts(NetworkSpec(**values)))

    assert "kind: bidirectional looks ahead" in reasons(kind="bidirectional")
    assert "activation: the cell of gru has sigmoid gates" in reasons(kind="gru", activation="relu")
    assert "softmax makes the units of a layer share one sum" in reasons(kind="rnn", activation="softmax")
    assert "one_to_one forecasts from one point alone" in reasons(kind="lstm", head="one_to_one")
    assert "window: a window of one point is no sequence" in reasons(
        kind="feedforward", activation="relu", window=1
    )
    assert "head: the decoder of encoder_decoder" in reasons(kind="encoder_decoder", head="many_to_many")
    assert "hidden: 4096 is not from 4 to 512" in reasons(hidden=4096)
    assert reasons(kind="feedforward", activation="gelu", window=1, head="one_to_one") == ""


def damaged(change: dict[str, Any]) -> dict[str, np.ndarray]:
    import json

    values = json.loads(SPECS["gru"].tensor().tobytes()) | change
    return tensors_of(SPECS["gru"]) | {SPEC_TENSOR: np.frombuffer(json.dumps(values).encode(), np.uint8)}


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "bidirectional"},
        {"hidden": 1 << 40},
        {"hidden": 13},
        {"layers": "2"},
        {"kind": "x"},
        {"new": 1},
    ],
)
def test_a_damaged_spec_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    about = {
        "architecture": frozen_network.ARCHITECTURE,
        "features": {"version": lstm_features.VERSION},
    }
    artifacts.save(str(tmp_path / "good"), tensors_of(SPECS["gru"]), about)
    assert spec_of(frozen_network.read(str(tmp_path / "good"))) == SPECS["gru"]
    artifacts.save(str(tmp_path / "bad"), damaged(change), about)
    with pytest.raises(artifacts.CorruptArtifact, match="bad"):
        frozen_network.read(str(tmp_path / "bad"))


def test_weights_come_back() -> None:
    one = StreamNetwork(SPECS["gru"], seed=3)
    again = stream_network(SPECS["gru"], one.tensors(), seed=4)
    for name, value in one.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)
    other = stream_network(SPECS["lstm"], one.tensors(), seed=4)
    torch.testing.assert_close(other.state_dict(), StreamNetwork(SPECS["lstm"], seed=4).state_dict())


def test_the_loss_of_counts_is_that_of_scipy() -> None:
    mean, dispersion = torch.tensor([0.5, 4.0, 900.0]), torch.tensor([0.2, 1.5, 0.01])
    count = torch.tensor([0.0, 7.0, 1000.0])
    shape = 1 / dispersion.numpy()
    wanted = -nbinom.logpmf(count.numpy(), shape, shape / (shape + mean.numpy()))
    np.testing.assert_allclose(negative_binomial_loss(mean, dispersion, count), wanted, rtol=2e-4)


def test_scoring_with_a_network_does_not_import_torch(tmp_path: Path) -> None:
    about = {"architecture": frozen_network.ARCHITECTURE, "features": {"version": lstm_features.VERSION}}
    artifacts.save(str(tmp_path / "gru"), tensors_of(SPECS["gru"]), about)
    script = (
        "import sys; from detectors import DetectorSpec, build; "
        "from detectors.forecasters import frozen_network; "
        "from detectors.composite.warmup import compile_kernels; "
        f"d = build(DetectorSpec(), frozen_network.read({str(tmp_path / 'gru')!r})); compile_kernels(d); "
        "assert 'torch' not in sys.modules; print(d.version)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("standard-")
