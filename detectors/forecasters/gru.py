"""Gated recurrent unit (Cho et al. 2014), with any number of stacked layers.

It has three quarters of the weights and half of the state of an LSTM.
"""

from __future__ import annotations

from torch import Tensor, nn

from detectors.forecasters.recurrent import Recurrent


class GRU(Recurrent):
    """Stacked GRU with the state hidden (B, layers, H)."""

    cells = nn.GRU
    parts = 1

    def remember(self, inward: Tensor, again: Tensor, bias: Tensor) -> None:
        size = len(bias)
        again[size : 2 * size] = 0.0
        inward[size : 2 * size] = bias  # update gate: near 1 keeps the state
