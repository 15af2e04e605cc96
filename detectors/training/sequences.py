"""Ragged training sequences, and batches of them as tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detectors.forecasters import lstm_features
from detectors.forecasters.calendar_inputs import CalendarInputs
from detectors.training.fit import MIN_TRAINING_POINTS, TrainingSettings


@dataclass(frozen=True, slots=True)
class FinetuneSettings(TrainingSettings):
    """Settings of a fine-tuning.

    batch: sequences side by side; memory: points kept for the inputs, as in the tier of the detector;
    most_rows: rows of an epoch; of more sequences a seeded sample is drawn.
    """

    epochs: int = 12
    batch: int = 64
    chunk: int = 256
    learning_rate: float = 1e-3
    held_out: float = 0.15
    patience: int = 3
    memory: int = 1024
    most_rows: int = 2_000_000


def _no_times() -> NDArray[np.int64]:
    return np.empty(0, np.int64)


@dataclass(slots=True)
class TrainingSequences:
    """Ragged sequences: sequence i has the rows ``first[i] … first[i + 1]``.

    x (N,) in working units, NaN where missing; missed (N,), time (N,) and every (N,) as in ``Points``.
    Networks without inputs that depend on time need no time.
    """

    first: NDArray[np.int64]
    x: NDArray[np.float64]
    missed: NDArray[np.int32]
    time: NDArray[np.int64] = field(default_factory=_no_times)
    every: NDArray[np.int64] = field(default_factory=_no_times)

    def digest(self) -> str:
        """Return a sha256 of the numbers."""
        digest = hashlib.sha256()
        for part in (self.first, self.x, self.missed, self.time, self.every):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


def untrainable(sequences: TrainingSequences) -> dict[str, NDArray[np.int64]]:
    """Return the untrainable sequences by reason: too few points, or constant."""
    n = len(sequences.first) - 1
    owner = np.repeat(np.arange(n), np.diff(sequences.first))
    there = np.isfinite(sequences.x)
    count = np.bincount(owner[there], minlength=n)
    high, low = np.full(n, -np.inf), np.full(n, np.inf)
    np.maximum.at(high, owner[there], sequences.x[there])
    np.minimum.at(low, owner[there], sequences.x[there])
    short = count < MIN_TRAINING_POINTS
    flat = ~short & ~(high - low > 1e-12 * (1.0 + np.abs(low)))
    reasons = {
        f"fewer than {MIN_TRAINING_POINTS} points": np.flatnonzero(short),
        "constant": np.flatnonzero(flat),
    }
    return {why: rows for why, rows in reasons.items() if len(rows)}


def stacked(
    sequences: Sequence[NDArray[np.float64]], times: Sequence[NDArray[np.int64]] = ()
) -> TrainingSequences:
    """Stack separate arrays without missing cadence steps.

    ``times`` are those of their rows in ns; the cadence of an array is the median of its steps.
    """
    first = np.r_[0, np.cumsum([len(sequence) for sequence in sequences])].astype(np.int64)
    x = (
        np.concatenate([np.asarray(sequence, np.float64) for sequence in sequences])
        if sequences
        else np.empty(0)
    )
    stacked_rows = TrainingSequences(first, x, np.zeros(len(x), np.int32))
    if len(times):
        steps = [int(np.median(np.diff(one))) if len(one) > 1 else 0 for one in times]
        stacked_rows.time = np.concatenate(times)
        stacked_rows.every = np.repeat(np.array(steps, np.int64), [len(one) for one in times])
    return stacked_rows


@dataclass(slots=True)
class SequenceBatch:
    """Sequences as tensors; NaN where unknown.

    inputs (T, B, F), target (T, B, K) and the targets of the held-out part (T, B, K).
    """

    inputs: Tensor
    target: Tensor
    held_out: Tensor


def batch_of(
    sequences: TrainingSequences,
    part: NDArray[np.int64],
    tuning: FinetuneSettings,
    *,
    calendar: CalendarInputs | None = None,
    count_columns: bool = False,
) -> SequenceBatch:
    """Return the sequences ``part`` (B,) as tensors, aligned at their first rows.

    Args:
        sequences: all sequences.
        part: numbers of those of the batch.
        tuning: how to train.
        calendar: inputs that depend on time; they follow the others.
        count_columns: put the last value and the unit of each row behind its inputs.
    """
    length = np.diff(sequences.first)[part]
    b, t = len(part), int(length.max())
    at = sequences.first[part][:, None] + np.arange(t)
    inside = np.arange(t) < length[:, None]  # (B, T)
    x = np.where(inside, sequences.x[np.where(inside, at, 0)], np.nan)
    missed = np.where(inside, sequences.missed[np.where(inside, at, 0)], 0).astype(np.int32)
    slot = np.tile(np.arange(b, dtype=np.int32), t)
    seen = lstm_features.advance(
        lstm_features.initial(b, tuning.memory),
        slot,
        np.ascontiguousarray(x.T).reshape(-1),
        missed.T.reshape(-1).copy(),
    )
    last, unit = seen.last.reshape(t, b), seen.unit.reshape(t, b)
    cut = length - np.round(tuning.held_out * length).astype(np.int64)  # (B,)
    target, held = _targets(x.T, last, unit, cut)
    inputs = seen.features
    if calendar is not None and calendar.width:
        clock = (_spread(column, at, inside) for column in (sequences.time, sequences.every))
        inputs = calendar.advance(
            calendar.initial(b), slot, (next(clock), next(clock)), np.ascontiguousarray(x.T).reshape(-1), seen
        )
    inputs = inputs.reshape(t, b, -1)
    if count_columns:
        inputs = np.concatenate(
            [inputs, np.nan_to_num(last)[..., None], unit[..., None]], -1, dtype=np.float32
        )
    parts = (torch.from_numpy(array).to(tuning.device) for array in (inputs, target, held))
    return SequenceBatch(*parts)


def _spread(column: NDArray[np.int64], at: NDArray[np.int64], inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return a column (N,) at the rows ``at`` (B, T) as (T · B,); 0 outside."""
    return np.where(inside, column[np.where(inside, at, 0)], 0).T.reshape(-1)


def _targets(
    x: NDArray[np.float64], last: NDArray[np.float64], unit: NDArray[np.float64], cut: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the targets (T, B, K) before row ``cut``, and those from it on.

    The others are NaN.

    Args:
        x: Values (T, B).
        last: Last known values (T, B).
        unit: Units of the targets (T, B).
        cut: First held-out row of each sequence (B,).
    """
    t, b = x.shape
    target = np.full((t, b, len(lstm_features.HORIZONS)), np.nan, np.float32)
    held = target.copy()
    for k, ahead in enumerate(lstm_features.HORIZONS):
        if ahead >= t:
            continue
        move = np.clip(
            (x[ahead:] - last[:-ahead]) / unit[:-ahead],
            -lstm_features.MAX_ABS_UNITS,
            lstm_features.MAX_ABS_UNITS,
        )
        late = np.arange(ahead, t)[:, None] >= cut
        target[:-ahead, :, k] = np.where(late, np.nan, move)
        held[:-ahead, :, k] = np.where(late, move, np.nan)
    target[:2] = held[:2] = np.nan  # a series has no unit before its third point
    return target, held


def digest_of(weights: Mapping[str, NDArray[Any]]) -> str:
    """Return a sha256 of weights."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(weights[name].tobytes())
    return digest.hexdigest()
