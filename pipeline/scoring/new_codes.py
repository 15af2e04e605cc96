"""Limit on the alarms of codes that the model has never seen.

After a release a new kind of event may come in every session, and a code that holds a number makes a new one
of each event. The first events of each new code are alarms. Further ones are scored without one.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.base import CAUSES, Verdicts

#: Alarms of one new code in a partition.
MAX_ALARMS_PER_CODE: Final = 3
#: Events of a partition that earn one alarm of a new code.
EVENTS_PER_ALARM: Final = 1000
#: Alarms of new codes that can follow each other at once.
MAX_ALARMS_AT_ONCE: Final = 100
#: Codes whose alarms are counted. Further ones have none.
MAX_COUNTED_CODES: Final = 4096
MAX_CREDIT_EVENTS: Final = MAX_ALARMS_AT_ONCE * EVENTS_PER_ALARM
#: Share of the limit that the surprise of an event without its alarm has at most.
SILENCED_SURPRISE_RATIO: Final = 0.85

_NEW_EVENT: Final = CAUSES.index("new_event")


class NewCodes:
    """Alarms of new codes in one partition, counted in the order of scoring."""

    def __init__(self) -> None:
        """Start with all credit."""
        self._alarms: dict[float, int] = {}
        self._credit = MAX_CREDIT_EVENTS
        #: A new code had no alarm for lack of credit, and half of the credit has not come back since.
        self.exhausted = False

    def limit(self, verdicts: Verdicts, numbers: NDArray[np.float64], rows: slice, alarm_rate: float) -> None:
        """Take back the alarms of the partition's ``rows`` that are over the limit.

        Args:
            verdicts: The batch, changed in place.
            numbers: (N,) number of the code of each event of the batch.
            rows: Rows of the partition.
            alarm_rate: That of the stream: its limit is −log10 of it.
        """
        at = rows.start
        new = np.flatnonzero(verdicts.flag[rows] & (verdicts.cause[rows] == _NEW_EVENT)) + rows.start
        for row in new.tolist():
            self._earn(row - at)
            at = row
            if not self._spend(float(numbers[row])):
                verdicts.flag[row] = False
                most = -SILENCED_SURPRISE_RATIO * np.log10(alarm_rate)
                verdicts.surprise[row] = min(float(verdicts.surprise[row]), most)
                verdicts.score[row] = 1.0 - 10.0 ** -float(verdicts.surprise[row])
        self._earn(rows.stop - at)

    def state(self) -> dict[str, Any]:
        """Return what ``restore`` needs, as JSON values."""
        alarms = list(self._alarms.items())
        return {"alarms": alarms, "credit": self._credit, "exhausted": self.exhausted}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self._alarms = {float(number): int(count) for number, count in state["alarms"]}
        self._credit, self.exhausted = int(state["credit"]), bool(state["exhausted"])

    def _earn(self, events: int) -> None:
        self._credit = min(self._credit + events, MAX_CREDIT_EVENTS)
        self.exhausted = self.exhausted and self._credit < MAX_CREDIT_EVENTS // 2

    def _spend(self, number: float) -> bool:
        """Return whether the code may have one more alarm."""
        count = self._alarms.get(number, 0)
        if count >= MAX_ALARMS_PER_CODE:
            return False
        full = not count and len(self._alarms) >= MAX_COUNTED_CODES
        if full or self._credit < EVENTS_PER_ALARM:
            self.exhausted = True
            return False
        self._alarms[number] = count + 1
        self._credit -= EVENTS_PER_ALARM
        return True
