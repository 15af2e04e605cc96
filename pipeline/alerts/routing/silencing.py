"""Why an alert does not speak now: silences, set by hand or planned, and faults of its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from pipeline.alerts.routing.matchers import Test, compiled
from pipeline.alerts.routing.silence_calendar import Calendar, Window, cron_window
from pipeline.config.alerts import Alerts, Silence
from pipeline.core.durations import SECOND_NS
from pipeline.core.types import Fault, FaultKind, Partition
from storage.alerting import silences

#: Faults of the source: what the detector sees while one lasts may be the fault's doing.
SOURCE_FAULTS = frozenset(
    {
        FaultKind.RETENTION_GAP,
        FaultKind.TOPIC_RECREATED,
        FaultKind.STUCK_STREAM,
        FaultKind.SCHEMA_BREAK,
        FaultKind.CLOCK_SKEW,
        FaultKind.SOURCE_DOWN,
    }
)
_LOOK_AGAIN = 10 * SECOND_NS
_KEEP = 5 * SECOND_NS


class Hold(NamedTuple):
    """``by`` is silence:<name> or fault:<kind>; ``until_ns`` when to look again."""

    by: str
    until_ns: int


class _InForce(NamedTuple):
    name: str
    matches: Test
    until_ns: int


class PlannedSilences:
    """The silences of a stream's configuration. What is in force is worked out at most every five seconds."""

    def __init__(self, config: Alerts) -> None:
        self._planned = {name: (s, compiled(s.match), _calendar(s)) for name, s in config.silences.items()}
        self._worked_out: tuple[int, list[_InForce]] | None = None

    def in_force(self, now_ns: int) -> list[_InForce]:
        if self._worked_out is None or not 0 <= now_ns - self._worked_out[0] < _KEEP:
            self._worked_out = (now_ns, self._work_out(now_ns))
        return self._worked_out[1]

    def _work_out(self, now_ns: int) -> list[_InForce]:
        now = datetime.fromtimestamp(now_ns / SECOND_NS, UTC)
        found = []
        for name, (silence, matches, calendar) in self._planned.items():
            window = _window(silence, calendar, now)
            if window is not None:
                found.append(_InForce(name, matches, round(window.end.timestamp() * SECOND_NS)))
        return found


class Muting:
    """What is muted in one stream at one moment."""

    def __init__(
        self, planned: Sequence[_InForce], manual: Sequence[silences.Silence], faults: Sequence[Fault]
    ) -> None:
        self._silences = [*planned, *(_InForce(s.id.hex[:8], compiled(s.match), s.ends_ns) for s in manual)]
        self._faults = [f for f in faults if f.kind in SOURCE_FAULTS]

    @property
    def any_silence(self) -> bool:
        return bool(self._silences)

    @property
    def any_fault(self) -> bool:
        return bool(self._faults)

    def silenced(self, known: Mapping[str, str]) -> Hold | None:
        """The matching silence that ends last."""
        holds = [Hold(f"silence:{s.name}", s.until_ns) for s in self._silences if s.matches(known)]
        return max(holds, key=lambda h: h.until_ns, default=None)

    def at_fault(self, partition: Partition | None, created_ns: int, now_ns: int) -> Hold | None:
        """The fault of its source that an alert followed."""
        for fault in self._faults:
            if fault.started_ns <= created_ns and fault.partition in (None, partition):
                return Hold(f"fault:{fault.kind}", now_ns + _LOOK_AGAIN)
        return None


def _calendar(silence: Silence) -> Calendar | None:
    return None if silence.calendar is None else Calendar(silence.calendar, ZoneInfo(silence.timezone))


def _window(silence: Silence, calendar: Calendar | None, now: datetime) -> Window | None:
    if calendar is not None:
        return calendar.window(now)
    assert silence.cron is not None
    assert silence.for_ is not None
    return cron_window(silence.cron, silence.for_, ZoneInfo(silence.timezone), now)
