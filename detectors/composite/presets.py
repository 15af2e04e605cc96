"""What kind of numbers a stream brings: how they become working units, and back again for the band.

sensor   as they are
network  sign(x) · log(1 + |x|): rates span decades, and what matters is the factor
stock    log(x): a step is a return; zero or less is no price and counts as missing. Prices walk, so values never seen and new levels
         say nothing there: returns, volatility and stuck quotes do
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from detectors.composite.tiers import MARKET
from detectors.stages.score_fusion import TrackGroup

Values = NDArray[np.float64]

TINY = np.float32(1e-30)
YEARLY = 2.0
TRADING_DAYS = 252
DAY_NS = 86_400_000_000_000
SESSION_NS = DAY_NS * 6.5 / 24


class Preset(Protocol):
    #: Evidence that replaces the tier's own where these numbers ask for other scorers (None: the tier's).
    groups: tuple[TrackGroup, ...] | None
    #: Whether they have a level to come back to, as a plant has; traffic and prices have not.
    settles: bool

    def forward(self, values: Values) -> Values:
        """Input units → working units, elementwise and monotone; NaN: missing."""
        ...

    def inverse(self, x: Values) -> Values: ...

    def usual_rate(self, every: NDArray[np.int64]) -> NDArray[np.float32]:
        """Share of points (N,) that may alarm whatever the stream's own alarm rate is, by their cadence in ns
        (N,), 0: not known.
        """
        ...


class Plain:
    """Nothing but the stream's own alarm rate."""

    def usual_rate(self, every: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.full(len(every), TINY)


class Sensor(Plain):
    settles: bool = True
    groups: tuple[TrackGroup, ...] | None = None

    def forward(self, values: Values) -> Values:
        return values

    def inverse(self, x: Values) -> Values:
        return x


class Network(Plain):
    settles: bool = False
    groups: tuple[TrackGroup, ...] | None = None

    def forward(self, values: Values) -> Values:
        return np.sign(values) * np.log1p(np.abs(values))

    def inverse(self, x: Values) -> Values:
        return np.sign(x) * np.expm1(np.minimum(np.abs(x), 700.0))


class Stock:
    groups: tuple[TrackGroup, ...] | None = MARKET
    settles: bool = False

    def forward(self, values: Values) -> Values:
        return np.log(np.where(values > 0, values, np.nan))

    def inverse(self, x: Values) -> Values:
        return np.exp(np.minimum(x, 700.0))

    def usual_rate(self, every: NDArray[np.int64]) -> NDArray[np.float32]:
        """``YEARLY`` alarms a ticker and year: a year is 252 bars of a day, and 390 times as many of a
        minute."""
        bars = TRADING_DAYS * np.where(every >= DAY_NS, DAY_NS, SESSION_NS) / np.maximum(every, 1)
        return np.where(every > 0, np.minimum(YEARLY / bars, 0.5), TINY).astype(np.float32)


PRESETS: dict[str, type[Preset]] = {"sensor": Sensor, "network": Network, "stock": Stock}
