"""A feed-forward network over the last ``window`` points.

It has no memory beyond them and is the baseline of the learned forecasters.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from detectors.forecasters.activations import ActivationLayer, require_activation
from detectors.forecasters.base import Forecaster, ForecasterConfig, ForecasterState


@dataclass(frozen=True, slots=True)
class FeedForwardConfig(ForecasterConfig):
    """Options of ``FeedForward``.

    window: number of input points, the newest included; nonlinearity: name of an activation.
    """

    window: int = 32
    nonlinearity: str = "relu"

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown activation."""
        ForecasterConfig.__post_init__(self)
        require_activation(self.nonlinearity)


class FeedForward(Forecaster):
    """Feed-forward network.

    State: the last ``window − 1`` points (B, W − 1, F), 0 before the first point of a series.
    """

    config_class = FeedForwardConfig

    def __init__(self, config: FeedForwardConfig) -> None:
        super().__init__(config)
        self.window = config.window
        widths = [config.window * config.inputs] + [config.hidden] * config.layers
        self.net = nn.Sequential()
        for before, after in pairwise(widths):
            self.net.extend([nn.Linear(before, after), ActivationLayer(config.nonlinearity)])
        self.make_head(config.hidden)

    def initial(self, batch: int) -> ForecasterState:
        return (torch.zeros(batch, self.window - 1, self.config.inputs),)

    def body(self, x: Tensor, state: ForecasterState) -> tuple[Tensor, ForecasterState]:
        seen = torch.cat((state[0], x), 1)  # (B, W − 1 + T, F)
        windows = seen.unfold(1, self.window, 1).flatten(2)  # (B, T, F · W)
        return self.net(windows), (seen[:, seen.shape[1] - self.window + 1 :],)
