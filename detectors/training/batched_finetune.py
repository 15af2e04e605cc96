"""Batched fine-tuning: per-group LSTMs trained in one computation.

Each network starts as the shared LSTM and gets what ``finetune`` would give it: its own clipping, Adam
moments and best epoch. Their weights are stacked, so that the network is the batch axis of every matrix
product. The sequences of a network with few of them are cut into pieces that run side by side.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detectors.artifacts import Checkpoints
from detectors.forecasters.shared_lstm import SharedLSTM, losses_of
from detectors.training.finetune import halve_on_out_of_memory
from detectors.training.fit import TrainingStatus
from detectors.training.gradients import cosine
from detectors.training.sequences import FinetuneSettings, TrainingSequences, batch_of, digest_of, untrainable
from detectors.training.stacked_lstm import Weights, forward

# Limits of one batch. On a CPU the weights must fit the cache of a core. On a GPU a call for thousands of
# networks costs as much as a call for one.
MAX_NETWORKS_ON_CPU: Final = 64
MAX_NETWORKS_ON_GPU: Final = 4096
MAX_ROWS_ON_CPU: Final = 1 << 20  # of all sequences of a batch, 16 times as many on a GPU
# The sequences of a network with fewer of them are cut into pieces. Its chunks are shorter by the same
# factor, so that the number of updates stays the same.
MIN_PARALLEL_SEQUENCES: Final = 16
MIN_PIECE_ROWS: Final = 64
WARM_UP_ROWS: Final = 128  # before the held-out part, to bring the state up


@dataclass(slots=True)
class BatchedResult:
    """The results of S networks; ``weights[name][i]`` is the state dict of network i.

    status: how the training ended, or why there is nothing to train on (all figures are NaN then). The
    figures are of the held-out part: scores (the minimised loss) and mean absolute errors one step ahead in
    units, of the shared LSTM (``before``, ``shared_error``) and of the network.
    """

    weights: dict[str, NDArray[np.float32]]
    status: list[str]
    known: NDArray[np.int64]  # (S,) number of targets
    before: NDArray[np.float64]  # (S,)
    held_out: NDArray[np.float64]  # (S,)
    shared_error: NDArray[np.float64]  # (S,)
    error: NDArray[np.float64]  # (S,)


@dataclass(slots=True)
class BatchedProgress:
    """Progress after each batch: ``networks`` of ``of`` are done."""

    networks: int
    of: int
    seconds_left: float | None  # None: nothing is done yet
    phase: str = "own networks"


def finetune_batched(
    module: SharedLSTM,
    sequences: TrainingSequences,
    owner: NDArray[np.int32],
    tuning: FinetuneSettings | None = None,
    progress: Callable[[BatchedProgress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    checkpoint: str | None = None,
) -> BatchedResult:
    """Train one network for each value of ``owner``; ``module`` is not changed.

    A network trains on at most ``tuning.batch`` of its sequences, drawn by the seed. Raises
    torch.cuda.OutOfMemoryError if one network alone does not fit.

    Args:
        module: the shared LSTM.
        sequences: the training data (L sequences).
        owner: network of each sequence (L,), 0 … S − 1, or −1.
        tuning: how to fine-tune.
        progress: called before the first batch and after each.
        cancelled: polled before every chunk.
        checkpoint: path at which finished networks are kept.
    """
    tuning = tuning or FinetuneSettings()
    members, status = _members(sequences, owner, tuning)
    first = {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}
    recipe: dict[str, Any] = {}
    if checkpoint:
        recipe = {"tuning": asdict(tuning), "data": sequences.digest(), "from": digest_of(first)}
    out = _untrained(first, status)
    training = _Training(module, sequences, members, tuning, cancelled, checkpoint, recipe, out)
    batches = _plan_batches(sequences, members, tuning.device)
    done, total, started = 0, sum(map(len, batches)), time.monotonic()

    def report() -> None:
        if progress:
            seconds_left = (time.monotonic() - started) / done * (total - done) if done else None
            progress(BatchedProgress(done, total, seconds_left))

    size = max(map(len, batches), default=0)

    def shrink(smaller: int) -> None:
        nonlocal size
        size = min(size, smaller)

    report()
    for batch_members in batches:
        if cancelled():
            break
        for at in range(0, len(batch_members), step := size):
            halve_on_out_of_memory(batch_members[at : at + step], training.run, shrink)
        done += len(batch_members)
        report()
    return out


@dataclass(slots=True)
class _Training:
    """Shared parts of the batches of one fine-tuning, and their results."""

    module: SharedLSTM
    sequences: TrainingSequences
    members: list[NDArray[np.int64]]
    tuning: FinetuneSettings
    cancelled: Callable[[], bool]
    checkpoint: str | None
    recipe: dict[str, Any]
    out: BatchedResult

    def run(self, batch: NDArray[np.int64]) -> None:
        """Train the networks of one batch, or take their results from a checkpoint."""
        kept = (
            Checkpoints(f"{self.checkpoint}-{batch[0]}", self.recipe | {"networks": batch.tolist()})
            if self.checkpoint
            else None
        )
        saved = kept.latest() if kept else None
        if saved is not None:
            _store_result(self.out, batch, saved.tensors, saved.manifest["status"])
            return
        members = [self.members[i] for i in batch]
        found, how = _NetworkBatch(self.module, self.sequences, members, self.tuning, self.cancelled).run()
        _store_result(self.out, batch, found, how)
        if kept and TrainingStatus.CANCELLED not in how:
            kept.save(1, found, {"status": how})


def _untrained(first: dict[str, NDArray[np.float32]], status: list[str]) -> BatchedResult:
    """Return a copy of the shared LSTM for each status, without figures."""
    s = len(status)
    weights = {name: np.repeat(value[None], s, 0) for name, value in first.items()}
    return BatchedResult(weights, status, np.zeros(s, np.int64), *(np.full(s, np.nan) for _ in range(4)))


def _members(
    sequences: TrainingSequences, owner: NDArray[np.int32], tuning: FinetuneSettings
) -> tuple[list[NDArray[np.int64]], list[str]]:
    """Return the sequences of each network, and a status for each."""
    why = {int(sequence): reason for reason, rows in untrainable(sequences).items() for sequence in rows}
    rng = np.random.default_rng(tuning.seed)
    members, status = [], []
    by_owner = np.argsort(owner, kind="stable")
    edges = np.searchsorted(owner[by_owner], np.arange(int(owner.max(initial=-1)) + 2))
    for begin, end in pairwise(edges.tolist()):
        mine = by_owner[begin:end]
        good = np.array([sequence for sequence in mine.tolist() if sequence not in why], np.int64)
        members.append(np.sort(rng.permutation(good)[: tuning.batch]))
        status.append(
            TrainingStatus.CANCELLED if len(good) else why[int(mine[0])] if len(mine) else "no sequences"
        )
    return members, status


def _plan_batches(
    sequences: TrainingSequences, members: list[NDArray[np.int64]], device: str
) -> list[NDArray[np.int64]]:
    """Group the networks into batches by number and length of their sequences.

    The size of a batch is bounded by its networks and rows.
    """
    length = np.diff(sequences.first)
    most, cells = (
        (MAX_NETWORKS_ON_CPU, MAX_ROWS_ON_CPU)
        if device == "cpu"
        else (MAX_NETWORKS_ON_GPU, 16 * MAX_ROWS_ON_CPU)
    )
    shape = {i: (len(mine), int(length[mine].max())) for i, mine in enumerate(members) if len(mine)}
    batches: list[list[int]] = []
    for i in sorted(shape, key=lambda i: (*shape[i], i)):
        count, longest = shape[i]  # the largest of the portion so far
        last = batches[-1] if batches else []
        widest = max([longest, *(shape[other][1] for other in last)])
        if not last or len(last) >= most or (len(last) + 1) * count * widest > cells:
            batches.append([i])
        else:
            last.append(i)
    return [np.array(batch_members, np.int64) for batch_members in batches]


def _store_result(
    out: BatchedResult, batch_members: NDArray[np.int64], found: dict[str, NDArray[Any]], status: list[str]
) -> None:
    for name, value in out.weights.items():
        value[batch_members] = found[name]
    for field in fields(BatchedResult)[2:]:
        getattr(out, field.name)[batch_members] = found[field.name]
    for i, how in zip(batch_members, status, strict=True):
        out.status[i] = how


class _NetworkBatch:
    """One batch of networks; the second axis of each tensor is the network, S.

    Each network has B sequences; missing ones have no targets.
    """

    def __init__(
        self,
        module: SharedLSTM,
        sequences: TrainingSequences,
        members: list[NDArray[np.int64]],
        tuning: FinetuneSettings,
        cancelled: Callable[[], bool],
    ) -> None:
        self.tuning, self.cancelled = tuning, cancelled
        data = batch_of(sequences, np.concatenate(members), tuning)
        most, s = max(map(len, members)), len(members)
        place = np.full((s, most), data.inputs.shape[1])  # the blank sequence after the last one
        count = np.cumsum([0, *map(len, members)])
        for i, mine in enumerate(members):
            place[i, : len(mine)] = np.arange(count[i], count[i] + len(mine))
        blank = torch.full_like(data.target[:, :1], torch.nan)
        rows = torch.from_numpy(place.ravel())
        self.inputs, self.target, self.held_out = (
            torch.cat((part, empty), 1)[:, rows].view(-1, s, most, part.shape[2])
            for part, empty in (
                (data.inputs, torch.zeros_like(data.inputs[:, :1])), (data.target, blank), (data.held_out, blank),
            )
        )  # fmt: skip
        length = np.diff(sequences.first)[np.concatenate(members)]
        cuts = length - np.round(tuning.held_out * length).astype(np.int64)
        self.until, self.first_scored_row = int(cuts.max()), max(0, int(cuts.min()) - WARM_UP_ROWS)
        first = {name: value.detach().to(tuning.device) for name, value in module.state_dict().items()}
        self.weights: Weights = {
            name: value.repeat(s, *[1] * value.ndim).requires_grad_() for name, value in first.items()
        }
        self.best: Weights = {name: value.detach().clone() for name, value in self.weights.items()}
        self.best_epoch = torch.full((s,), -1.0, device=tuning.device)
        self.broken = torch.zeros(s, dtype=torch.bool, device=tuning.device)
        self.pieces = max(1, min(MIN_PARALLEL_SEQUENCES // most, self.until // MIN_PIECE_ROWS))
        self.chunk = max(8, tuning.chunk // self.pieces)
        steps = tuning.epochs * -(-(self.until // self.pieces) // self.chunk)
        self.optimiser = torch.optim.Adam(self.weights.values(), tuning.learning_rate)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, lambda done: cosine(done, steps))

    def run(self) -> tuple[dict[str, NDArray[Any]], list[str]]:
        """Return the best weights and figures by name, and the status of each network."""
        before, shared_error, known = self._held_out_scores()
        self.score = before.clone()
        epoch, cancelled = -1, False
        for epoch in range(self.tuning.epochs):
            cancelled = not self._epoch()
            if cancelled:
                break
            self._keep(epoch)
            if bool((self.broken | (epoch - self.best_epoch >= self.tuning.patience)).all()):
                break
        with torch.no_grad():
            for name, value in self.weights.items():
                value.copy_(self.best[name])
        held_out, error, _ = self._held_out_scores()
        figures = {
            "known": known,
            "before": before,
            "held_out": held_out,
            "shared_error": shared_error,
            "error": error,
        }
        usual = (
            TrainingStatus.CANCELLED
            if cancelled
            else TrainingStatus.FINISHED
            if epoch + 1 == self.tuning.epochs
            else TrainingStatus.CONVERGED
        )
        found = {name: value.cpu().numpy() for name, value in (self.best | figures).items()}
        return found, [TrainingStatus.DIVERGED if broken else usual for broken in self.broken.tolist()]

    def _epoch(self) -> bool:
        """Train on all chunks, the pieces side by side; return False if cancelled."""
        length = self.until // self.pieces
        begin = self.until - self.pieces * length
        x, y = (self._cut(part[begin : self.until], length) for part in (self.inputs, self.target))
        state = None
        for at in range(0, length, self.chunk):
            if self.cancelled():
                return False
            part, target = x[at : at + self.chunk], y[at : at + self.chunk]
            location, log_scale, state = forward(self.weights, part, state)
            self._step(
                _means(
                    losses_of(self.weights["freedom"][:, None], location, log_scale, target), ~target.isnan()
                )
            )
        return True

    def _cut(self, part: Tensor, length: int) -> Tensor:
        """(pieces · length, S, B, …) → (length, S, B · pieces, …)."""
        return part.reshape(self.pieces, length, *part.shape[1:]).permute(1, 2, 3, 0, 4).flatten(2, 3)

    def _step(self, loss: Tensor) -> None:
        """Make one Adam step of every network with a finite loss (S,).

        The gradient of each network is clipped by its own norm.
        """
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss.sum())
        gradients = [value.grad for value in self.weights.values() if value.grad is not None]
        norm = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)  # (S,)
        self.broken |= ~(norm.isfinite() & loss.isfinite())
        factor = torch.where(self.broken, 0.0, (self.tuning.clip / (norm + 1e-6)).clamp(max=1.0))
        for gradient in gradients:
            gradient.nan_to_num_(0.0, 0.0, 0.0).mul_(factor.view(-1, *[1] * (gradient.ndim - 1)))
        self.optimiser.step()
        self.schedule.step()

    def _keep(self, epoch: int) -> None:
        """Keep the weights of the networks whose score is the best so far."""
        score, _, _ = self._held_out_scores()
        better = (score < self.score) & ~self.broken
        self.score = torch.where(better, score, self.score)
        self.best_epoch = torch.where(better, float(epoch), self.best_epoch)
        for name, value in self.weights.items():
            mask = better.view(-1, *[1] * (value.ndim - 1))
            self.best[name] = torch.where(mask, value.detach(), self.best[name])

    @torch.no_grad()
    def _held_out_scores(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return score, error and number of targets of the held-out part, (S,) each."""
        x, y = self.inputs[self.first_scored_row :], self.held_out[self.first_scored_row :]
        losses, errors, state = [], [], None
        for part, target in zip(
            torch.split(x, self.tuning.chunk), torch.split(y, self.tuning.chunk), strict=True
        ):
            location, log_scale, state = forward(self.weights, part, state)
            losses.append(losses_of(self.weights["freedom"][:, None], location, log_scale, target))
            errors.append(torch.where(target.isnan(), 0.0, (location - target.nan_to_num()).abs())[..., :1])
        known = ~y.isnan()
        return (
            _means(torch.cat(losses), known),
            _means(torch.cat(errors), known[..., :1]),
            known.sum((0, 2, 3)),
        )


def _means(values: Tensor, known: Tensor) -> Tensor:
    """Return the mean of each network (S,) over the known values (L, S, B, K)."""
    return values.sum((0, 2, 3)) / known.sum((0, 2, 3)).clamp(min=1)
