"""Every device that there is says the same: the CPU always, a GPU where there is one (in half precision, so
within a stated tolerance).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detectors.forecasters.shared_lstm import network
from detectors.forecasters.shared_lstm_numba import FrozenLSTM, read
from detectors.training.batched_finetune import finetune_batched
from detectors.training.finetune import finetune
from detectors.training.sequences import FinetuneSettings, batch_of, stacked
from pipeline.jobs import tasks
from tests.support.trainings import tide

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
LANES = stacked([tide(600, seed) for seed in range(4)])


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_forecasts_what_the_live_step_does(device: str) -> None:
    """Hidden states of the engine's compiled step, and of the module on the device, 600 rows long: within
    1e-4."""
    module = network(None)
    inputs = batch_of(LANES, np.arange(4), FinetuneSettings(memory=128)).inputs  # (T, B, F)
    with torch.no_grad():
        _, _, hidden, _ = module.to(device)(inputs.to(device))
    rows = np.ascontiguousarray(inputs.numpy().reshape(-1, inputs.shape[2]))
    lane = np.tile(np.arange(4, dtype=np.int32), len(inputs))
    h, c = np.zeros((2, 4, hidden.shape[2]), np.float32)
    live = FrozenLSTM(read()).run(rows, lane, h, c)
    np.testing.assert_allclose(hidden.cpu().numpy().reshape(live.shape), live, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_a_device_learns_what_the_cpu_does(device: str) -> None:
    """The shared LSTM (mixed precision on a GPU) and networks of their own: held-out scores within 0.02 after
    three epochs.
    """
    tuning = {"epochs": 3, "chunk": 64, "memory": 128}
    reference, found = (
        finetune(network(None), LANES, FinetuneSettings(**tuning, device=where)) for where in ("cpu", device)
    )
    assert found.before == pytest.approx(reference.before, abs=1e-3)
    assert found.held_out == pytest.approx(reference.held_out, abs=0.02)
    owner = np.arange(4, dtype=np.int32)
    one, other = (
        finetune_batched(network(None), LANES, owner, FinetuneSettings(**tuning, device=where))
        for where in ("cpu", device)
    )
    np.testing.assert_allclose(other.held_out, one.held_out, atol=0.02)


@pytest.mark.parametrize("fails", [False, True])
def test_a_gpu_s_memory_is_given_back_after_each_task(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    given_back: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append(1))

    def train(task, report, cancelled):
        if fails:
            raise RuntimeError("no")
        return tasks.TaskResult("succeeded", "done")

    monkeypatch.setattr(tasks, "_task_functions", lambda: {"train": train})
    for gpu in (True, False):
        task = tasks.Task(1, 1, "train", "plant", None, "", "", None, None, (), {}, gpu)
        if fails:
            with pytest.raises(RuntimeError):
                tasks.run_task(task, lambda progress: None, lambda: False)
        else:
            tasks.run_task(task, lambda progress: None, lambda: False)
    assert given_back == [1], "not where none was used"
