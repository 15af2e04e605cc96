"""Exponential smoothing with rates fitted by gradient.

EWMA, Holt's trend and Holt–Winters' additive season (Hyndman & Athanasopoulos, ch. 8).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detectors.forecasters.base import Forecaster, ForecasterConfig, ForecasterState


@dataclass(frozen=True, slots=True)
class ExponentialConfig(ForecasterConfig):
    """Options of ``Exponential``; without trend and period it is an EWMA.

    trend: follow a slope; period: length of the season in steps, 0 for none.
    """

    output: str = "point"
    trend: bool = False
    period: int = 0


class Exponential(Forecaster):
    """Exponential smoothing with level, slope and season.

    State: level (B), slope (B), season (B, max(period, 1)) with that of the next step first, and number of
    steps (B).
    """

    config_class = ExponentialConfig

    def __init__(self, config: ExponentialConfig) -> None:
        """Raise ValueError for another output than points."""
        if config.output != "point":
            raise ValueError("exponential smoothing gives points only: output must be point")
        super().__init__(config)
        self.trend, self.period = config.trend, config.period
        self.rates = nn.Parameter(torch.logit(torch.tensor([0.3, 0.05, 0.2])))  # of level, slope and season

    def initial(self, batch: int) -> ForecasterState:
        return (
            torch.zeros(batch),
            torch.zeros(batch),
            torch.zeros(batch, max(self.period, 1)),
            torch.zeros(batch),
        )

    def forward(self, x: Tensor, state: ForecasterState) -> tuple[Tensor, ForecasterState]:
        level, slope, season, seen = state
        alpha, beta, gamma = self.rates.sigmoid()
        out = []
        for value in x[..., 0].unbind(1):  # (B)
            start = seen == 0
            rate = torch.maximum(alpha, 1.0 / (seen + 1.0))
            before = level
            level = torch.where(start, value, rate * (value - season[:, 0]) + (1 - rate) * (level + slope))
            if self.trend:
                slope = torch.where(start, slope, beta * (level - before) + (1 - beta) * slope)
            if self.period:
                season = torch.cat(
                    (season[:, 1:], (gamma * (value - level) + (1 - gamma) * season[:, 0])[:, None]), 1
                )
            seen = seen + 1.0
            out.append(self._ahead(level, slope, season))
        forecast = torch.stack(out, 1)[..., None]  # (B, T, K, 1)
        return (forecast if self.config.head == "many_to_many" else forecast[:, -1:]), (
            level,
            slope,
            season,
            seen,
        )

    def _ahead(self, level: Tensor, slope: Tensor, season: Tensor) -> Tensor:
        """Return the forecasts (B, K)."""
        steps = torch.arange(self.config.horizon)
        return level[:, None] + slope[:, None] * (steps + 1) + season[:, steps % season.shape[1]]
