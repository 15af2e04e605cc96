"""A feed-forward network over the last ``window`` points: no memory beyond them, the baseline of all learned
forecasters.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from detectors.forecasters.base import Forecaster, ForecasterConfig, ForecasterState


@dataclass(frozen=True, slots=True)
class FeedForwardConfig(ForecasterConfig):
    """window: points that the network sees, the newest among them."""

    window: int = 32


class FeedForward(Forecaster):
    """State: the last ``window − 1`` points (B, W − 1, F); before a series begins they are 0."""

    config_class = FeedForwardConfig

    def __init__(self, config: FeedForwardConfig) -> None:
        super().__init__(config)
        self.window = config.window
        widths = [config.window * config.inputs] + [config.hidden] * config.layers
        self.net = nn.Sequential()
        for before, after in pairwise(widths):
            self.net.extend([nn.Linear(before, after), nn.ReLU()])
        self.make_head(config.hidden)

    def initial(self, batch: int) -> ForecasterState:
        return (torch.zeros(batch, self.window - 1, self.config.inputs),)

    def body(self, x: Tensor, state: ForecasterState) -> tuple[Tensor, ForecasterState]:
        seen = torch.cat((state[0], x), 1)  # (B, W − 1 + T, F)
        windows = seen.unfold(1, self.window, 1).flatten(2)  # (B, T, F · W)
        return self.net(windows), (seen[:, seen.shape[1] - self.window + 1 :],)
