"""Pretrain the shared LSTM on synthetic series.

Use: ``python -m detectors.training.pretrain --out FOLDER/shared_lstm``. Every round makes new series from
seed and round number, so there is no training set to overfit. A killed run resumes from its checkpoint.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detectors import artifacts
from detectors.forecasters import lstm_features
from detectors.forecasters.shared_lstm import SharedLSTM, loss_of
from detectors.training import synthetic_series
from detectors.training.gradients import Stepper

SERIES_LENGTHS = (1024, 1536, 1536, 4096)  # of the series of a round, in turn
CHUNK_ROWS = 512
ROUNDS_BETWEEN_CHECKPOINTS = 100
FIRST_HELD_OUT_ROUND = 1 << 20  # no training uses round numbers from here on


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings on which the weights depend."""

    seed: int = 7
    rounds: int = 700
    series: int = 64
    learning_rate: float = 4e-3
    clip: float = 1.0


@dataclass(slots=True)
class Round:
    """Series as tensors: inputs (T, B, F), and target (T, B, K) in units or NaN."""

    inputs: Tensor
    target: Tensor


def make_round(values: NDArray[np.float64]) -> Round:
    """Return the inputs and targets of the series ``values`` (B, T)."""
    b, t = values.shape
    slot = np.tile(np.arange(b, dtype=np.int32), t)
    seen = lstm_features.advance(
        lstm_features.initial(b), slot, np.ascontiguousarray(values.T).reshape(-1), np.zeros(b * t, np.int32)
    )
    last, unit = seen.last.reshape(t, b), seen.unit.reshape(t, b)
    target = np.full((t, b, len(lstm_features.HORIZONS)), np.nan, np.float32)
    for k, ahead in enumerate(lstm_features.HORIZONS):
        target[:-ahead, :, k] = np.clip(
            (values.T[ahead:] - last[:-ahead]) / unit[:-ahead],
            -lstm_features.MAX_ABS_UNITS,
            lstm_features.MAX_ABS_UNITS,
        )
    target[:2] = np.nan  # a series has no unit before its third point
    return Round(torch.from_numpy(seen.features.reshape(t, b, -1)), torch.from_numpy(target))


def train(recipe: Recipe, checkpoint: str) -> tuple[SharedLSTM, dict[str, Any]]:
    """Train the network; print a line every 25 rounds."""
    torch.manual_seed(recipe.seed)
    module = SharedLSTM()
    chunks = [SERIES_LENGTHS[r % len(SERIES_LENGTHS)] // CHUNK_ROWS for r in range(recipe.rounds)]
    stepper = Stepper(module, recipe.learning_rate, recipe.clip, sum(chunks))
    checkpoints = artifacts.Checkpoints(checkpoint, asdict(recipe))
    first, losses, started = resume(stepper, checkpoints), [], time.monotonic()
    for number in range(first, recipe.rounds):
        data = make_round(
            synthetic_series.batch(
                (recipe.seed, number), recipe.series, SERIES_LENGTHS[number % len(SERIES_LENGTHS)]
            )
        )
        losses.append(train_round(stepper, module, data))
        if number % 25 == 24:
            norms = stepper.monitor.summary()
            print(
                f"round {number + 1} loss {np.mean(losses[-25:]):.4f} norm "
                f"{norms['median_norm']:.3f} {time.monotonic() - started:.0f} s",
                flush=True,
            )
        if (number + 1) % ROUNDS_BETWEEN_CHECKPOINTS == 0:
            checkpoints.save(
                (number + 1) // ROUNDS_BETWEEN_CHECKPOINTS, stepper.tensors(), {"round": number + 1}
            )
    return module, {
        "loss": float(np.mean(losses[-25:])),
        "gradient": stepper.monitor.summary(),
        "updates": sum(chunks),
    }


def train_round(stepper: Stepper, module: SharedLSTM, data: Round) -> float:
    """Train on one round, chunk after chunk with carried state; return the mean loss."""
    state, total = None, []
    for inputs, target in zip(
        torch.split(data.inputs, CHUNK_ROWS), torch.split(data.target, CHUNK_ROWS), strict=True
    ):
        location, log_scale, _, state = module(inputs, state)
        total.append(stepper.step(loss_of(module, location, log_scale, target)))
        state = (state[0].detach(), state[1].detach())
    return float(np.mean(total))


def resume(stepper: Stepper, checkpoints: artifacts.Checkpoints) -> int:
    """Return the first round to train: 0 without a checkpoint of this recipe."""
    saved = checkpoints.latest()
    if saved is None:
        return 0
    stepper.restore(saved.tensors)
    return int(saved.manifest["round"])


def main(arguments: list[str] | None = None) -> None:
    """Pretrain, and save the model with its manifest."""
    parser = argparse.ArgumentParser(prog="python -m detectors.training.pretrain", description=__doc__)
    parser.add_argument("--out", required=True, help="path of the model without its ending; any fsspec path")
    parser.add_argument("--rounds", type=int, default=Recipe().rounds)
    parser.add_argument("--seed", type=int, default=Recipe().seed)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    recipe = Recipe(seed=options.seed, rounds=options.rounds)
    module, result = train(recipe, f"{options.out}.checkpoint")
    manifest = {
        "architecture": "shared_lstm",
        "features": {
            "version": lstm_features.VERSION,
            "names": list(lstm_features.NAMES),
            "horizons": list(lstm_features.HORIZONS),
        },
        "recipe": asdict(recipe),
        "result": result,
        "command": "python -m detectors.training.pretrain "
        + " ".join(sys.argv[1:] if arguments is None else arguments),
    }
    tensors = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    print(artifacts.save(options.out, tensors, manifest))


if __name__ == "__main__":
    main()
