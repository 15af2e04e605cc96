"""Suppression of alerts: silences, added by hand or planned, and faults of the source."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import NamedTuple
from zoneinfo import ZoneInfo

import structlog

from pipeline.alerts.routing.matchers import Matcher, compile_matcher
from pipeline.alerts.routing.silence_calendar import (
    SilenceCalendar,
    SilenceWindow,
    cron_window,
    cron_windows,
)
from pipeline.config.alerts import AlertsConfig, SilenceConfig
from pipeline.core.durations import SECOND_NS
from pipeline.core.errors import ConfigError
from pipeline.core.types import Fault, FaultKind, Partition
from storage.alerting import silences

log = structlog.get_logger(__name__)

#: Faults of the source, which can cause anomalies while they last.
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
_FAULT_RECHECK_NS = 10 * SECOND_NS
_PLANNED_CACHE_NS = 5 * SECOND_NS
MAX_PLANNED_WINDOWS = 500


class Suppression(NamedTuple):
    """Cause of a suppression (silence:<name> or fault:<kind>), and when to evaluate again."""

    by: str
    until_ns: int


class _InForce(NamedTuple):
    """A silence in force."""

    name: str
    matches: Matcher
    until_ns: int


class PlannedSilences:
    """Silences of a stream's configuration, evaluated at most every five seconds."""

    def __init__(self, config: AlertsConfig) -> None:
        self._planned = {
            name: (s, compile_matcher(s.match), _calendar(s)) for name, s in config.silences.items()
        }
        self._cached: tuple[int, list[_InForce]] | None = None
        self._problems: dict[str, str] = {}  # silence → reason why it is not in force

    def in_force(self, now_ns: int) -> list[_InForce]:
        """Return the silences that are in force at ``now_ns``."""
        if self._cached is None or not 0 <= now_ns - self._cached[0] < _PLANNED_CACHE_NS:
            self._cached = (now_ns, self._evaluate(now_ns))
        return self._cached[1]

    def _evaluate(self, now_ns: int) -> list[_InForce]:
        now = datetime.fromtimestamp(now_ns / SECOND_NS, UTC)
        found = []
        for name, (silence, matches, calendar) in self._planned.items():
            try:
                window = _window(silence, calendar, now)
            except ConfigError as error:
                # An alert too many is better than none.
                if self._problems.get(name) != str(error):
                    log.error("a planned silence is not in force", silence=name, error=str(error))
                self._problems[name] = str(error)
                continue
            self._problems.pop(name, None)
            if window is not None:
                found.append(_InForce(name, matches, round(window.end.timestamp() * SECOND_NS)))
        return found


class Silencing:
    """Silences and source faults of one stream at one moment."""

    def __init__(
        self, planned: Sequence[_InForce], manual: Sequence[silences.ManualSilence], faults: Sequence[Fault]
    ) -> None:
        self._silences = [
            *planned,
            *(_InForce(s.id.hex[:8], compile_matcher(s.match), s.ends_ns) for s in manual),
        ]
        self._faults = [f for f in faults if f.kind in SOURCE_FAULTS]

    @property
    def any_silence(self) -> bool:
        return bool(self._silences)

    @property
    def any_fault(self) -> bool:
        return bool(self._faults)

    def silence_of(self, known: Mapping[str, str]) -> Suppression | None:
        """Return the silence that matches these fields; the last to end if there are several."""
        found = [Suppression(f"silence:{s.name}", s.until_ns) for s in self._silences if s.matches(known)]
        return max(found, key=lambda s: s.until_ns, default=None)

    def source_fault(
        self, partitions: Collection[Partition], committed_ns: int, now_ns: int
    ) -> Suppression | None:
        """Return a fault of the source if every one of ``partitions`` has one that began before.

        Args:
            partitions: Partitions of the anomalies of an alert.
            committed_ns: Time at which the batch of its first anomaly was committed.
            now_ns: The time, ns since the epoch.
        """
        before = [f for f in self._faults if f.started_ns <= committed_ns]
        causes = [next((f for f in before if f.affects(p)), None) for p in sorted(partitions)]
        if not causes or causes[0] is None or None in causes:
            return None
        return Suppression(f"fault:{causes[0].kind}", now_ns + _FAULT_RECHECK_NS)


def _calendar(silence: SilenceConfig) -> SilenceCalendar | None:
    return None if silence.calendar is None else SilenceCalendar(silence.calendar, ZoneInfo(silence.timezone))


class PlannedWindow(NamedTuple):
    """A time in which a silence of the configuration is in force."""

    name: str
    start: datetime
    end: datetime


def planned_windows(config: AlertsConfig, span: SilenceWindow) -> tuple[list[PlannedWindow], dict[str, str]]:
    """Return the times of planned silences, and why some are never in force.

    Args:
        config: Alerts of the stream.
        span: Time that the windows overlap. Of each silence the first ``MAX_PLANNED_WINDOWS`` are returned.
    """
    found, problems = [], {}
    for name, silence in config.silences.items():
        zone = ZoneInfo(silence.timezone)
        windows: Iterable[SilenceWindow] = ()
        try:
            if silence.calendar is not None:
                windows = SilenceCalendar(silence.calendar, zone).windows(span)
            elif silence.cron is not None and silence.for_ is not None:
                windows = cron_windows(silence.cron, silence.for_, zone, span)
        except ConfigError as error:
            problems[name] = str(error)
        found += [PlannedWindow(name, *one) for one in islice(windows, MAX_PLANNED_WINDOWS)]
    return found, problems


def _window(silence: SilenceConfig, calendar: SilenceCalendar | None, now: datetime) -> SilenceWindow | None:
    if calendar is not None:
        return calendar.window(now)
    assert silence.cron is not None
    assert silence.for_ is not None
    return cron_window(silence.cron, silence.for_, ZoneInfo(silence.timezone), now)
