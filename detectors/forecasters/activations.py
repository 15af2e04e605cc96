"""Activations of hidden units, by name, for training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

#: GELU is its tanh approximation (Hendrycks & Gimpel 2016), which also runs live.
ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": nn.functional.leaky_relu,
    "elu": nn.functional.elu,
    "gelu": partial(nn.functional.gelu, approximate="tanh"),
}


class ActivationLayer(nn.Module):
    """An activation as a layer without weights."""

    def __init__(self, name: str) -> None:
        """Choose an activation by name."""
        super().__init__()
        self.function = ACTIVATIONS[name]

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation of each number."""
        return self.function(x)


def require_activation(name: str) -> None:
    """Raise ValueError for an unknown activation."""
    if name not in ACTIVATIONS:
        raise ValueError(f"nonlinearity {name!r} is unknown; there are {', '.join(ACTIVATIONS)}")
