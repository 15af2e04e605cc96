"""One alarm per event: a row is an alarm if it is rare, and clearly rarer than the last alarm.

After an alarm of surprise L, a rows ago, the gate opens for a surprise above ``GATE_FACTOR`` · L ·
(1 − a / R). R is ``GATE_SHARE_OF_ROWS`` of the rows seen so far, at most ``MAX_GATE_ROWS``.

The surprise of a row that the gate stops is compressed into the range between ``NEAR_SHARE`` of the threshold
and the threshold. It keeps its order, and it shows that the event lasts:
``pipeline.scoring.anomaly_tracker`` keeps the anomaly open on it (hysteresis).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.channel_batch import Floats, Ints
from detectors.jit import row_kernel

GATE_FACTOR = 1.3
GATE_SHARE_OF_ROWS = 0.12
MAX_GATE_ROWS = 1000.0
NEAR_SHARE = 0.9
MAX_LINEAR_SURPRISE = 8  # decades; a larger surprise is compressed towards MAX_SURPRISE
MAX_SURPRISE = 15.0  # decades; 1 − 10^−15 is still a float64 below 1
# Columns of "event.alarm".
ALARM_ROWS, ALARM_SURPRISE, ALARM_AGE, ALARM_RUN = range(4)


class EventGate:
    """The gate of each series. State: 16 bytes per series.

    ``rows`` consecutive rows must reach the threshold before one of them is an alarm.
    """

    def __init__(self, alarm_rate: float, rows: int = 1) -> None:
        self.rows = rows
        self.threshold = float(-np.log10(alarm_rate))

    def initial(self, n: int) -> State:
        return {"event.alarm": np.zeros((n, 4), np.float32)}

    def run(
        self,
        state: State,
        slot: Ints,
        raw: Floats,
        repeats: Floats,
        allowed: NDArray[np.bool_],
        min_alarm_rate: Floats,
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the surprise (N,) and the flag (N,) of each row; advance ``state`` in place.

        Args:
            state: the arrays of ``initial``.
            slot: series of each row (N,).
            raw: surprise of each row (N,).
            repeats: the part of ``raw`` for which each row is an event of its own (N,).
            allowed: rows at which the rules of the spec allow an alarm (N,).
            min_alarm_rate: lowest alarm rate of each row, whatever the spec says (N,).
        """
        threshold = np.minimum(np.float32(self.threshold), -np.log10(min_alarm_rate))
        surprise, flag = np.empty(len(slot), np.float32), np.zeros(len(slot), np.bool_)
        _event(state["event.alarm"], threshold, self.rows, slot, raw, repeats, allowed, surprise, flag)
        return surprise, flag


@row_kernel
def _event(alarm, thresholds, rows, slot, raw, repeats, allowed, surprise, flag):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(slot)):
        a, threshold = alarm[slot[i]], thresholds[i]
        a[ALARM_ROWS] += 1
        a[ALARM_AGE] += 1
        u = raw[i]
        a[ALARM_RUN] = a[ALARM_RUN] + 1 if u >= threshold else 0.0
        gate = (
            GATE_FACTOR
            * a[ALARM_SURPRISE]
            * (1 - a[ALARM_AGE] / (min(GATE_SHARE_OF_ROWS * a[ALARM_ROWS], MAX_GATE_ROWS) + 1))
            if a[ALARM_SURPRISE] > 0
            else 0.0
        )
        if u >= threshold and allowed[i] and a[ALARM_RUN] >= rows and (u > gate or repeats[i] >= threshold):
            flag[i] = True
            if u > gate:
                a[ALARM_SURPRISE], a[ALARM_AGE] = u, 0.0
        elif u > NEAR_SHARE * threshold:
            u = threshold * (1 - (1 - NEAR_SHARE) / (1 + u - NEAR_SHARE * threshold))
        if u > MAX_LINEAR_SURPRISE:
            room = MAX_SURPRISE - MAX_LINEAR_SURPRISE
            u = MAX_LINEAR_SURPRISE + room * (1 - np.exp(-(u - MAX_LINEAR_SURPRISE) / room))
        surprise[i] = u
