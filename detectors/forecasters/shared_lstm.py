"""The LSTM that all series share, pretrained on synthetic series and frozen.

Its hidden state is the input of a readout per series. Its own head mixes the simple experts of
``lstm_features`` and forecasts from a series' first points on. Hochreiter & Schmidhuber, "Long short-term
memory", 1997; mixing by a gate: Jacobs et al., "Adaptive mixtures of local experts", 1991.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detectors.forecasters import lstm_features
from detectors.forecasters.shared_lstm_numba import EXPERTS, HIDDEN, OUTPUTS, read
from detectors.forecasters.trainable_network import TrainableNetwork

Pair = tuple[Tensor, Tensor]


class SharedLSTM(TrainableNetwork):
    """One LSTM layer and a linear head for K steps ahead.

    The layer has ``HIDDEN`` cells over ``lstm_features.FEATURES`` inputs. The steps ahead are
    ``lstm_features.HORIZONS``.
    """

    def __init__(self, hidden: int = HIDDEN) -> None:
        """Make a network with random weights."""
        super().__init__()
        self.lstm = nn.LSTM(lstm_features.FEATURES, hidden)
        self.head = nn.Linear(hidden, len(lstm_features.HORIZONS) * OUTPUTS)
        # log of the Student-t's degrees of freedom − 2
        self.freedom = nn.Parameter(torch.full((len(lstm_features.HORIZONS),), 1.0))

    def forward(self, inputs: Tensor, state: Pair | None = None) -> tuple[Tensor, Tensor, Tensor, Pair]:
        """Run the network on ``inputs`` (T, B, F).

        Return location and log scale (T, B, K), both in units, hidden (T, B, H), and state (1, B, H) twice.
        """
        hidden, state = self.lstm(inputs, state)
        location, log_scale = self.forecast(hidden, inputs)
        return location, log_scale, hidden, state

    def advance(self, inputs: Tensor, state: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return hidden states (T, B, H) and the state after ``inputs`` (T, B, F)."""
        hidden, after = self.lstm(inputs, state)
        return hidden, after

    def wanted(self, target: Tensor) -> Tensor:
        """Return all targets."""
        return target

    def loss(self, hidden: Tensor, inputs: Tensor, target: Tensor) -> Tensor:
        """Return the mean of ``losses_of`` over the known targets of a chunk."""
        location, log_scale = self.forecast(hidden, inputs)
        return loss_of(self, location, log_scale, target)

    def forecast(self, hidden: Tensor, inputs: Tensor) -> Pair:
        """Return location and log scale (…, K) of (x_(t+k) − x_t) / unit.

        ``hidden`` (…, H) is the output of the layer for ``inputs`` (…, F).
        """
        return mix_experts(self.head(hidden), inputs)


def mix_experts(out: Tensor, inputs: Tensor) -> Pair:
    """Turn the head's output (…, K · OUTPUTS) into location and log scale (…, K)."""
    out = out.reshape(*out.shape[:-1], len(lstm_features.HORIZONS), OUTPUTS)  # (…, K, OUTPUTS)
    chosen = inputs[
        ...,
        [
            lstm_features.SEASON_NEXT,
            lstm_features.SEASON_LATER,
            lstm_features.AR_NEXT,
            lstm_features.AR_LATER,
        ],
    ].sinh()
    seasonal, ar = chosen[..., :2], chosen[..., 2:]  # (…, K) each; the naive forecast is 0
    weight = out[..., :EXPERTS].softmax(-1)
    location = weight[..., 1] * seasonal + weight[..., 2] * ar + out[..., EXPERTS]
    return location, out[..., EXPERTS + 1].clamp(-9.0, 6.0)


def loss_of(module: SharedLSTM, location: Tensor, log_scale: Tensor, target: Tensor) -> Tensor:
    """Return the mean of ``losses_of`` over the known targets (T, B, K)."""
    return losses_of(module.freedom, location, log_scale, target).sum() / (~target.isnan()).sum()


def losses_of(freedom: Tensor, location: Tensor, log_scale: Tensor, target: Tensor) -> Tensor:
    """Return the loss of each target (…, K), 0 where it is missing.

    The loss is the negative log likelihood of a Student-t (the log score) plus a bounded absolute error.
    """
    known = ~target.isnan()
    error = torch.where(known, target, 0.0) - location
    freedom = 2.0 + freedom.exp()
    constant = (
        torch.lgamma((freedom + 1) / 2) - torch.lgamma(freedom / 2) - 0.5 * torch.log(math.pi * freedom)
    )
    score = (
        log_scale + (freedom + 1) / 2 * torch.log1p((error * torch.exp(-log_scale)) ** 2 / freedom) - constant
    )
    size = (1.0 + error**2).sqrt().clamp(max=30.0) - 1.0
    return torch.where(known, score + 0.5 * size, 0.0)


def load(path: str | None = None, digest: str | None = None) -> SharedLSTM:
    """Return the packaged network, or that at ``path``."""
    return network(read(path, digest))


def network(weights: Mapping[str, NDArray[Any]] | None) -> SharedLSTM:
    """Return the network with the given weights, or the packaged ones.

    Set torch to one thread as a side effect.
    """
    torch.set_num_threads(1)
    module = SharedLSTM()
    arrays = read() if weights is None else weights
    module.load_state_dict({name: torch.from_numpy(np.array(arrays[name])) for name in module.state_dict()})
    return module.requires_grad_(False).eval()
