"""A GRU whose head attends over a bounded memory of its own past states (Bahdanau et al. 2015; scaled dot product: Vaswani et al. 2017). Causal."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detectors.forecasters.base import Config, Forecaster, State


@dataclass(frozen=True, slots=True)
class AttentionConfig(Config):
    """memory: past states that are kept and attended over."""

    memory: int = 64


class Attention(Forecaster):
    """State: the GRU's (B, layers, H), the last M hidden states (B, M, H), and which of them there are (B, M)."""

    config_class = AttentionConfig

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__(config)
        self.memory = config.memory
        self.cell = nn.GRU(config.inputs, config.hidden, config.layers, batch_first=True)
        self.ask, self.key = (nn.Linear(config.hidden, config.hidden) for _ in range(2))
        self.place = nn.Parameter(torch.zeros(config.memory))  # how much the age of a state counts
        self.make_head(2 * config.hidden)

    def initial(self, batch: int) -> State:
        hidden = self.config.hidden
        return torch.zeros(batch, self.config.layers, hidden), torch.zeros(batch, self.memory, hidden), torch.zeros(batch, self.memory)

    def body(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        hidden, after = self.cell(x, state[0].transpose(0, 1).contiguous())  # (B, T, H)
        known = torch.cat((state[1], hidden), 1)  # (B, M + T, H)
        there = torch.cat((state[2], torch.ones_like(hidden[..., 0])), 1)  # (B, M + T)
        t = x.shape[1]
        keys = self.key(known).unfold(1, self.memory, 1)[:, :t]  # (B, T, H, M): the M states before each step
        values = known.unfold(1, self.memory, 1)[:, :t]
        valid = there.unfold(1, self.memory, 1)[:, :t]  # (B, T, M)
        score = torch.einsum("bth,bthm->btm", self.ask(hidden), keys) / math.sqrt(self.config.hidden) + self.place
        weight = score.masked_fill(valid == 0, -1e9).softmax(-1) * valid  # nothing to attend to: zeros
        found = torch.einsum("btm,bthm->bth", weight, values)
        return torch.cat((hidden, found), -1), (after.transpose(0, 1), known[:, t:], there[:, t:])
