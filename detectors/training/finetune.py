"""Training of a recurrent network on the series of a stream.

The network is the shared LSTM, or the network that the stream names.

Truncated BPTT over chunks with carried state, seeded, checkpointed and bounded in memory. Series of similar
length stand side by side in batches; rows beyond the end of a series are missing. The last part of each
series is held out, and the weights with the best score there are kept. The initial weights take part, so
that a training never returns worse weights than it was given. (Truncated BPTT: Williams & Peng 1990; early
stopping: Prechelt 1998.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detectors.artifacts import Checkpoints
from detectors.forecasters.trainable_network import TrainableNetwork
from detectors.training.fit import EpochProgress, TrainingStatus
from detectors.training.gradients import Diverged, Stepper
from detectors.training.sequences import (
    FinetuneSettings,
    SequenceBatch,
    TrainingSequences,
    batch_of,
    digest_of,
    untrainable,
)

Weights = dict[str, NDArray[np.float32]]
T = TypeVar("T")
# Devices on which the recurrence trains in half precision. Head, loss and held-out scores stay in float32.
HALF_PRECISION_DEVICES: Final = ("cuda",)
# Inputs that are kept from epoch to epoch. Batches beyond it are computed again.
CACHE_BYTES: Final = 2 << 30


@dataclass(slots=True)
class FinetuneResult:
    """The result of a fine-tuning.

    ``weights`` are empty if the data are untrainable, or if the training failed before any improvement.
    losses, held_out: one number per epoch; before: held-out score of the initial weights; batch: size after
    reductions for lack of memory; sequences: number used, and number given.
    """

    status: TrainingStatus
    reason: str
    weights: Weights
    losses: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    before: float = float("nan")
    gradient: dict[str, float] = field(default_factory=dict)
    batch: int = 0
    sequences: tuple[int, int] = (0, 0)
    rows: int = 0


def finetune(
    module: TrainableNetwork,
    sequences: TrainingSequences,
    tuning: FinetuneSettings | None = None,
    progress: Callable[[EpochProgress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    checkpoint: str | None = None,
) -> FinetuneResult:
    """Train ``module`` in place.

    Unsuitable data and lack of memory do not raise: they are a status.

    Args:
        module: the network, with its initial weights.
        sequences: the training data.
        tuning: how to fine-tune.
        progress: called after every epoch.
        cancelled: polled before every chunk.
        checkpoint: path to resume from.
    """
    tuning = tuning or FinetuneSettings()
    reasons = untrainable(sequences)
    total = len(sequences.first) - 1
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
            sequences=(0, total),
        )
    return _Finetuning(
        module, sequences, _sample(sequences, good, tuning), tuning, cancelled, checkpoint
    ).run(progress, total)


def _sample(
    sequences: TrainingSequences, good: NDArray[np.int64], tuning: FinetuneSettings
) -> NDArray[np.int64]:
    """Draw as many sequences as ``most_rows`` allows, by seed; at least one."""
    order = np.random.default_rng(tuning.seed).permutation(good)
    size = np.cumsum(np.diff(sequences.first)[order])
    return np.sort(order[: max(1, int(np.searchsorted(size, tuning.most_rows, side="right")))])


class _Finetuning:
    """One fine-tuning: its sequences, optimiser and best weights so far."""

    def __init__(
        self,
        module: TrainableNetwork,
        sequences: TrainingSequences,
        chosen: NDArray[np.int64],
        tuning: FinetuneSettings,
        cancelled: Callable[[], bool],
        checkpoint: str | None,
    ) -> None:
        self.module, self.sequences, self.tuning, self.cancelled = (
            module.to(tuning.device).requires_grad_(),
            sequences,
            tuning,
            cancelled,
        )
        length = np.diff(sequences.first)
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
        recipe = {"tuning": asdict(tuning), "data": sequences.digest(), "from": digest_of(self.best)}
        self.checkpoints = Checkpoints(checkpoint, recipe) if checkpoint else None

    def run(self, progress: Callable[[EpochProgress], None] | None, total: int) -> FinetuneResult:
        status, reason = self._run(progress)
        self.module.load_state_dict({name: torch.from_numpy(value) for name, value in self.best.items()})
        counts = (len(self.order), total)
        if status is TrainingStatus.UNTRAINABLE or (
            status in (TrainingStatus.DIVERGED, TrainingStatus.OUT_OF_MEMORY) and self.best_epoch < 0
        ):
            return FinetuneResult(status, reason, {}, sequences=counts, rows=self.rows)
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
                self.before = self._held_out_score()
            if math.isnan(self.before):
                raise Diverged(
                    "the weights it began with forecast no numbers: look at the data, or roll the "
                    "champion back"
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
            self.held_out.append(self._held_out_score())
            if not math.isfinite(self.held_out[-1]):
                raise Diverged(
                    f"the held-out score of epoch {epoch + 1} is {self.held_out[-1]}: lower the "
                    f"learning rate or look at the data"
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
            f"all {self.tuning.epochs} epochs, the best was {self.best_epoch + 1} (0: the "
            f"weights it began with)",
        )

    def _epoch(self, epoch: int) -> float | None:
        """Return the mean loss, None if cancelled.

        The order of the batches depends on seed and epoch alone.
        """
        parts = self._parts()
        losses: list[float] = []
        for number in np.random.default_rng((self.tuning.seed, epoch)).permutation(len(parts)):
            if not all(
                halve_on_out_of_memory(parts[number], lambda part: self._train(part, losses), self._shrink)
            ):
                return None
        return float(np.mean(losses)) if losses else 0.0

    def _train(self, part: NDArray[np.int64], losses: list[float]) -> bool:
        """Train on one batch, chunk after chunk with carried state; False if cancelled."""
        data = self._data(part)
        for loss in self._chunk_losses(data.inputs, data.target):
            if self.cancelled():
                return False
            losses.append(self.stepper.step(loss))
        return True

    def _shrink(self, size: int) -> None:
        """Use smaller batches from now on."""
        self.batch = min(self.batch, size)
        self.cache.clear()
        self.stepper.optimiser.zero_grad(set_to_none=True)

    def _chunk_losses(self, inputs: Tensor, target: Tensor) -> Iterator[Tensor]:
        """Yield the mean loss of every chunk with a known target.

        The state is carried from chunk to chunk, the gradient is not.
        """
        state = None
        target = self.module.wanted(target)
        for x, y in zip(
            torch.split(inputs, self.tuning.chunk), torch.split(target, self.tuning.chunk), strict=True
        ):
            with torch.autocast(
                x.device.type,
                dtype=torch.bfloat16,
                enabled=x.device.type in HALF_PRECISION_DEVICES and torch.is_grad_enabled(),
            ):
                hidden, state = self.module.advance(x, state)
            state = tuple(part.detach() for part in state)
            if not y.isnan().all():
                yield self.module.loss(hidden.float(), x, y)

    @torch.no_grad()
    def _held_out_score(self) -> float:
        """Return the mean score of the held-out part; each target has the same weight."""
        total, known = 0.0, 0
        for part in self._parts():
            data = self._data(part)
            wanted = self.module.wanted(data.held_out)
            chunks = [int((~y.isnan()).sum()) for y in torch.split(wanted, self.tuning.chunk)]
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
            data = batch_of(
                self.sequences,
                part,
                self.tuning,
                calendar=self.module.calendar,
                count_columns=self.module.count_columns,
            )
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
    """Return the results of ``work`` on ``part``, or on its halves if memory runs out.

    The halves are halved again as needed. Raises torch.cuda.OutOfMemoryError if one item does not fit.

    Args:
        part: numbers of the items.
        work: the computation.
        shrink: called with the new size before the halves.
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
