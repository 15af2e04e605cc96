"""Sessions of events: the events that are scored, and the ends of sessions.

A session ends at the time of its last event plus ``idle``, or with an event that ends sessions. Its end is a
row of its own among the events, judged like one. An end by ``idle`` is found by the next event of the series
or by the watermark of the partition, whichever is first, and has the same time in both cases. An event that
is older than the end of its session is late. So the rows do not depend on how records were cut into batches.

Events of one series may have equal times: they stay in the order in which they were written.
"""

# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001
from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detectors.base import State
from detectors.sequences.code_numbers import END_NUMBER, code_numbers
from pipeline.config.schema import Stream
from pipeline.core.durations import to_nanoseconds
from pipeline.decode import Columns
from pipeline.windows.event_time_kernels import LATE, SCORED

#: Rows that one event can make: the end of the session before, the event, the end of its own session.
MAX_ROWS_OF_EVENT: Final = 3
#: Watermark behind every end.
FOREVER: Final = np.iinfo(np.int64).max


@dataclass(slots=True)
class EventRows:
    """Rows of N ready events and of the ends of sessions, M in all.

    Rows of one series are in the order of time.

    outcome  (N,) uint8  SCORED or LATE
    row      (M,) int64  index of the event among the N, −1 for the end of a session
    slot, time, offset, seq (M,); an end has offset and number of the last event of its session
    """

    outcome: NDArray[np.uint8]
    row: NDArray[np.int64]
    slot: NDArray[np.int32]
    time: NDArray[np.int64]
    offset: NDArray[np.int64]
    seq: NDArray[np.int64]


class EventSessions:
    """Sessions of one stream. State by slot is passed in and changed in place."""

    def __init__(self, stream: Stream) -> None:
        """Read the settings of a stream."""
        settings = stream.event_settings
        self.idle_ns = 0 if settings.idle is None else to_nanoseconds(settings.idle)
        self._end_numbers = code_numbers(settings.end)

    @staticmethod
    def initial(n: int) -> State:
        """Return the further state of ``n`` series before their first event."""
        return {"last_offset": np.full(n, -1, np.int64), "open": np.zeros(n, np.bool_)}

    def admit(self, state: State, slots: NDArray[np.int32], ready: Columns) -> EventRows:
        """Return the rows of ready events, and the ends that come before or with them."""
        n, most = len(ready), MAX_ROWS_OF_EVENT * len(ready)
        outcome = np.empty(n, np.uint8)
        row, time, offset, seq = (np.empty(most, np.int64) for _ in range(4))
        slot = np.empty(most, np.int32)
        watermark = np.full(n, -1) if ready.watermark is None else ready.watermark
        m = _admit_events(
            (state["last_time"], state["seq"], state["last_offset"], state["open"]),
            (slots, ready.time, ready.offsets, watermark, np.isin(ready.values[:, 0], self._end_numbers)),
            self.idle_ns,
            (outcome, row, slot, time, offset, seq),
        )
        return EventRows(outcome, row[:m], slot[:m], time[:m], offset[:m], seq[:m])

    def end_idle(
        self, state: State, slots: NDArray[np.int32], watermark_ns: int
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """End the sessions of ``slots`` that the watermark has passed.

        Returns their slots and the times of their ends, in the order of time.
        """
        ends = state["last_time"][slots] + self.idle_ns
        over = state["open"][slots] & (ends < watermark_ns)
        ended, time = slots[over], ends[over]
        order = np.lexsort((state["last_offset"][ended], time))
        ended, time = ended[order], time[order]
        state["open"][ended], state["last_time"][ended] = False, time
        return ended, time

    def first_end(self, state: State, slots: NDArray[np.int32]) -> int:
        """Return the time of the next end of a session of ``slots``, FOREVER without one."""
        times = state["last_time"][slots][state["open"][slots]]
        return int(times.min()) + self.idle_ns if len(times) and self.idle_ns else FOREVER


def values_of(rows: EventRows, ready: Columns | None) -> NDArray[np.float64]:
    """Return the numbers of the codes (M, 1), that of the end for an end."""
    numbers = np.full((len(rows.row), 1), END_NUMBER)
    if ready is not None:
        events = rows.row >= 0
        numbers[events] = ready.values[rows.row[events]]
    return numbers


@njit(cache=True)
def _admit_events(state, events, idle, out):
    last_time, seq, last_offset, is_open = state
    slots, time, offsets, watermark, ends_session = events
    outcome, row, slot, at, offset, number = out
    m = 0
    for i in range(len(slots)):
        s, t = slots[i], time[i]
        if idle > 0 and is_open[s]:
            end = last_time[s] + idle
            if t > end or watermark[i] > end:
                row[m], slot[m], at[m], offset[m], number[m] = -1, s, end, last_offset[s], seq[s]
                m += 1
                last_time[s], is_open[s] = end, False
        if t < last_time[s]:
            outcome[i] = LATE
            continue
        outcome[i] = SCORED
        seq[s] += 1
        last_time[s], last_offset[s], is_open[s] = t, offsets[i], True
        row[m], slot[m], at[m], offset[m], number[m] = i, s, t, offsets[i], seq[s]
        m += 1
        if ends_session[i]:
            row[m], slot[m], at[m], offset[m], number[m] = -1, s, t, offsets[i], seq[s]
            m += 1
            is_open[s] = False
    return m
