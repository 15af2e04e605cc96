"""Long short-term memory with any number of stacked layers.

Hochreiter & Schmidhuber 1997. It remembers over hundreds of steps.
"""

from __future__ import annotations

from torch import Tensor, nn

from detectors.forecasters.recurrent import Recurrent


class LSTM(Recurrent):
    """Stacked LSTM with the state hidden and cell, (B, layers, H) each."""

    cells = nn.LSTM
    parts = 2

    def remember(self, inward: Tensor, again: Tensor, bias: Tensor) -> None:
        size = len(bias)
        again.zero_()
        inward[size : 2 * size] = bias  # forget gate
        inward[:size] = -bias  # input gate
