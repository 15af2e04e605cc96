"""What the stacked LSTM and GRU share: a torch module over sequences whose state has the series as first axis."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from detectors.forecasters.base import Config, Forecaster, State


class Recurrent(Forecaster):
    """``parts`` state tensors of (B, layers, H) each."""

    cells: ClassVar[type[nn.LSTM] | type[nn.GRU]]
    parts: ClassVar[int]

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.cell = self.cells(config.inputs, config.hidden, config.layers, batch_first=True)
        self.make_head(config.hidden)

    def initial(self, batch: int) -> State:
        return tuple(torch.zeros(batch, self.config.layers, self.config.hidden) for _ in range(self.parts))

    def body(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        inside = tuple(part.transpose(0, 1).contiguous() for part in state)  # (layers, B, H), as torch wants it
        hidden, after = self.cell(x, inside if self.parts > 1 else inside[0])  # (B, T, H)
        return hidden, tuple(part.transpose(0, 1) for part in (after if self.parts > 1 else (after,)))
