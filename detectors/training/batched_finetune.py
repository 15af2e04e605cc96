"""Networks of their own for many series or groups of series, fine-tuned together: the networks are the batch
of every matrix product.

Each begins as the shared LSTM and gets just what a loop of ``finetune`` over them would do to it: its own
clipping, Adam moments, best epoch. What is shared is the call: their weights are stacked, and a series that
is alone is also cut in stretches that run side by side. The recurrence has its own backward pass, because
autograd over T small steps would cost more than the arithmetic.
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
from detectors.forecasters import shared_lstm
from detectors.forecasters.shared_lstm import SharedLSTM
from detectors.training.finetune import (
    FinetuneSettings,
    TrainingSequences,
    batch_of,
    digest_of,
    halve_on_out_of_memory,
    untrainable,
)
from detectors.training.fit import TrainingStatus
from detectors.training.gradients import cosine
from detectors.training.pretrain import losses_of

TOGETHER: Final = 64  # networks that are trained in one go: their weights stay in the cache of a CPU core
TOGETHER_ON_GPU: Final = 4096  # there a call costs the same for one network as for thousands
CELLS: Final = 1 << 20  # rows of all lanes that are trained in one go, on a GPU sixteen times as many
# lanes of a network that run side by side; fewer are cut, each chunk so much shorter: as many updates as
# uncut
STRETCHES: Final = 16
SHORTEST: Final = 64  # rows of a stretch at the least
WARM: Final = 128  # rows before the held-out part on which the state finds itself

Weights = dict[str, Tensor]


@dataclass(slots=True)
class BatchedResult:
    """S networks. ``weights[name][i]`` is the state dict of network i, loadable into ``SharedLSTM``.

    status: how it ended, or why a network has nothing to learn from (then all its figures are NaN). All
    figures are of the held-out part: scores (what is minimised) and mean absolute errors one step ahead in
    units, of the shared LSTM (``before``) and of the network.
    """

    weights: dict[str, NDArray[np.float32]]
    status: list[str]
    known: NDArray[np.int64]  # (S,) targets
    before: NDArray[np.float64]  # (S,)
    held_out: NDArray[np.float64]  # (S,)
    shared_error: NDArray[np.float64]  # (S,)
    error: NDArray[np.float64]  # (S,)


@dataclass(slots=True)
class BatchedProgress:
    """What a callback is told before the first portion and after each: how many of the networks are done."""

    networks: int
    of: int
    seconds_left: float | None  # None: nothing is done yet
    phase: str = "own networks"


def finetune_batched(
    module: SharedLSTM,
    lanes: TrainingSequences,
    owner: NDArray[np.int32],
    tuning: FinetuneSettings | None = None,
    progress: Callable[[BatchedProgress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    checkpoint: str | None = None,
) -> BatchedResult:
    """Train one network a value of ``owner`` (L,): whose lane it is, 0 … S − 1, or −1. ``module`` is not
    changed.

    A network learns from at most ``tuning.batch`` of its lanes, drawn by the seed. What is done is kept at
    ``checkpoint`` as the training goes on. Raises torch.cuda.OutOfMemoryError where one network alone does
    not fit.
    """
    tuning = tuning or FinetuneSettings()
    members, status = _members(lanes, owner, tuning)
    first = {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}
    s = len(members)
    figures = [np.full(s, np.nan) for _ in range(4)]
    out = BatchedResult(
        {name: np.repeat(value[None], s, 0) for name, value in first.items()},
        status,
        np.zeros(s, np.int64),
        *figures,
    )
    recipe = (
        {"tuning": asdict(tuning), "data": lanes.digest(), "from": digest_of(first)} if checkpoint else {}
    )
    portions = _portions(lanes, members, tuning.device)

    def train(portion: NDArray[np.int64]) -> None:
        kept = (
            Checkpoints(f"{checkpoint}-{portion[0]}", recipe | {"networks": portion.tolist()})
            if checkpoint
            else None
        )
        saved = kept.latest() if kept else None
        if saved is not None:
            _put(out, portion, saved.tensors, saved.manifest["status"])
            return
        found, how = _Together(module, lanes, [members[i] for i in portion], tuning, cancelled).run()
        _put(out, portion, found, how)
        if kept and TrainingStatus.CANCELLED not in how:
            kept.save(1, found, {"status": how})

    size = max((len(portion) for portion in portions), default=0)
    done, total, started = 0, sum(map(len, portions)), time.monotonic()

    def tell() -> None:
        if progress:
            progress(
                BatchedProgress(
                    done, total, (time.monotonic() - started) / done * (total - done) if done else None
                )
            )

    def shrink(smaller: int) -> None:
        nonlocal size
        size = min(size, smaller)

    tell()
    for portion in portions:
        if cancelled():
            break
        for at in range(0, len(portion), step := size):
            halve_on_out_of_memory(portion[at : at + step], train, shrink)
        done += len(portion)
        tell()
    return out


def _members(
    lanes: TrainingSequences, owner: NDArray[np.int32], tuning: FinetuneSettings
) -> tuple[list[NDArray[np.int64]], list[str]]:
    """The lanes that each network learns from, and why one has none."""
    why = {int(lane): reason for reason, rows in untrainable(lanes).items() for lane in rows}
    rng = np.random.default_rng(tuning.seed)
    members, status = [], []
    by_owner = np.argsort(owner, kind="stable")
    edges = np.searchsorted(owner[by_owner], np.arange(int(owner.max(initial=-1)) + 2))
    for begin, end in pairwise(edges.tolist()):
        mine = by_owner[begin:end]
        good = np.array([lane for lane in mine.tolist() if lane not in why], np.int64)
        members.append(np.sort(rng.permutation(good)[: tuning.batch]))
        status.append(
            TrainingStatus.CANCELLED if len(good) else why[int(mine[0])] if len(mine) else "no lanes"
        )
    return members, status


def _portions(
    lanes: TrainingSequences, members: list[NDArray[np.int64]], device: str
) -> list[NDArray[np.int64]]:
    """Networks that are trained in one go: alike in number and length of their lanes, and not too much
    together."""
    length = np.diff(lanes.first)
    most, cells = (TOGETHER, CELLS) if device == "cpu" else (TOGETHER_ON_GPU, 16 * CELLS)
    shape = {i: (len(mine), int(length[mine].max())) for i, mine in enumerate(members) if len(mine)}
    portions: list[list[int]] = []
    for i in sorted(shape, key=lambda i: (*shape[i], i)):
        count, longest = shape[i]  # the largest of the portion so far
        last = portions[-1] if portions else []
        widest = max([longest, *(shape[other][1] for other in last)])
        if not last or len(last) >= most or (len(last) + 1) * count * widest > cells:
            portions.append([i])
        else:
            last.append(i)
    return [np.array(portion, np.int64) for portion in portions]


def _put(
    out: BatchedResult, portion: NDArray[np.int64], found: dict[str, NDArray[Any]], status: list[str]
) -> None:
    for name, value in out.weights.items():
        value[portion] = found[name]
    for field in fields(BatchedResult)[2:]:
        getattr(out, field.name)[portion] = found[field.name]
    for i, how in zip(portion, status, strict=True):
        out.status[i] = how


class _Together:
    """One portion: tensors with the network as second axis, S; B lanes each, those that a network lacks have
    no targets.
    """

    def __init__(
        self,
        module: SharedLSTM,
        lanes: TrainingSequences,
        members: list[NDArray[np.int64]],
        tuning: FinetuneSettings,
        cancelled: Callable[[], bool],
    ) -> None:
        self.tuning, self.cancelled = tuning, cancelled
        data = batch_of(lanes, np.concatenate(members), tuning)
        most, s = max(map(len, members)), len(members)
        place = np.full((s, most), data.inputs.shape[1])  # the lane behind the last: nothing is known of it
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
        length = np.diff(lanes.first)[np.concatenate(members)]
        cuts = length - np.round(tuning.held_out * length).astype(np.int64)
        self.until, self.judged = int(cuts.max()), max(0, int(cuts.min()) - WARM)
        first = {name: value.detach().to(tuning.device) for name, value in module.state_dict().items()}
        self.weights: Weights = {
            name: value.repeat(s, *[1] * value.ndim).requires_grad_() for name, value in first.items()
        }
        self.best: Weights = {name: value.detach().clone() for name, value in self.weights.items()}
        self.best_epoch = torch.full((s,), -1.0, device=tuning.device)
        self.broken = torch.zeros(s, dtype=torch.bool, device=tuning.device)
        self.pieces = max(1, min(STRETCHES // most, self.until // SHORTEST))
        self.chunk = max(8, tuning.chunk // self.pieces)
        steps = tuning.epochs * -(-(self.until // self.pieces) // self.chunk)
        self.optimiser = torch.optim.Adam(self.weights.values(), tuning.learning_rate)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, lambda done: cosine(done, steps))

    def run(self) -> tuple[dict[str, NDArray[Any]], list[str]]:
        """Best weights and figures by name (see ``BatchedResult``), and how each network ended."""
        before, shared_error, known = self._judge()
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
        held_out, error, _ = self._judge()
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
        """All chunks of the training part, its stretches side by side; False: cancelled."""
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
        """``loss`` (S,): one Adam step of every network that still has numbers, each clipped by its own norm."""
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
        """The weights of those that are better than ever."""
        score, _, _ = self._judge()
        better = (score < self.score) & ~self.broken
        self.score = torch.where(better, score, self.score)
        self.best_epoch = torch.where(better, float(epoch), self.best_epoch)
        for name, value in self.weights.items():
            mask = better.view(-1, *[1] * (value.ndim - 1))
            self.best[name] = torch.where(mask, value.detach(), self.best[name])

    @torch.no_grad()
    def _judge(self) -> tuple[Tensor, Tensor, Tensor]:
        """Score, error and number of targets of the held-out part, (S,) each."""
        x, y = self.inputs[self.judged :], self.held_out[self.judged :]
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
    """(L, S, B, K), 0 where not ``known`` → the mean of each network (S,)."""
    return values.sum((0, 2, 3)) / known.sum((0, 2, 3)).clamp(min=1)


def forward(
    weights: Weights, x: Tensor, state: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """``x`` (L, S, B, F), state (S, B, H) twice → location and log scale (L, S, B, K), and the state after;
    each network by its own weights.
    """
    length, s, b, _ = x.shape
    bias = weights["lstm.bias_ih_l0"] + weights["lstm.bias_hh_l0"]  # (S, 4H)
    flat = x.permute(1, 0, 2, 3).reshape(s, length * b, -1)
    drive = torch.baddbmm(bias[:, None], flat, weights["lstm.weight_ih_l0"].transpose(1, 2)).view(
        s, length, b, -1
    )
    h, c = (
        state
        if state is not None
        else (x.new_zeros(s, b, weights["head.weight"].shape[-1]) for _ in range(2))
    )
    hidden, c = StackedLSTM.apply(
        drive.transpose(0, 1).contiguous(), weights["lstm.weight_hh_l0"].transpose(1, 2), h, c
    )
    out = torch.baddbmm(
        weights["head.bias"][:, None],
        hidden.transpose(0, 1).reshape(s, length * b, -1),
        weights["head.weight"].transpose(1, 2),
    )
    location, log_scale = shared_lstm.mixed(out.view(s, length, b, -1).transpose(0, 1), x)
    return location, log_scale, (hidden[-1].detach(), c.detach())


class StackedLSTM(torch.autograd.Function):
    """S LSTMs side by side: drive (L, S, B, 4H), recurrent weights (S, H, 4H), state (S, B, H) twice → hidden
    (L, S, B, H), last cell (S, B, H).

    Gates in PyTorch's order: input, forget, cell, output. The state that comes in gets no gradient (truncated
    BPTT).
    """

    @staticmethod
    def forward(ctx: Any, drive: Tensor, weight: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        steps, size = len(drive), drive.shape[-1] // 4
        gates, squashed = torch.empty_like(drive), drive.new_empty(*drive.shape[:-1], size)
        hidden, cell = (drive.new_empty(steps + 1, *h.shape) for _ in range(2))
        hidden[0], cell[0] = h, c
        for t in range(steps):
            gate = torch.baddbmm(drive[t], hidden[t], weight, out=gates[t])
            gate[..., : 2 * size].sigmoid_()
            gate[..., 2 * size : 3 * size].tanh_()
            gate[..., 3 * size :].sigmoid_()
            i, f, z, o = torch.split(gate, size, -1)
            torch.mul(f, cell[t], out=cell[t + 1]).addcmul_(i, z)
            torch.mul(o, torch.tanh(cell[t + 1], out=squashed[t]), out=hidden[t + 1])
        ctx.save_for_backward(gates, hidden, cell, squashed, weight)
        last = cell[steps].clone()
        ctx.mark_non_differentiable(last)
        return hidden[1:], last

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gates, hidden, cell, squashed, weight = ctx.saved_tensors
        steps, s, b, width = gates.shape
        size = width // 4
        out, back = torch.empty_like(gates), weight.transpose(1, 2)
        dc = torch.zeros_like(cell[0])
        dh = gradients[0][-1]
        for t in range(steps - 1, -1, -1):
            i, f, z, o = torch.split(gates[t], size, -1)
            slope = gates[t] * (1 - gates[t])  # of the sigmoids
            slope[..., 2 * size : 3 * size] = 1 - z * z
            dc.addcmul_(dh * o, 1 - squashed[t] ** 2)
            torch.cat((dc * z, dc * cell[t], dc * i, dh * squashed[t]), -1, out=out[t])
            out[t].mul_(slope)
            dc.mul_(f)
            if t:
                dh = torch.baddbmm(gradients[0][t - 1], out[t], back)
        before = hidden[:-1].permute(1, 3, 0, 2).reshape(s, size, steps * b)
        return out, torch.bmm(before, out.permute(1, 0, 2, 3).reshape(s, steps * b, width)), None, None
