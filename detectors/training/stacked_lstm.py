"""S LSTMs side by side in one batched computation.

The recurrence has its own backward pass, because autograd over T small steps would cost more than the
arithmetic.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from detectors.forecasters import shared_lstm

Weights = dict[str, Tensor]


def forward(
    weights: Weights, x: Tensor, state: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Run each network on its own inputs with its own weights.

    ``x`` (L, S, B, F), state (S, B, H) twice → location and log scale (L, S, B, K), and the state after.
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
    location, log_scale = shared_lstm.mix_experts(out.view(s, length, b, -1).transpose(0, 1), x)
    return location, log_scale, (hidden[-1].detach(), c.detach())


class StackedLSTM(torch.autograd.Function):
    """S LSTMs side by side.

    Drive (L, S, B, 4H), recurrent weights (S, H, 4H), state (S, B, H) twice → hidden (L, S, B, H), last cell
    (S, B, H). Gates in PyTorch's order: input, forget, cell, output. The incoming state gets no gradient
    (truncated BPTT).
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
