"""The plain recurrent network (Elman 1990), with any of the activations.

It has the shortest memory of the recurrent forecasters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detectors.forecasters.activations import ACTIVATIONS, require_activation
from detectors.forecasters.base import Forecaster, ForecasterConfig, ForecasterState


@dataclass(frozen=True, slots=True)
class RNNConfig(ForecasterConfig):
    """Options of ``RNN``.

    nonlinearity: name of an activation.
    """

    nonlinearity: str = "tanh"

    def __post_init__(self) -> None:
        """Raise ValueError for an unknown nonlinearity."""
        ForecasterConfig.__post_init__(self)
        require_activation(self.nonlinearity)


class RNN(Forecaster):
    """Stacked layers of h_t = f(W x_t + U h_(t−1) + b).

    The recurrence is written out, because torch.nn.RNN has no leaky ReLU. State: (B, layers, H).
    """

    config_class = RNNConfig

    def __init__(self, config: RNNConfig) -> None:
        super().__init__(config)
        widths = [config.inputs] + [config.hidden] * (config.layers - 1)
        self.inward = nn.ModuleList(nn.Linear(width, config.hidden) for width in widths)
        self.again = nn.ModuleList(nn.Linear(config.hidden, config.hidden, bias=False) for _ in widths)
        self.activate = ACTIVATIONS[config.nonlinearity]
        self.make_head(config.hidden)

    def initial(self, batch: int) -> ForecasterState:
        return (torch.zeros(batch, self.config.layers, self.config.hidden),)

    def body(self, x: Tensor, state: ForecasterState) -> tuple[Tensor, ForecasterState]:
        last = []
        for layer, (inward, again) in enumerate(zip(self.inward, self.again, strict=True)):
            h, out = state[0][:, layer], []  # (B, H)
            for drive in inward(x).unbind(1):
                h = self.activate(drive + again(h))
                out.append(h)
            x = torch.stack(out, 1)  # (B, T, H)
            last.append(h)
        return x, (torch.stack(last, 1),)
