"""Distance of the last rows to the most similar earlier window: the left discord.

The distance is Euclidean after the mean is removed; the amplitude counts. Rows are averaged in blocks of
q = 2^j rows, such that a period has 16 to 32 blocks, and ``memory`` blocks are kept. When the period grows,
neighbouring blocks are merged. Windows that overlap the current one do not count. (Keogh et al., HOT SAX,
2005; left matrix profile, Yeh et al. 2016.)
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.jit import row_kernel
from detectors.stages.quantised_history import quantise

ZERO, INFINITY_BITS = np.float32(0), np.float32(np.inf).view(np.int32)
DEFAULT_PERIOD_ROWS = 64  # used where no period was found
PERIOD_TOLERANCE = 0.2  # relative change of the period that is followed
COL_BLOCKS, COL_BLOCK_ROWS, COL_OPEN_ROWS, COL_PERIOD = range(4)


class Discord:
    """Distance to the most similar earlier window, one track per window length.

    Lengths are in periods or, with ``name`` "cycle", in cycles (see ``detectors.stages.seasonality``).
    State: 2 · memory bytes a channel slot, and a few more.
    """

    def __init__(
        self,
        memory: int,
        windows: tuple[float, ...] = (1.0, 0.5, 0.25),
        name: str = "shape",
        resolution: int = 32,
    ) -> None:
        """Configure the scorer.

        Args:
            memory: Blocks kept a channel slot.
            windows: Window lengths in periods.
            name: Prefix of tracks and state arrays.
            resolution: Most blocks of a period.
        """
        self.memory, self.windows, self.name, self.resolution = memory, windows, name, resolution
        self.tracks = tuple(f"{name}{w:g}" for w in windows)

    def initial(self, slots: int) -> State:
        """Return the empty state of ``slots`` channel slots."""
        arrays: State = {
            "blocks": np.zeros((slots, self.memory), np.int16),
            "quantum": np.zeros(slots, np.float32),
            "clock": np.zeros((slots, 4), np.int32),
            "open": np.zeros(slots, np.float32),
            "held": np.full((slots, len(self.windows)), np.nan, np.float32),
        }
        return {f"{self.name}.{part}": array for part, array in arrays.items()}

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        """Fill ``out`` (M, windows) and advance the state in place."""
        arrays = tuple(
            state[f"{self.name}.{part}"] for part in ("blocks", "quantum", "clock", "open", "held")
        )
        period = batch.cycle if self.name == "cycle" else batch.period
        windows = np.array(self.windows, np.float32)
        blocks, squares = np.empty((2, self.memory), np.float32)
        work = (np.empty(len(windows), np.int64), (blocks, squares, np.empty(self.memory + 1, np.int32)))
        _discord(arrays, windows, self.resolution, (batch.slot, batch.near, period), work, out)


@row_kernel
def _merge_blocks(blocks, clock, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Merge neighbours until a block has ``rows`` rows."""
    while clock[COL_BLOCK_ROWS] < rows:
        for k in range(clock[COL_BLOCKS] // 2):
            blocks[k] = (blocks[2 * k] + blocks[2 * k + 1] + 1) >> 1
        clock[COL_BLOCKS] //= 2
        clock[COL_BLOCK_ROWS] *= 2


@row_kernel
def _least_variation(squares, totals, size):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the smallest sum of squares about the mean, not below 0.

    ``squares`` are those of the differences of the last ``size`` blocks from those of the earlier windows, by
    the first block of a window. ``totals`` are sums of all blocks before each one, and before the end.
    The floats are compared as integers of the same order: a minimum of floats that may be NaN is not
    compiled to vector code.
    """
    n, share, least = len(totals) - 1, np.float32(1) / np.float32(size), INFINITY_BITS
    now = totals[n] - totals[n - size]
    firsts, ends = totals[: len(squares)], totals[size : size + len(squares)]
    for k in range(len(squares)):
        off = np.float32(ends[k] - firsts[k] - now)
        least = min(least, np.float32(max(squares[k] - off * off * share, ZERO)).view(np.int32))
    return np.int32(least).view(np.float32)


@row_kernel
def _add_four_blocks(wide, n, m, ends, squares):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Add the blocks ``m`` to ``m + 3`` before the ``ends`` of windows to squares.

    Four at once, so that the squares are read and written a quarter as often.
    """
    first, last = ends
    a, b = wide[first - m + 1 : last - m + 1], wide[first - m : last - m]
    c, d = wide[first - m - 1 : last - m - 1], wide[first - m - 2 : last - m - 2]
    now_a, now_b, now_c, now_d = wide[n - m], wide[n - m - 1], wide[n - m - 2], wide[n - m - 3]
    squared = squares[first:last]
    for k in range(len(squared)):
        p, q, r, s = a[k] - now_a, b[k] - now_b, c[k] - now_c, d[k] - now_d
        squared[k] += (p * p + q * q) + (r * r + s * s)


@row_kernel
def _add_block(wide, n, m, ends, squares):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Add the block ``m`` before the ``ends`` of windows to their squares."""
    first, last = ends
    earlier, now = wide[first - m + 1 : last - m + 1], wide[n - m]
    squared = squares[first:last]
    for k in range(len(squared)):
        d = earlier[k] - now
        squared[k] += d * d


@row_kernel
def _next_size(sizes, done, n):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the smallest size above ``done`` that fits into ``n`` blocks; 0: none."""
    size = 0
    for m in sizes:
        if done < m <= n - 2 * m + 1 and (size == 0 or m < size):
            size = m
    return size


@row_kernel
def _nearest(blocks, n, sizes, work, found):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Fill ``found`` (W,) with distances to the nearest earlier window.

    It is the distance of the last m of n blocks.
    There is one m in ``sizes`` (W,) for each. The distance is the root mean square in quanta, and windows
    that overlap the last m blocks do not count. Windows are compared from their ends backwards, so that the
    squares of the longer ones pass through those of the shorter ones. ``work`` has buffers: blocks,
    squares by the last block of a window, sums of the blocks before each.
    """
    wide, squares, totals = work
    found[:] = np.nan
    for k in range(n):
        wide[k], squares[k] = np.float32(blocks[k]), ZERO
    total = totals[0] = 0
    for k in range(n):
        total += blocks[k]
        totals[k + 1] = total
    done = 0
    while True:
        size = _next_size(sizes, done, n)
        if size == 0:
            return
        ends = (size - 1, n - size)
        while done + 4 <= size:
            _add_four_blocks(wide, n, done + 1, ends, squares)
            done += 4
        while done < size:
            _add_block(wide, n, done + 1, ends, squares)
            done += 1
        least = _least_variation(squares[size - 1 : n - size], totals[: n + 1], size)
        for w in range(len(sizes)):
            if sizes[w] == size:
                found[w] = np.sqrt(least / np.float32(size))


@row_kernel
def _follow_period(blocks, clock, partial, row, period, resolution):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Change the rows of a block where the period changed clearly."""
    if clock[COL_BLOCK_ROWS] == 0:
        clock[COL_BLOCK_ROWS], clock[COL_PERIOD] = 1, DEFAULT_PERIOD_ROWS
    if period > 0 and abs(period - clock[COL_PERIOD]) > PERIOD_TOLERANCE * clock[COL_PERIOD]:
        clock[COL_PERIOD] = period
        rows = 1
        while clock[COL_PERIOD] > resolution * rows:
            rows *= 2
        if rows < clock[COL_BLOCK_ROWS]:
            clock[COL_BLOCKS], clock[COL_BLOCK_ROWS], clock[COL_OPEN_ROWS] = 0, rows, 0
            partial[row] = 0.0
        _merge_blocks(blocks, clock, rows)


@row_kernel
def _discord(state, windows, resolution, rows, work, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    blocks, quantum, clock, partial, held = state
    slot, v, period = rows
    sizes, buffers = work
    memory = blocks.shape[1]
    for i in range(len(slot)):
        row = slot[i]
        t, past = clock[row], blocks[row]
        if np.isnan(v[i]):
            out[i, :] = np.nan
            continue
        _follow_period(past, t, partial, row, period[i], resolution)
        partial[row] += v[i]
        t[COL_OPEN_ROWS] += 1
        if t[COL_OPEN_ROWS] >= t[COL_BLOCK_ROWS]:
            n = t[COL_BLOCKS]
            if n == memory:
                n = memory * 3 // 4
                for k in range(n):
                    past[k] = past[memory - n + k]
            past[n] = quantise(past[:n], quantum, row, partial[row] / t[COL_OPEN_ROWS])
            t[COL_BLOCKS] = n + 1
            t[COL_OPEN_ROWS], partial[row] = 0, 0.0
            for w in range(len(windows)):
                sizes[w] = max(int(windows[w] * t[COL_PERIOD] / t[COL_BLOCK_ROWS] + 0.5), 2)
            _nearest(past, t[COL_BLOCKS], sizes, buffers, held[row])
            for w in range(len(windows)):
                held[row, w] *= quantum[row]
        for w in range(len(windows)):
            out[i, w] = held[row, w]
