"""Base of the stacked LSTM and GRU.

It runs a torch module over sequences, initialises the gates so that they remember, and keeps the state with
the series as first axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from detectors.forecasters.base import Forecaster, ForecasterConfig, ForecasterState


@dataclass(frozen=True, slots=True)
class RecurrentConfig(ForecasterConfig):
    """Options of the recurrent forecasters.

    span: steps over which the untrained gates remember. A much longer dependency is hard to learn, a much
    longer span slows the learning of short ones.
    """

    span: int = 4


class Recurrent(Forecaster):
    """Stacked recurrent network with ``parts`` state tensors of (B, layers, H) each."""

    config_class = RecurrentConfig
    cells: ClassVar[type[nn.LSTM] | type[nn.GRU]]
    parts: ClassVar[int]

    def __init__(self, config: RecurrentConfig) -> None:
        """Make a network with random weights, whose gates remember ``span`` steps."""
        super().__init__(config)
        self.cell = self.cells(config.inputs, config.hidden, config.layers, batch_first=True)
        for layer in range(config.layers):
            times = torch.empty(config.hidden).uniform_(1.0, max(2.0, config.span - 1.0))
            self.remember(
                getattr(self.cell, f"bias_ih_l{layer}").data,
                getattr(self.cell, f"bias_hh_l{layer}").data,
                times.log(),
            )
        self.make_head(config.hidden)

    def remember(self, inward: Tensor, again: Tensor, bias: Tensor) -> None:
        """Set the biases of the gates so that cell j forgets over exp(bias_j) steps.

        ("Chrono" initialisation, Tallec & Ollivier 2018.)
        """
        raise NotImplementedError

    def initial(self, batch: int) -> ForecasterState:
        return tuple(torch.zeros(batch, self.config.layers, self.config.hidden) for _ in range(self.parts))

    def body(self, x: Tensor, state: ForecasterState) -> tuple[Tensor, ForecasterState]:
        # (layers, B, H), the layout of torch
        inside = tuple(part.transpose(0, 1).contiguous() for part in state)
        hidden, after = self.cell(x, inside if self.parts > 1 else inside[0])  # (B, T, H)
        return hidden, tuple(part.transpose(0, 1) for part in (after if self.parts > 1 else (after,)))
