"""Last readings of each series, and the begin of a deviation among them.

A mean of rows leaves its usual range some rows after the values that moved it. The readings before the first
row outside that are beyond the limit of the mean by themselves belong to the deviation. Single readings of a
noisy series can be inside: the begin is the row from which on the sum of what is beyond the limit is largest.
Source: Page 1954, Continuous inspection schemes; Hinkley 1971 for the begin as its estimate of a change.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detectors.base import CAUSES, State
from detectors.composite.presets import PRESETS
from pipeline.core.farthest_reading import READINGS_OF_MEANS
from pipeline.scoring.provenance import Provenance, Scored

#: Kept readings: those of a mean, and those that confirm its alarm.
RECENT_ROWS = 16
#: Mean steps above which a step of a trend is a jump, which a trend leaves out.
MAX_STEPS_OF_TREND = 3.0
#: Rounding errors of a kept value in the usual change from which changes can be told from them.
MIN_ROUNDINGS = 4.0

#: What a channel is → the preset whose working units its values are judged in.
_PRESET_OF_KIND = {"measurement": "sensor", "count": "network", "price": "stock", "volume": "stock"}

Floats = NDArray[np.float32]
_NO_RELATION = np.empty((0, RECENT_ROWS, 0), np.float32)


class Begin(NamedTuple):
    """Estimated begin of a deviation.

    earlier: rows before the flagged one. sure: False if it can have begun before the kept readings.
    farthest: farthest value since then on the side of a level, None for other causes.
    """

    earlier: int
    sure: bool
    farthest: float | None = None


@dataclass(frozen=True, slots=True)
class RecentReadings:
    """Layout of the last readings of the series of a stream, and their state by slot.

    channels: Channels of a series. related: Differences from what other channels imply are kept, too.
    """

    channels: int
    related: bool

    @property
    def version(self) -> str:
        """Identify names, shapes and meaning of the arrays of ``initial``."""
        return f"1-{RECENT_ROWS}-{self.channels}-{int(self.related)}"

    def initial(self, n: int) -> State:
        """Return the empty state of ``n`` series.

        values, relation  (N, R, C) float32  rings of rows, NaN where there is none
        place             (N,) int8          place of the oldest row, which is replaced next
        """
        names = ("values", "relation") if self.related else ("values",)
        rings = {name: np.full((n, RECENT_ROWS, self.channels), np.nan, np.float32) for name in names}
        return rings | {"place": np.zeros(n, np.int8)}


@dataclass(frozen=True, slots=True)
class ReadingsBefore:
    """The last readings before a batch, and where series are reset in it.

    state: Arrays of ``RecentReadings.initial``. restart: (M,) the series is reset before the row.
    """

    state: State
    restart: NDArray[np.bool_]

    def keep(self, scored: Scored) -> None:
        """Add the rows of the batch, in place."""
        state, relation = self.state, scored.verdicts.relation
        rings = state["values"], state.get("relation", _NO_RELATION), state["place"]
        _keep(scored.points.slot, scored.points.values, relation, self.restart, rings)

    def begin(self, scored: Scored, row: np.intp, provenance: Provenance, least: int) -> Begin | None:
        """Return the begin of a deviation of a mean.

        None for another cause, or where the readings are not known.

        Args:
            scored: The batch.
            row: The first flagged row.
            provenance: Says what each channel is.
            least: Rows before the flagged one that are known to belong to the deviation.
        """
        cause, channel = CAUSES[scored.verdicts.cause[row]], int(scored.verdicts.channel[row])
        if cause not in READINGS_OF_MEANS or not provenance.kinds:
            return None
        name = "relation" if cause == "relation" else "values"
        readings = self._until(scored, row, name)
        if channel >= readings.shape[1]:
            return None
        beyond = _beyond_limit(readings[:, channel], cause, provenance.kinds[channel], scored, row)
        known = np.flatnonzero(np.isfinite(beyond))
        if not len(known) or len(beyond) - known[0] <= least:
            return None
        sums = np.cumsum(np.nan_to_num(beyond[known[0] :][::-1]))
        earlier = least + int(np.argmax(sums[least:]))
        farthest = None
        if cause == "unusual_level":
            since = readings[len(readings) - earlier - 1 :, channel]
            farthest = float(np.nanmax(since) if scored.verdicts.side[row] > 0 else np.nanmin(since))
        return Begin(earlier, earlier + 1 < len(sums), farthest)

    def _until(self, scored: Scored, row: np.intp, name: str) -> Floats:
        """Return the last readings (at most R, C) up to a row, the oldest first."""
        slot = int(scored.points.slot[row])
        rows = scored.rows_of(slot)
        rows = rows[rows <= row]
        resets = np.flatnonzero(self.restart[rows])
        rows = rows[resets[-1] if len(resets) else 0 :][-RECENT_ROWS:]
        source = scored.points.values if name == "values" else scored.verdicts.relation
        here = source[rows].astype(np.float32)
        if len(resets) or name not in self.state or not here.shape[1]:
            return np.asarray(here)
        ring = np.roll(self.state[name][slot], -int(self.state["place"][slot]), axis=0)
        return np.concatenate([ring[len(rows) :], here])


def _beyond_limit(x: Floats, cause: str, kind: str, scored: Scored, row: np.intp) -> NDArray[np.float64]:
    """Return how far each reading is beyond the stated limit of the mean.

    The result is in working units.

    Args:
        x: The readings; those of a relation are in working units already.
        cause: Cause of the flagged row.
        kind: What the channel is.
        scored: The batch.
        row: The flagged row.
    """
    verdicts, values = scored.verdicts, x.astype(np.float64)
    low, high = float(verdicts.usual_low[row]), float(verdicts.usual_high[row])
    side = 1 if float(verdicts.observed[row]) > high else -1
    limit = high if side > 0 else low
    logarithmic = kind != "measurement"
    to_working = PRESETS[_PRESET_OF_KIND[kind]]().forward
    if cause == "unusual_level":
        return np.asarray(side * (to_working(values) - to_working(np.array([limit]))))
    limit = float(np.log1p(limit)) if logarithmic and limit > -1 else limit
    if cause == "relation":
        return side * (values - limit)
    steps = np.diff(to_working(values), prepend=np.nan)
    if cause == "trend":
        largest = MAX_STEPS_OF_TREND * _median_size(steps)
        return side * (np.clip(steps, -largest, largest) - limit / READINGS_OF_MEANS[cause])
    rounding = float(np.spacing(np.nanmax(np.abs(x)))) if np.isfinite(x).any() else math.inf
    if not logarithmic and limit < MIN_ROUNDINGS * rounding:
        return np.full(len(steps), np.nan)
    return np.asarray(np.abs(steps) - limit)


def _median_size(steps: NDArray[np.float64]) -> float:
    known = np.abs(steps[np.isfinite(steps)])
    return float(np.median(known)) if len(known) else math.nan


@njit(cache=True)
def _keep(slot, values, relation, restart, rings) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Add rows to the rings of their series, in place."""
    ring, relations, place = rings
    for i in range(len(slot)):
        s = slot[i]
        if restart[i]:
            ring[s] = np.nan
            if len(relations):
                relations[s] = np.nan
        at = place[s]
        for c in range(ring.shape[2]):
            ring[s, at, c] = values[i, c]
        for c in range(min(relations.shape[2], relation.shape[1])):
            relations[s, at, c] = relation[i, c]
        place[s] = (at + 1) % ring.shape[1]
