"""A GRU with attention over a bounded memory of its own past states.

Bahdanau et al. 2015; scaled dot product: Vaswani et al. 2017. Causal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detectors.forecasters.base import ForecasterState
from detectors.forecasters.gru import GRU
from detectors.forecasters.recurrent import RecurrentConfig


@dataclass(frozen=True, slots=True)
class AttentionConfig(RecurrentConfig):
    """Options of ``Attention``.

    memory: number of past states that are kept and attended to.
    """

    memory: int = 64


class Attention(GRU):
    """GRU with attention over its last M hidden states.

    State: that of the GRU (B, layers, H), the last M hidden states (B, M, H), and 1 for each of them that
    exists (B, M).
    """

    config_class = AttentionConfig

    def __init__(self, config: AttentionConfig) -> None:
        """Make a network with random weights."""
        super().__init__(config)
        self.memory = config.memory
        self.ask, self.key = (nn.Linear(config.hidden, config.hidden) for _ in range(2))
        # the weight of each age of a state, the oldest first
        self.place = nn.Parameter(torch.zeros(config.memory))
        self.make_head(2 * config.hidden)

    def initial(self, batch: int) -> ForecasterState:
        return (
            *super().initial(batch),
            torch.zeros(batch, self.memory, self.config.hidden),
            torch.zeros(batch, self.memory),
        )

    def body(self, x: Tensor, state: ForecasterState) -> tuple[Tensor, ForecasterState]:
        hidden, recurrent = super().body(x, state[:1])  # (B, T, H)
        known = torch.cat((state[1], hidden), 1)  # (B, M + T, H)
        there = torch.cat((state[2], torch.ones_like(hidden[..., 0])), 1)  # (B, M + T)
        steps = x.shape[1]
        # (T, M + T)
        age = (
            torch.arange(self.memory + steps, device=x.device) - torch.arange(steps, device=x.device)[:, None]
        )
        within = (age >= 0) & (age < self.memory)  # step t sees the M states before it
        valid = within & (there[:, None] > 0)  # (B, T, M + T)
        score = self.ask(hidden) @ self.key(known).transpose(1, 2) / math.sqrt(self.config.hidden)
        score = score + self.place[age.clamp(0, self.memory - 1)]
        weight = score.masked_fill(~valid, -1e9).softmax(-1) * valid  # nothing to attend to: zeros
        return torch.cat((hidden, weight @ known), -1), (*recurrent, known[:, steps:], there[:, steps:])
