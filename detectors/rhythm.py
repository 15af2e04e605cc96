"""The period of a series, from its past only: autocorrelation on a small pyramid of rings.

Level j holds means of 4^j rows, so that three levels of R values see periods up to 16 · R / ``repeats`` rows; the best local
maximum of the autocorrelation over all levels is the period. It is looked for again each time a quarter of a ring is new.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.kernel import kernel
from detectors.lanes import Lanes
from detectors.packed import pack

BASE = 4
VALLEY = 0.1
HIGHER = 1.05
LEAST = 0.02


class Rhythm:
    """Second stage: fills ``period`` and ``season``. State: levels · ring · 2 bytes and a little."""

    def __init__(self, ring: int, levels: int, repeats: int = 3) -> None:
        self.ring, self.levels, self.repeats = ring, levels, repeats

    def initial(self, lanes: int) -> State:
        return {
            "rhythm.ring": np.zeros((lanes, self.levels, self.ring), np.int16),
            "rhythm.quantum": np.zeros(lanes, np.float32),
            "rhythm.partial": np.zeros((lanes, self.levels), np.float32),
            "rhythm.count": np.zeros((lanes, self.levels), np.int64),
            "rhythm.peak": np.zeros((lanes, self.levels, 2), np.float32),  # strength and lag in rows
        }

    def run(self, state: State, lanes: Lanes) -> None:
        names = ("rhythm.ring", "rhythm.quantum", "rhythm.partial", "rhythm.count", "rhythm.peak")
        _rhythm(*(state[name] for name in names), self.repeats, lanes.lane, lanes.near, lanes.period, lanes.season)


@kernel
def _best_lag(values, repeats, found):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Height and lag of the best local maximum of the autocorrelation of ``values`` (oldest first), which hold ``repeats`` of it."""
    n = len(values)
    mean = values.mean()
    work = values - mean
    energy = (work * work).sum()
    found[0] = found[1] = 0.0
    if not energy > 0:
        return
    top = n // repeats
    acf = np.empty(top + 1, np.float32)
    for lag in range(top + 1):
        total = np.float32(0)
        for i in range(n - lag):
            total += work[i] * work[i + lag]
        acf[lag] = total / energy * (n / (n - lag))
    lowest = acf[1]
    for lag in range(2, top):
        lowest = min(lowest, acf[lag])
        peak = acf[lag] >= acf[lag - 1] and acf[lag] > acf[lag + 1]
        # Above the valley before it: a slow walk's autocorrelation has bumps, but no valleys. Clearly higher: multiples repeat about as well.
        if peak and acf[lag] - lowest > VALLEY and acf[lag] > HIGHER * found[0] + LEAST:
            bend = acf[lag - 1] - 2 * acf[lag] + acf[lag + 1]
            shift = 0.5 * (acf[lag - 1] - acf[lag + 1]) / bend if bend < 0 else 0.0
            found[0], found[1] = acf[lag], lag + shift


@kernel
def _rhythm(ring, quantum, partial, count, peak, repeats, lane, v, period, season):  # type: ignore[no-untyped-def]  # noqa: ANN001
    levels, size = ring.shape[1], ring.shape[2]
    ordered = np.empty(size, np.float32)
    for i in range(len(lane)):
        row = lane[i]
        best, rows = np.float32(0), np.float32(0)
        for j in range(levels):
            if peak[row, j, 0] > HIGHER * best + LEAST:
                best, rows = peak[row, j, 0], peak[row, j, 1]
        period[i] = int(rows + 0.5)
        back = count[row, 0] - period[i]
        known = 0 < period[i] <= size and back >= 0
        season[i] = quantum[row] * ring[row, 0, back % size] if known else np.nan
        if np.isnan(v[i]):
            continue
        value, span = v[i], 1
        for j in range(levels):
            k = count[row, j]
            ring[row, j, k % size] = pack(ring[row], quantum, row, value)
            count[row, j] = k + 1
            k += 1
            if k % (size // 4) == 0:
                n = min(k, size)
                for a in range(n):
                    ordered[a] = ring[row, j, (k - n + a) % size]
                _best_lag(ordered[:n], repeats, peak[row, j])
                peak[row, j, 1] *= span
            partial[row, j] += value
            if k % BASE:
                break
            value = partial[row, j] / BASE
            partial[row, j] = 0.0
            span *= BASE
