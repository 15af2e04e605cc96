"""Distance of the last m rows to the nearest earlier window: the left discord, plain Euclidean, mean removed,
amplitude kept.

Rows are averaged in blocks of q = 2^j rows, such that a period has 16 to 32 blocks; ``memory`` blocks are
remembered. When the period of the series grows, neighbouring blocks merge and nothing is lost. Windows that
overlap the current one do not count. (Keogh et al., HOT SAX, 2005; left matrix profile, Yeh et al. 2016.)
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import kernel
from detectors.stages.quantised_history import quantise

ZERO, INFINITY = np.float32(0), np.float32(np.inf).view(np.int32)
FALLBACK = 64  # rows of a "period" where none was found


class Discord:
    """One track per window length, in periods or, with ``name`` "cycle", in cycles (see
    ``detectors.stages.seasonality``). State: 2 · memory bytes a channel slot and a little.
    """

    def __init__(
        self,
        memory: int,
        windows: tuple[float, ...] = (1.0, 0.5, 0.25),
        name: str = "shape",
        resolution: int = 32,
    ) -> None:
        self.memory, self.windows, self.name, self.resolution = memory, windows, name, resolution
        self.tracks = tuple(f"{name}{w:g}" for w in windows)

    def initial(self, slots: int) -> State:
        arrays: State = {
            "blocks": np.zeros((slots, self.memory), np.int16),
            "quantum": np.zeros(slots, np.float32),
            # blocks used, rows a block, rows in the open block, period
            "clock": np.zeros((slots, 4), np.int32),
            "open": np.zeros(slots, np.float32),
            "held": np.full((slots, len(self.windows)), np.nan, np.float32),
        }
        return {f"{self.name}.{part}": array for part, array in arrays.items()}

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        arrays = (state[f"{self.name}.{part}"] for part in ("blocks", "quantum", "clock", "open", "held"))
        period = batch.cycle if self.name == "cycle" else batch.period
        _shape(
            *arrays, np.array(self.windows, np.float32), self.resolution, batch.slot, batch.near, period, out
        )


@kernel
def _coarsen(blocks, clock, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Merge neighbours until a block holds ``rows`` rows."""
    while clock[1] < rows:
        for k in range(clock[0] // 2):
            blocks[k] = (blocks[2 * k] + blocks[2 * k + 1] + 1) >> 1
        clock[0] //= 2
        clock[1] *= 2


@kernel
def _least(squares, sums, share):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Smallest sum of squares about the mean, not below 0.

    (Compared as the integers of the same order: a minimum of floats, which may be NaN, is not vector code.)
    """
    least = INFINITY
    for k in range(len(squares)):
        least = min(least, np.float32(max(squares[k] - sums[k] * sums[k] * share, ZERO)).view(np.int32))
    return np.int32(least).view(np.float32)


@kernel
def _nearest(blocks, n, sizes, wide, squares, sums, found):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Into ``found`` (W,) the root mean square distance, in quanta, of the last m of n blocks to the nearest
    earlier window that does not overlap it, for m of ``sizes`` (W,).

    Windows are compared from their ends backwards, so that the sums of the longer ones pass through those of
    the shorter ones.
    """
    found[:], wide[:n], squares[:n], sums[:n] = np.nan, blocks[:n], 0.0, 0.0
    most = 0
    for m in sizes:
        most = max(most, m if n - 2 * m + 1 >= m else 0)
    for m in range(1, most + 1):
        current, earlier = wide[n - m], wide[: n - 2 * m + 1]
        squared, summed = squares[m - 1 : n - m], sums[m - 1 : n - m]
        for k in range(len(earlier)):
            d = earlier[k] - current
            squared[k] += d * d
            summed[k] += d
        for w in range(len(sizes)):
            if sizes[w] == m:
                share = np.float32(1) / np.float32(m)
                found[w] = np.sqrt(_least(squared, summed, share) * share)


@kernel
def _shape(blocks, quantum, clock, partial, held, windows, resolution, slot, v, period, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    memory = blocks.shape[1]
    sizes = np.empty(len(windows), np.int64)
    wide, squares, sums = (
        np.empty(memory, np.float32),
        np.empty(memory, np.float32),
        np.empty(memory, np.float32),
    )
    for i in range(len(slot)):
        row = slot[i]
        t, past = clock[row], blocks[row]
        if np.isnan(v[i]):
            out[i, :] = np.nan
            continue
        if t[1] == 0:
            t[1], t[3] = 1, FALLBACK
        if period[i] > 0 and abs(period[i] - t[3]) > 0.2 * t[3]:
            t[3] = period[i]
            rows = 1
            while t[3] > resolution * rows:
                rows *= 2
            if rows < t[1]:
                t[0], t[1], t[2], partial[row] = 0, rows, 0, 0.0
            _coarsen(past, t, rows)
        partial[row] += v[i]
        t[2] += 1
        if t[2] >= t[1]:
            if t[0] == memory:
                t[0] = memory * 3 // 4
                past[: t[0]] = past[memory - t[0] :].copy()
            past[t[0]] = quantise(past[: t[0]], quantum, row, partial[row] / t[2])
            t[0] += 1
            t[2], partial[row] = 0, 0.0
            for w in range(len(windows)):
                sizes[w] = max(int(windows[w] * t[3] / t[1] + 0.5), 2)
            _nearest(past, t[0], sizes, wide, squares, sums, held[row])
            held[row] *= quantum[row]
        out[i, :] = held[row]
