"""Columns of decoded points, one row per point."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.core.types import Partition

#: Key of a series within its stream: its label, or all labels joined by NUL, which no label may contain.
#: Tuples of texts cost half as much again to make and to look up.
Key = str
SEPARATOR = "\0"
#: Extra field: distance in ns to the second reading of a local time, 0 for one reading.
REPEATED_HOUR = "repeated hour"


@dataclass(frozen=True, slots=True)
class SeriesKeys:
    """Series of N points: ``names[codes[i]]``, or ``names[i]`` if ``codes`` is None.

    JSON gives a list of names, a columnar file codes of a few names. Every name is in use, so
    ``spread(find(names))`` gives the slots of all points with one look-up per name.
    """

    names: list[Key]
    codes: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.names) if self.codes is None else len(self.codes)

    def __getitem__(self, point: int) -> Key:
        return self.names[point if self.codes is None else self.codes[point]]

    def spread(self, of_names: NDArray) -> NDArray:
        """Return one value per point from one value per name."""
        return of_names if self.codes is None else of_names[self.codes]

    def take(self, points: NDArray) -> SeriesKeys:
        """Return the keys of some points (indices or a mask), without unused names."""
        if self.codes is None:
            index = np.flatnonzero(points) if points.dtype == np.bool_ else points
            return SeriesKeys([self.names[i] for i in index.tolist()])
        codes = self.codes[points]
        used = np.zeros(len(self.names), bool)
        used[codes] = True
        if used.all():
            return SeriesKeys(self.names, codes)
        renumbered = np.cumsum(used, dtype=np.int32) - 1
        return SeriesKeys(
            [self.names[i] for i in np.flatnonzero(used).tolist()], renumbered[codes].astype(np.int32)
        )

    def flat(self) -> list[Key]:
        """Return one name per point."""
        return self.names if self.codes is None else [self.names[c] for c in self.codes.tolist()]


@dataclass(slots=True)
class Columns:
    """N points of C channels of one partition, in the order of processing (offset order as decoded).

    offsets   (N,)    int64    of the record that a point comes from
    head      (N,)    bool     first point of its record (None: all are); a record with many samples is counted by its head
    keys      (N,)             the series
    time      (N,)    int64    event time, ns since the epoch
    clock     (N,)    int64    time that may advance the watermark: the event time, at most the log's own time
    values    (N, C)  float64  channels of the format; NaN is a missing value
    events    (N,) texts         code or log line of each event (None: numbers, or numbered already)
    extra     (N,) each        further fields that the aggregate reads: float64, or uint64 fingerprints of texts (0: null)

    Properties of the whole batch, which ``take`` does not copy:

    filtered  records and offsets without a point that are not rejected: tombstones, empty arrays of samples, compacted away
    release   (N,) int64  points with equal numbers were released together (None: each alone); among them the last write wins
    watermark (N,) int64  watermark before the record that released the point (None: not of events)
    folded    records aggregated into these points when their intervals closed: they are scored, and no point is their head
    late      points that came after their interval was closed (None: none)
    """

    partition: Partition
    offsets: NDArray[np.int64]
    head: NDArray[np.bool_] | None
    keys: SeriesKeys
    time: NDArray[np.int64]
    clock: NDArray[np.int64]
    values: NDArray[np.float64]
    extra: dict[str, NDArray] = field(default_factory=dict)
    filtered: int = 0
    release: NDArray[np.int64] | None = None
    folded: int = 0
    late: Columns | None = None
    events: list[str] | None = None
    watermark: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def records(self) -> int:
        """Number of records whose head is among the points."""
        return len(self.offsets) if self.head is None else int(self.head.sum())

    @staticmethod
    def empty(partition: Partition, channels: int) -> Columns:
        """Return columns without points."""
        nothing = np.empty(0, np.int64)
        return Columns(partition, nothing, None, SeriesKeys([]), nothing, nothing, np.empty((0, channels)))

    def take(self, points: NDArray) -> Columns:
        """Return some of the points, by indices or a mask."""
        return Columns(
            partition=self.partition,
            offsets=self.offsets[points],
            head=None if self.head is None else self.head[points],
            keys=self.keys.take(points),
            time=self.time[points],
            clock=self.clock[points],
            values=self.values[points],
            extra={name: column[points] for name, column in self.extra.items()},
            events=None if self.events is None else np.array(self.events, object)[points].tolist(),
        )

    def append(self, other: Columns) -> Columns:
        """Return these points followed by those of ``other``."""
        heads = None
        if self.head is not None or other.head is not None:
            heads = np.concatenate(
                [np.ones(len(c), bool) if c.head is None else c.head for c in (self, other)]
            )
        return Columns(
            partition=self.partition,
            offsets=np.concatenate([self.offsets, other.offsets]),
            head=heads,
            keys=SeriesKeys(self.keys.flat() + other.keys.flat()),
            time=np.concatenate([self.time, other.time]),
            clock=np.concatenate([self.clock, other.clock]),
            values=np.concatenate([self.values, other.values]),
            extra={name: np.concatenate([column, other.extra[name]]) for name, column in self.extra.items()},
        )

    def to_arrays(self) -> tuple[dict[str, NDArray], list[Key]]:
        """Return plain arrays and the keys of the points for a snapshot; ``from_arrays`` is the inverse."""
        arrays: dict[str, NDArray] = {
            "offsets": self.offsets,
            "time": self.time,
            "clock": self.clock,
            "values": self.values,
        }
        arrays["head"] = np.ones(len(self), bool) if self.head is None else self.head
        arrays.update({f"extra.{name}": column for name, column in self.extra.items()})
        return arrays, self.keys.flat()

    @staticmethod
    def from_arrays(partition: Partition, arrays: dict[str, NDArray], keys: list[Key]) -> Columns:
        """Return the columns that ``to_arrays`` wrote."""
        return Columns(
            partition=partition,
            offsets=arrays["offsets"],
            head=arrays["head"],
            keys=SeriesKeys(keys),
            time=arrays["time"],
            clock=arrays["clock"],
            values=arrays["values"],
            extra={name[6:]: column for name, column in arrays.items() if name.startswith("extra.")},
        )


def in_time_order(columns: Columns) -> Columns:
    """Return points whose samples of one record are in the order of time.

    They came together, so none of them is late for another one. Records keep their order.
    """
    same_record = columns.offsets[1:] == columns.offsets[:-1]
    if not bool((same_record & (columns.time[1:] < columns.time[:-1])).any()):
        return columns
    names = columns.keys.flat()
    codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
    series = np.array([codes[name] for name in names])
    by_series = np.lexsort((np.arange(len(names)), series, columns.offsets))
    same = (np.diff(columns.offsets[by_series]) == 0) & (np.diff(series[by_series]) == 0)
    if not bool((same & (np.diff(columns.time[by_series]) < 0)).any()):
        return columns
    sorted_ = columns.take(np.lexsort((columns.time, columns.offsets)))
    sorted_.head = np.diff(sorted_.offsets, prepend=-1) > 0
    return sorted_
