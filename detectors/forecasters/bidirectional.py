"""Bidirectional LSTM (Schuster & Paliwal 1997), a smoother.

It estimates x_t from the points on both sides of t. It is for offline use only: filling gaps
(``detectors.training.gap_filler``), smoothing a finished series. ``base.require_causal`` rejects it where
points arrive one by one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detectors.forecasters.base import Forecaster, ForecasterConfig, ForecasterState


class Bidirectional(Forecaster):
    """Smoother without state between calls: a call gets a whole series.

    Its output at t is an estimate of x_t from all other points (K = 1). Inputs behind the first are known at
    t without x_t, and the head sees them, too.
    """

    causal = False
    first = 0

    def __init__(self, config: ForecasterConfig) -> None:
        """Raise ValueError for more than one step ahead."""
        if config.horizon != 1 or config.head != "many_to_many":
            raise ValueError(
                "bidirectional estimates each x_t itself: horizon must be 1 and head many_to_many"
            )
        super().__init__(config)
        self.past, self.future = (
            nn.LSTM(config.inputs, config.hidden, config.layers, batch_first=True) for _ in range(2)
        )
        self.make_head(2 * config.hidden + config.inputs - 1)

    def initial(self, batch: int) -> ForecasterState:
        return (torch.zeros(batch, 0),)

    def forward(self, x: Tensor, state: ForecasterState) -> tuple[Tensor, ForecasterState]:
        before = nn.functional.pad(self.past(x)[0][:, :-1], (0, 0, 1, 0))  # (B, T, H): of the points before t
        # of the points after t
        after = nn.functional.pad(self.future(x.flip(1))[0].flip(1)[:, 1:], (0, 0, 0, 1))
        value = x[..., 0]
        left = torch.cat((value[:, :1] * 0, value[:, :-1]), 1)
        right = torch.cat((value[:, 1:], left[:, -1:]), 1)
        return self.head(torch.cat((before, after, x[..., 1:]), -1), 0.5 * (left + right)), state
