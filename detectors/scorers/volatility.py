"""Returns and volatility in units of the recent volatility.

The volatility is the root of an exponentially weighted mean of squared returns (RiskMetrics 1996). A return
counts as at most ``CLIP_VOLATILITIES``, so one jump does not hide the next. A burst is a mean of absolute
returns, which many days of large moves raise more than one.

A step of a price within ``SPLIT_TOLERANCE_VOLATILITIES`` of an exact split ratio is a stock split, if returns
are small enough to tell. A split gives every holder more shares, so the volume grows by about the same ratio:
where a volume is known it has to. Without it a halved price is a wrong price, and with ten times the volume
it is a fall. A ratio of 100 is not a split: prices are a hundred times too high when units are mixed up.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import kernel

VOLATILITY_ROWS, BURST_ROWS = 40.0, 6.0
CLIP_VOLATILITIES = 3.0
MIN_ROWS_BEFORE_ERROR = 20
SPLIT_TOLERANCE_VOLATILITIES = 1.5
MIN_SPLIT_VOLATILITIES = 6  # a smaller move is no split
MAX_SPLIT_VOLATILITY = 0.08  # above it a split ratio cannot be told from a move
MIN_VOLATILITY = 1e-5
MAX_RETURN_VOLATILITIES = 1e4
MAX_LOG_VOLUME_BEYOND_SPLIT = float(np.log(4.0))  # of the volume of a split beyond its ratio
LOG_SPLIT_RATIOS = np.log(
    np.array([2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 50, 3 / 2, 4 / 3, 5 / 4, 5 / 3], np.float64)
)
COL_ROWS, COL_LAST, COL_MEAN_SQUARE, COL_MEAN_MOVE = range(4)


class Volatility:
    """Tracks: |return| / volatility, and recent over usual volatility.

    Values must be logarithms of prices. State: 32 bytes a channel slot.
    """

    tracks: tuple[str, ...] = ("return", "burst")

    def __init__(self, prices: NDArray[np.bool_], volume: int) -> None:
        """Configure the channels.

        Args:
            prices: channels that are prices (C,).
            volume: index of the channel of traded shares, negative if there is none.
        """
        self._prices, self._volume = prices, volume

    def initial(self, slots: int) -> State:
        """Return the empty state of ``slots`` channel slots."""
        return {"market.moments": np.zeros((slots, 4))}

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        """Fill ``out`` (M, 2) and ``batch.split``, and advance the state in place."""
        rows = batch.slot, batch.x, out, batch.split
        _volatility(state["market.moments"], LOG_SPLIT_RATIOS, self._prices, self._volume, rows)


@kernel
def _split_of(move, volatility, splits, volume):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the part of a move of the price that is a split, 0 if there is none.

    ``volume`` is the change of the logarithm of the volume, NaN if it is unknown.
    """
    if volatility > MAX_SPLIT_VOLATILITY or abs(move) < MIN_SPLIT_VOLATILITIES * volatility:
        return 0.0
    sign = 1.0 if move > 0 else -1.0
    for k in range(len(splits)):
        if abs(abs(move) - splits[k]) < SPLIT_TOLERANCE_VOLATILITIES * volatility:
            grown = -sign * volume
            if grown < 0.5 * splits[k] or grown > splits[k] + MAX_LOG_VOLUME_BEYOND_SPLIT:
                return 0.0
            return sign * splits[k]
    return 0.0


@kernel
def _volatility(moments, splits, prices, volume, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001
    slot, x, out, split = rows
    channels = len(prices)
    traded = np.nan
    for i in range(len(slot)):
        c = i % channels
        if c == 0 and volume >= 0:
            v = moments[slot[i + volume]]
            traded = x[i + volume] - v[COL_LAST] if v[COL_ROWS] > 0 else np.nan
        s = moments[slot[i]]
        out[i, :] = np.nan
        split[i] = 0.0
        if np.isnan(x[i]):
            continue
        s[COL_ROWS] += 1
        if s[COL_ROWS] > 1:
            volatility = np.sqrt(s[COL_MEAN_SQUARE]) + MIN_VOLATILITY
            move = x[i] - s[COL_LAST]
            if s[COL_ROWS] > MIN_ROWS_BEFORE_ERROR:
                if prices[c]:
                    split[i] = _split_of(move, volatility, splits, traded)
                    move -= split[i]
                out[i, 0] = min(abs(move) / volatility, MAX_RETURN_VOLATILITIES)
                move = min(abs(move), CLIP_VOLATILITIES * volatility)
            s[COL_MEAN_MOVE] += (abs(move) - s[COL_MEAN_MOVE]) / min(s[COL_ROWS] - 1, BURST_ROWS)
            if s[COL_ROWS] > MIN_ROWS_BEFORE_ERROR:
                out[i, 1] = s[COL_MEAN_MOVE] / volatility
            s[COL_MEAN_SQUARE] += (move * move - s[COL_MEAN_SQUARE]) / min(s[COL_ROWS] - 1, VOLATILITY_ROWS)
        s[COL_LAST] = x[i]
