"""Event time, in two stages: points buffered by partition, then points admitted by series.

The rules, in the order in which they are applied:

- *Reordering.* With a ``lateness`` points are buffered until the watermark reaches them, and released in the
  order of their times (``pipeline.windows.reorder_buffer``). With an ``aggregate`` they are buffered until
  their interval is over (``pipeline.windows.aggregation``).
- *Repeated hour.* A local time that occurs twice when clocks go back is the second one if the first would go
  back in its series. This needs a ``lateness`` of 0 and no ``aggregate``, so that the order is that of arrival.
- *Duplicates.* Of points of one series and time that are released together, the last offset is kept. A
  scored point is final: a later point of the same time is a duplicate.
- *Late.* A point older than the last scored one of its series is late: it is stored and not scored.
- *Cadence.* ``every``, or learned from the intervals by majority. The steps between two points beyond the
  first are *missed*. A closed market misses none.
- *Gaps.* ``gap``: the detector receives the number of missed points. ``hold`` and ``linear``: up to
  MAX_FILLED_POINTS missed points are filled in before the next real one; a longer gap is not filled.
  ``restart_after``: that many missed points reset the series.
- *Counters* become rates per second over the time since the last known total. The first total, and the first
  after a counter reset, give a missing value: the count before a reset is unknown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from detectors.base import Points, State
from pipeline.config.schema import Stream
from pipeline.core.durations import to_nanoseconds
from pipeline.core.trading_calendar import Calendar
from pipeline.core.types import Partition
from pipeline.decode import REPEATED_HOUR, Columns
from pipeline.windows.aggregation import AggregationBuffer
from pipeline.windows.aggregation_plan import AggregationPlan
from pipeline.windows.event_sessions import EventRows, EventSessions, values_of
from pipeline.windows.event_time_kernels import (
    DUPLICATE,
    LATE,
    NEVER,
    SCORED,
    SUPERSEDED,
    admit_points,
    counters_to_rates,
    fill_gaps,
    mark_superseded,
)
from pipeline.windows.reorder_buffer import ReorderBuffer
from pipeline.windows.repeated_hour import tell_apart

__all__ = [
    "DUPLICATE",
    "LATE",
    "MAX_FILLED_POINTS",
    "SCORED",
    "SUPERSEDED",
    "Admitted",
    "EventTimeProcessor",
    "PartitionBuffer",
]

MAX_FILLED_POINTS = 100

#: Buffered points of one partition.
PartitionBuffer = ReorderBuffer | AggregationBuffer


EVENTS_VERSION = "events-1"


@dataclass(slots=True)
class Admitted:
    """Outcome of N ready points.

    outcome  (N,) uint8  SCORED, LATE, DUPLICATE of a scored point, or SUPERSEDED by a later record
    points   M points for the detector: the scored ones, and the filled ones of gaps
    row      (M,) int64  index of the point among the N, −1 for a filled one
    seq      (M,) int64  number of the point in its series, from 1; a filled one has that of the real point before it
    restart  (M,) bool   the series is reset before this point
    offset, ends (M,)    of events only: offset of each row, and whether it is the end of a session
    newest   (N,) int64  newest time of the series before each point, ns; None for events
    """

    outcome: NDArray[np.uint8]
    points: Points
    row: NDArray[np.int64]
    seq: NDArray[np.int64]
    restart: NDArray[np.bool_]
    offset: NDArray[np.int64] | None = None
    ends: NDArray[np.bool_] | None = None
    newest: NDArray[np.int64] | None = None

    def followed_by(self, other: Admitted) -> Admitted:
        """Return these rows followed by those of ``other``."""

        def both(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(self, name), getattr(other, name)])

        points = Points(
            *(np.concatenate([getattr(one.points, f.name) for one in (self, other)]) for f in fields(Points))
        )
        rest = (both(name) for name in ("row", "seq", "restart", "offset", "ends"))
        return Admitted(self.outcome, points, *rest)

    def offsets(self, ready: Columns) -> NDArray[np.int64]:
        """Return the offset of each point (M,), −1 for a filled one."""
        if self.offset is not None:
            return self.offset
        if not len(ready):
            return np.empty(0, np.int64)
        return np.where(self.row >= 0, ready.offsets[self.row], -1)


class EventTimeProcessor:
    """Event-time rules of one stream.

    State is passed in: a ``PartitionBuffer`` by partition, arrays by slot (changed in place).
    """

    #: Version of the arrays of ``initial`` and of the form of ``dump``.
    version = "1"

    def __init__(self, stream: Stream) -> None:
        every = stream.aggregate.every if stream.aggregate else stream.every
        self._stream = stream
        self._lateness = to_nanoseconds(stream.lateness)
        self._fixed = to_nanoseconds(every) if every else 0
        self._counters = np.array([stream.channels.index(c) for c in stream.counters], np.int64)
        self._fills = stream.gap.policy != "gap"
        self._restart_after = stream.gap.restart_after
        calendar = Calendar.of(stream.calendar) if stream.calendar else Calendar.always()
        self._plan = AggregationPlan.of(stream) if stream.aggregate else None
        self.sessions = EventSessions(stream) if stream.of_events else None
        if self.sessions is not None:
            self.version = EVENTS_VERSION
        self._market = (calendar.sessions, calendar.opens, calendar.closes, calendar.opened)

    @property
    def counts_silence(self) -> bool:
        """True if an interval without a record has a point."""
        return self._plan is not None and self._plan.tells_silence

    # ------------------------------------------------------------------------------------------------ by partition

    def empty(self, partition: Partition) -> PartitionBuffer:
        """Return the buffer of a partition before its first record."""
        return (
            ReorderBuffer.empty(partition, self._lateness)
            if self._plan is None
            else AggregationBuffer(partition, self._plan)
        )

    def push(self, waiting: PartitionBuffer, columns: Columns) -> tuple[PartitionBuffer, Columns]:
        """Buffer decoded points, and return the ready ones in the order of admission."""
        pushed, ready = waiting.push(columns)
        if self.sessions is not None and isinstance(waiting, ReorderBuffer) and len(columns):
            ready.watermark = waiting.watermarks(columns, ready)
        return pushed, ready

    def flush(self, waiting: PartitionBuffer) -> tuple[PartitionBuffer, Columns]:
        """Return all buffered points: the input has ended."""
        waiting, ready = waiting.flush()
        return waiting, Columns.empty(
            waiting.partition, len(self._stream.channels)
        ) if ready is None else ready

    def dump(self, waiting: PartitionBuffer) -> bytes:
        """Return a partition's buffer as a safetensors page; ``load`` is the inverse."""
        arrays, keys = waiting.to_arrays()
        arrays["keys"] = np.frombuffer(json.dumps(keys).encode(), np.uint8)
        return save_tensors({name: np.ascontiguousarray(array) for name, array in arrays.items()})

    def load(self, partition: Partition, page: bytes) -> PartitionBuffer:
        """Return the buffer of a page that ``dump`` wrote."""
        arrays = load_tensors(page)
        keys = json.loads(arrays.pop("keys").tobytes())
        if self._plan is None:
            return ReorderBuffer.from_arrays(partition, self._lateness, arrays, keys)
        return AggregationBuffer.from_arrays(partition, self._plan, arrays, keys)

    # ------------------------------------------------------------------------------------------------ by series

    def initial(self, n: int) -> State:
        """Return the state of ``n`` series before their first point."""
        state: State = {
            "last_time": np.full(n, NEVER, np.int64),
            "seq": np.zeros(n, np.int64),
            "cadence": np.zeros((n, 3), np.int64),
        }
        if len(self._counters):
            state["total"] = np.zeros((n, len(self._counters)))
            state["total_time"] = np.full((n, len(self._counters)), NEVER, np.int64)
        if self.sessions is not None:
            state |= self.sessions.initial(n)
        if self._fills:
            state["value"] = np.full((n, len(self._stream.channels)), np.nan)
        return state

    def admit(self, state: State, slots: NDArray[np.int32], ready: Columns) -> Admitted:
        """Decide the outcome of every ready point, and return the detector's points of the scored ones.

        ``slots`` is (N,). ``state`` is changed in place.
        """
        self._tell_apart(state, slots, ready)
        if self.sessions is not None:
            return events_admitted(self.sessions.admit(state, slots, ready), ready)
        return self._admit_numbers(state, slots, ready)

    def _admit_numbers(self, state: State, slots: NDArray[np.int32], ready: Columns) -> Admitted:
        n = len(ready)
        outcome = np.empty(n, np.uint8)
        before, every, number = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
        missed = np.empty(n, np.int32)
        superseded = np.empty(0 if ready.release is None else n, np.bool_)
        if ready.release is not None:
            mark_superseded(
                slots, ready.time, ready.release, np.empty(len(state["seq"]), np.int32), superseded
            )
        by_slot = state["last_time"], state["seq"], state["cadence"]
        scored = admit_points(
            *by_slot,
            slots,
            ready.time,
            superseded,
            self._fixed,
            self._market,
            outcome,
            before,
            missed,
            every,
            number,
        )
        newest = before
        row = np.arange(n) if scored == n else np.flatnonzero(outcome == SCORED)
        if scored == n:
            points = Points(slots, ready.time, ready.values, missed, every)
        else:
            points = Points(slots[row], ready.time[row], ready.values[row], missed[row], every[row])
            before, number = before[row], number[row]
        limit = self._restart_after
        restart = points.missed >= limit if limit else np.zeros(scored, bool)
        if len(self._counters):
            points.values = np.array(points.values)
            counters_to_rates(
                state["total"],
                state["total_time"],
                self._counters,
                points.slot,
                points.time,
                restart,
                points.values,
            )
        admitted = Admitted(outcome, points, row, number, restart, newest=newest)
        return self._filled(state["value"], admitted, before) if self._fills else admitted

    def end_sessions(
        self, state: State, slots: NDArray[np.int32], watermark_ns: int, admitted: Admitted
    ) -> Admitted:
        """End the sessions that the watermark has passed.

        Their ends follow the rows of the batch.

        Args:
            state: Arrays by slot, changed in place.
            slots: Series of the partition.
            watermark_ns: Watermark of the partition.
            admitted: The batch of events.
        """
        assert self.sessions is not None
        slot, time = self.sessions.end_idle(state, slots, watermark_ns)
        if not len(slot):
            return admitted
        offset, seq = state["last_offset"][slot], state["seq"][slot]
        ends = events_admitted(
            EventRows(admitted.outcome, np.full(len(slot), -1), slot, time, offset, seq), None
        )
        return admitted.followed_by(ends)

    def _tell_apart(self, state: State, slots: NDArray[np.int32], ready: Columns) -> None:
        """Move the times of the second reading of a repeated hour."""
        if (shift := ready.extra.get(REPEATED_HOUR)) is not None:
            ready.time = tell_apart(
                ready.time, slots, shift.astype(np.int64), state["last_time"], state["cadence"], self._fixed
            )

    def _filled(self, value: NDArray[np.float64], admitted: Admitted, before: NDArray[np.int64]) -> Admitted:
        """Return ``admitted`` with its gaps filled."""
        points = admitted.points
        extra = np.where((points.missed <= MAX_FILLED_POINTS) & ~admitted.restart, points.missed, 0)
        m = len(points) + int(extra.sum())
        index, time, values = (
            np.empty(m, np.int64),
            np.empty(m, np.int64),
            np.empty((m, points.values.shape[1])),
        )
        gap = before, points.missed, points.every
        fill_gaps(
            value,
            points.slot,
            points.time,
            *gap,
            points.values,
            extra,
            self._stream.gap.policy == "linear",
            self._market,
            index,
            time,
            values,
        )
        real = index >= 0
        source = np.where(real, index, -1 - index)
        missed = np.where(real & (extra[source] == 0), points.missed[source], 0).astype(np.int32)
        return Admitted(
            outcome=admitted.outcome,
            points=Points(points.slot[source], time, values, missed, points.every[source]),
            row=np.where(real, admitted.row[source], -1),
            seq=admitted.seq[source] - ~real,
            restart=real & admitted.restart[source],
            newest=admitted.newest,
        )


def events_admitted(rows: EventRows, ready: Columns | None) -> Admitted:
    """Return rows of events as an outcome; ``ready`` None: all rows are ends."""
    nothing = np.zeros(len(rows.row), np.int32)
    points = Points(rows.slot, rows.time, values_of(rows, ready), nothing, nothing.astype(np.int64))
    ends = rows.row < 0
    return Admitted(rows.outcome, points, rows.row, rows.seq, nothing.astype(np.bool_), rows.offset, ends)
