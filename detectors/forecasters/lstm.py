"""Long short-term memory (Hochreiter & Schmidhuber 1997), any number of stacked layers: remembers over hundreds of steps."""

from __future__ import annotations

from torch import nn

from detectors.forecasters.recurrent import Recurrent


class LSTM(Recurrent):
    """State: hidden and cell, (B, layers, H) each."""

    cells = nn.LSTM
    parts = 2
