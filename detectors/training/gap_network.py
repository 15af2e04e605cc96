"""Train the bidirectional network that fills gaps, and make its estimates.

It looks ahead: it is for finished series only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from detectors.forecasters.base import ForecasterConfig
from detectors.forecasters.bidirectional import Bidirectional
from detectors.training.fit import MIN_TRAINING_POINTS
from detectors.training.gap_inputs import (
    INPUTS,
    Array,
    ScaledSeries,
    cut_gaps,
    held_out_rows,
    network_inputs,
)
from detectors.training.gradients import Diverged, Stepper

#: Rows of a window of the network, and of its overlap with the next one.
WINDOW_ROWS, OVERLAP_ROWS = 512, 64
WINDOWS_AT_ONCE: Final = 64
#: Rows that are trained on at most, evenly over the series.
MAX_TRAINING_ROWS: Final = 200_000
MAX_TRAINING_SERIES: Final = 64
#: The range of a filled value holds the true one with this probability.
RANGE_SHARE: Final = 0.9


@dataclass(frozen=True, slots=True)
class FillSettings:
    """Settings of the training; ``window`` in rows."""

    hidden: int = 32
    updates: int = 400
    batch: int = 32
    window: int = 128
    learning_rate: float = 1e-2
    clip: float = 1.0
    seed: int = 0


def train_network(
    series: Sequence[ScaledSeries], lengths: NDArray[np.int64], settings: FillSettings
) -> Bidirectional | None:
    """Return the network, None if nothing can be trained on or the training diverges."""
    rng = np.random.default_rng(settings.seed)
    some = [_training_rows(series[int(i)], settings, len(series)) for i in rng.permutation(len(series))]
    some = [one for one in some if np.isfinite(one.values).sum() >= MIN_TRAINING_POINTS]
    some = some[:MAX_TRAINING_SERIES]
    if not some:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network = Bidirectional(ForecasterConfig(inputs=INPUTS, hidden=settings.hidden, seed=settings.seed))
    stepper = Stepper(network, settings.learning_rate, settings.clip, settings.updates)
    rows = sum(len(one.values) for one in some)
    in_a_pass = max(1, -(-rows // (settings.batch * settings.window)))
    done = 0
    try:
        while done < settings.updates:
            passed = _pass(some, lengths, rng)
            for _ in range(min(in_a_pass, settings.updates - done)):
                x, target = _windows(passed, settings, rng)
                parameters, _ = network(x, network.initial(len(x)))
                known = ~target.isnan()
                score = network.output.loss(parameters[:, :, 0], target.nan_to_num())
                stepper.step(torch.where(known, score, 0.0).sum() / known.sum().clamp(min=1))
                done += 1
    except Diverged:
        return None
    return network.eval()


def _training_rows(one: ScaledSeries, settings: FillSettings, series: int) -> ScaledSeries:
    """Return the newest known rows of a series before its held-out end."""
    known = np.flatnonzero(np.isfinite(one.values[: len(one.values) - held_out_rows(one.values)]))
    most = max(settings.window, MAX_TRAINING_ROWS // min(series, MAX_TRAINING_SERIES))
    end = int(known[-1]) + 1 if len(known) else 0
    rows = slice(max(0, end - most), end)
    return one._replace(values=one.values[rows], usable=one.usable[rows])


def _pass(
    series: Sequence[ScaledSeries], lengths: NDArray[np.int64], rng: np.random.Generator
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Cut gaps into all series; return the inputs and the targets of each."""
    found = []
    for one in series:
        cut = cut_gaps(one, lengths, rng, spread=True)
        x, _, _ = network_inputs(np.where(cut, np.nan, one.values), one.period)
        found.append((x, np.where(cut & one.usable, one.values, np.nan).astype(np.float32)))
    return found


def _windows(
    passed: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]],
    settings: FillSettings,
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw windows (B, T, INPUTS) and their targets (B, T), padded at the end."""
    sizes = np.array([len(target) for _, target in passed], np.float64)
    x = np.zeros((settings.batch, settings.window, INPUTS), np.float32)
    y = np.full((settings.batch, settings.window), np.nan, np.float32)
    for row, which in enumerate(rng.choice(len(passed), settings.batch, p=sizes / sizes.sum()).tolist()):
        inputs, target = passed[which]
        length = min(settings.window, len(target))
        start = int(rng.integers(0, len(target) - length + 1))
        x[row, :length], y[row, :length] = inputs[start : start + length], target[start : start + length]
    return torch.from_numpy(x), torch.from_numpy(y)


@torch.no_grad()
def apply_network(network: Bidirectional, x: NDArray[np.float32]) -> tuple[Array, Array, Array]:
    """Return the median and the range of each row (n,), in windows that overlap."""
    step, tail = WINDOW_ROWS - 2 * OVERLAP_ROWS, (1 - RANGE_SHARE) / 2
    alike: dict[tuple[int, int], list[int]] = {}  # starts of windows by rows before, and rows in all
    for start in range(0, len(x), step):
        before = min(start, OVERLAP_ROWS)
        alike.setdefault((before, len(x[start - before : start + step + OVERLAP_ROWS])), []).append(start)
    found = np.empty((3, len(x)))
    for (before, rows), starts in alike.items():
        for first in range(0, len(starts), WINDOWS_AT_ONCE):
            some = starts[first : first + WINDOWS_AT_ONCE]
            part = torch.from_numpy(np.stack([x[at - before : at - before + rows] for at in some]))
            parameters = network(part, network.initial(len(some)))[0][:, before : before + step, 0]
            estimates = torch.stack(
                [
                    network.output.location(parameters),
                    network.output.quantile(parameters, tail),
                    network.output.quantile(parameters, 1 - tail),
                ]
            )
            for at, estimate in zip(some, estimates.double().numpy().swapaxes(0, 1), strict=True):
                found[:, at : at + step] = estimate
    value, lower, upper = found
    return value, lower, upper
