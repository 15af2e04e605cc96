"""Returns and volatility in units of the recent volatility.

The volatility is the root of an exponentially weighted mean of squared returns (RiskMetrics 1996). A return
counts as at most ``CLIP_VOLATILITIES``, so one jump does not hide the next. A burst is a mean of absolute
returns, which many days of large moves raise more than one. A step within ``SPLIT_TOLERANCE_VOLATILITIES``
of an exact split ratio is treated as a stock split, but only where returns are small enough to tell: a
volume that doubles is no split.
"""

from __future__ import annotations

import numpy as np

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
LOG_SPLIT_RATIOS = np.log(
    np.array([2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 50, 100, 3 / 2, 4 / 3, 5 / 4, 5 / 3], np.float64)
)
COL_ROWS, COL_LAST, COL_MEAN_SQUARE, COL_MEAN_MOVE = range(4)


class Volatility:
    """Tracks: |return| / volatility, and recent over usual volatility.

    Values must be logarithms of prices. State: 32 bytes a channel slot.
    """

    tracks: tuple[str, ...] = ("return", "burst")

    def initial(self, slots: int) -> State:
        """Return the empty state of ``slots`` channel slots."""
        return {"market.moments": np.zeros((slots, 4))}

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        """Fill ``out`` (M, 2) and advance the state in place."""
        _volatility(state["market.moments"], LOG_SPLIT_RATIOS, batch.slot, batch.x, out)


@kernel
def _without_split(move, volatility, splits):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the rest of a move without the nearest split ratio.

    A move that is no split is returned as it is.
    """
    if volatility > MAX_SPLIT_VOLATILITY or abs(move) < MIN_SPLIT_VOLATILITIES * volatility:
        return move
    for k in range(len(splits)):
        rest = abs(move) - splits[k]
        if abs(rest) < SPLIT_TOLERANCE_VOLATILITIES * volatility:
            return rest
    return move


@kernel
def _volatility(moments, splits, slot, x, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(slot)):
        s = moments[slot[i]]
        out[i, :] = np.nan
        if np.isnan(x[i]):
            continue
        s[COL_ROWS] += 1
        if s[COL_ROWS] > 1:
            volatility = np.sqrt(s[COL_MEAN_SQUARE]) + MIN_VOLATILITY
            move = x[i] - s[COL_LAST]
            if s[COL_ROWS] > MIN_ROWS_BEFORE_ERROR:
                move = _without_split(move, volatility, splits)
                out[i, 0] = min(abs(move) / volatility, MAX_RETURN_VOLATILITIES)
                move = min(abs(move), CLIP_VOLATILITIES * volatility)
            s[COL_MEAN_MOVE] += (abs(move) - s[COL_MEAN_MOVE]) / min(s[COL_ROWS] - 1, BURST_ROWS)
            if s[COL_ROWS] > MIN_ROWS_BEFORE_ERROR:
                out[i, 1] = s[COL_MEAN_MOVE] / volatility
            s[COL_MEAN_SQUARE] += (move * move - s[COL_MEAN_SQUARE]) / min(s[COL_ROWS] - 1, VOLATILITY_ROWS)
        s[COL_LAST] = x[i]
