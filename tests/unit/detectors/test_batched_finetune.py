"""Many networks trained together: each as good as one alone, none feels another, and kills, bad data or
little memory cost only what they must.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from detectors.forecasters.shared_lstm import network
from detectors.training import batched_finetune
from detectors.training.batched_finetune import BatchedResult, finetune_batched
from detectors.training.finetune import finetune
from detectors.training.fit import TrainingStatus
from detectors.training.sequences import FinetuneSettings, TrainingSequences, stacked

QUICK = FinetuneSettings(epochs=3, chunk=64, memory=128)


def waves(count: int, points: int = 400, seed: int = 0) -> list[np.ndarray]:
    rng, t = np.random.default_rng(seed), np.arange(points)
    return [np.sin(2 * np.pi * t / (9 + i)) + 0.15 * rng.normal(size=points) for i in range(count)]


def trained(
    lanes: TrainingSequences, owner: list[int], tuning: FinetuneSettings = QUICK, **more
) -> BatchedResult:
    return finetune_batched(network(None), lanes, np.array(owner, np.int32), tuning, **more)


def test_each_is_as_good_as_one_alone() -> None:
    lanes = waves(4)
    found = trained(stacked(lanes), [0, 1, 2, 3])
    assert found.status == [TrainingStatus.FINISHED] * 4
    for i, lane in enumerate(lanes):
        alone = finetune(network(None), stacked([lane]), QUICK)
        assert found.before[i] == pytest.approx(alone.before, abs=0.02), "its state had a shorter run-up here"
        assert found.held_out[i] < found.before[i]
        assert found.held_out[i] == pytest.approx(min(alone.held_out), abs=0.05)


def test_a_network_of_several_lanes_of_different_lengths_learns_from_all() -> None:
    lanes = waves(3)
    lanes[1] = lanes[1][:250]
    found = trained(stacked(lanes), [0, 0, 0])
    alone = finetune(network(None), stacked(lanes), QUICK)
    assert found.before[0] == pytest.approx(alone.before, abs=0.02)
    assert found.held_out[0] == pytest.approx(min(alone.held_out), abs=0.05)


def test_they_do_not_feel_each_other() -> None:
    lanes = waves(4)
    wild = [*lanes[:3], np.random.default_rng(0).standard_t(1, 400) * 1e6]
    one, two = trained(stacked(lanes), [0, 1, 2, 3]), trained(stacked(wild), [0, 1, 2, 3])
    for name in one.weights:
        np.testing.assert_allclose(one.weights[name][:3], two.weights[name][:3], atol=1e-5)
    assert not np.allclose(one.weights["lstm.weight_hh_l0"][3], two.weights["lstm.weight_hh_l0"][3])


def test_one_that_has_nothing_to_learn_from_says_so_and_the_others_are_trained() -> None:
    lanes = [*waves(2), np.full(400, 3.0), np.full(400, np.nan)]
    found = trained(stacked(lanes), [0, 1, 2, 4])
    assert found.status[2:] == ["constant", "no sequences", "fewer than 32 points"]
    assert np.isfinite(found.error[:2]).all()
    assert np.isnan(found.error[2:]).all()
    assert trained(stacked(waves(2)), [-1, -1]).status == []


def test_one_that_diverges_keeps_the_weights_it_began_with(monkeypatch: pytest.MonkeyPatch) -> None:
    real = batched_finetune.losses_of

    def bad(freedom, location, log_scale, target):
        loss = real(freedom, location, log_scale, target)
        return loss * torch.tensor([1.0, torch.nan])[:, None, None] if torch.is_grad_enabled() else loss

    monkeypatch.setattr(batched_finetune, "losses_of", bad)
    found = trained(stacked(waves(2)), [0, 1])
    assert found.status == [TrainingStatus.FINISHED, TrainingStatus.DIVERGED]
    first = network(None).state_dict()
    assert all(np.array_equal(found.weights[name][1], first[name].numpy()) for name in first)
    assert found.held_out[1] == found.before[1]


def test_it_can_be_cancelled() -> None:
    assert (
        trained(stacked(waves(3)), [0, 1, 2], cancelled=lambda: True).status == [TrainingStatus.CANCELLED] * 3
    )


def test_what_is_done_is_not_done_again_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batched_finetune, "MAX_NETWORKS_ON_CPU", 2)
    lanes, checkpoint = stacked(waves(6)), str(tmp_path / "plant")
    whole = trained(lanes, [0, 1, 2, 3, 4, 5])
    seen: list[int] = []

    def killed(progress) -> None:
        seen.append(progress.networks)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(lanes, [0, 1, 2, 3, 4, 5], checkpoint=checkpoint, progress=killed)
    runs: list[int] = []
    real = batched_finetune._NetworkBatch.run
    monkeypatch.setattr(batched_finetune._NetworkBatch, "run", lambda self: runs.append(1) or real(self))
    told: list[batched_finetune.BatchedProgress] = []
    again = trained(lanes, [0, 1, 2, 3, 4, 5], checkpoint=checkpoint, progress=told.append)
    assert seen == [0, 2, 4]
    assert [(one.networks, one.of) for one in told] == [(0, 6), (2, 6), (4, 6), (6, 6)]
    assert (told[0].seconds_left, told[-1].seconds_left) == (None, 0)
    assert len(runs) == 1, "two of three portions were done"
    assert all(np.array_equal(whole.weights[name], again.weights[name]) for name in whole.weights)
    assert whole.status == again.status
    assert np.array_equal(whole.error, again.error)
    trained(
        lanes, [0, 1, 2, 3, 4, 5], FinetuneSettings(epochs=1, chunk=64, memory=128), checkpoint=checkpoint
    )
    assert len(runs) == 4, "what another recipe left is of no use"


def test_where_memory_does_not_suffice_half_as_many_at_a_time_do(monkeypatch: pytest.MonkeyPatch) -> None:
    real, sizes = batched_finetune.forward, []

    def greedy(weights, x, state):
        sizes.append(x.shape[1])
        if x.shape[1] > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return real(weights, x, state)

    whole = trained(stacked(waves(6)), list(range(6)))
    monkeypatch.setattr(batched_finetune, "forward", greedy)
    found = trained(stacked(waves(6)), list(range(6)))
    assert found.status == [TrainingStatus.FINISHED] * 6
    assert list(dict.fromkeys(sizes)) == [6, 3, 2, 1]
    np.testing.assert_allclose(found.held_out, whole.held_out, atol=1e-4)

    def never(weights, x, state):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(batched_finetune, "forward", never)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        trained(stacked(waves(2)), [0, 1])
