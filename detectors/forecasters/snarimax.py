"""SNARIMAX of river (Anava et al. 2013), as an independent baseline.

An online seasonal ARIMA. A thin adapter with one Python model a series. The state of a river model consists
of objects. The adapter converts it to numbers and back, so that the state is a tensor as for the other
forecasters.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from detectors.forecasters.base import Forecaster, ForecasterConfig, ForecasterState


@dataclass(frozen=True, slots=True)
class SnarimaxConfig(ForecasterConfig):
    """Options of ``Snarimax``.

    p lags, d differences, q past errors; sp, sd, sq the same at the season of m steps. q > 0 can make the
    regression of river diverge.
    """

    output: str = "point"
    p: int = 8
    d: int = 0
    q: int = 0
    m: int = 1
    sp: int = 0
    sd: int = 0
    sq: int = 0


class Snarimax(Forecaster):
    """Adapter without weights; state: the numbers of one river model (B, S), float64."""

    config_class = SnarimaxConfig

    def __init__(self, config: SnarimaxConfig) -> None:
        """Raise ValueError for another output than points."""
        if config.output != "point":
            raise ValueError("snarimax gives points only: output must be point")
        super().__init__(config)
        c = config
        self.orders: dict[str, Any] = {
            "p": c.p,
            "d": c.d,
            "q": c.q,
            "m": c.m,
            "sp": c.sp,
            "sd": c.sd,
            "sq": c.sq,
        }
        self.names = [f"y-{i + 1}" for i in range(c.p)] + [f"e-{i + 1}" for i in range(c.q)]
        self.names += [f"sy-{i + 1}" for i in range(c.m - 1, c.m * c.sp, c.m)] + [
            f"se-{i + 1}" for i in range(c.m - 1, c.m * c.sq, c.m)
        ]

    def initial(self, batch: int) -> ForecasterState:
        return (torch.tensor([self._pack(self._fresh())] * batch, dtype=torch.float64),)

    def forward(self, x: Tensor, state: ForecasterState) -> tuple[Tensor, ForecasterState]:
        forecasts, after = [], []
        for values, packed in zip(x[..., 0].double().tolist(), state[0].tolist(), strict=True):
            model, row = self._unpack(packed), []
            for value in values:
                model.learn_one(value)
                row.append(self._forecast(model, value))
            forecasts.append(row if self.config.head == "many_to_many" else row[-1:])
            after.append(self._pack(model))
        return torch.tensor(forecasts, dtype=x.dtype)[..., None], (torch.tensor(after, dtype=torch.float64),)

    def _forecast(self, model: Any, value: float) -> list[float]:
        if len(model.y_hist) < model.differencer.n_required_past_values:
            return [value] * self.config.horizon
        return [ahead if math.isfinite(ahead) else value for ahead in model.forecast(self.config.horizon)]

    def _fresh(self) -> Any:
        from river.time_series import SNARIMAX

        return SNARIMAX(**self.orders)

    def _pack(self, model: Any) -> list[float]:
        scaler, regression = model.regressor["StandardScaler"], model.regressor["LinearRegression"]
        out = [regression.intercept]
        for values in (model.y_hist, model.y_diff, model.errors):
            out += [*values, *[math.nan] * (values.maxlen - len(values))]
        for table in (scaler.counts, scaler.means, scaler.vars, regression._weights):
            out += [float(table[name]) if name in table else 0.0 for name in self.names]
        return out

    def _unpack(self, packed: list[float]) -> Any:
        model = self._fresh()
        scaler, regression = model.regressor["StandardScaler"], model.regressor["LinearRegression"]
        rest = iter(packed)
        regression.intercept = next(rest)
        for name in ("y_hist", "y_diff", "errors"):
            size = getattr(model, name).maxlen
            values = [next(rest) for _ in range(size)]
            setattr(model, name, deque((value for value in values if not math.isnan(value)), maxlen=size))
        for table, kind in (
            (scaler.counts, int),
            (scaler.means, float),
            (scaler.vars, float),
            (regression._weights, float),
        ):
            for name in self.names:
                table[name] = kind(next(rest))
        return model
