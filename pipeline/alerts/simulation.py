"""Simulation of the alerts of past anomalies (`forewatch alerts test`); nothing is sent.

The router runs with a simulated clock on a temporary database. The deliveries that it queues there are those
that would have been sent.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

from sqlalchemy import Connection

from pipeline.alerts.factory import router_of
from pipeline.alerts.messages.payload import Payload, decode
from pipeline.alerts.outbox import OutboxWriter, decode_anomaly
from pipeline.config.schema import Config
from pipeline.core.durations import SECOND_NS, to_nanoseconds
from pipeline.core.types import Anomaly, AnomalyState, Fault
from storage.alerting import alerts, deliveries, outbox
from storage.alerting.states import AlertKind, EventKind, SuppressionReason, Urgency
from storage.results import faults
from storage.sql.database import Database

_DAY_NS = 86_400 * SECOND_NS


@dataclass(slots=True)
class StreamReport:
    """Simulated counts of one stream; ``event_results`` are its events by state or reason."""

    anomalies: int = 0
    event_results: Counter[str] = field(default_factory=Counter)
    pages: int = 0
    budget_per_day: float | None = None


@dataclass(slots=True)
class SimulationReport:
    """Result of a simulation, in order of time.

    ``sent``: (endpoint, time in ns, payload). ``dropped``: (time in ns, reason, anomaly) of anomalies in no
    message.
    """

    days: float
    streams: dict[str, StreamReport]
    sent: list[tuple[str, int, Payload]]
    dropped: list[tuple[int, str, Anomaly]]


def simulate(
    config: Config,
    anomalies: Sequence[Anomaly],
    past_faults: Sequence[Fault],
    since_ns: int,
    until_ns: int,
    commits: Mapping[UUID, int] | None = None,
) -> SimulationReport:
    """Route the anomalies and faults between two times again.

    An anomaly is opened at its peak and closed at its last flagged point. The delay until its batch was
    committed is simulated only where it was longer than ``max_age``: the anomalies of a backlog are not sent.

    Args:
        config: Configuration whose rules are simulated.
        anomalies: Anomalies of its streams.
        past_faults: Faults of its streams.
        since_ns: Beginning of the simulated time.
        until_ns: End of the simulated time.
        commits: Anomaly → time of its first commit in ns; anomalies that are missing had no delay.
    """
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder)}/simulation.db")
        database.upgrade()
        try:
            simulator = _Simulator(config, database, commits or {})
            simulator.run(sorted(_timed_records(anomalies, past_faults), key=lambda h: h[0]), until_ns)
            return simulator.report(anomalies, since_ns, until_ns)
        finally:
            database.close()


def _timed_records(
    anomalies: Iterable[Anomaly], past_faults: Iterable[Fault]
) -> Iterable[tuple[int, Anomaly | Fault]]:
    for anomaly in anomalies:
        # The state at the beginning is not stored; that of the peak is.
        yield anomaly.peak_ns, replace(anomaly, state=AnomalyState.OPEN, revision=1, end_ns=anomaly.peak_ns)
        if anomaly.state is AnomalyState.CLOSED:
            yield anomaly.end_ns, replace(anomaly, revision=2)
    for fault in past_faults:
        yield fault.started_ns, replace(fault, ended_ns=None)
        if fault.ended_ns is not None:
            yield fault.ended_ns, fault


class _Simulator:
    """Router on a temporary database with a simulated clock."""

    def __init__(self, config: Config, database: Database, commits: Mapping[UUID, int]) -> None:
        self._config = config
        self._database = database
        self._commits = commits
        self._router = router_of(config)
        self._writers = {stream: OutboxWriter(stream, enabled=True) for stream in config.streams}
        with database.begin() as connection:
            outbox.ensure_streams(connection, self._router.streams)

    def run(self, records: Sequence[tuple[int, Anomaly | Fault]], until_ns: int) -> None:
        """Route (time, record) in order, and the timers between them, in one transaction for speed."""
        ends_ns = {r.id: r.end_ns for _, r in records if isinstance(r, Anomaly)}
        with self._database.begin() as connection:
            for now_ns, record in records:
                self._route_timers_until(connection, now_ns)
                writer = self._writers[record.stream]
                if isinstance(record, Fault):
                    faults.save(connection, record)
                    writer.on_faults(connection, [record], now_ns)
                else:
                    writer.on_changes(
                        connection, [record], max(now_ns, self._late_commit_ns(record, ends_ns[record.id]))
                    )
                self._router.route(connection, record.stream, now_ns)
            self._route_timers_until(connection, until_ns)

    def _late_commit_ns(self, anomaly: Anomaly, end_ns: int) -> int:
        """Return when the anomaly of a backlog was committed; 0 for one that is not too old."""
        max_age, committed_ns = (
            self._config.streams[anomaly.stream].alerts.max_age,
            self._commits.get(anomaly.id, 0),
        )
        too_old = max_age is not None and committed_ns - end_ns > to_nanoseconds(max_age)
        return committed_ns if too_old else 0

    def _route_timers_until(self, connection: Connection, now_ns: int) -> None:
        while (timer := alerts.next_timer(connection)) is not None and timer[0] <= now_ns:
            self._router.route(connection, timer[1], timer[0])

    def report(self, anomalies: Sequence[Anomaly], since_ns: int, until_ns: int) -> SimulationReport:
        """Return the counts, messages and dropped anomalies of the simulation."""
        streams = {name: StreamReport() for name in self._config.streams}
        for anomaly in anomalies:
            streams[anomaly.stream].anomalies += 1
        with self._database.read() as connection:
            for (stream, result), count in outbox.count_by_stream(connection).items():
                if stream in streams:
                    streams[stream].event_results[result] += count
            for alert in alerts.query(connection):
                if (
                    alert.stream in streams
                    and alert.urgency == Urgency.PAGE
                    and alert.kind == AlertKind.DATA
                    and alert.sent_ns is not None
                ):
                    streams[alert.stream].pages += 1
            queued = deliveries.query(connection)
            sent = [
                (d.endpoint, d.created_ns, decode(deliveries.body_of(connection, d.notification_id) or ""))
                for d in queued
            ]
            dropped = _dropped(connection)
        for name, configured in self._config.streams.items():
            streams[name].budget_per_day = (
                configured.alerts.budget.per_day if configured.alerts.budget is not None else None
            )
        return SimulationReport(
            max(until_ns - since_ns, 1) / _DAY_NS,
            streams,
            sorted(sent, key=lambda s: (s[1], s[0], s[2].data.sequence)),
            dropped,
        )


def _dropped(connection: Connection) -> list[tuple[int, str, Anomaly]]:
    """Return each anomaly in no message once, with the reason of its first suppressed event."""
    found: dict[UUID, tuple[int, str, Anomaly]] = {}
    for event, reason in outbox.suppressed(connection):
        if event.kind == EventKind.ANOMALY and reason != SuppressionReason.UNCHANGED:
            found.setdefault(event.subject, (event.created_ns, reason, decode_anomaly(event.body)))
    return list(found.values())
