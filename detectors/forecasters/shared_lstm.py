"""The LSTM that all series share, pretrained on synthetic series and frozen.

Its hidden state is the input of a readout per series. Its own head mixes the simple experts of
``lstm_features`` and forecasts from a series' first points on. Hochreiter & Schmidhuber, "Long short-term
memory", 1997; mixing by a gate: Jacobs et al., "Adaptive mixtures of local experts", 1991.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detectors.forecasters import lstm_features
from detectors.forecasters.shared_lstm_numba import EXPERTS, HIDDEN, OUTPUTS, read

Pair = tuple[Tensor, Tensor]


class SharedLSTM(nn.Module):
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
