"""Seasonal naive forecast.

It is the value one period ago, or the last value if there is none. It is the baseline of all forecasters.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detectors.forecasters.base import Forecaster, ForecasterConfig, ForecasterState


@dataclass(frozen=True, slots=True)
class SeasonalNaiveConfig(ForecasterConfig):
    """Options of ``SeasonalNaive``.

    period: in steps; 1 is the naive forecast.
    """

    output: str = "point"
    period: int = 1


class SeasonalNaive(Forecaster):
    """Seasonal naive forecast without weights.

    State: the last ``period`` values (B, period), NaN before the first point of a series.
    """

    config_class = SeasonalNaiveConfig

    def __init__(self, config: SeasonalNaiveConfig) -> None:
        """Raise ValueError for another output than points."""
        if config.output != "point":
            raise ValueError("seasonal_naive gives points only: output must be point")
        super().__init__(config)
        self.period = config.period

    def initial(self, batch: int) -> ForecasterState:
        return (torch.full((batch, self.period), torch.nan),)

    def forward(self, x: Tensor, state: ForecasterState) -> tuple[Tensor, ForecasterState]:
        value = x[..., 0]
        seen = torch.cat((state[0], value), 1)  # (B, period + T)
        last = self.period + torch.arange(x.shape[1])  # position of x_t in seen
        if self.config.head != "many_to_many":
            value, last = value[:, -1:], last[-1:]
        # K steps, which repeat the last period
        ahead = torch.arange(self.config.horizon) % self.period + 1
        forecast = seen[:, last[:, None] + ahead - self.period]  # (B, T', K)
        forecast = torch.where(forecast.isnan(), value[..., None], forecast)
        return forecast[..., None], (seen[:, x.shape[1] :],)
