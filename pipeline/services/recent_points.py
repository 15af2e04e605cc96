"""Points of watched series that recorded history may not hold yet.

The loop adds the points of each batch; a thread reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.scoring.provenance import Scored
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.services.series_replay import NEVER_NS

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Watched:
    """Series whose points since a late one are kept.

    Recorded history that reaches ``anchor_ns``, and the kept points of the batches from ``batch`` on, are all
    points of the series. ``seq`` is its number of points before the first kept one.
    """

    slot: int
    anchor_ns: int
    batch: int
    seq: int


@dataclass(frozen=True, slots=True)
class _Batch:
    """Points of watched series of one batch."""

    slot: NDArray[np.int32]
    time: NDArray[np.int64]
    offset: NDArray[np.int64]
    values: NDArray[np.float64]


class RecentPoints:
    """Recent points of the watched series of one stream."""

    def __init__(self, scorer: StreamScorer) -> None:
        """Watch no series yet."""
        self._scorer = scorer
        self._watched: dict[str, Watched] = {}
        self._batches: dict[int, _Batch] = {}
        self._next_batch = 0

    def watched(self) -> dict[str, Watched]:
        """Return the watched series."""
        return self._watched.copy()

    def watch(self, slots: Mapping[str, int], scored: Scored | None) -> None:
        """Watch series, from the points of this batch, or of the next, on."""
        windows = self._scorer.series.state["windows"]
        new = {name: slot for name, slot in slots.items() if name not in self._watched}
        counts, first_ns = {}, {}
        if new and scored is not None:
            rows = np.flatnonzero(np.isin(scored.points.slot, list(new.values())) & (scored.offset >= 0))
            found, first, number = np.unique(scored.points.slot[rows], return_index=True, return_counts=True)
            counts = dict(zip(found.tolist(), number.tolist(), strict=True))
            first_ns = dict(zip(found.tolist(), scored.points.time[rows[first]].tolist(), strict=True))
        for name, slot in new.items():
            anchor_ns = first_ns.get(slot, int(windows["last_time"][slot]))
            seq = int(windows["seq"][slot]) - counts.get(slot, 0)
            self._watched[name] = Watched(slot, anchor_ns, self._next_batch, seq)

    def forget(self, name: str) -> None:
        """Watch a series no more."""
        self._watched.pop(name, None)

    def add(self, scored: Scored) -> None:
        """Keep the points of watched series of a batch."""
        if not self._watched:
            self._batches.clear()
            return
        points, offset = scored.points, scored.offset
        mask = np.zeros(len(self._scorer.series.by_slot), np.bool_)
        mask[[one.slot for one in self._watched.values() if one.slot < len(mask)]] = True
        rows = np.flatnonzero(mask[points.slot] & (offset >= 0))
        if len(rows):
            self._batches[self._next_batch] = _Batch(
                points.slot[rows], points.time[rows], offset[rows], points.values[rows]
            )
        self._next_batch += 1
        oldest = min(one.batch for one in self._watched.values())
        for number in [number for number in self._batches if number < oldest]:
            del self._batches[number]

    def counts(self) -> dict[str, int]:
        """Return the number of all points so far of each watched series."""
        watched = self.watched()
        slot = np.concatenate([np.empty(0, np.int32), *(one.slot for one in self._batches.values())])
        batch = [np.full(len(one.slot), number, np.int64) for number, one in self._batches.items()]
        number = np.concatenate([np.empty(0, np.int64), *batch])
        first = np.zeros(max([one.slot for one in watched.values()], default=0) + 1, np.int64)
        for one in watched.values():
            first[one.slot] = one.batch
        known = slot < len(first)
        slot, number = slot[known], number[known]
        kept = np.bincount(slot[number >= first[slot]], minlength=len(first))
        return {name: one.seq + int(kept[one.slot]) for name, one in watched.items()}

    def of(self, names: Sequence[str], after_ns: Mapping[str, int] | None = None) -> pd.DataFrame:
        """Return the kept points of series by time, those after a time of each."""
        import pandas as pd

        watched = self.watched()
        slots = {watched[name].slot: name for name in names if name in watched}
        batches = [batch for _, batch in sorted(self._batches.copy().items())]
        channels = list(self._scorer.stream.channels)
        if not batches or not slots:
            return pd.DataFrame(columns=["series", "time", "offset", *channels])
        slot, time, offset = (
            np.concatenate([getattr(batch, name) for batch in batches]) for name in ("slot", "time", "offset")
        )
        values = np.concatenate([batch.values for batch in batches])
        rows = np.flatnonzero(np.isin(slot, list(slots)))
        if after_ns is not None:
            limit = np.full(int(slot.max()) + 1, NEVER_NS)
            for at, name in slots.items():
                if at < len(limit):
                    limit[at] = after_ns.get(name, NEVER_NS)
            rows = rows[time[rows] > limit[slot[rows]]]
        rows = rows[np.argsort(time[rows], kind="stable")]
        series = [slots[at] for at in slot[rows].tolist()]
        columns = {"series": series, "time": time[rows], "offset": offset[rows]}
        return pd.DataFrame(columns | {c: values[rows, i] for i, c in enumerate(channels)})
