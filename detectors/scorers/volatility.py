"""Returns in units of their own recent volatility, and the volatility itself against its recent past; a split
is not a crash.

The volatility is the root of an exponentially weighted mean of squared returns (RiskMetrics 1996), each
counted as at most ``CLIP`` volatilities, so that one jump does not hide the next; a burst is a mean of
absolute returns, which many days of large moves raise more than one. A step within ``TOLERANCE`` volatilities
of an exact split ratio is taken for the split, but only where returns are small enough to tell (a volume that
doubles is no split).
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import kernel

SLOW, FAST = 40.0, 6.0  # rows of the volatility and of a burst
CLIP = 3.0
WARM = 20
TOLERANCE = 1.5
QUIET = 0.08  # largest volatility at which a split ratio can be told from a move
FLOOR = 1e-5
SPLITS = np.log(
    np.array([2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 50, 100, 3 / 2, 4 / 3, 5 / 4, 5 / 3], np.float64)
)
COUNT, LAST, SLOW_SQUARE, FAST_MOVE = range(4)


class Volatility:
    """Tracks: |return| / volatility, and recent over usual volatility.

    Works on log values. State: 32 bytes a channel slot.
    """

    tracks: tuple[str, ...] = ("return", "burst")

    def initial(self, slots: int) -> State:
        return {"market.moments": np.zeros((slots, 4))}

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        _market(state["market.moments"], SPLITS, batch.slot, batch.x, out)


@kernel
def _unsplit(move, volatility, splits):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """What is left of a move when the nearest split ratio is taken out, if it is one."""
    if volatility > QUIET or abs(move) < 6 * volatility:
        return move
    for k in range(len(splits)):
        rest = abs(move) - splits[k]
        if abs(rest) < TOLERANCE * volatility:
            return rest
    return move


@kernel
def _market(moments, splits, slot, x, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(slot)):
        s = moments[slot[i]]
        out[i, :] = np.nan
        if np.isnan(x[i]):
            continue
        s[COUNT] += 1
        if s[COUNT] > 1:
            volatility = np.sqrt(s[SLOW_SQUARE]) + FLOOR
            move = x[i] - s[LAST]
            if s[COUNT] > WARM:
                move = _unsplit(move, volatility, splits)
                out[i, 0] = min(abs(move) / volatility, 1e4)
                move = min(abs(move), CLIP * volatility)
            s[FAST_MOVE] += (abs(move) - s[FAST_MOVE]) / min(s[COUNT] - 1, FAST)
            if s[COUNT] > WARM:
                out[i, 1] = s[FAST_MOVE] / volatility
            s[SLOW_SQUARE] += (move * move - s[SLOW_SQUARE]) / min(s[COUNT] - 1, SLOW)
        s[LAST] = x[i]
