"""Returns and volatility in units of the recent volatility.

The volatility is the root of an exponentially weighted mean of squared returns (RiskMetrics 1996). A return
counts as at most ``CLIP_VOLATILITIES``, so one jump does not hide the next. A burst is a mean of absolute
returns, which many days of large moves raise more than one.

A step of a price within ``SPLIT_TOLERANCE_VOLATILITIES`` of an exact split ratio is a stock split, if returns
are small enough to tell. A split gives every holder more shares, so the volume grows by about the same ratio:
where a volume is known it has to, compared with its usual logarithm. A ratio below two makes prices fall, and
is recognised only if the volume varies little. A price that is halved without more volume is a wrong price,
and with far more volume it is a fall. A ratio of 100 is no split: prices are a hundred times too high when
units are mixed up.

All stages see the values without splits: prices and volumes in the shares of the first row. So what is usual
for them is not interrupted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import kernel, row_kernel

VOLATILITY_ROWS, BURST_ROWS = 40.0, 6.0
CLIP_VOLATILITIES = 3.0
MIN_ROWS_BEFORE_ERROR = 20
SPLIT_TOLERANCE_VOLATILITIES = 2.0
MIN_SPLIT_VOLATILITIES = 6  # a smaller move is no split
MAX_SPLIT_VOLATILITY = 0.08  # above it a split ratio cannot be told from a move
MIN_VOLATILITY = 1e-5
MAX_RETURN_VOLATILITIES = 1e4
SMALL_SPLIT = float(np.log(2.0))
MIN_SHARE_OF_VOLUME = 0.5  # of the volatility of the volume, for the logarithm of a ratio below two
MAX_TOLERANCE_SHARE = 1 / 6  # of the logarithm of a ratio: above it a move fits by chance
MAX_GAP_ROWS = 400.0  # a longer gap between two rows allows no larger move: markets are closed in it
USUAL_VOLUME_ROWS = 40.0
VOLUME_MEMORY = 0.5  # of the deviation of the last volume from the usual one
#: Volume beyond the ratio of a split: in volatilities of the volume, and between two logarithms.
VOLATILITIES_BEYOND_SPLIT, MIN_BEYOND_SPLIT, MAX_BEYOND_SPLIT = 2.0, float(np.log(2.0)), float(np.log(4.0))
SPLIT_RATIOS = (
    *(2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50),
    *(11 / 10, 6 / 5, 5 / 4, 4 / 3, 3 / 2, 5 / 3, 7 / 4, 5 / 2),
)  # fmt: skip
LOG_SPLIT_RATIOS = np.log(np.array(SPLIT_RATIOS, np.float64))
COL_ROWS, COL_LAST, COL_MEAN_SQUARE, COL_MEAN_MOVE, COL_SPLIT = range(5)
SPLITS = "market.splits"  # in the form of a state that has ``COL_SPLIT``
USUAL_VOLUME = "market.usual_volume"  # mean logarithm of recent volumes, in the slot of the channel of shares
_NO_VOLUMES = np.zeros(0, np.float32)


class Volatility:
    """Tracks: |return| / volatility, and recent over usual volatility.

    Values must be logarithms of prices. State: 40 bytes a channel slot, 44 with a channel of traded shares.
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
        state: State = {"market.moments": np.zeros((slots, 5))}
        return state | ({USUAL_VOLUME: np.zeros(slots, np.float32)} if self._volume >= 0 else {})

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        """Fill ``out`` (M, 2) and ``batch.split``, take the splits from ``batch.x``.

        The state advances in place.
        """
        rows = batch.slot, batch.x, batch.missed, out, batch.split
        moments = state["market.moments"]
        usual = state.get(USUAL_VOLUME, _NO_VOLUMES)
        _volatility(moments, usual, LOG_SPLIT_RATIOS, (self._prices, self._volume), rows)


@row_kernel
def _split_of(move, volatility, splits, volume, limits):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the part of a move of the price that is a split, 0 if there is none.

    Args:
        move: change of the logarithm of the price.
        volatility: of that change.
        splits: logarithms of the ratios.
        volume: logarithm of the volume less the usual one, NaN if it is unknown.
        limits: largest logarithm of the volume of a split beyond its ratio, and volatility of the volume.
    """
    size, tolerance = abs(move), SPLIT_TOLERANCE_VOLATILITIES * volatility
    if volatility > MAX_SPLIT_VOLATILITY or size < MIN_SPLIT_VOLATILITIES * volatility:
        return 0.0
    nearest = splits[0]
    for k in range(1, len(splits)):
        if abs(size - splits[k]) < abs(size - nearest):
            nearest = splits[k]
    if abs(size - nearest) >= tolerance or tolerance > MAX_TOLERANCE_SHARE * nearest:
        return 0.0
    beyond, volume_volatility = limits
    if nearest < SMALL_SPLIT and (move > 0 or nearest < MIN_SHARE_OF_VOLUME * volume_volatility):
        return 0.0
    grown = -volume if move > 0 else volume
    if grown < 0.5 * nearest or grown > nearest + beyond:
        return 0.0
    return nearest if move > 0 else -nearest


@row_kernel
def _volume_of(s, usual, x):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the logarithm of the volume less that to be expected.

    Large volumes follow large ones, so a part of the last deviation is expected, too. An odd one counts
    little.
    The second result is what is allowed beyond a split, and the volatility of the volume.
    """
    if s[COL_ROWS] == 0:
        return np.nan, (MAX_BEYOND_SPLIT, 0.0)
    change = np.sqrt(s[COL_MEAN_SQUARE])
    lasting = VOLUME_MEMORY * min(max(s[COL_LAST] - usual, -change), change)
    beyond = min(max(VOLATILITIES_BEYOND_SPLIT * change, MIN_BEYOND_SPLIT), MAX_BEYOND_SPLIT)
    return x - usual - lasting, (beyond, change)


@kernel
def _volatility(moments, usual, splits, kinds, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001
    prices, volume = kinds
    slot, x, missed, out, split = rows
    channels = len(prices)
    traded, limits = np.nan, (MAX_BEYOND_SPLIT, 0.0)
    for i in range(len(slot)):
        c = i % channels
        if c == 0 and volume >= 0:
            at = slot[i + volume]
            traded, limits = _volume_of(moments[at], usual[at], x[i + volume] - moments[at, COL_SPLIT])
        s = moments[slot[i]]
        out[i, :] = np.nan
        if c == volume:
            s[COL_SPLIT] = -moments[slot[i - c], COL_SPLIT]  # the first channel is a price
        split[i] = s[COL_SPLIT]
        x[i] -= split[i]
        if np.isnan(x[i]):
            continue
        s[COL_ROWS] += 1
        if s[COL_ROWS] > 1:
            volatility = np.sqrt(s[COL_MEAN_SQUARE]) + MIN_VOLATILITY
            move = x[i] - s[COL_LAST]
            if prices[c] and s[COL_ROWS] > MIN_ROWS_BEFORE_ERROR:
                over_gap = volatility * np.sqrt(1 + min(float(missed[i]), MAX_GAP_ROWS))
                ratio = _split_of(move, over_gap, splits, traded, limits)
                s[COL_SPLIT] += ratio
                split[i] = s[COL_SPLIT]
                x[i] -= ratio
                move -= ratio
            if s[COL_ROWS] > MIN_ROWS_BEFORE_ERROR:
                out[i, 0] = min(abs(move) / volatility, MAX_RETURN_VOLATILITIES)
                move = min(abs(move), CLIP_VOLATILITIES * volatility)
            s[COL_MEAN_MOVE] += (abs(move) - s[COL_MEAN_MOVE]) / min(s[COL_ROWS] - 1, BURST_ROWS)
            if s[COL_ROWS] > MIN_ROWS_BEFORE_ERROR:
                out[i, 1] = s[COL_MEAN_MOVE] / volatility
            s[COL_MEAN_SQUARE] += (move * move - s[COL_MEAN_SQUARE]) / min(s[COL_ROWS] - 1, VOLATILITY_ROWS)
        s[COL_LAST] = x[i]
        if c == volume:
            _follow_volume(s, usual, slot[i], x[i])


@row_kernel
def _follow_volume(s, usual, at, x):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Move the usual logarithm of the volume towards ``x``."""
    if s[COL_ROWS] == 1:
        usual[at] = x
        return
    off, most = x - usual[at], CLIP_VOLATILITIES * (np.sqrt(s[COL_MEAN_SQUARE]) + MIN_VOLATILITY)
    if s[COL_ROWS] > MIN_ROWS_BEFORE_ERROR:
        off = min(max(off, -most), most)
    usual[at] += off / min(s[COL_ROWS], USUAL_VOLUME_ROWS)
