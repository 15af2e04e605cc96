"""Fitting of a forecaster to series by truncated back-propagation through time.

Truncated BPTT (Williams & Peng 1990): a series is cut into chunks, the state is carried from chunk to chunk
and the gradient is not. The last part of every series is held out: training stops when its score no longer
improves, and the best weights are kept. A killed fit resumes from its checkpoint. Fits are seeded and, on the
CPU, deterministic.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detectors.artifacts import Checkpoints
from detectors.forecasters.base import Forecaster
from detectors.training.gradients import Diverged, Reach, Stepper, reach

MIN_TRAINING_POINTS = 32  # points of a series to train on


class Untrainable(Exception):
    """The data are too few, constant or all missing."""


class TrainingStatus(StrEnum):
    """End states of a training."""

    FINISHED = "finished"  # all epochs
    CONVERGED = "converged"  # the held-out part stopped getting better
    CANCELLED = "cancelled"
    DIVERGED = "diverged"  # the best weights until then are kept
    OUT_OF_MEMORY = "out_of_memory"  # the best weights until then are kept
    UNTRAINABLE = "untrainable"  # too little data, or constant


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """Settings of a training.

    chunk: steps of one truncated back-propagation; held_out: share of each series at its end; patience in
    epochs.
    """

    epochs: int = 30
    batch: int = 32
    chunk: int = 64
    learning_rate: float = 5e-3
    clip: float = 1.0
    held_out: float = 0.2
    patience: int = 5
    seed: int = 0
    device: str = "cpu"


@dataclass(slots=True)
class EpochProgress:
    """Progress after an epoch; losses are means of the output's proper score."""

    epoch: int
    epochs: int
    loss: float
    held_out: float
    seconds_left: float


@dataclass(slots=True)
class FitResult:
    """The result of a fit.

    losses and held_out: one number per epoch; mae and naive: on the held-out part, first step ahead, in
    normalised units.
    """

    status: TrainingStatus
    reason: str
    losses: list[float]
    held_out: list[float]
    mae: float
    naive: float
    gradient: dict[str, float]
    reach: Reach


@dataclass(slots=True)
class Scaler:
    """Robust scaling of each series, x ↦ (x − location) / scale.

    It depends on the training part alone.
    """

    location: NDArray[np.float64]  # (S,)
    scale: NDArray[np.float64]  # (S,)

    @classmethod
    def of(cls, series: NDArray[np.float64]) -> Scaler:
        """Return the scaler of ``series`` (S, T), NaN where a point is missing.

        Raises Untrainable if one of the series is untrainable.
        """
        for row, reason in untrainable(series).items():
            raise Untrainable(f"series {row} {reason}")
        location, scale = _spread(series)
        return cls(location, scale)

    def apply(self, series: NDArray[np.float64]) -> NDArray[np.float32]:
        """Scale ``series`` (S, T), bounded, so that no outlier saturates a network."""
        return np.clip((series - self.location[:, None]) / self.scale[:, None], -100.0, 100.0).astype(
            np.float32
        )


def untrainable(series: NDArray[np.float64]) -> dict[int, str]:
    """Return the rows of ``series`` (S, T) that cannot be trained on, with the reason."""
    there = np.isfinite(series).sum(1)
    reasons = {
        int(row): f"has {there[row]} points to train on, at least {MIN_TRAINING_POINTS} are needed: "
        f"wait for more history"
        for row in np.flatnonzero(there < MIN_TRAINING_POINTS)
    }
    rest = np.flatnonzero(there >= MIN_TRAINING_POINTS)
    location, scale = _spread(series[rest])
    flat = rest[~(scale > 1e-12 * (1.0 + np.abs(location)))]
    return reasons | {int(row): "is constant: there is nothing to learn from it" for row in flat}


def _spread(series: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return location and scale of each row: median, and a robust deviation.

    The scale is the larger of the MAD and half of the mean deviation, because mostly constant series have no
    MAD.
    """
    location = np.nanmedian(series, axis=1)
    away = np.abs(series - location[:, None])
    return location, np.maximum(1.4826 * np.nanmedian(away, axis=1), 0.5 * np.nanmean(away, axis=1))


@dataclass(slots=True)
class _Best:
    held_out: float = math.inf
    epoch: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)


def fit(
    forecaster: Forecaster,
    series: NDArray[np.float64],
    settings: TrainingSettings | None = None,
    progress: Callable[[EpochProgress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    checkpoint: str | None = None,
) -> tuple[FitResult, Scaler]:
    """Train ``forecaster`` in place. Raises Untrainable.

    Args:
        forecaster: the forecaster.
        series: values (S, T), NaN where a point is missing or in quarantine.
        settings: how to train.
        progress: called after every epoch.
        cancelled: polled before every chunk.
        checkpoint: path (any fsspec path) to resume from.
    """
    settings = settings or TrainingSettings()
    fitting = _Fitting(forecaster, np.asarray(series, np.float64), settings, cancelled, checkpoint)
    status, reason = fitting.run(progress)
    return fitting.result(status, reason), fitting.scaler


class _Fitting:
    """One fit: data as tensors, optimiser and best weights so far."""

    def __init__(
        self,
        forecaster: Forecaster,
        series: NDArray[np.float64],
        settings: TrainingSettings,
        cancelled: Callable[[], bool],
        checkpoint: str | None,
    ) -> None:
        self.forecaster, self.settings, self.cancelled = forecaster.to(settings.device), settings, cancelled
        self.cut = series.shape[1] - round(settings.held_out * series.shape[1])
        self.scaler = Scaler.of(series[:, : self.cut])
        values = torch.from_numpy(self.scaler.apply(series)).to(settings.device)  # (S, T)
        self.inputs = fill(values)[..., None]  # (S, T, 1)
        self.target = targets(values, forecaster)  # (S, T, K)
        self.chunks = [
            (start, min(start + settings.chunk, self.cut)) for start in range(0, self.cut, settings.chunk)
        ]
        batches = -(-len(series) // settings.batch)
        self.stepper = (
            Stepper(
                forecaster,
                settings.learning_rate,
                settings.clip,
                settings.epochs * batches * len(self.chunks),
            )
            if self.learns
            else None
        )
        self.losses: list[float] = []
        self.held_out: list[float] = []
        self.best = _Best()
        recipe = {
            "settings": asdict(settings),
            "config": asdict(forecaster.config),
            "rows": list(series.shape),
            "sum": float(np.nansum(series)),
        }
        self.checkpoints = Checkpoints(checkpoint, recipe) if checkpoint else None

    @property
    def learns(self) -> bool:
        return any(True for _ in self.forecaster.parameters())

    def run(self, progress: Callable[[EpochProgress], None] | None) -> tuple[TrainingStatus, str]:
        if self.stepper is None:
            return TrainingStatus.FINISHED, "this forecaster has no weights"
        self._resume(self.stepper)
        started, first = time.monotonic(), len(self.losses)
        for epoch in range(first, self.settings.epochs):
            try:
                loss = self._epoch(self.stepper, epoch)
            except Diverged as error:
                return TrainingStatus.DIVERGED, str(error)
            if loss is None:
                return TrainingStatus.CANCELLED, f"cancelled in epoch {epoch + 1}"
            self._record_epoch(epoch, loss)
            if progress:
                left = (time.monotonic() - started) / (epoch + 1 - first) * (self.settings.epochs - epoch - 1)
                progress(EpochProgress(epoch + 1, self.settings.epochs, loss, self.held_out[-1], left))
            if epoch - self.best.epoch >= self.settings.patience:
                return TrainingStatus.CONVERGED, f"no better since epoch {self.best.epoch + 1}"
            self._save(self.stepper)
        return TrainingStatus.FINISHED, f"all {self.settings.epochs} epochs"

    def _epoch(self, stepper: Stepper, epoch: int) -> float | None:
        """Return the mean loss, None if cancelled.

        The order of the series depends on seed and epoch alone.
        """
        order = np.random.default_rng((self.settings.seed, epoch)).permutation(len(self.inputs))
        losses = []
        for rows in np.array_split(order, -(-len(order) // self.settings.batch)):
            state = self._initial(len(rows))
            for start, stop in self.chunks:
                if self.cancelled():
                    return None
                parameters, state = self.forecaster(self.inputs[rows, start:stop], state)
                target = self._until(self.cut)[rows, stop - parameters.shape[1] : stop]
                loss, known = self._loss(parameters, target)
                if known:
                    losses.append(stepper.step(loss))
                state = tuple(part.detach() for part in state)
        return float(np.mean(losses))

    def _record_epoch(self, epoch: int, loss: float) -> None:
        self.losses.append(loss)
        self.held_out.append(self._held_out())
        if self.held_out[-1] < self.best.held_out:
            weights = {name: value.detach().clone() for name, value in self.forecaster.state_dict().items()}
            self.best = _Best(self.held_out[-1], epoch, weights)

    def _held_out(self) -> float:
        parameters, target = self._tail()
        return float(self._loss(parameters, target)[0])

    @torch.no_grad()
    def _tail(self) -> tuple[Tensor, Tensor]:
        """Return forecasts and targets of the held-out part, with the state carried to it."""
        state, parts = self._initial(len(self.inputs)), []
        step = self.settings.chunk if self.forecaster.causal else self.inputs.shape[1]
        for start in range(0, self.inputs.shape[1], step):
            parameters, state = self.forecaster(self.inputs[:, start : start + step], state)
            there = min(start + step, self.inputs.shape[1])
            parts.append(
                (parameters, self.target[:, there - parameters.shape[1] : there], there - parameters.shape[1])
            )
        kept = [
            (p[:, max(0, self.cut - at) :], y[:, max(0, self.cut - at) :])
            for p, y, at in parts
            if at + p.shape[1] > self.cut
        ]
        return torch.cat([p for p, _ in kept], 1), torch.cat([y for _, y in kept], 1)

    def _until(self, end: int) -> Tensor:
        """Return the targets outside of the held-out part."""
        out = self.target.clone()
        for k in range(out.shape[2]):
            out[:, max(0, end - k - self.forecaster.first) :, k] = torch.nan
        return out

    def _loss(self, parameters: Tensor, target: Tensor) -> tuple[Tensor, int]:
        """Return the mean proper score of the known targets, and their number."""
        known = ~target.isnan()
        score = self.forecaster.output.loss(parameters, target.nan_to_num())
        count = int(known.sum())
        return torch.where(known, score, 0.0).sum() / max(1, count), count

    def _initial(self, batch: int) -> tuple[Tensor, ...]:
        return tuple(part.to(self.settings.device) for part in self.forecaster.initial(batch))

    def _save(self, stepper: Stepper) -> None:
        if self.checkpoints:
            best = {f"best.{name}": value.cpu().numpy() for name, value in self.best.weights.items()}
            about: dict[str, Any] = {
                "losses": self.losses,
                "held_out": self.held_out,
                "best_epoch": self.best.epoch,
            }
            self.checkpoints.save(len(self.losses), {**stepper.tensors(), **best}, about)

    def _resume(self, stepper: Stepper) -> None:
        saved = self.checkpoints.latest() if self.checkpoints else None
        if saved is None:
            return
        stepper.restore(saved.tensors)
        self.losses, self.held_out = list(saved.manifest["losses"]), list(saved.manifest["held_out"])
        weights = {
            name.removeprefix("best."): torch.from_numpy(value)
            for name, value in saved.tensors.items()
            if name.startswith("best.")
        }
        self.best = _Best(min(self.held_out), int(saved.manifest["best_epoch"]), weights)

    def result(self, status: TrainingStatus, reason: str) -> FitResult:
        """Restore the best weights and return the result."""
        if self.best.weights:
            self.forecaster.load_state_dict(self.best.weights)
        parameters, target = self._tail()
        first = target[..., 0]
        error = (self.forecaster.output.location(parameters)[..., 0] - first).abs()
        anchor = (
            self.inputs[:, -first.shape[1] :, 0]
            if self.forecaster.first
            else self.inputs[:, -first.shape[1] - 1 : -1, 0]
        )
        seen = reach(self.forecaster, self.inputs[:8, : 2 * self.settings.chunk])
        gradient = self.stepper.monitor.summary() if self.stepper else {}
        naive = float((anchor - first).abs().nanmean())
        return FitResult(
            status, reason, self.losses, self.held_out, float(error.nanmean()), naive, gradient, seen
        )


def fill(values: Tensor) -> Tensor:
    """Replace each missing value of (S, T) by the last one before it, or 0."""
    there = ~values.isnan()
    index = torch.where(there, torch.arange(values.shape[1], device=values.device), -1).cummax(1).values
    return torch.where(index >= 0, values.gather(1, index.clamp(min=0)), 0.0)


def targets(values: Tensor, forecaster: Forecaster) -> Tensor:
    """Return the target of each forecast: (S, T) → (S, T, K), NaN if unknown."""
    out = values.new_full((*values.shape, forecaster.config.horizon), torch.nan)
    for k in range(forecaster.config.horizon):
        ahead = forecaster.first + k
        out[:, : values.shape[1] - ahead, k] = values[:, ahead:]
    return out
