"""`forewatch alerts test`: past anomalies go through the rules again, on a clock of their own, and nothing is
sent.

The router that runs is the real one, on a database of its own in a temporary folder: what it queues there is
what would have been sent.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

from sqlalchemy import Connection

from pipeline.alerts.factory import router_of
from pipeline.alerts.messages.payload import Payload, decode
from pipeline.alerts.outbox import OutboxWriter, decode_anomaly
from pipeline.config.schema import Config
from pipeline.core.durations import SECOND_NS
from pipeline.core.types import Anomaly, AnomalyState, Fault
from storage.alerting import alerts, deliveries, outbox
from storage.results import faults
from storage.sql.database import Database

_DAY = 86_400 * SECOND_NS


@dataclass(slots=True)
class StreamReport:
    """What the rules would have made of one stream. ``event_results``: what became of its events."""

    anomalies: int = 0
    event_results: Counter[str] = field(default_factory=Counter)
    pages: int = 0
    pages_per_day: float | None = None  # the budget


@dataclass(slots=True)
class SimulationReport:
    """``sent``: (endpoint, when, payload); ``dropped``: (when, why, anomaly) of those that nobody was told
    of; both in order of time.
    """

    days: float
    streams: dict[str, StreamReport]
    sent: list[tuple[str, int, Payload]]
    dropped: list[tuple[int, str, Anomaly]]


def simulate(
    config: Config, anomalies: Sequence[Anomaly], past_faults: Sequence[Fault], since_ns: int, until_ns: int
) -> SimulationReport:
    """Route what happened between two times anew.

    An anomaly begins with its first flagged point, is at its worst at its peak and is over with its last;
    that the router heard of it a batch later then does not matter here.
    """
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{Path(folder)}/rehearsal.db")
        database.upgrade()
        try:
            stage = _Stage(config, database)
            stage.play(sorted(_happenings(anomalies, past_faults), key=lambda h: h[0]), until_ns)
            return stage.report(anomalies, since_ns, until_ns)
        finally:
            database.close()


def _happenings(
    anomalies: Iterable[Anomaly], past_faults: Iterable[Fault]
) -> Iterable[tuple[int, Anomaly | Fault]]:
    for anomaly in anomalies:
        # What was known at the beginning is not kept; that it was at least as severe as to be flagged is.
        yield anomaly.peak_ns, replace(anomaly, state=AnomalyState.OPEN, revision=1, end_ns=anomaly.peak_ns)
        if anomaly.state is AnomalyState.CLOSED:
            yield anomaly.end_ns, replace(anomaly, revision=2)
    for fault in past_faults:
        yield fault.started_ns, replace(fault, ended_ns=None)
        if fault.ended_ns is not None:
            yield fault.ended_ns, fault


class _Stage:
    def __init__(self, config: Config, database: Database) -> None:
        self._config = config
        self._database = database
        self._router = router_of(config)
        self._outboxes = {stream: OutboxWriter(stream, enabled=True) for stream in config.streams}
        with database.begin() as connection:
            outbox.ensure_streams(connection, self._router.streams)

    def play(self, happenings: Sequence[tuple[int, Anomaly | Fault]], until_ns: int) -> None:
        """Let everything happen at its time, and timers run out in between; all in one transaction, for
        speed."""
        with self._database.begin() as connection:
            for now_ns, record in happenings:
                self._wait_until(connection, now_ns)
                outbox = self._outboxes[record.stream]
                if isinstance(record, Fault):
                    faults.save(connection, record)
                    outbox.on_faults(connection, [record], now_ns)
                else:
                    outbox.on_changes(connection, [record], now_ns)
                self._router.route(connection, record.stream, now_ns)
            self._wait_until(connection, until_ns)

    def _wait_until(self, connection: Connection, now_ns: int) -> None:
        while (timer := alerts.next_timer(connection)) is not None and timer[0] <= now_ns:
            self._router.route(connection, timer[1], timer[0])

    def report(self, anomalies: Sequence[Anomaly], since_ns: int, until_ns: int) -> SimulationReport:
        streams = {name: StreamReport() for name in self._config.streams}
        for anomaly in anomalies:
            streams[anomaly.stream].anomalies += 1
        with self._database.read() as connection:
            for (stream, fate), count in outbox.count_by_stream(connection).items():
                if stream in streams:
                    streams[stream].event_results[fate] += count
            for alert in alerts.query(connection):
                if (
                    alert.stream in streams
                    and alert.urgency == "page"
                    and alert.kind == "data"
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
            streams[name].pages_per_day = (
                configured.alerts.budget.per_day if configured.alerts.budget is not None else None
            )
        return SimulationReport(
            max(until_ns - since_ns, 1) / _DAY,
            streams,
            sorted(sent, key=lambda s: (s[1], s[0], s[2].data.sequence)),
            dropped,
        )


def _dropped(connection: Connection) -> list[tuple[int, str, Anomaly]]:
    """Each anomaly once: the first of its events that was not sent says why.

    What became part of an alert that spoke is not among them.
    """
    found: dict[UUID, tuple[int, str, Anomaly]] = {}
    for event, reason in outbox.suppressed(connection):
        if event.kind == "anomaly" and reason != "unchanged":
            found.setdefault(event.subject, (event.created_ns, reason, decode_anomaly(event.body)))
    return list(found.values())
