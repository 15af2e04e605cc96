"""Presets: the conversion between input units and working units, by the kind of numbers of a stream.

sensor   values unchanged
network  sign(x) · log(1 + |x|): rates span decades, and changes are relative
stock    log(x): a step is a return. A price of 0 or below is an anomaly, and missing for everything that is
         learned; so is a negative volume, while a volume of 0 is only missing. Prices are random walks, so
         new values and new levels are no anomalies; returns, volatility and flatlines are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from detectors.composite.tiers import STOCK_GROUPS
from detectors.stages.score_fusion import TrackGroup
from detectors.stages.stock_channels import price_channels

Values = NDArray[np.float64]

NEGLIGIBLE_RATE = np.float32(1e-30)
MAX_RATE = 0.5
ALARMS_PER_YEAR = 2.0  # of one ticker
TRADING_DAYS_PER_YEAR = 252
DAY_NS = 86_400_000_000_000
SESSION_NS = DAY_NS * 6.5 / 24  # of a trading day


class Preset(Protocol):
    """The conversion of values, and what is usual for this kind of numbers."""

    #: Track groups in place of those of the tier; None: those of the tier.
    track_groups: tuple[TrackGroup, ...] | None
    #: True if the values return to a steady level, as in a plant. Traffic and prices do not.
    has_steady_state: bool

    def impossible(self, values: Values, channels: Sequence[str]) -> NDArray[np.bool_]:
        """Return the values (N, C) that no such quantity can have."""
        ...

    def forward(self, values: Values) -> Values:
        """Convert input units to working units, elementwise and monotone; NaN: missing."""
        ...

    def inverse(self, x: Values) -> Values:
        """Convert working units to input units."""
        ...

    def min_alarm_rate(self, every: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the lowest alarm rate of each point (N,), whatever the spec says.

        ``every`` is the cadence of each point in ns (N,); 0: unknown.
        """
        ...


class _SpecRatePreset:
    """A preset with the alarm rate of the spec, whose values can be any number."""

    def impossible(self, values: Values, channels: Sequence[str]) -> NDArray[np.bool_]:
        """Return no value: any number is possible."""
        return np.zeros(values.shape, np.bool_)

    def min_alarm_rate(self, every: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.full(len(every), NEGLIGIBLE_RATE)


class SensorPreset(_SpecRatePreset):
    """Values unchanged."""

    has_steady_state: bool = True
    track_groups: tuple[TrackGroup, ...] | None = None

    def forward(self, values: Values) -> Values:
        return values

    def inverse(self, x: Values) -> Values:
        return x


class NetworkPreset(_SpecRatePreset):
    """Signed logarithm of values."""

    has_steady_state: bool = False
    track_groups: tuple[TrackGroup, ...] | None = None

    def forward(self, values: Values) -> Values:
        return np.sign(values) * np.log1p(np.abs(values))

    def inverse(self, x: Values) -> Values:
        return np.sign(x) * np.expm1(np.minimum(np.abs(x), 700.0))


class StockPreset:
    """Logarithm of prices."""

    track_groups: tuple[TrackGroup, ...] | None = STOCK_GROUPS
    has_steady_state: bool = False

    def impossible(self, values: Values, channels: Sequence[str]) -> NDArray[np.bool_]:
        """Return prices of 0 or below and negative amounts."""
        return np.asarray(np.where(price_channels(channels), values <= 0, values < 0), np.bool_)

    def forward(self, values: Values) -> Values:
        return np.log(np.where(values > 0, values, np.nan))

    def inverse(self, x: Values) -> Values:
        return np.exp(np.minimum(x, 700.0))

    def min_alarm_rate(self, every: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rate of ``ALARMS_PER_YEAR``: a year has 252 daily bars, and 390 times as many minute bars."""
        bars = TRADING_DAYS_PER_YEAR * np.where(every >= DAY_NS, DAY_NS, SESSION_NS) / np.maximum(every, 1)
        return np.where(every > 0, np.minimum(ALARMS_PER_YEAR / bars, MAX_RATE), NEGLIGIBLE_RATE).astype(
            np.float32
        )


PRESETS: dict[str, type[Preset]] = {"sensor": SensorPreset, "network": NetworkPreset, "stock": StockPreset}
