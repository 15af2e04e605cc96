"""The period of a series from its past only.

It is found by autocorrelation on a small pyramid of rings.
Level j holds means of 4^j rows, so three levels of R values see periods up to 16 · R / ``repeats`` rows. The
period is the best local maximum of the autocorrelation over all levels. It is searched for again each time a
quarter of a ring is new.

The *cycle* is the same of each ring's last values only: a shorter repetition. In ``standard`` the tracks
``cycle*`` use windows as long as the cycle and the tracks ``shape*`` windows as long as the period. A longer
ring makes the latter better and the former worse (``docs/lab-notes/accuracy.md``).
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.channel_batch import ChannelBatch
from detectors.jit import kernel, row_kernel
from detectors.stages.quantised_history import quantise

LEVEL_FACTOR = 4  # values of a level that make one of the next
MIN_PEAK_ABOVE_VALLEY = 0.1
#: A later peak replaces an earlier one only where it is this much higher, relative and absolute.
HIGHER_FACTOR, HIGHER_MARGIN = 1.05, 0.02
COL_STRENGTH, COL_LAG = range(2)


class Seasonality:
    """Second stage: fills ``period``, ``cycle`` and ``season``.

    State: levels · ring · 2 bytes and a few more a channel slot.
    """

    def __init__(self, ring: int, levels: int, repeats: int = 3, recent: int = 0) -> None:
        """Configure the stage.

        Args:
            ring: Values kept a level.
            levels: Levels of the pyramid.
            repeats: Times that a period must fit into a ring.
            recent: Last values of a ring in which the cycle is searched (0: no cycle).
        """
        self.ring, self.levels, self.repeats, self.recent = ring, levels, repeats, recent

    def initial(self, slots: int) -> State:
        """Return the empty state of ``slots`` channel slots."""
        state: State = {
            "rhythm.ring": np.zeros((slots, self.levels, self.ring), np.int16),
            "rhythm.quantum": np.zeros(slots, np.float32),
            "rhythm.count": np.zeros(slots, np.int64),
            # Of the ring and, with a cycle, of its last values: strength, lag in rows.
            "rhythm.peak": np.zeros((slots, 2 if self.recent else 1, self.levels, 2), np.float32),
        }
        if self.levels > 1:  # sum of the values of a level that make the next one of the level above
            state["rhythm.partial"] = np.zeros((slots, self.levels - 1), np.float32)
        return state

    def run(self, state: State, batch: ChannelBatch) -> None:
        """Fill the columns of ``batch`` and advance the state in place."""
        partial = state["rhythm.partial"] if self.levels > 1 else np.zeros((0, 0), np.float32)
        ring, quantum, count, peak = (
            state[f"rhythm.{name}"] for name in ("ring", "quantum", "count", "peak")
        )
        rows = (batch.slot, batch.near, batch.period, batch.cycle, batch.season)
        _seasonality((ring, quantum, partial, count, peak), self.repeats, self.recent, rows)


@kernel
def _best_lag(values, repeats, found):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Fill ``found`` with the best local maximum of the autocorrelation.

    Its columns are height and lag.
    ``values`` (oldest first) must hold the lag ``repeats`` times.
    """
    n = len(values)
    mean = values.mean()
    work = values - mean
    energy = (work * work).sum()
    found[COL_STRENGTH] = found[COL_LAG] = 0.0
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
        # A peak must stand above the valley before it: the autocorrelation of a slow walk has bumps without
        # valleys. It must be clearly higher than an earlier one, because multiples of the period repeat about
        # as well.
        clear = acf[lag] - lowest > MIN_PEAK_ABOVE_VALLEY
        if peak and clear and acf[lag] > HIGHER_FACTOR * found[COL_STRENGTH] + HIGHER_MARGIN:
            bend = acf[lag - 1] - 2 * acf[lag] + acf[lag + 1]
            shift = 0.5 * (acf[lag - 1] - acf[lag + 1]) / bend if bend < 0 else 0.0
            found[COL_STRENGTH], found[COL_LAG] = acf[lag], lag + shift


@row_kernel
def _strongest_lag(peak):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the rows of the best lag over all levels.

    A higher level must be clearly better than the lower ones.
    """
    best, rows = np.float32(0), np.float32(0)
    for j in range(len(peak)):
        if peak[j, COL_STRENGTH] > HIGHER_FACTOR * best + HIGHER_MARGIN:
            best, rows = peak[j, COL_STRENGTH], peak[j, COL_LAG]
    return int(rows + 0.5)


@kernel
def _search_period(ring, count, most, span, repeats, peak):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Fill ``peak`` with the best lag of the last ``most`` values of ``ring``.

    The lag is in rows.
    """
    n = min(count, most)
    ordered = np.empty(n, np.float32)
    for a in range(n):
        ordered[a] = ring[(count - n + a) % len(ring)]
    _best_lag(ordered, repeats, peak)
    peak[COL_LAG] *= span


@row_kernel
def _seasonality(state, repeats, recent, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001
    ring, quantum, partial, count, peak = state
    slot, near, period, cycle, season = rows
    levels, size = ring.shape[1], ring.shape[2]
    for i in range(len(slot)):
        row = slot[i]
        period[i] = _strongest_lag(peak[row, 0])
        if recent > 0:
            cycle[i] = _strongest_lag(peak[row, 1])
        rows_before = count[row]
        back = rows_before - period[i]
        known = 0 < period[i] <= size and back >= 0
        season[i] = quantum[row] * ring[row, 0, back % size] if known else np.nan
        if np.isnan(near[i]):
            continue
        count[row] += 1
        value, span = near[i], 1
        for j in range(levels):
            k = rows_before // span
            ring[row, j, k % size] = quantise(ring[row], quantum, row, value)
            k += 1
            if k % (size // 4) == 0:
                _search_period(ring[row, j], k, size, span, repeats, peak[row, 0, j])
            if recent > 0 and k % (recent // 4) == 0:
                _search_period(ring[row, j], k, recent, span, repeats, peak[row, 1, j])
            if j == levels - 1:
                break
            partial[row, j] += value
            if k % LEVEL_FACTOR:
                break
            value = partial[row, j] / LEVEL_FACTOR
            partial[row, j] = 0.0
            span *= LEVEL_FACTOR
