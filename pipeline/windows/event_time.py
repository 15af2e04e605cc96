"""Windows and time, in two stages: what waits for the watermark (by partition), and what each series makes of
a point (by slot).

The rules, in the order in which they are applied:

- *Reordering.* With a ``lateness`` points wait until the watermark reaches them and come out in the order of
their times (``pipeline.windows.reorder_buffer``).
  An ``aggregate`` waits instead until its interval is over (``pipeline.windows.aggregation``).
- *Duplicates.* Of points of one series and time that are let go together the last offset stands. Once a point
is scored it stands: a verdict
  is never taken back, and what comes later for that time is a duplicate.
- *Late.* A point older than the last scored one of its series is late: it is stored as such and not scored.
- *Cadence.* ``every``, or learned from the intervals by majority. The steps between two points beyond the
first are *missed*; a market that is
  closed misses nothing.
- *Gaps.* ``gap``: the detector is told. ``hold`` and ``linear``: up to MOST_FILLED missed points are filled
in just before the next real one
  (a longer gap is left as it is). ``restart_after``: that many missed points begin the series anew.
- *Counters* become rates per second over the time since the last known total. The first total and the first
after a reset give a missing
  value: how much was counted before a reset, nobody knows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from detectors.base import Points, State
from pipeline.config.schema import Stream
from pipeline.core.durations import to_nanoseconds
from pipeline.core.trading_calendar import Calendar
from pipeline.core.types import Partition
from pipeline.decode import Columns
from pipeline.windows.aggregation import AggregationBuffer
from pipeline.windows.aggregation_plan import AggregationPlan
from pipeline.windows.event_time_kernels import DUPLICATE, LATE, NEVER, SCORED, admit, fill, rate, supersede
from pipeline.windows.reorder_buffer import ReorderBuffer

__all__ = ["DUPLICATE", "LATE", "MOST_FILLED", "SCORED", "Admitted", "EventTimeProcessor", "PartitionBuffer"]

MOST_FILLED = 100

#: What a partition holds back.
PartitionBuffer = ReorderBuffer | AggregationBuffer


@dataclass(slots=True)
class Admitted:
    """What became of N ready points.

    outcome  (N,) uint8  SCORED, LATE or DUPLICATE
    points   M points for the detector: the scored ones, and those that gaps are filled with
    row      (M,) int64  which of the N a point is, −1 if it was filled in
    seq      (M,) int64  number of the point in its series, from 1; a filled one has the number of the real point before it
    restart  (M,) bool   the series begins anew with this point
    """

    outcome: NDArray[np.uint8]
    points: Points
    row: NDArray[np.int64]
    seq: NDArray[np.int64]
    restart: NDArray[np.bool_]


class EventTimeProcessor:
    """The rules of one stream.

    State is passed in: ``PartitionBuffer`` by partition, arrays by slot (changed in place).
    """

    #: Changes whenever the arrays of ``initial`` or the form of ``dump`` change in meaning.
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
        self._market = (calendar.sessions, calendar.opens, calendar.closes, calendar.opened)

    # ------------------------------------------------------------------------------------------------ by partition

    def empty(self, partition: Partition) -> PartitionBuffer:
        """The state of a partition of which nothing was read."""
        return (
            ReorderBuffer(partition, self._lateness)
            if self._plan is None
            else AggregationBuffer(partition, self._plan)
        )

    def push(self, waiting: PartitionBuffer, columns: Columns) -> tuple[PartitionBuffer, Columns]:
        """Take decoded points in, give those that are ready, in the order in which they are to be admitted."""
        return waiting.push(columns)

    def flush(self, waiting: PartitionBuffer) -> tuple[PartitionBuffer, Columns]:
        """Give everything that waits: the input is over."""
        waiting, ready = waiting.flush()
        return waiting, Columns.empty(
            waiting.partition, len(self._stream.channels)
        ) if ready is None else ready

    def dump(self, waiting: PartitionBuffer) -> bytes:
        """A partition's state as a safetensors page; ``load`` reads it back."""
        arrays, keys = waiting.to_arrays()
        arrays["keys"] = np.frombuffer(json.dumps(keys).encode(), np.uint8)
        return save_tensors({name: np.ascontiguousarray(array) for name, array in arrays.items()})

    def load(self, partition: Partition, page: bytes) -> PartitionBuffer:
        """The inverse of ``dump``."""
        arrays = load_tensors(page)
        keys = json.loads(arrays.pop("keys").tobytes())
        if self._plan is None:
            return ReorderBuffer.from_arrays(partition, self._lateness, arrays, keys)
        return AggregationBuffer.from_arrays(partition, self._plan, arrays, keys)

    # ------------------------------------------------------------------------------------------------ by series

    def initial(self, n: int) -> State:
        """State of ``n`` series of which nothing is known."""
        state: State = {
            "last_time": np.full(n, NEVER, np.int64),
            "seq": np.zeros(n, np.int64),
            "cadence": np.zeros((n, 3), np.int64),
        }
        if len(self._counters):
            state["total"] = np.zeros((n, len(self._counters)))
            state["total_time"] = np.full((n, len(self._counters)), NEVER, np.int64)
        if self._fills:
            state["value"] = np.full((n, len(self._stream.channels)), np.nan)
        return state

    def admit(self, state: State, slots: NDArray[np.int32], ready: Columns) -> Admitted:
        """Give every ready point (slots (N,)) its outcome, and make the detector's points of those that are
        scored.
        """
        n = len(ready)
        outcome = np.empty(n, np.uint8)
        before, every, number = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
        missed = np.empty(n, np.int32)
        superseded = np.empty(0 if ready.release is None else n, np.bool_)
        if ready.release is not None:
            supersede(slots, ready.time, ready.release, np.empty(len(state["seq"]), np.int32), superseded)
        by_slot = state["last_time"], state["seq"], state["cadence"]
        scored = admit(
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
            rate(
                state["total"],
                state["total_time"],
                self._counters,
                points.slot,
                points.time,
                restart,
                points.values,
            )
        admitted = Admitted(outcome, points, row, number, restart)
        return self._filled(state["value"], admitted, before) if self._fills else admitted

    def _filled(self, value: NDArray[np.float64], admitted: Admitted, before: NDArray[np.int64]) -> Admitted:
        """The same with filled gaps."""
        points = admitted.points
        extra = np.where((points.missed <= MOST_FILLED) & ~admitted.restart, points.missed, 0)
        m = len(points) + int(extra.sum())
        index, time, values = (
            np.empty(m, np.int64),
            np.empty(m, np.int64),
            np.empty((m, points.values.shape[1])),
        )
        gap = before, points.missed, points.every
        fill(
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
        )
