"""One alarm per event: a row alarms when it is rare enough and rarer than what the last alarm already told.

After an alarm of level L at age a only surprise above ``REPEAT`` · L · (1 − a / R) passes, where R is
``SHARE`` of the rows seen so far, at most ``LONGEST``. What does not pass keeps its order but stays below the
threshold, between ``NEAR`` of it and it: that the event still lasts can be read off the surprise (hysteresis:
``pipeline.scoring.anomaly_tracker`` keeps the anomaly open). ``rows`` is a least length: so many rows in a
row must be rare enough before one alarms.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.channel_batch import Floats, Ints
from detectors.jit import kernel

REPEAT = 1.3
SHARE = 0.12
LONGEST = 1000.0
NEAR = 0.9
CEILING = 15.0  # 1 − 10^−15 is still a float64 below 1
ROWS, LEVEL, AGE, RUN = range(4)


class Event:
    """State: 16 bytes a series."""

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
        usual: Floats,
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Raw surprise (N,), of it what may repeat (N,), whether the rules allow an alarm (N,), the rate of
        alarms that is usual for such numbers (N,)
        → surprise below or above the threshold (N,), flag (N,)."""
        threshold = np.minimum(np.float32(self.threshold), -np.log10(usual))
        surprise, flag = np.empty(len(slot), np.float32), np.zeros(len(slot), np.bool_)
        _event(state["event.alarm"], threshold, self.rows, slot, raw, repeats, allowed, surprise, flag)
        return surprise, flag


@kernel
def _event(alarm, thresholds, rows, slot, raw, repeats, allowed, surprise, flag):  # type: ignore[no-untyped-def]  # noqa: ANN001
    for i in range(len(slot)):
        a, threshold = alarm[slot[i]], thresholds[i]
        a[ROWS] += 1
        a[AGE] += 1
        u = raw[i]
        a[RUN] = a[RUN] + 1 if u >= threshold else 0.0
        gate = REPEAT * a[LEVEL] * (1 - a[AGE] / (min(SHARE * a[ROWS], LONGEST) + 1)) if a[LEVEL] > 0 else 0.0
        if u >= threshold and allowed[i] and a[RUN] >= rows and (u > gate or repeats[i] >= threshold):
            flag[i] = True
            if u > gate:
                a[LEVEL], a[AGE] = u, 0.0
        elif u > NEAR * threshold:
            u = threshold * (1 - (1 - NEAR) / (1 + u - NEAR * threshold))
        if u > 8:
            u = 8 + (CEILING - 8) * (1 - np.exp(-(u - 8) / (CEILING - 8)))
        surprise[i] = u
