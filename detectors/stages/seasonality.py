"""The period of a series, from its past only: autocorrelation on a small pyramid of rings.

Level j holds means of 4^j rows, so that three levels of R values see periods up to 16 · R / ``repeats`` rows;
the best local maximum of the autocorrelation over all levels is the period. It is looked for again each time
a quarter of a ring is new.

The *cycle* is the same of each ring's last values only: what repeats on a shorter scale. In ``standard`` the
shapes of events are as long as it, those of forms as long as the period: a longer ring makes forms better
and, where events follow it, events worse (``docs/lab-notes/accuracy.md``).
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch
from detectors.jit import kernel
from detectors.stages.quantised_history import quantise

BASE = 4
VALLEY = 0.1
HIGHER = 1.05
LEAST = 0.02
STRENGTH, LAG = range(2)


class Seasonality:
    """Second stage: fills ``period``, ``season`` and ``cycle``, which is found in the last ``recent`` values
    (0: not at all).

    State: levels · ring · 2 bytes and a little.
    """

    def __init__(self, ring: int, levels: int, repeats: int = 3, recent: int = 0) -> None:
        self.ring, self.levels, self.repeats, self.recent = ring, levels, repeats, recent

    def initial(self, slots: int) -> State:
        return {
            "rhythm.ring": np.zeros((slots, self.levels, self.ring), np.int16),
            "rhythm.quantum": np.zeros(slots, np.float32),
            "rhythm.partial": np.zeros((slots, self.levels), np.float32),
            "rhythm.count": np.zeros((slots, self.levels), np.int64),
            # of the ring and of its last values: strength, lag in rows
            "rhythm.peak": np.zeros((slots, 2, self.levels, 2), np.float32),
        }

    def run(self, state: State, batch: ChannelBatch) -> None:
        names = ("rhythm.ring", "rhythm.quantum", "rhythm.partial", "rhythm.count", "rhythm.peak")
        _rhythm(
            *(state[name] for name in names),
            self.repeats,
            self.recent,
            batch.slot,
            batch.near,
            batch.period,
            batch.cycle,
            batch.season,
        )


@kernel
def _best_lag(values, repeats, found):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Height and lag of the best local maximum of the autocorrelation of ``values`` (oldest first), which
    hold ``repeats`` of it.
    """
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
        # Above the valley before it: a slow walk's autocorrelation has bumps, but no valleys. Clearly higher:
        # multiples repeat about as well.
        if peak and acf[lag] - lowest > VALLEY and acf[lag] > HIGHER * found[0] + LEAST:
            bend = acf[lag - 1] - 2 * acf[lag] + acf[lag + 1]
            shift = 0.5 * (acf[lag - 1] - acf[lag + 1]) / bend if bend < 0 else 0.0
            found[0], found[1] = acf[lag], lag + shift


@kernel
def _clearest(peak):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Rows of the best lag over all levels: a higher level only where it is clearly better."""
    best, rows = np.float32(0), np.float32(0)
    for j in range(len(peak)):
        if peak[j, STRENGTH] > HIGHER * best + LEAST:
            best, rows = peak[j, STRENGTH], peak[j, LAG]
    return int(rows + 0.5)


@kernel
def _look(ring, count, most, span, repeats, peak):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Into ``peak`` what repeats in the last ``most`` values of ``ring``."""
    n = min(count, most)
    ordered = np.empty(n, np.float32)
    for a in range(n):
        ordered[a] = ring[(count - n + a) % len(ring)]
    _best_lag(ordered, repeats, peak)
    peak[LAG] *= span


@kernel
def _rhythm(ring, quantum, partial, count, peak, repeats, recent, slot, v, period, cycle, season):  # type: ignore[no-untyped-def]  # noqa: ANN001
    levels, size = ring.shape[1], ring.shape[2]
    for i in range(len(slot)):
        row = slot[i]
        period[i] = _clearest(peak[row, 0])
        if recent > 0:
            cycle[i] = _clearest(peak[row, 1])
        back = count[row, 0] - period[i]
        known = 0 < period[i] <= size and back >= 0
        season[i] = quantum[row] * ring[row, 0, back % size] if known else np.nan
        if np.isnan(v[i]):
            continue
        value, span = v[i], 1
        for j in range(levels):
            k = count[row, j]
            ring[row, j, k % size] = quantise(ring[row], quantum, row, value)
            k += 1
            count[row, j] = k
            if k % (size // 4) == 0:
                _look(ring[row, j], k, size, span, repeats, peak[row, 0, j])
            if recent > 0 and k % (recent // 4) == 0:
                _look(ring[row, j], k, recent, span, repeats, peak[row, 1, j])
            partial[row, j] += value
            if k % BASE:
                break
            value = partial[row, j] / BASE
            partial[row, j] = 0.0
            span *= BASE
