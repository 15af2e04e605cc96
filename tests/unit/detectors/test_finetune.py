"""Fine-tuning the shared LSTM: it learns, it repeats itself, it goes on after a kill, and bad data or little
memory end in a status.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from detectors import build
from detectors.base import DetectorSpec
from detectors.forecasters import shared_lstm
from detectors.forecasters.shared_lstm import network
from detectors.training import finetune
from detectors.training.finetune import FinetuneResult
from detectors.training.fit import EpochProgress, TrainingStatus
from detectors.training.gradients import Stepper
from detectors.training.sequences import FinetuneSettings, TrainingSequences, stacked
from pipeline.training.dataset import TrainingData
from pipeline.training.trainer import TrainConfig, train_stream
from tests.support.retraining import lived, sensors

QUICK = FinetuneSettings(epochs=3, batch=4, chunk=64, memory=128)


def bursts(n: int = 6, seed: int = 0) -> TrainingSequences:
    """Lanes of different lengths whose next value is decided by the last two: something to learn that the
    packaged net does not know.
    """
    rng = np.random.default_rng(seed)
    lanes = []
    for i in range(n):
        x = rng.normal(size=220 + 30 * i)
        x[3::4] = -x[1::4][: len(x[3::4])] * 3.0
        lanes.append(5.0 + x)
    return stacked(lanes)


def tuned(lanes: TrainingSequences, tuning: FinetuneSettings = QUICK, **more) -> FinetuneResult:
    return finetune.finetune(network(None), lanes, tuning, **more)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_it_gets_better_on_what_was_held_out_and_a_detector_takes_the_weights() -> None:
    found = tuned(stacked(list(sensors(4, 14))), FinetuneSettings(epochs=1, memory=128))
    assert found.status is TrainingStatus.FINISHED
    assert found.held_out[0] < found.before - 0.05
    spec = DetectorSpec(channels=("v",))
    assert build(spec, found.weights).version != build(spec).version


def test_the_same_seed_gives_the_same_weights_and_another_one_others() -> None:
    one, two = tuned(bursts()), tuned(bursts())
    other = tuned(bursts(), FinetuneSettings(epochs=3, batch=4, chunk=64, memory=128, seed=1))
    assert same(one.weights, two.weights)
    assert not same(one.weights, other.weights)


def test_training_sees_nothing_of_what_is_held_out() -> None:
    lanes = bursts()
    changed = TrainingSequences(lanes.first, lanes.x.copy(), lanes.missed)
    for begin, end in zip(lanes.first[:-1], lanes.first[1:], strict=True):
        changed.x[end - round(0.15 * (end - begin)) : end] *= 3.0
    one, two = (
        tuned(lanes, FinetuneSettings(epochs=1, batch=4, chunk=64)),
        tuned(changed, FinetuneSettings(epochs=1, batch=4, chunk=64)),
    )
    assert one.losses == two.losses
    assert one.held_out != two.held_out


def test_missing_points_teach_nothing_and_poison_nothing() -> None:
    lanes = bursts()
    lanes.x[::9] = np.nan
    lanes.x[lanes.first[2] + 50 : lanes.first[2] + 120] = np.nan
    found = tuned(lanes)
    assert np.isfinite([*found.losses, *found.held_out]).all()


def test_a_training_that_makes_it_worse_gives_back_the_weights_it_began_with() -> None:
    found = tuned(
        stacked([np.random.default_rng(0).normal(size=300)]),
        FinetuneSettings(epochs=4, chunk=64, learning_rate=0.3, patience=2),
    )
    assert found.status is TrainingStatus.CONVERGED
    assert same(found.weights, {name: value.numpy() for name, value in network(None).state_dict().items()})


def test_half_precision_comes_to_about_the_same_and_its_weights_are_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on CUDA, but with the CPU's bfloat16."""
    try:
        with torch.autocast("cpu", torch.bfloat16):
            torch.nn.LSTM(2, 8)(torch.zeros(4, 1, 2))
    except RuntimeError:
        pytest.skip("this processor has no LSTM in bfloat16")
    whole = tuned(bursts())
    monkeypatch.setattr(finetune, "HALF_PRECISION_DEVICES", ("cpu",))
    mixed = tuned(bursts())
    assert mixed.before == whole.before, "the held-out score is always that of full precision"
    assert mixed.losses != whole.losses
    assert mixed.held_out[-1] == pytest.approx(whole.held_out[-1], abs=0.02)
    assert {value.dtype for value in mixed.weights.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("lanes", "message"),
    [
        (stacked([]), "no point"),
        (stacked([np.full(300, 4.2)]), "1 constant"),
        (stacked([np.zeros(300), np.arange(10.0)]), "1 with fewer than 32 points, 1 constant"),
        (stacked([np.full(300, np.nan)]), "1 with fewer than 32 points"),
        (stacked([np.r_[np.random.default_rng(0).normal(size=200), np.full(100, np.nan)]]), "held-out end"),
    ],
)
def test_data_that_cannot_teach_end_in_a_status_that_says_so(lanes: TrainingSequences, message: str) -> None:
    found = tuned(lanes)
    assert found.status is TrainingStatus.UNTRAINABLE
    assert message in found.reason
    assert found.weights == {}


def test_a_divergence_keeps_the_best_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = Stepper.step, []

    def bad(self: Stepper, loss: torch.Tensor) -> float:
        calls.append(1)
        return real(self, loss * torch.nan if len(calls) == 12 else loss)

    monkeypatch.setattr(Stepper, "step", bad)
    found = tuned(bursts())
    assert found.status is TrainingStatus.DIVERGED
    assert "lower the learning rate" in found.reason
    assert all(np.isfinite(value).all() for value in found.weights.values())


def test_where_memory_does_not_suffice_half_a_batch_at_a_time_does(monkeypatch: pytest.MonkeyPatch) -> None:
    real, sizes = shared_lstm.loss_of, []

    def greedy(module, location, log_scale, target):
        sizes.append(target.shape[1])
        if torch.is_grad_enabled() and target.shape[1] > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return real(module, location, log_scale, target)

    monkeypatch.setattr(shared_lstm, "loss_of", greedy)
    found = tuned(bursts(7), FinetuneSettings(epochs=2, batch=7, chunk=64, memory=128))
    assert found.status is TrainingStatus.FINISHED
    assert found.batch == 2
    assert sizes.index(7) < sizes.index(4) < sizes.index(2)
    assert len(found.losses) == 2


def test_where_one_series_alone_is_too_large_a_status_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*given):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(shared_lstm, "loss_of", greedy)
    found = tuned(bursts(3))
    assert found.status is TrainingStatus.OUT_OF_MEMORY
    assert "20.00 GiB" in found.reason


def test_it_can_be_cancelled_and_tells_its_progress() -> None:
    asked: list[int] = []
    assert (
        tuned(bursts(), cancelled=lambda: len(asked) > 3 or asked.append(1) is not None).status
        is TrainingStatus.CANCELLED
    )
    seen: list[EpochProgress] = []
    tuned(bursts(), progress=seen.append)
    assert [one.epoch for one in seen] == [1, 2, 3]
    assert seen[-1].seconds_left == 0


SCRIPT = """
import sys
import numpy as np
from detectors.training.finetune import finetune
from detectors.training.sequences import FinetuneSettings, TrainingSequences
from detectors.forecasters.shared_lstm import network
with np.load(sys.argv[1]) as given:
    lanes = TrainingSequences(given["first"], given["x"], given["missed"])
tuning = FinetuneSettings(epochs=3, batch=4, chunk=64, memory=128)
found = finetune(network(None), lanes, tuning, progress=lambda p: print(p.epoch, flush=True), checkpoint=sys.argv[2])
np.savez(sys.argv[3], **found.weights)
"""


def test_killed_by_force_it_goes_on_after_the_last_whole_epoch_to_the_same_weights(tmp_path: Path) -> None:
    lanes, weights = bursts(), tmp_path / "weights.npz"
    np.savez(tmp_path / "lanes.npz", first=lanes.first, x=lanes.x, missed=lanes.missed)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [
        sys.executable,
        "-c",
        SCRIPT,
        *(str(path) for path in (tmp_path / "lanes.npz", tmp_path / "checkpoint", weights)),
    ]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "1"  # the checkpoint of epoch 1 is written
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not weights.exists()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(again.stdout.split()[0]) >= 2
    with np.load(weights) as found:
        assert same({name: found[name] for name in found.files}, tuned(lanes).weights)


def test_a_checkpoint_of_other_data_is_not_gone_on_from(tmp_path: Path) -> None:
    tuned(bursts(), checkpoint=str(tmp_path / "checkpoint"))
    seen: list[int] = []
    tuned(bursts(seed=3), checkpoint=str(tmp_path / "checkpoint"), progress=lambda p: seen.append(p.epoch))
    assert seen == [1, 2, 3]


def test_more_series_than_wanted_are_a_seeded_sample() -> None:
    found = tuned(bursts(), FinetuneSettings(epochs=1, batch=4, chunk=64, most_rows=700))
    assert found.sequences[0] < found.sequences[1] == 6
    assert found.rows <= 700


# ------------------------------------------------------------------------------------------------ a stream


def stream(tmp_path: Path) -> TrainingData:
    return lived(tmp_path, build(DetectorSpec(tier="light", channels=("v",))), sensors(3, 5))


def test_a_stream_is_trained_with_its_cost_and_says_what_was_left_out(tmp_path: Path) -> None:
    started = time.monotonic()
    data = stream(tmp_path)
    trained = train_stream(
        data, TrainConfig(DetectorSpec(channels=("v",)), tuning=FinetuneSettings(epochs=1))
    )
    assert trained.usable
    assert trained.weights.keys() == network(None).state_dict().keys()
    assert trained.metrics["lanes"] == [3, 3]
    assert 0 < trained.cost.wall_seconds < time.monotonic() - started
    assert trained.cost.points == len(data.head()) == round(0.8 * len(data))
    assert trained.cost.peak_bytes > 50e6
    assert trained.excluded_rows == int((~data.allowed).sum())


def test_every_channel_is_learnt_from_in_the_units_of_the_preset(tmp_path: Path) -> None:
    data = stream(tmp_path)
    data.values = np.column_stack([data.values[:, 0], data.values[:, 0] * -7.0, np.full(len(data), 3.0)])
    spec = DetectorSpec(preset="network", channels=("a", "b", "c"))
    trained = train_stream(data, TrainConfig(spec, tuning=FinetuneSettings(epochs=1)))
    assert trained.metrics["lanes"] == [6, 9]  # the third channel never changes
    nothing = train_stream(data.only([]), TrainConfig(spec, tuning=FinetuneSettings(epochs=1)))
    assert nothing.status is TrainingStatus.UNTRAINABLE
    assert not nothing.usable


def test_a_detector_without_weights_has_nothing_to_train(tmp_path: Path) -> None:
    trained = train_stream(stream(tmp_path), TrainConfig(DetectorSpec(tier="light", channels=("v",))))
    assert trained.usable
    assert trained.weights == {}
    assert "light has no weights" in trained.reason
