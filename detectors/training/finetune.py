"""Fine-tuning the shared LSTM on the series of a stream: truncated BPTT over chunks with carried state,
seeded, checkpointed, bounded in memory.

Series of different lengths stand side by side in batches of about equal length; what is beyond a series' end
is missing and teaches nothing. The last part of each series is held out: the weights that forecast it best
are kept, those that it began with included, so that a training never ends with worse weights than it was
given. (Truncated BPTT: Williams & Peng 1990; early stopping: Prechelt 1998.)
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detectors.artifacts import Checkpoints
from detectors.forecasters import lstm_features
from detectors.forecasters.shared_lstm import SharedLSTM
from detectors.training.fit import LEAST, EpochProgress, TrainingSettings, TrainingStatus
from detectors.training.gradients import Diverged, Stepper
from detectors.training.pretrain import loss_of

Weights = dict[str, NDArray[np.float32]]
T = TypeVar("T")
# devices on which the recurrence trains in half precision; head and loss, and every judgement, in float32
MIXED: Final = ("cuda",)
# of inputs that are kept from epoch to epoch; what goes beyond is computed again
CACHE_BYTES: Final = 2 << 30


@dataclass(frozen=True, slots=True)
class FinetuneSettings(TrainingSettings):
    """How to fine-tune; batch: series side by side.

    memory: points that the inputs remember (as in the detector's tier). most_rows: of an epoch; more series
    than that are a seeded sample.
    """

    epochs: int = 12
    batch: int = 64
    chunk: int = 256
    learning_rate: float = 1e-3
    held_out: float = 0.15
    patience: int = 3
    memory: int = 1024
    most_rows: int = 2_000_000


@dataclass(slots=True)
class TrainingSequences:
    """Ragged sequences: lane i has the rows ``first[i] … first[i + 1]``; x (N,) in working units, NaN:
    missing; missed (N,).
    """

    first: NDArray[np.int64]
    x: NDArray[np.float64]
    missed: NDArray[np.int32]

    def digest(self) -> str:
        """Names exactly these numbers."""
        digest = hashlib.sha256()
        for part in (self.first, self.x, self.missed):
            digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


@dataclass(slots=True)
class FinetuneResult:
    """What a fine-tuning came to. ``weights`` are empty where there was nothing to learn from (UNTRAINABLE),
    or it broke off before it was any better.

    losses, held_out: one number an epoch; ``before``: the held-out score of the weights it began with;
    ``batch``: what was left of it after memory ran out; lanes: how many were learnt from, of how many.
    """

    status: TrainingStatus
    reason: str
    weights: Weights
    losses: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    before: float = float("nan")
    gradient: dict[str, float] = field(default_factory=dict)
    batch: int = 0
    lanes: tuple[int, int] = (0, 0)
    rows: int = 0


def untrainable(lanes: TrainingSequences) -> dict[str, NDArray[np.int64]]:
    """Why → the lanes that nothing can be learnt from: fewer than ``LEAST`` points, or constant."""
    n = len(lanes.first) - 1
    owner = np.repeat(np.arange(n), np.diff(lanes.first))
    there = np.isfinite(lanes.x)
    count = np.bincount(owner[there], minlength=n)
    high, low = np.full(n, -np.inf), np.full(n, np.inf)
    np.maximum.at(high, owner[there], lanes.x[there])
    np.minimum.at(low, owner[there], lanes.x[there])
    short = count < LEAST
    flat = ~short & ~(high - low > 1e-12 * (1.0 + np.abs(low)))
    reasons = {f"fewer than {LEAST} points": np.flatnonzero(short), "constant": np.flatnonzero(flat)}
    return {why: rows for why, rows in reasons.items() if len(rows)}


def finetune(
    module: SharedLSTM,
    lanes: TrainingSequences,
    tuning: FinetuneSettings | None = None,
    progress: Callable[[EpochProgress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    checkpoint: str | None = None,
) -> FinetuneResult:
    """Train ``module`` in place. ``cancelled`` is asked before every chunk; ``checkpoint`` is a path to go on
    from after a kill.

    Never raises for what the data or the memory are like: the status says it.
    """
    tuning = tuning or FinetuneSettings()
    reasons = untrainable(lanes)
    total = len(lanes.first) - 1
    good = np.setdiff1d(np.arange(total), np.concatenate([np.empty(0, np.int64), *reasons.values()]))
    if not len(good):
        what = ", ".join(
            f"{len(rows)} with {why}" if why != "constant" else f"{len(rows)} constant"
            for why, rows in reasons.items()
        )
        reason = (
            f"none of {total} series can be learnt from ({what})"
            if total
            else "there is no point to learn from"
        )
        return FinetuneResult(
            TrainingStatus.UNTRAINABLE,
            f"{reason}: wait for more history, or look at the quarantine",
            {},
            lanes=(0, total),
        )
    return _Tuning(module, lanes, _sample(lanes, good, tuning), tuning, cancelled, checkpoint).run(
        progress, total
    )


def _sample(lanes: TrainingSequences, good: NDArray[np.int64], tuning: FinetuneSettings) -> NDArray[np.int64]:
    """As many lanes as ``most_rows`` allows, by seed; at least one."""
    order = np.random.default_rng(tuning.seed).permutation(good)
    size = np.cumsum(np.diff(lanes.first)[order])
    return np.sort(order[: max(1, int(np.searchsorted(size, tuning.most_rows, side="right")))])


@dataclass(slots=True)
class SequenceBatch:
    """Lanes as tensors: inputs (T, B, F), target (T, B, K) and the same of the held-out part; NaN where
    unknown."""

    inputs: Tensor
    target: Tensor
    held_out: Tensor


class _Tuning:
    """One fine-tuning: which lanes, the optimiser, the best weights so far."""

    def __init__(
        self,
        module: SharedLSTM,
        lanes: TrainingSequences,
        chosen: NDArray[np.int64],
        tuning: FinetuneSettings,
        cancelled: Callable[[], bool],
        checkpoint: str | None,
    ) -> None:
        self.module, self.lanes, self.tuning, self.cancelled = (
            module.to(tuning.device).requires_grad_(),
            lanes,
            tuning,
            cancelled,
        )
        length = np.diff(lanes.first)
        self.order = chosen[np.argsort(length[chosen], kind="stable")]  # about equal lengths side by side
        self.rows = int(length[chosen].sum())
        self.batch = tuning.batch
        steps = sum(-(-int(length[part].max()) // tuning.chunk) for part in self._parts())
        self.stepper = Stepper(module, tuning.learning_rate, tuning.clip, tuning.epochs * steps)
        self.cache: dict[tuple[int, ...], SequenceBatch] = {}
        self.losses: list[float] = []
        self.held_out: list[float] = []
        self.best_epoch = -1
        self.best = self._weights()
        self.before = float("nan")
        recipe = {"tuning": asdict(tuning), "data": lanes.digest(), "from": digest_of(self.best)}
        self.checkpoints = Checkpoints(checkpoint, recipe) if checkpoint else None

    def run(self, progress: Callable[[EpochProgress], None] | None, total: int) -> FinetuneResult:
        status, reason = self._run(progress)
        self.module.load_state_dict({name: torch.from_numpy(value) for name, value in self.best.items()})
        counts = (len(self.order), total)
        if status is TrainingStatus.UNTRAINABLE or (
            status in (TrainingStatus.DIVERGED, TrainingStatus.OUT_OF_MEMORY) and self.best_epoch < 0
        ):
            return FinetuneResult(status, reason, {}, lanes=counts, rows=self.rows)
        summary = self.stepper.monitor.summary()
        return FinetuneResult(
            status,
            reason,
            self.best,
            self.losses,
            self.held_out,
            self.before,
            summary,
            self.batch,
            counts,
            self.rows,
        )

    def _run(self, progress: Callable[[EpochProgress], None] | None) -> tuple[TrainingStatus, str]:
        try:
            if not self._resume():
                self.before = self._judge()
            if math.isnan(self.before):
                raise Diverged(
                    "the weights it began with forecast no numbers: look at the data, or roll the champion back"
                )
            if math.isinf(self.before):
                return (
                    TrainingStatus.UNTRAINABLE,
                    "the held-out end of every series is missing or in quarantine: wait for more history",
                )
            return self._epochs(progress)
        except Diverged as error:
            return TrainingStatus.DIVERGED, str(error)
        except torch.cuda.OutOfMemoryError as error:
            return (
                TrainingStatus.OUT_OF_MEMORY,
                f"one series at a time does not fit on {self.tuning.device}: {str(error).splitlines()[0]}",
            )

    def _epochs(self, progress: Callable[[EpochProgress], None] | None) -> tuple[TrainingStatus, str]:
        started, first = time.monotonic(), len(self.losses)
        for epoch in range(first, self.tuning.epochs):
            loss = self._epoch(epoch)
            if loss is None:
                return TrainingStatus.CANCELLED, f"after {epoch} epochs"
            self.losses.append(loss)
            self.held_out.append(self._judge())
            if not math.isfinite(self.held_out[-1]):
                raise Diverged(
                    f"the held-out score of epoch {epoch + 1} is {self.held_out[-1]}: lower the learning rate or look at the data"
                )
            if self.held_out[-1] <= min([self.before, *self.held_out]):
                self.best, self.best_epoch = self._weights(), epoch
            self._save()
            if progress:
                left = (time.monotonic() - started) / (epoch + 1 - first) * (self.tuning.epochs - epoch - 1)
                progress(EpochProgress(epoch + 1, self.tuning.epochs, loss, self.held_out[-1], left))
            if epoch - self.best_epoch >= self.tuning.patience:
                return (
                    TrainingStatus.CONVERGED,
                    f"no better since epoch {self.best_epoch + 1} (0: the weights it began with)",
                )
        return (
            TrainingStatus.FINISHED,
            f"all {self.tuning.epochs} epochs, the best was {self.best_epoch + 1} (0: the weights it began with)",
        )

    def _epoch(self, epoch: int) -> float | None:
        """Mean loss; None: cancelled. The order of the batches depends on seed and epoch alone."""
        parts = self._parts()
        losses: list[float] = []
        for number in np.random.default_rng((self.tuning.seed, epoch)).permutation(len(parts)):
            if not all(
                halve_on_out_of_memory(parts[number], lambda part: self._train(part, losses), self._shrink)
            ):
                return None
        return float(np.mean(losses)) if losses else 0.0

    def _train(self, part: NDArray[np.int64], losses: list[float]) -> bool:
        """Chunk after chunk of one batch, its state carried on; False: cancelled."""
        data = self._data(part)
        for loss in self._chunk_losses(data.inputs, data.target):
            if self.cancelled():
                return False
            losses.append(self.stepper.step(loss))
        return True

    def _shrink(self, size: int) -> None:
        """Smaller batches from now on."""
        self.batch = min(self.batch, size)
        self.cache.clear()
        self.stepper.optimiser.zero_grad(set_to_none=True)

    def _chunk_losses(self, inputs: Tensor, target: Tensor) -> Iterator[Tensor]:
        """The mean loss of every chunk in which something is known; the state is carried from chunk to chunk,
        the gradient is not.
        """
        state = None
        for x, y in zip(
            torch.split(inputs, self.tuning.chunk), torch.split(target, self.tuning.chunk), strict=True
        ):
            with torch.autocast(
                x.device.type,
                dtype=torch.bfloat16,
                enabled=x.device.type in MIXED and torch.is_grad_enabled(),
            ):
                hidden, state = self.module.lstm(x, state)
            state = (state[0].detach(), state[1].detach())
            if not y.isnan().all():
                location, log_scale = self.module.forecast(hidden.float(), x)
                yield loss_of(self.module, location, log_scale, y)

    @torch.no_grad()
    def _judge(self) -> float:
        """Mean score of the held-out part, each target weighing the same."""
        total, known = 0.0, 0
        for part in self._parts():
            data = self._data(part)
            chunks = [int((~y.isnan()).sum()) for y in torch.split(data.held_out, self.tuning.chunk)]
            losses = self._chunk_losses(data.inputs, data.held_out)
            for count in (count for count in chunks if count):
                total += float(next(losses)) * count
                known += count
        return total / known if known else float("inf")

    def _parts(self) -> list[NDArray[np.int64]]:
        return [self.order[at : at + self.batch] for at in range(0, len(self.order), self.batch)]

    def _data(self, part: NDArray[np.int64]) -> SequenceBatch:
        key = tuple(part[[0, -1]].tolist())
        if key not in self.cache:
            data = batch_of(self.lanes, part, self.tuning)
            size = sum(value.numel() * 4 for value in (data.inputs, data.target, data.held_out))
            kept = sum(value.inputs.numel() * 6 for value in self.cache.values())
            if kept + size > CACHE_BYTES:
                return data
            self.cache[key] = data
        return self.cache[key]

    def _weights(self) -> Weights:
        return {name: value.detach().cpu().numpy().copy() for name, value in self.module.state_dict().items()}

    def _save(self) -> None:
        if self.checkpoints:
            best = {f"best.{name}": value for name, value in self.best.items()}
            about = {
                "losses": self.losses,
                "held_out": self.held_out,
                "before": self.before,
                "batch": self.batch,
            }
            self.checkpoints.save(
                len(self.losses), {**self.stepper.tensors(), **best}, {**about, "best_epoch": self.best_epoch}
            )

    def _resume(self) -> bool:
        saved = self.checkpoints.latest() if self.checkpoints else None
        if saved is None:
            return False
        self.stepper.restore(saved.tensors)
        about: dict[str, Any] = saved.manifest
        self.losses, self.held_out, self.before = (
            list(about["losses"]),
            list(about["held_out"]),
            float(about["before"]),
        )
        self.batch, self.best_epoch = int(about["batch"]), int(about["best_epoch"])
        self.best = {
            name.removeprefix("best."): value
            for name, value in saved.tensors.items()
            if name.startswith("best.")
        }
        return True


def halve_on_out_of_memory(
    part: NDArray[np.int64], work: Callable[[NDArray[np.int64]], T], shrink: Callable[[int], None]
) -> list[T]:
    """What ``work`` makes of ``part``; where memory does not suffice for that: of its halves, down to one.
    ``shrink`` is told the new size before.

    Raises torch.cuda.OutOfMemoryError where one alone does not fit.
    """
    try:
        return [work(part)]
    except torch.cuda.OutOfMemoryError:
        if len(part) == 1:
            raise
    # Outside of the handler: the exception holds the tensors of the failed step.
    middle = -(-len(part) // 2)
    shrink(middle)
    torch.cuda.empty_cache()
    return [
        made for half in (part[:middle], part[middle:]) for made in halve_on_out_of_memory(half, work, shrink)
    ]


def batch_of(lanes: TrainingSequences, part: NDArray[np.int64], tuning: FinetuneSettings) -> SequenceBatch:
    """The lanes ``part`` (B,) as tensors on the device of ``tuning``, side by side from their first rows."""
    length = np.diff(lanes.first)[part]
    b, t = len(part), int(length.max())
    at = lanes.first[part][:, None] + np.arange(t)
    inside = np.arange(t) < length[:, None]  # (B, T)
    x = np.where(inside, lanes.x[np.where(inside, at, 0)], np.nan)
    missed = np.where(inside, lanes.missed[np.where(inside, at, 0)], 0).astype(np.int32)
    slot = np.tile(np.arange(b, dtype=np.int32), t)
    seen = lstm_features.advance(
        lstm_features.initial(b, tuning.memory),
        slot,
        np.ascontiguousarray(x.T).reshape(-1),
        missed.T.reshape(-1).copy(),
    )
    last, unit = seen.last.reshape(t, b), seen.unit.reshape(t, b)
    target = np.full((t, b, len(lstm_features.HORIZONS)), np.nan, np.float32)
    held = target.copy()
    cut = length - np.round(tuning.held_out * length).astype(np.int64)  # (B,)
    for k, ahead in enumerate(lstm_features.HORIZONS):
        if ahead >= t:
            continue
        move = np.clip(
            (x.T[ahead:] - last[:-ahead]) / unit[:-ahead], -lstm_features.LIMIT, lstm_features.LIMIT
        )
        late = np.arange(ahead, t)[:, None] >= cut
        target[:-ahead, :, k] = np.where(late, np.nan, move)
        held[:-ahead, :, k] = np.where(late, move, np.nan)
    target[:2] = held[:2] = np.nan  # nothing is known of a series' unit before its third point
    parts = (
        torch.from_numpy(array).to(tuning.device) for array in (seen.features.reshape(t, b, -1), target, held)
    )
    return SequenceBatch(*parts)


def digest_of(weights: Weights) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(weights[name].tobytes())
    return digest.hexdigest()


def stacked(lanes: Sequence[NDArray[np.float64]]) -> TrainingSequences:
    """Lanes of separate arrays without gaps in their cadence."""
    first = np.r_[0, np.cumsum([len(lane) for lane in lanes])].astype(np.int64)
    x = np.concatenate([np.asarray(lane, np.float64) for lane in lanes]) if lanes else np.empty(0)
    return TrainingSequences(first, x, np.zeros(len(x), np.int32))
