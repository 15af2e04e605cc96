"""Distance of the last m rows to the nearest earlier window: the left discord, plain Euclidean, mean removed, amplitude kept.

Rows are averaged in blocks of q = 2^j rows, such that a window has 8 to 16 blocks; ``memory`` blocks are remembered. When the period of the series
grows, neighbouring blocks merge and nothing is lost. Windows that overlap the current one do not count.
(Keogh et al., HOT SAX, 2005; left matrix profile, Yeh et al. 2016.)
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.kernel import kernel
from detectors.lanes import Floats, Lanes

FALLBACK = 64  # rows of a "period" where none was found


class Shape:
    """One track per window length, in periods. State: 4 · memory bytes a lane and a little."""

    def __init__(self, memory: int, windows: tuple[float, ...] = (1.0, 0.5, 0.25), resolution: int = 32) -> None:
        self.memory, self.windows, self.resolution = memory, windows, resolution
        self.tracks = tuple(f"shape{w:g}" for w in windows)

    def initial(self, lanes: int) -> State:
        return {
            "shape.blocks": np.zeros((lanes, self.memory), np.float32),
            "shape.clock": np.zeros((lanes, 4), np.int32),  # blocks used, rows a block, rows in the open block, period
            "shape.open": np.zeros(lanes, np.float32),
            "shape.held": np.full((lanes, len(self.windows)), np.nan, np.float32),
        }

    def run(self, state: State, lanes: Lanes, out: Floats) -> None:
        arrays = (state[f"shape.{name}"] for name in ("blocks", "clock", "open", "held"))
        _shape(*arrays, np.array(self.windows, np.float32), self.resolution, lanes.lane, lanes.v, lanes.period, out)


@kernel
def _coarsen(blocks, clock, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Merge neighbours until a block holds ``rows`` rows."""
    while clock[1] < rows:
        for k in range(clock[0] // 2):
            blocks[k] = 0.5 * (blocks[2 * k] + blocks[2 * k + 1])
        clock[0] //= 2
        clock[1] *= 2


@kernel
def _nearest(blocks, n, m):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Root mean square distance of the last m of n blocks to the nearest earlier window that does not overlap it."""
    windows = n - 2 * m + 1
    if windows < m:
        return np.float32(np.nan)
    current = blocks[n - m : n]
    squares = np.zeros(windows, np.float32)
    sums = np.zeros(windows, np.float32)
    for j in range(m):
        c = current[j]
        for k in range(windows):
            d = blocks[k + j] - c
            squares[k] += d * d
            sums[k] += d
    best = np.float32(np.inf)
    for k in range(windows):
        best = min(best, squares[k] - sums[k] * sums[k] / m)
    return np.sqrt(max(best, np.float32(0)) / m)


@kernel
def _shape(blocks, clock, partial, held, windows, resolution, lane, v, period, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    memory = blocks.shape[1]
    for i in range(len(lane)):
        row = lane[i]
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
            past[t[0]] = partial[row] / t[2]
            t[0] += 1
            t[2], partial[row] = 0, 0.0
            for w in range(len(windows)):
                m = max(int(windows[w] * t[3] / t[1] + 0.5), 2)
                held[row, w] = _nearest(past, t[0], m)
        out[i, :] = held[row]
