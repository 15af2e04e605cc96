"""Encoder–decoder (Sutskever, Vinyals & Le 2014).

An LSTM encodes the window, and its hidden vector starts a GRU cell that forecasts the next K steps.
``reconstruct`` returns the window backwards instead (LSTM-ED of Malhotra et al. 2016): large reconstruction
errors are unusual.
"""

from __future__ import annotations

import torch
from torch import Tensor

from detectors.forecasters.base import UnrolledHead
from detectors.forecasters.lstm import LSTM
from detectors.forecasters.recurrent import RecurrentConfig


class EncoderDecoder(LSTM):
    """LSTM encoder with a GRU decoder.

    State: hidden and cell of the encoder, (B, layers, H) each. With the many-to-many head every step of T
    starts a decoder.
    """

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__(config)
        self.head = UnrolledHead(config.hidden, config.horizon, self.output)
        self.mirror = UnrolledHead(config.hidden, config.horizon, self.output)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return parameters (B, T, P) of the first channel of the windows ``x`` (B, T, F).

        They depend on the last hidden vector of the encoder alone.
        """
        hidden, _ = self.body(x, self.initial(len(x)))
        return self.mirror.unroll(hidden[:, -1], torch.zeros(len(x)), x.shape[1]).flip(1)
