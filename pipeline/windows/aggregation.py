"""Aggregation of irregular or event-like input to one point per series and interval.

- Intervals are aligned to the epoch. The point of an interval carries the time of its *start*, as price bars
  and resampled frames do. It is causal: it exists only once the watermark has passed the end.
- A record older than the last closed interval is late. There are no duplicates: two events may have one time.
- A series behind the others has intervals of its own (``pipeline.windows.series_behind``). A clock that is
  ahead closes no interval of the others (``pipeline.windows.partition_clock``).
- Silence is visible: a known series without a record in an interval gets an empty point, if any function has
  a value without records (counts and sums are 0, all others are missing). A series gets at most as many empty
  points in a row as the number of intervals for which it was known, and at most those of ``idle_after``. Then
  it is forgotten until its next record. So a key that occurs once costs one empty point.
- If the whole partition is silent, empty points end after MAX_EMPTY_INTERVALS in a row. A longer hole in the
  log is a gap for its series, and one record after a long outage must not create a flood of points.
  Without further records a daemon closes them by its clock (``pipeline.windows.silent_partition``).

The points depend only on the order of the records, never on batches: a replay gives the same points.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pipeline.core.types import Partition
from pipeline.decode import Columns, Key, SeriesKeys
from pipeline.windows import aggregation_kernels as kernels
from pipeline.windows.aggregation_kernels import NEVER, PointIndex
from pipeline.windows.aggregation_plan import AggregationPlan
from pipeline.windows.distinct_count import DistinctCounter
from pipeline.windows.partition_clock import PartitionClock
from pipeline.windows.series_behind import SeriesBehind, falls_behind, joined_points
from pipeline.windows.silent_partition import SilentTime

MAX_EMPTY_INTERVALS = 60
#: Forgotten series are removed once there are more of them than this, and than of the others.
MIN_FORGOTTEN_SERIES = 1024


class AggregationBuffer:
    """Open intervals of one partition and its known series; ``push`` changes it in place."""

    def __init__(self, partition: Partition, plan: AggregationPlan) -> None:
        self.partition = partition
        self._plan = plan
        self._clock = PartitionClock.begin(plan.every, plan.lateness)
        self._behind: SeriesBehind | None = None  # made by the first of them
        self._closed = self._live = self._offset = NEVER
        self._names: list[Key] = []
        self._index: dict[Key, int] = {}
        # By series: first and last interval with a record (NEVER: none is closed yet), newest open group (−1:
        # none).
        self._first, self._last, self._newest = (np.empty(0, np.int64) for _ in range(3))
        self._groups = kernels.empty_groups(0, len(plan.kinds))  # with room behind the first self._n
        self._n = 0
        self._distinct = DistinctCounter()
        self.silent_time = SilentTime(plan.silence)

    @property
    def records(self) -> int:
        """Number of records in open intervals."""
        own = int(self._groups["heads"][: self._n].sum())
        return own if self._behind is None else own + self._behind.records

    def known_keys(self) -> Collection[Key]:
        """Return the keys of the known series, with or without an open interval."""
        return self._index.keys() if self._behind is None else self._index.keys() | set(self._behind.keys)

    def most_keys(self) -> int:
        """Return an upper bound of the number of ``known_keys``."""
        return len(self._index) + (0 if self._behind is None else len(self._behind.keys))

    @property
    def watermark_ns(self) -> int | None:
        """Time up to which intervals are closed, None before the first record."""
        return None if self._clock.ns is None else max(self._record_mark(), self.silent_time.closed_ns)

    def push(self, columns: Columns) -> tuple[AggregationBuffer, Columns]:
        """Add a batch, and return the points of the intervals that it closes.

        They carry ``folded``, ``late`` and ``filtered`` of the batch.
        """
        if not len(columns):
            return self, self._points(kernels.no_points(), columns)
        every = self._plan.every
        self.silent_time.end_silence()
        self._clock, clock = self._clock.advance(columns)
        # Intervals below this one are closed by the point.
        closed = (clock - self._plan.lateness) // every
        if self._closed == NEVER:
            self._closed = int(closed[0])
        closed = np.maximum(closed, self._closed)
        late = columns.time // every < closed
        if self._behind is None and not late.any():
            return self, self._push_part(columns, closed, late)
        return self, self._push_behind(columns, closed, late)

    def _push_part(self, columns: Columns, closed: NDArray[np.int64], left: NDArray[np.bool_]) -> Columns:
        """Add records, but not ``left`` (N,); ``closed`` as in ``_next_change``."""
        kept = columns.take(~left) if left.any() else columns
        self._fold(kept, kept.time // self._plan.every)
        self._offset = int(columns.offsets[-1])
        return self._close(int(closed[-1]), closed, columns)

    def flush(self) -> tuple[AggregationBuffer, Columns | None]:
        """Close every open interval: the input has ended."""
        parts = [] if self._behind is None else list(self._behind.flush())
        if self._n:
            parts.insert(0, self.close_up_to(int(self._groups["bin"][: self._n].max()) + 1))
        return self, joined_points(parts) if parts else None

    def close_up_to(self, stop: int) -> Columns:
        """Close the intervals below ``stop``."""
        return self._close(stop, None, None)

    def is_due(self, silent_ns: int) -> bool:
        """Return whether silence of the partition ends its next interval."""
        reached = self._plan.tells_silence and self.watermark_ns is not None
        return (
            reached
            and self.silent_time.reached(self._record_mark(), silent_ns) >= self._end_of_next()
            and kernels.has_points(
                self._closed,
                self._groups["bin"][: self._n],
                (self._live, MAX_EMPTY_INTERVALS, self._plan.idle),
                (self._first, self._last),
            )
        )

    def end_interval(self) -> Columns:
        """Close the first open interval, because the partition is silent."""
        self.silent_time.closed_ns = self._end_of_next()
        return self.close_up_to(self._closed + 1)

    def note_arrival(self, columns: Columns, silent_ns: int) -> None:
        """Learn how late records after a silence came; call it before ``push``."""
        if self._clock.ns is not None:
            open_ns = self._record_mark() // self._plan.every * self._plan.every
            self.silent_time.note_arrival(self._clock.ns, columns.time[columns.time >= open_ns], silent_ns)

    def _record_mark(self) -> int:
        assert self._clock.ns is not None
        return self._clock.ns - self._plan.lateness

    def _end_of_next(self) -> int:
        return (self._closed + 1) * self._plan.every

    def _push_behind(self, columns: Columns, closed: NDArray[np.int64], late: NDArray[np.bool_]) -> Columns:
        """Add a batch with records that are late, or of series behind the others.

        The batch is cut where a series falls behind or catches up, so that both find all before it closed.
        """
        if self._behind is None:
            self._behind = SeriesBehind(lambda: _OneSeries(self.partition, self._plan))
        names, parts, start, n = columns.keys.flat(), list[Columns](), 0, len(columns)
        watched = set(self._behind.keys) | {names[row] for row in np.flatnonzero(late).tolist()}
        rows = [row for row, name in enumerate(names) if name in watched]
        interval = columns.time // self._plan.every
        while start < n:
            rows = [row for row in rows if row >= start]
            stop = self._next_change(rows, names, interval, closed)
            if stop > start:
                apart = np.array([name in self._behind for name in names[start:stop]], np.bool_)
                left = late[start:stop] | apart
                part = columns.take(np.arange(start, stop))
                points = self._push_part(part, closed[start:stop], left)
                plain_late = late[start:stop] & ~apart
                points.late = part.take(plain_late) if plain_late.any() else None
                parts += [points, *self._behind.push(columns, names, range(start, stop), closed)]
            if stop < n:
                parts += self._change(names[stop], int(interval[stop]), int(closed[stop]))
            start = stop
        parts += self._behind.end_silent(int(closed[-1]))
        if not self._behind:
            self._behind = None
        out = joined_points(parts)
        out.filtered = columns.filtered
        return out

    def _next_change(
        self, rows: list[int], names: list[Key], interval: NDArray[np.int64], closed: NDArray[np.int64]
    ) -> int:
        """Return the first row at which a series falls behind or catches up, N if none.

        ``closed`` (N,) is the first interval that is open for the others at each record.
        """
        assert self._behind is not None
        taken: dict[Key, list[int]] = {}
        heard: dict[Key, int] = {}
        for row in rows:
            key, own, opened = names[row], int(interval[row]), int(closed[row])
            if key in self._behind:
                if own >= opened or self._behind.is_over(key, opened, heard.get(key)):
                    return row
                heard[key] = opened
            elif own >= opened:
                taken.setdefault(key, []).append(own)
            elif not self._behind.full and self._falls_behind(key, own, opened, taken.get(key, [])):
                return row
        return len(names)

    def _change(self, key: Key, interval: int, opened: int) -> list[Columns]:
        """Let a series fall behind or catch up, and return the points that this closes."""
        assert self._behind is not None
        if key not in self._behind:
            self._behind.begin(key, opened)
            return []
        over = self._behind.is_over(key, opened)
        buffer, points = self._behind.end(key, opened)
        if not over and interval >= opened:
            (code,) = self._codes([key]).tolist()
            self._first[code], self._last[code] = buffer._first[0], opened - 1  # it is told up to there
        return [points]

    def _falls_behind(self, key: Key, interval: int, opened: int, taken: list[int]) -> bool:
        """Return whether a record of a closed interval begins intervals of its own series.

        Args:
            key: Series of the record.
            interval: Its interval.
            opened: First interval that is open at the record.
            taken: Intervals of the records of the series that are not folded yet.
        """
        code, intervals, told = self._index.get(key), set(taken), (NEVER, NEVER)
        if code is not None:
            told = int(self._first[code]), int(self._last[code])
            intervals.update(self._groups["bin"][: self._n][self._groups["code"][: self._n] == code].tolist())
        return falls_behind(interval, opened, intervals, told, self._plan)

    def _fold(self, columns: Columns, interval: NDArray[np.int64]) -> None:
        n = len(columns)
        codes = columns.keys.spread(self._codes(columns.keys.names))
        self._groups = kernels.with_room(self._groups, self._n, n)
        heads = np.ones(n, np.int64) if columns.head is None else columns.head.astype(np.int64)
        points = codes, interval, columns.time, columns.offsets, heads
        group_of = np.empty(n, np.int64)
        groups = tuple(self._groups.values())
        self._n = kernels.fold_points(
            points, self._plan.sources(columns), self._plan.kinds, self._newest, groups, self._n, group_of
        )
        for function in np.flatnonzero(self._plan.kinds == kernels.KIND_NUNIQUE).tolist():
            self._distinct.add(
                group_of, function, columns.extra[f"distinct {self._plan.reductions[function].field}"]
            )

    def _codes(self, names: list[Key]) -> NDArray[np.int64]:
        codes = list(map(self._index.get, names))
        if None in codes:
            new = list(dict.fromkeys(name for name, code in zip(names, codes, strict=True) if code is None))
            self._index.update(zip(new, range(len(self._names), len(self._names) + len(new)), strict=True))
            self._names.extend(new)
            self._first, self._last = (
                np.concatenate([column, np.full(len(new), NEVER)]) for column in (self._first, self._last)
            )
            self._newest = np.concatenate([self._newest, np.full(len(new), -1)])
            codes = list(map(self._index.get, names))
        return np.array(codes, np.int64)

    def _close(self, stop: int, closed: NDArray[np.int64] | None, columns: Columns | None) -> Columns:
        """Close all intervals below ``stop``; ``closed`` is the first open one after each point."""
        if stop <= self._closed:
            return self._points(kernels.no_points(), columns)
        plan, groups = self._plan, {name: column[: self._n] for name, column in self._groups.items()}
        over = groups["bin"] < stop
        order = np.flatnonzero(over)
        order = order[np.lexsort((groups["code"][order], groups["bin"][order]))]
        step = self._closed, stop, self._live, MAX_EMPTY_INTERVALS, plan.idle, plan.tells_silence
        ending = order, groups["code"], groups["bin"]
        m, _ = kernels.close_intervals(
            *step, self._first.copy(), self._last.copy(), *ending, *kernels.no_points()
        )
        index = _, interval, group = np.empty(m, np.int64), np.empty(m, np.int64), np.empty(m, np.int64)
        _, self._live = kernels.close_intervals(*step, self._first, self._last, *ending, *index)
        out = self._points(index, columns)
        if len(silent := np.flatnonzero(group < 0)):
            # An empty interval has the offset of the record that closed it.
            at = (
                self._offset
                if closed is None or columns is None
                else columns.offsets[np.searchsorted(closed, interval[silent], side="right")]
            )
            out.offsets[silent] = at
        out.folded = int(groups["heads"][over].sum())
        self._closed = stop
        self._keep(np.flatnonzero(~over))
        self._clear()
        return out

    def _points(self, index: PointIndex, batch: Columns | None) -> Columns:
        """Return the points of closed groups and of empty intervals (group −1)."""
        code, interval, group = index
        values = np.repeat(self._plan.empty_values[None], len(code), axis=0)
        offsets = np.full(len(code), -1, np.int64)
        if len(real := np.flatnonzero(group >= 0)):
            g = group[real]
            counted = self._plan.kinds == kernels.KIND_NUNIQUE
            if counted.any():
                self._groups["seen"][: self._n, counted] = self._distinct.count(self._n, len(counted))[
                    :, counted
                ]
            done = np.empty((len(g), len(self._plan.kinds)))
            kernels.finish_groups(
                self._groups["rows"][g],
                self._groups["acc"][g],
                self._groups["seen"][g],
                self._plan.kinds,
                done,
            )
            values[real] = done
            offsets[real] = self._groups["offset"][g]
        time = interval * self._plan.every
        keys = SeriesKeys(list(self._names), code.astype(np.int32)).take(np.arange(len(code)))
        filtered = 0 if batch is None else batch.filtered
        return Columns(
            self.partition, offsets, np.zeros(len(code), bool), keys, time, time, values, filtered=filtered
        )

    def _keep(self, rows: NDArray[np.int64]) -> None:
        """Keep only these groups open."""
        new = np.full(self._n, -1, np.int64)
        new[rows] = np.arange(len(rows))
        self._distinct.renumber(new)
        self._groups = {name: column[rows] for name, column in self._groups.items()}
        self._n = len(rows)
        kernels.relink_groups(self._groups["code"], self._newest, self._groups["older"])

    def _clear(self) -> None:
        """Remove forgotten series.

        The time of the removal has no effect: a series that comes back is reset in either case.
        """
        known = np.minimum(self._last - self._first + 1, self._plan.idle)
        forgotten = (self._newest < 0) & (self._closed - self._last - 1 > known)
        if forgotten.sum() <= max(MIN_FORGOTTEN_SERIES, (~forgotten).sum()):
            return
        stay = np.flatnonzero(~forgotten)
        new = np.full(len(forgotten), -1, np.int64)
        new[stay] = np.arange(len(stay))
        self._names = [self._names[s] for s in stay.tolist()]
        self._index = {name: code for code, name in enumerate(self._names)}
        self._first, self._last, self._newest = self._first[stay], self._last[stay], self._newest[stay]
        self._groups["code"] = new[self._groups["code"]]

    def to_arrays(self) -> tuple[dict[str, NDArray], list[Key]]:
        """Return plain arrays and series keys for a snapshot; ``from_arrays`` is the inverse."""
        self._distinct.clean()
        arrays = {f"group.{name}": column[: self._n] for name, column in self._groups.items()}
        arrays |= {f"distinct.{i}": column for i, column in enumerate(self._distinct.rows)}
        arrays |= {"first": self._first, "last": self._last}
        clock = NEVER if self._clock.ns is None else self._clock.ns
        arrays["marks"] = np.array([clock, self._closed, self._live, self._offset], np.int64)
        arrays["clock_state"] = self._clock.to_bytes()
        arrays["silent_time"] = self.silent_time.to_array()
        if self._behind is not None:
            own, described = self._behind.to_arrays()
            arrays |= {f"behind.{name}": array for name, array in own.items()}
            arrays["series_behind"] = np.frombuffer(json.dumps(described).encode(), np.uint8)
        return arrays, list(self._names)

    @classmethod
    def from_arrays(
        cls, partition: Partition, plan: AggregationPlan, arrays: dict[str, NDArray], keys: list[Key]
    ) -> Self:
        """Return the buffer that ``to_arrays`` wrote."""
        new = cls(partition, plan)
        clock, new._closed, new._live, new._offset = arrays["marks"].tolist()
        new._clock = new._clock.from_bytes(None if clock == NEVER else clock, arrays.get("clock_state"))
        new.silent_time = new.silent_time.stored(arrays.get("silent_time"))
        new._names = keys
        new._index = {name: code for code, name in enumerate(new._names)}
        new._first, new._last = arrays["first"], arrays["last"]
        new._newest = np.full(len(keys), -1, np.int64)
        new._groups = {name: arrays[f"group.{name}"] for name in new._groups}
        new._n = len(new._groups["code"])
        kernels.relink_groups(new._groups["code"], new._newest, new._groups["older"])
        new._distinct = DistinctCounter((arrays["distinct.0"], arrays["distinct.1"], arrays["distinct.2"]))
        if (described := arrays.get("series_behind")) is not None:
            new._behind = SeriesBehind(lambda: _OneSeries(partition, plan))
            own = {
                name.removeprefix("behind."): a for name, a in arrays.items() if name.startswith("behind.")
            }
            new._behind.load(
                own, json.loads(described.tobytes()), partial(_OneSeries.from_arrays, partition, plan)
            )
        return new


class _OneSeries(AggregationBuffer):
    """Intervals of one series behind the others: its own late records are late."""

    def _falls_behind(self, key: Key, interval: int, opened: int, taken: list[int]) -> bool:
        return False

    def _clear(self) -> None:
        """Keep the series while it is behind."""
