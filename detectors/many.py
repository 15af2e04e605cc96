"""One LSTM a series for thousands of series, trained together in one batched computation: series are the batch of every matrix product.

Each series gets just what a loop of ``training.fit`` over the series would do to it: its own scaler, weights, clipping, Adam moments, best epoch. What is
shared is the call: the weights of all series are stacked, and a series is also cut in stretches that run side by side. The recurrence has its own
backward pass, because autograd over T small steps would cost more than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detectors import forecasters
from detectors.forecasters.base import Forecaster
from detectors.forecasters.outputs import OUTPUTS
from detectors.training import Progress, Scaler, Settings, Status, fill, targets, untrainable

GROUP: Final = 256  # series that are trained in one go: their weights and activations stay in the cache of a CPU core
GROUP_ON_GPU: Final = 16_384  # there a call costs the same for one series as for thousands
STRETCHES: Final = 4  # pieces of a series that run side by side, each with a chunk so much shorter: as many updates as one after the other
WARM: Final = 128  # steps before the held-out part on which the state finds itself

Weights = dict[str, Tensor]


@dataclass(slots=True)
class Many:
    """S trained models. ``weights[name][i]`` is the state dict of series i, loadable into ``forecasters.build("lstm", **options)``."""

    weights: dict[str, NDArray[np.float32]]
    location: NDArray[np.float64]  # (S,) of the scaler, NaN where the series was not trained
    scale: NDArray[np.float64]  # (S,)
    status: list[Status | str]  # or why the series cannot be trained
    held_out: NDArray[np.float64]  # (S,) mean score on the held-out part
    mae: NDArray[np.float64]  # (S,) there, one step ahead, in normalised units
    naive: NDArray[np.float64]  # (S,) of the naive forecast

    def model(self, i: int) -> dict[str, Tensor]:
        return {name: torch.from_numpy(value[i].copy()) for name, value in self.weights.items()}


def train_many(
    series: NDArray[np.float64],
    settings: Settings | None = None,
    progress: Callable[[Progress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    **options: Any,
) -> Many:
    """Train one single-layer many-to-many LSTM per row of ``series`` (S, T); ``options`` are those of the forecaster ``lstm``.

    A series that cannot be trained keeps the first weights and says why in ``status``. ``settings.batch`` is not used. Raises ValueError
    for options of another shape of net.
    """
    settings = settings or Settings()
    template = forecasters.build("lstm", **options)
    if template.config.layers != 1 or template.config.inputs != 1 or template.config.head != "many_to_many":
        raise ValueError("train_many trains one layer, one input, head many_to_many; train other nets with training.fit")
    series = np.asarray(series, np.float64)
    cut = series.shape[1] - round(settings.held_out * series.shape[1])
    reasons = untrainable(series[:, :cut])
    first = {name: value.detach().numpy() for name, value in template.state_dict().items()}
    out = _empty(len(series), first, reasons)
    good = np.array([i for i in range(len(series)) if i not in reasons], np.int64)
    size = GROUP if settings.device == "cpu" else GROUP_ON_GPU
    groups = [good[at : at + size] for at in range(0, len(good), size)]
    for number, rows in enumerate(groups):
        group = _Group(template, series[rows], cut, settings, cancelled)
        statuses = group.run()
        for name, value in group.best.items():
            out.weights[name][rows] = value.detach().cpu().numpy()
        out.location[rows], out.scale[rows] = group.scaler.location, group.scaler.scale
        out.held_out[rows], out.mae[rows], out.naive[rows] = group.measures()
        for row, status in zip(rows, statuses, strict=True):
            out.status[row] = status
        if progress:
            progress(Progress(number + 1, len(groups), float(np.mean(group.losses[-1:] or [np.nan])), float(group.best_score.mean()), 0.0))
    return out


def _empty(n: int, first: dict[str, NDArray[np.float32]], reasons: dict[int, str]) -> Many:
    weights = {name: np.repeat(value[None], n, 0) for name, value in first.items()}
    blank = (np.full(n, np.nan) for _ in range(5))
    location, scale, held_out, mae, naive = blank
    return Many(weights, location, scale, [reasons.get(i, Status.CANCELLED) for i in range(n)], held_out, mae, naive)


class _Group:
    """At most ``GROUP`` series: tensors with the series as first axis, S."""

    def __init__(
        self, template: Forecaster, series: NDArray[np.float64], cut: int, settings: Settings, cancelled: Callable[[], bool]
    ) -> None:
        self.settings, self.cancelled, self.cut = settings, cancelled, cut
        self.output, self.horizon, self.hidden = OUTPUTS[template.config.output], template.config.horizon, template.config.hidden
        self.scaler = Scaler.of(series[:, :cut])
        values = torch.from_numpy(self.scaler.apply(series)).to(settings.device)
        self.inputs, self.target = fill(values), targets(values, template)  # (S, T), (S, T, K)
        self.weights: Weights = {
            name: value.detach().to(settings.device).repeat(len(series), *[1] * value.ndim).requires_grad_()
            for name, value in template.state_dict().items()
        }
        self.optimiser = torch.optim.Adam(self.weights.values(), settings.learning_rate)
        self.best: Weights = {name: value.detach().clone() for name, value in self.weights.items()}
        self.best_score = torch.full((len(series),), torch.inf, device=settings.device)
        self.best_epoch = torch.zeros(len(series), device=settings.device)
        self.broken = torch.zeros(len(series), dtype=torch.bool, device=settings.device)
        self.losses: list[float] = []

    def run(self) -> list[Status]:
        """The status of each series."""
        cancelled = False
        for epoch in range(self.settings.epochs):
            cancelled = not self._epoch()
            self._judge(epoch)
            quiet = self.broken | (epoch - self.best_epoch >= self.settings.patience)
            if cancelled or bool(quiet.all()):
                break
        usual = Status.CANCELLED if cancelled else Status.FINISHED if len(self.losses) == self.settings.epochs else Status.CONVERGED
        return [Status.DIVERGED if broken else usual for broken in self.broken.tolist()]

    def _epoch(self) -> bool:
        """All chunks of the training part, its stretches side by side; False: cancelled."""
        length = self.cut // STRETCHES
        begin = self.cut - STRETCHES * length
        x = self.inputs[:, begin : self.cut].reshape(-1, STRETCHES, length)  # (S, B, L)
        y = self._known(self.cut)[:, begin : self.cut].reshape(-1, STRETCHES, length, self.horizon)  # (S, B, L, K)
        h = c = x.new_zeros(*x.shape[:2], self.hidden)
        losses = []
        chunk = max(8, self.settings.chunk // STRETCHES)
        for start in range(0, length, chunk):
            if self.cancelled():
                return False
            stop = min(start + chunk, length)
            parameters, h, c = forward(self.weights, x[:, :, start:stop], h, c, self.output.size, self.output.natural)
            losses.append(self._step(self._score(parameters, y[:, :, start:stop])))
        self.losses.append(float(np.mean(losses)))
        return True

    def _step(self, loss: Tensor) -> float:
        """``loss`` (S,): one Adam step of every series that still has numbers, each clipped by its own norm."""
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss.sum())
        gradients = [value.grad for value in self.weights.values() if value.grad is not None]
        norm = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)  # (S,)
        self.broken |= ~(norm.isfinite() & loss.isfinite())
        factor = torch.where(self.broken, 0.0, (self.settings.clip / (norm + 1e-6)).clamp(max=1.0))
        for gradient in gradients:
            gradient.nan_to_num_(0.0, 0.0, 0.0).mul_(factor.view(-1, *[1] * (gradient.ndim - 1)))
        self.optimiser.step()
        return float(loss.detach()[~self.broken].mean())

    def _judge(self, epoch: int) -> None:
        score, _, _ = self._tail(self.weights)
        better = (score < self.best_score) & ~self.broken
        self.best_score = torch.where(better, score, self.best_score)
        self.best_epoch = torch.where(better, float(epoch), self.best_epoch)
        for name, value in self.weights.items():
            mask = better.view(-1, *[1] * (value.ndim - 1))
            self.best[name] = torch.where(mask, value.detach(), self.best[name])

    def measures(self) -> tuple[NDArray[Any], ...]:
        """Held-out score, MAE and naive MAE of the best weights, (S,) each."""
        score, mae, naive = (part.cpu().numpy() for part in self._tail(self.best))
        return score, mae, naive

    @torch.no_grad()
    def _tail(self, weights: Weights) -> tuple[Tensor, Tensor, Tensor]:
        begin = max(0, self.cut - WARM)
        x, y = self.inputs[:, None, begin:], self.target[:, None, begin:].clone()
        y[:, :, : self.cut - begin] = torch.nan
        zero = x.new_zeros(len(x), 1, self.hidden)
        parameters, _, _ = forward(weights, x, zero, zero, self.output.size, self.output.natural)
        first = y[..., 0]
        error = (self.output.location(parameters)[..., 0] - first).abs()
        return self._score(parameters, y), error.flatten(1).nanmean(1), (x - first).abs().flatten(1).nanmean(1)

    def _score(self, parameters: Tensor, target: Tensor) -> Tensor:
        """(S, B, L, K, P) and (S, B, L, K) → mean proper score of each series (S,)."""
        known = ~target.isnan()
        score = torch.where(known, self.output.loss(parameters, target.nan_to_num()), 0.0)
        return score.flatten(1).sum(1) / known.flatten(1).sum(1).clamp(min=1)

    def _known(self, end: int) -> Tensor:
        out = self.target.clone()
        for k in range(self.horizon):
            out[:, max(0, end - k - 1) :, k] = torch.nan
        return out


def forward(
    weights: Weights, x: Tensor, h: Tensor, c: Tensor, size: int, natural: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """``x`` (S, B, L), state (S, B, H) twice → parameters (S, B, L, K, P) and the state after; every series by its own weights."""
    s, b, length = x.shape
    bias = weights["cell.bias_ih_l0"] + weights["cell.bias_hh_l0"]  # (S, 4H)
    drive = x.permute(2, 0, 1)[..., None] * weights["cell.weight_ih_l0"][None, :, None, :, 0] + bias[None, :, None]  # (L, S, B, 4H)
    hidden, c = StackedLSTM.apply(drive, weights["cell.weight_hh_l0"].transpose(1, 2), h, c)
    flat = hidden.permute(1, 2, 0, 3).reshape(s, b * length, -1)
    raw = torch.baddbmm(weights["head.linear.bias"][:, None], flat, weights["head.linear.weight"].transpose(1, 2))
    raw = raw.view(s, b, length, -1, size)
    return natural(raw, x[..., None].expand(raw.shape[:-1])), hidden[-1].detach(), c.detach()


class StackedLSTM(torch.autograd.Function):
    """S LSTMs side by side: drive (L, S, B, 4H), recurrent weights (S, H, 4H), state (S, B, H) twice → hidden (L, S, B, H), last cell (S, B, H).

    Gates in PyTorch's order: input, forget, cell, output. The state that comes in gets no gradient (truncated BPTT).
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
