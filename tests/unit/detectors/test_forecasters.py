"""The contract of every forecaster.

A new forecaster is a module and an entry in ``FORECASTER_REGISTRY``; it is complete when these tests pass.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detectors.artifacts import ArtifactError, CorruptArtifact
from detectors.forecasters import FORECASTER_REGISTRY, build, persistence
from detectors.forecasters.base import HEADS, Forecaster, NotCausal, require_causal
from detectors.forecasters.distributions import OUTPUTS

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in FORECASTER_REGISTRY},
    "rnn relu": ("rnn", {"nonlinearity": "relu"}),
    "rnn leaky relu": ("rnn", {"nonlinearity": "leaky_relu"}),
    "rnn 2 layers": ("rnn", {"layers": 2}),
    "lstm 3 layers": ("lstm", {"layers": 3}),
    "gru 2 layers": ("gru", {"layers": 2}),
    "feedforward 2 layers": ("feedforward", {"layers": 2, "window": 5}),
    "attention short": ("attention", {"memory": 3}),
    "bidirectional 2 layers": ("bidirectional", {"layers": 2}),
    "season of 6": ("seasonal_naive", {"period": 6}),
    "holt": ("exponential", {"trend": True}),
    "holt-winters": ("exponential", {"trend": True, "period": 6}),
    "snarimax season": ("snarimax", {"p": 3, "d": 1, "m": 6, "sp": 2, "q": 1}),
    "three steps": ("lstm", {"horizon": 3}),
    "decoded": ("gru", {"horizon": 3, "head": "one_to_many"}),
    "last only": ("lstm", {"head": "many_to_one"}),
    "encoder decoder k": ("encoder_decoder", {"horizon": 4, "layers": 2}),
    **{f"lstm {output}": ("lstm", {"output": output, "horizon": 2}) for output in OUTPUTS},
}
CAUSAL = [name for name, (kind, _) in VARIANTS.items() if kind != "bidirectional"]


def make(variant: str, **more: Any) -> Forecaster:
    kind, options = VARIANTS[variant]
    return build(kind, **{"hidden": 8, **options, **more})


def data(batch: int = 4, steps: int = 40, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, steps, 1, generator=torch.Generator().manual_seed(seed))


def run(forecaster: Forecaster, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return forecaster(x, forecaster.initial(len(x)))[0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes(variant: str) -> None:
    forecaster = make(variant)
    x = data()
    with torch.no_grad():
        parameters, state = forecaster(x, forecaster.initial(4))
    steps = 40 if forecaster.config.head == "many_to_many" else 1
    assert parameters.shape == (4, steps, forecaster.config.horizon, forecaster.output.size)
    assert parameters.isfinite().all()
    assert [part.shape for part in state] == [part.shape for part in forecaster.initial(4)]
    assert forecaster.output.location(parameters).shape == parameters.shape[:-1]
    assert forecaster.state_bytes() == sum(part[:1].numpy().nbytes for part in state)


def past_changes_with_the_future(forecaster: Forecaster) -> bool:
    x = data()
    changed = x.clone()
    changed[:, 25:] += 10.0
    return not torch.equal(run(forecaster, x)[:, :25], run(forecaster, changed)[:, :25])


@pytest.mark.parametrize("variant", [name for name in CAUSAL if make(name).config.head == "many_to_many"])
def test_causal(variant: str) -> None:
    assert not past_changes_with_the_future(make(variant))


@pytest.mark.parametrize("variant", ["bidirectional", "bidirectional 2 layers"])
def test_bidirectional_is_not_causal_and_is_refused(variant: str) -> None:
    forecaster = make(variant)
    assert past_changes_with_the_future(forecaster)
    with pytest.raises(NotCausal, match="cannot run on a live stream"):
        require_causal(forecaster)
    with pytest.raises(NotCausal, match="offline"):
        forecaster.step({}, forecaster.initial(2), torch.zeros(2, 1))


def test_bidirectional_does_not_use_the_point_that_it_estimates() -> None:
    forecaster = make("bidirectional")
    x = data()
    changed = x.clone()
    changed[:, 20] += 5.0
    before, after = run(forecaster, x), run(forecaster, changed)
    torch.testing.assert_close(before[:, 20], after[:, 20])
    assert not torch.equal(before[:, 19], after[:, 19])
    assert not torch.equal(before[:, 21], after[:, 21])


@pytest.mark.parametrize("variant", CAUSAL)
def test_single_steps_give_the_same_forecast(variant: str) -> None:
    forecaster = make(variant)
    require_causal(forecaster)
    x = data()
    weights = {**dict(forecaster.named_parameters()), **dict(forecaster.named_buffers())}
    state, steps = forecaster.initial(4), []
    with torch.no_grad():
        for t in range(40):
            state, parameters = forecaster.step(weights, state, x[:, t])
            steps.append(parameters)
    whole = run(forecaster, x)
    torch.testing.assert_close(torch.stack(steps, 1)[:, -whole.shape[1] :], whole, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", CAUSAL)
def test_state_is_a_value(variant: str) -> None:
    """It survives as arrays, is not changed by a step, and is all that the forecaster remembers."""
    forecaster = make(variant)
    x = data()
    with torch.no_grad():
        _, state = forecaster(x[:, :20], forecaster.initial(4))
        kept = [part.numpy().copy() for part in state]
        first, _ = forecaster(x[:, 20:], state)
        for part, copy in zip(state, kept, strict=True):
            np.testing.assert_array_equal(part.numpy(), copy)
        second, _ = make(variant)(x[:, 20:], tuple(torch.from_numpy(part) for part in kept))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first, run(forecaster, x)[:, -first.shape[1] :], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_series_does_not_feel_the_others_of_its_batch(variant: str) -> None:
    forecaster = make(variant)
    x = data(6)
    together = run(forecaster, x)
    for i in range(6):
        torch.testing.assert_close(run(forecaster, x[i : i + 1])[0], together[i], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", CAUSAL)
def test_a_step_uses_the_weights_it_is_given(variant: str) -> None:
    forecaster, other = make(variant), make(variant, seed=1)
    weights = dict(other.named_parameters())
    x = data(3, 1)[:, 0]
    with torch.no_grad():
        _, given = forecaster.step(weights, forecaster.initial(3), x)
        _, own = other.step(weights, other.initial(3), x)
    torch.testing.assert_close(given, own, rtol=0, atol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_seed_decides_the_first_weights(variant: str) -> None:
    torch.manual_seed(123)  # the caller's generator is neither used nor moved
    one = make(variant)
    drawn = torch.rand(1)
    torch.manual_seed(123)
    assert torch.equal(torch.rand(1), drawn)
    for a, b in zip(one.parameters(), make(variant).parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    if any(value.numel() > 3 for value in one.parameters()):
        assert any(
            not torch.equal(a, b)
            for a, b in zip(one.parameters(), make(variant, seed=9).parameters(), strict=True)
        )


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_saved_and_loaded_forecaster_gives_the_same_forecast(variant: str, tmp_path: Path) -> None:
    forecaster = make(variant, seed=3)
    digest = persistence.save(str(tmp_path / "m"), forecaster, {"note": "test"})
    loaded, manifest = persistence.load(str(tmp_path / "m"), digest)
    assert manifest["note"] == "test"
    assert loaded.config == forecaster.config
    torch.testing.assert_close(run(loaded, data()), run(forecaster, data()), rtol=0, atol=0)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if any(True for _ in make(name).parameters())])
def test_every_weight_can_learn(variant: str) -> None:
    forecaster = make(variant)
    parameters, _ = forecaster(data(), forecaster.initial(4))
    forecaster.output.loss(parameters, torch.ones(parameters.shape[:-1])).mean().backward()
    still = [
        name
        for name, value in forecaster.named_parameters()
        if value.grad is None or not value.grad.abs().sum() > 0
    ]
    idle = ("mirror",)  # of the encoder-decoder: learns by ``reconstruct``
    if forecaster.config.horizon == 1:
        idle += ("head.cell.weight_ih",)  # sees its own forecasts only from the second step on
    assert not [name for name in still if not name.startswith(idle)]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("output", OUTPUTS)
def test_every_head_with_every_output(head: str, output: str) -> None:
    horizon = 1 if head == "many_to_one" else 5
    parameters = run(build("lstm", hidden=8, head=head, output=output, horizon=horizon), data())
    assert parameters.shape == (4, 40 if head == "many_to_many" else 1, horizon, OUTPUTS[output].size)


def test_the_autoencoder_gives_back_what_it_has_learnt() -> None:
    forecaster = build("encoder_decoder", hidden=16, output="point", seed=2)
    phase = torch.arange(12) * 2 * torch.pi / 12
    windows = torch.stack([torch.sin(phase + shift) for shift in torch.linspace(0, 6.28, 33)[:32]])[..., None]
    optimiser = torch.optim.Adam(forecaster.parameters(), 1e-2)
    for _ in range(300):
        optimiser.zero_grad()
        loss = (forecaster.reconstruct(windows)[..., 0] - windows[..., 0]).abs().mean()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.15
    odd = windows.clone()
    odd[:, 5] = 3.0
    error = (forecaster.reconstruct(odd)[..., 0] - odd[..., 0]).abs().mean(0)
    assert error.argmax() == 5


def test_seasonal_naive_repeats() -> None:
    x = torch.arange(6.0).repeat(5)[None, :, None]
    ahead = run(build("seasonal_naive", period=6, horizon=8), x)[0, -1, :, 0]
    assert ahead.tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    first = run(build("seasonal_naive", period=6), x)[0, :6, 0, 0]
    assert first.tolist() == [0, 1, 2, 3, 4, 0]  # the naive forecast until a period is known


def test_holt_winters_follows_trend_and_season() -> None:
    t = torch.arange(400.0)
    x = (0.05 * t + torch.sin(2 * torch.pi * t / 8))[None, :, None]
    error = {}
    for name, options in (("ewma", {}), ("holt-winters", {"trend": True, "period": 8})):
        forecast = run(build("exponential", **options), x)[0, 200:-1, 0, 0]
        error[name] = float((forecast - x[0, 201:, 0]).abs().mean())
    assert error["holt-winters"] < 0.1 * error["ewma"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("transformer", {}, "is unknown; there are feedforward"),
        ("lstm", {"hiden": 3}, "no such option"),
        ("lstm", {"head": "none"}, "head 'none' is unknown"),
        ("lstm", {"output": "none"}, "output 'none' is unknown"),
        ("lstm", {"hidden": 0}, "at least 1"),
        ("lstm", {"head": "many_to_one", "horizon": 3}, "use one_to_many"),
        ("rnn", {"nonlinearity": "step"}, "nonlinearity 'step' is unknown"),
        ("bidirectional", {"horizon": 2}, "horizon must be 1"),
        ("seasonal_naive", {"output": "student"}, "points only"),
    ],
)
def test_a_wrong_option_says_what_is_right(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(name, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "os.system"}, "names an unknown forecaster"),
        ({"config": None}, "names an unknown forecaster"),
        ({"config": {"hidden": 10**9}}, "has a size over 10000, or more than 32 layers"),
        ({"config": {"layers": 9000}}, "has a size over 10000, or more than 32 layers"),
        ({"config": {"hidden": 9000, "layers": 30}}, "expected tensors"),
        ({"config": {"hidden": "8"}}, "does not support"),
        ({"config": {"exec": "x"}}, "does not support"),
        ({"config": {"hidden": 9}}, "expected tensors"),
    ],
)
def test_a_hostile_manifest_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    from detectors import artifacts

    tensors = {name: value.detach().numpy() for name, value in make("lstm").state_dict().items()}
    artifacts.save(str(tmp_path / "m"), tensors, {"architecture": "lstm", "config": {"hidden": 8}, **change})
    with pytest.raises(CorruptArtifact, match=message):
        persistence.load(str(tmp_path / "m"))


def test_a_missing_forecaster_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no file"):
        persistence.load(str(tmp_path / "none"))
