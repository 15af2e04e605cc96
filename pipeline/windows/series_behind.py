"""Series of an aggregate whose records are behind those of the others.

A device whose clock is hours behind, or that sends what it kept while it had no network, is not late: it has
intervals of its own, which its own clock closes. It begins with a record whose interval is closed for the
others, if the series is unknown to them or has had no point since that interval. It ends

- with a record that is not behind: what is open is closed, and the series is one of the others, or
- after MAX_SILENT_INTERVALS of the others without a record of it.

Both depend on the order of the records only, never on batches.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.decode import Columns, Key
from pipeline.windows.aggregation_kernels import NEVER
from pipeline.windows.aggregation_plan import AggregationPlan

if TYPE_CHECKING:
    from pipeline.windows.aggregation import AggregationBuffer

#: Most series with intervals of their own; each costs a step of every batch. Further ones are late.
MAX_SERIES_BEHIND = 1000
MAX_SILENT_INTERVALS = 60


class SeriesBehind:
    """Buffers of the series behind, each with one series."""

    def __init__(self, make: Callable[[], AggregationBuffer]) -> None:
        """Begin without series; ``make`` returns an empty buffer."""
        self._make = make
        self._buffers: dict[Key, AggregationBuffer] = {}
        #: First interval that was open for the others at the last record of a series.
        self._seen: dict[Key, int] = {}

    def __bool__(self) -> bool:
        """Return whether there are any."""
        return bool(self._buffers)

    def __contains__(self, key: Key) -> bool:
        """Return whether a series is behind."""
        return key in self._buffers

    @property
    def keys(self) -> Collection[Key]:
        """Keys of the series."""
        return self._buffers.keys()

    @property
    def records(self) -> int:
        """Number of records in open intervals."""
        return sum(one.records for one in self._buffers.values())

    @property
    def full(self) -> bool:
        """True if no further series is taken."""
        return len(self._buffers) >= MAX_SERIES_BEHIND

    def begin(self, key: Key, opened: int) -> None:
        """Take a series; ``opened`` is the first open interval of the others."""
        self._buffers[key], self._seen[key] = self._make(), opened

    def is_over(self, key: Key, opened: int, seen: int | None = None) -> bool:
        """Return whether a series has been silent for too long.

        ``seen`` was the first open interval of the others at its last record, None: as added.
        """
        return opened > (self._seen[key] if seen is None else seen) + MAX_SILENT_INTERVALS

    def push(
        self, columns: Columns, names: list[Key], rows: range, opened: NDArray[np.int64]
    ) -> Iterator[Columns]:
        """Add the records of the series behind, and yield the points of what they close.

        Args:
            columns: A batch.
            names: Its series (N,).
            rows: The part of it that is added.
            opened: First open interval of the others at each record (N,).
        """
        rows_of: dict[Key, list[int]] = {}
        for row in rows:
            if names[row] in self._buffers:
                rows_of.setdefault(names[row], []).append(row)
        for key, own in rows_of.items():
            self._seen[key] = int(opened[own[-1]])
            yield self._buffers[key].push(columns.take(np.array(own, np.int64)))[1]

    def end(self, key: Key, opened: int) -> tuple[AggregationBuffer, Columns]:
        """Remove a series; return its buffer and its points up to ``opened``."""
        buffer, seen = self._buffers.pop(key), self._seen.pop(key)
        return buffer, buffer.close_up_to(min(opened, seen + MAX_SILENT_INTERVALS + 1))

    def end_silent(self, opened: int) -> Iterator[Columns]:
        """Remove the series that have been silent for too long, and yield their points."""
        for key in [key for key in self._buffers if self.is_over(key, opened)]:
            yield self.end(key, opened)[1]

    def flush(self) -> Iterator[Columns]:
        """Close all intervals: the input has ended."""
        for buffer in self._buffers.values():
            _, points = buffer.flush()
            if points is not None:
                yield points

    def to_arrays(self) -> tuple[dict[str, NDArray], list[dict[str, object]]]:
        """Return arrays, and what describes each series; ``load`` is the inverse."""
        arrays, described = {}, []
        for number, (key, buffer) in enumerate(self._buffers.items()):
            own, names = buffer.to_arrays()
            arrays.update({f"{number}.{name}": array for name, array in own.items()})
            described.append({"key": key, "names": names, "seen": self._seen[key]})
        return arrays, described

    def load(
        self,
        arrays: dict[str, NDArray],
        described: list[dict[str, object]],
        read: Callable[[dict[str, NDArray], list[Key]], AggregationBuffer],
    ) -> None:
        """Take what ``to_arrays`` wrote; ``read`` makes a buffer of arrays and names."""
        for number, one in enumerate(described):
            prefix, key = f"{number}.", str(one["key"])
            own = {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
            self._buffers[key] = read(own, list(one["names"]))  # type: ignore[call-overload]
            self._seen[key] = int(one["seen"])  # type: ignore[call-overload]


def falls_behind(
    interval: int, opened: int, taken: set[int], told: tuple[int, int], plan: AggregationPlan
) -> bool:
    """Return whether a record of a closed interval begins intervals of its own series.

    Args:
        interval: Interval of the record.
        opened: First interval that is open for the others.
        taken: Further intervals in which the series has records.
        told: First and last interval of the series as far as its points are told, NEVER for none.
        plan: Settings of the aggregate.
    """
    first, last = told
    for one in sorted(taken):
        if one >= opened:
            return False  # it has a record that is not behind
        if first == NEVER or one - last - 1 > min(last - first + 1, plan.idle):
            first = one
        last = one
    if first == NEVER or opened - last - 1 > min(last - first + 1, plan.idle):
        return True
    return not plan.tells_silence and interval > last


def joined_points(parts: list[Columns]) -> Columns:
    """Return the points of all parts, with their counts and late points."""
    out = parts[0]
    for one in parts[1:]:
        joined = out if not len(one) else out.append(one)
        joined.folded, late = out.folded + one.folded, [p for p in (out.late, one.late) if p is not None]
        joined.late = late[0].append(late[1]) if len(late) == 2 else late[0] if late else None
        out = joined
    return out
