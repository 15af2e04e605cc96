"""Training: what it learns, what it watches, how it stops, and that it can be stopped, killed and repeated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from detectors.forecasters import build
from detectors.forecasters.base import Forecaster
from detectors.training import fit as training
from detectors.training.fit import TrainingSettings, TrainingStatus, Untrainable, fit
from detectors.training.gradients import Diverged, GradientMonitor, Stepper, reach
from detectors.training.recall import unexplained_share
from detectors.training.stacked_lstm import StackedLSTM


def waves(n: int = 6, steps: int = 300, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(steps)
    return np.stack(
        [50 + 7 * (np.sin(2 * np.pi * t / (9 + i)) + 0.1 * rng.normal(size=steps)) for i in range(n)]
    )


QUICK = TrainingSettings(epochs=4, chunk=32, batch=4)


def weights_of(forecaster: Forecaster) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().copy() for name, value in forecaster.state_dict().items()}


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "name", ["feedforward", "rnn", "lstm", "gru", "encoder_decoder", "attention", "exponential"]
)
def test_it_learns(name: str) -> None:
    forecaster = build(
        name, hidden=12, **({"period": 9, "trend": True} if name == "exponential" else {"horizon": 2})
    )
    before = training.fit(forecaster, waves(1), TrainingSettings(epochs=0))[0]
    result, scaler = fit(forecaster, waves(1), TrainingSettings(epochs=12, chunk=32, learning_rate=2e-2))
    assert result.mae < before.mae
    assert result.mae < 0.9 * result.naive
    assert scaler.location[0] == pytest.approx(50, abs=2)


def test_the_smoother_learns_what_it_does_not_see() -> None:
    result, _ = fit(
        build("bidirectional", hidden=12), waves(2), TrainingSettings(epochs=12, chunk=32, learning_rate=2e-2)
    )
    assert result.mae < 0.6 * result.naive


def test_a_forecaster_without_weights_is_judged_all_the_same() -> None:
    result, _ = fit(build("seasonal_naive", period=10), waves(2)[1:], QUICK)
    assert result.status is TrainingStatus.FINISHED
    assert result.mae < 0.5 * result.naive


def test_the_same_seed_gives_the_same_weights() -> None:
    one, two, other = (build("lstm", hidden=8) for _ in range(3))
    for forecaster, seed in ((one, 0), (two, 0), (other, 1)):
        fit(forecaster, waves(), TrainingSettings(epochs=2, chunk=32, batch=2, seed=seed))
    assert same(weights_of(one), weights_of(two))
    assert not same(weights_of(one), weights_of(other))  # another order of the series


def test_the_held_out_part_and_the_scaler_see_no_training_and_training_sees_nothing_of_them() -> None:
    series = waves()
    changed = series.copy()
    changed[:, 241:] *= 100.0  # 20 % of 300 rows are held out
    one, two = build("lstm", hidden=8, horizon=3), build("lstm", hidden=8, horizon=3)
    a, scaler_a = fit(one, series, TrainingSettings(epochs=1, chunk=32))
    b, scaler_b = fit(two, changed, TrainingSettings(epochs=1, chunk=32))
    assert same(weights_of(one), weights_of(two))
    np.testing.assert_array_equal(scaler_a.scale, scaler_b.scale)
    assert a.held_out != b.held_out


def test_missing_points_are_no_targets_and_no_poison() -> None:
    series = waves()
    series[:, 100:130] = np.nan
    series[2, ::7] = np.nan
    result, _ = fit(build("gru", hidden=8), series, QUICK)
    assert np.isfinite(result.losses).all()
    assert np.isfinite(result.mae)


def test_clipping_clips() -> None:
    forecaster = build("lstm", hidden=8, output="point")
    norms = []
    for clip in (1e-3, 1e9):
        stepper = Stepper(forecaster, 1e-2, clip, 10)
        x = torch.randn(4, 20, 1)
        parameters, _ = forecaster(x, forecaster.initial(4))
        stepper.step(100.0 * forecaster.output.loss(parameters, torch.zeros(4, 20, 1)).mean())
        norms.append(torch.stack([value.grad.norm() for value in forecaster.parameters()]).norm().item())
        assert stepper.monitor.norms[0] > 1.0  # as it was before clipping
        assert stepper.monitor.summary()["clipped"] == (1.0 if clip < 1 else 0.0)
    assert norms[0] == pytest.approx(1e-3, rel=1e-3)
    assert norms[1] > 1.0


def test_an_exploding_gradient_is_reported() -> None:
    monitor = GradientMonitor(clip=1.0)
    for norm in [0.5] * 30 + [400.0] + [0.5] * 5:
        monitor.record(norm)
    summary = monitor.summary()
    assert summary["exploding"] == 1
    assert summary["largest_norm"] == 400.0
    assert summary["median_norm"] == 0.5


def test_vanishing_and_exploding_gradients_of_a_plain_rnn_are_reported_and_not_of_lstm_and_gru() -> None:
    x = 0.1 * torch.randn(4, 150, 1, generator=torch.Generator().manual_seed(0))
    plain = build("rnn", hidden=16)
    assert reach(plain, x).vanishing
    assert reach(plain, x).steps < 30
    for name in ("lstm", "gru"):
        found = reach(build(name, hidden=16, span=128), x)
        assert not found.vanishing
        assert not found.exploding
        assert found.steps > 50
    loud = build("rnn", hidden=16, nonlinearity="relu")
    with torch.no_grad():
        loud.again[0].weight.copy_(1.5 * torch.eye(16))
    assert reach(loud, x).exploding


def echo(name: str, gap: int, updates: int, seed: int = 0, **options: Any) -> float:
    """Unexplained share of the recall task; see ``detectors.training.recall``."""
    forecaster = build(name, hidden=16, head="many_to_one", output="point", seed=seed, **options)
    return unexplained_share(forecaster, gap, updates)


@pytest.mark.parametrize(
    ("name", "solved"), [("lstm", True), ("gru", True), ("rnn", False), ("feedforward", False)]
)
def test_a_dependency_100_steps_back(name: str, solved: bool) -> None:
    unexplained = echo(name, 100, 160, **({"span": 128} if solved else {}))
    assert unexplained < 0.1 if solved else unexplained > 0.2


@pytest.mark.long
@pytest.mark.parametrize("nonlinearity", ["tanh", "relu", "leaky_relu"])
def test_six_times_the_training_gives_the_plain_rnn_no_reliable_memory(nonlinearity: str) -> None:
    """Some seeds remember after 1,000 updates (tanh: .17, .01, .30); of LSTMs most do after 160."""
    assert max(echo("rnn", 100, 1000, seed, nonlinearity=nonlinearity) for seed in range(3)) > 0.2
    assert np.median([echo("lstm", 100, 160, seed, span=128) for seed in range(3)]) < 0.1


@pytest.mark.long
@pytest.mark.parametrize("name", ["lstm", "gru", "attention"])
def test_a_dependency_400_steps_back(name: str) -> None:
    assert echo(name, 400, 400, span=512) < 0.1


def test_it_stops_when_the_held_out_part_gets_no_better_and_keeps_the_best() -> None:
    noise = np.random.default_rng(0).normal(size=(2, 200))
    forecaster = build("lstm", hidden=16, output="point")
    result, _ = fit(forecaster, noise, TrainingSettings(epochs=60, chunk=32, patience=3, learning_rate=3e-2))
    assert result.status is TrainingStatus.CONVERGED
    assert len(result.held_out) < 60
    best = int(np.argmin(result.held_out))
    assert len(result.held_out) == best + 1 + 3
    # for points, the score is the absolute error
    assert result.mae == pytest.approx(result.held_out[best], rel=1e-5)


def test_a_divergence_is_reported_and_the_best_weights_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = Stepper.step, []

    def bad(self: Stepper, loss: torch.Tensor) -> float:
        calls.append(1)
        return real(self, loss * torch.nan if len(calls) == 40 else loss)

    monkeypatch.setattr(Stepper, "step", bad)
    forecaster = build("lstm", hidden=8)
    result, _ = fit(forecaster, waves(), TrainingSettings(epochs=10, chunk=32))
    assert result.status is TrainingStatus.DIVERGED
    assert "lower the learning rate" in result.reason
    assert all(np.isfinite(value).all() for value in weights_of(forecaster).values())
    assert np.isfinite(result.mae)


def test_a_step_that_is_not_a_number_touches_no_weight() -> None:
    forecaster = build("lstm", hidden=8)
    before = weights_of(forecaster)
    stepper = Stepper(forecaster, 1e-2, 1.0, 10)
    parameters, _ = forecaster(torch.full((1, 5, 1), torch.inf), forecaster.initial(1))
    with pytest.raises(Diverged):
        stepper.step(parameters.sum())
    assert same(before, weights_of(forecaster))


def test_it_can_be_cancelled() -> None:
    asked = []

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) > 20

    result, _ = fit(
        build("lstm", hidden=8), waves(), TrainingSettings(epochs=50, chunk=32), cancelled=cancelled
    )
    assert result.status is TrainingStatus.CANCELLED
    assert len(asked) == 21


def test_progress_is_reported() -> None:
    seen: list[training.EpochProgress] = []
    fit(build("lstm", hidden=8), waves(), QUICK, progress=seen.append)
    assert [p.epoch for p in seen] == [1, 2, 3, 4]
    assert seen[-1].seconds_left == 0
    assert all(np.isfinite([p.loss, p.held_out]).all() for p in seen)


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path) -> None:
    whole = build("lstm", hidden=8)
    expected, _ = fit(whole, waves(), QUICK)

    class Killed(BaseException):
        pass

    def kill(progress: training.EpochProgress) -> None:
        if progress.epoch == 3:  # after the checkpoint of epoch 2
            raise Killed

    path = str(tmp_path / "checkpoint")
    with pytest.raises(Killed):
        fit(build("lstm", hidden=8), waves(), QUICK, progress=kill, checkpoint=path)
    epochs: list[int] = []
    again = build("lstm", hidden=8)
    result, _ = fit(again, waves(), QUICK, progress=lambda p: epochs.append(p.epoch), checkpoint=path)
    assert epochs == [3, 4]
    assert result.held_out == expected.held_out
    assert same(weights_of(whole), weights_of(again))


def test_a_checkpoint_of_other_data_is_not_gone_on_from(tmp_path) -> None:
    path = str(tmp_path / "checkpoint")
    fit(build("lstm", hidden=8), waves(), QUICK, checkpoint=path)
    epochs: list[int] = []
    fit(
        build("lstm", hidden=8),
        waves(seed=5),
        QUICK,
        progress=lambda p: epochs.append(p.epoch),
        checkpoint=path,
    )
    assert epochs == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("series", "message"),
    [
        (np.full((1, 300), 4.2), "series 0 is constant"),
        (np.zeros((1, 10)), "10|8 points"),
        (np.full((2, 300), np.nan), "has 0 points"),
    ],
)
def test_data_that_cannot_teach_says_why(series: np.ndarray, message: str) -> None:
    with pytest.raises(Untrainable, match=message):
        fit(build("lstm", hidden=8), series, QUICK)


def test_the_stacked_recurrence_is_the_lstm_of_torch() -> None:
    torch.manual_seed(0)
    cells = [torch.nn.LSTM(1, 5).double() for _ in range(3)]
    x = torch.randn(7, 3, 2, 1, dtype=torch.float64)
    weight = torch.stack([cell.weight_hh_l0.T for cell in cells]).detach().requires_grad_()
    drive = torch.stack(
        [x[:, i] @ cell.weight_ih_l0.T + cell.bias_ih_l0 + cell.bias_hh_l0 for i, cell in enumerate(cells)], 1
    )
    drive = drive.detach().requires_grad_()
    zero = torch.zeros(3, 2, 5, dtype=torch.float64)
    hidden, last = StackedLSTM.apply(drive, weight, zero, zero)
    mix = torch.randn_like(hidden)
    (hidden * mix).sum().backward()
    for i, cell in enumerate(cells):
        expected, (_, c) = cell(x[:, i])
        torch.testing.assert_close(hidden[:, i], expected)
        torch.testing.assert_close(last[i], c[0])
        (expected * mix[:, i]).sum().backward()
        torch.testing.assert_close(weight.grad[i].T, cell.weight_hh_l0.grad)
        torch.testing.assert_close(drive.grad[:, i].sum((0, 1)), cell.bias_hh_l0.grad)
