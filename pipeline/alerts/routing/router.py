"""Router: turns the outbox of a stream and expired timers into alerts and notifications.

    outbox ─► evaluate rules ─► group into alerts ─► advance: wait, suppress, notify ─► deliveries

Everything between two transactions is in the database, so a router may end at any moment and another one
continues. Any number of processes may route; a stream is locked by one of them for one transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

import structlog
from sqlalchemy import Connection

from pipeline.alerts.routing.composer import CommandLine
from pipeline.alerts.routing.grouping import STORM_KEY, EvaluatedEvent, evaluate_rules, group_event
from pipeline.alerts.routing.lifecycle import advance
from pipeline.alerts.routing.page_budget import AlertBudget
from pipeline.alerts.routing.routing_session import PendingChange, RoutingContext, RoutingSession
from pipeline.alerts.routing.rules import STORM, StreamRules
from pipeline.alerts.routing.silencing import PlannedSilences, Silencing
from pipeline.config.alerts import AlertsConfig
from pipeline.config.endpoints import EndpointConfig
from pipeline.core.errors import StorageError
from storage.alerting import alerts, outbox, silences
from storage.alerting.outbox import OutboxEvent
from storage.alerting.states import AlertState, DeliveryState, EventKind, SuppressionReason, Urgency
from storage.results import faults, labels

log = structlog.get_logger(__name__)

#: Limit of events, and of due alerts, in one transaction: while it lasts, SQLite has no other writer.
MAX_EVENTS_PER_TRANSACTION = 200


class RoutingResult(NamedTuple):
    """Counts of one transaction of the router.

    ``event_results`` are finished events by state or reason, ``kinds`` notifications by kind, ``disabled``
    deliveries by endpoint that are dead letters because it is disabled.
    """

    events: int = 0
    deliveries: int = 0
    event_results: Mapping[str, int] = {}
    kinds: Mapping[str, int] = {}
    budget_used: int | None = None
    disabled: Mapping[str, int] = {}


class Router:
    """Routes the streams of one configuration.

    ``streams``: name → its ``alerts``; ``endpoints``: name → receiver; ``shell``: parts of the commands in
    messages; ``timezones``: stream → time zone of the times in its messages, UTC where it is missing.
    """

    def __init__(
        self,
        streams: Mapping[str, AlertsConfig],
        endpoints: Mapping[str, EndpointConfig],
        shell: CommandLine | None = None,
        timezones: Mapping[str, str] | None = None,
    ) -> None:
        self._shell = shell or CommandLine()
        self._timezones = timezones or {}
        names = tuple(endpoints)
        self._rules = {name: StreamRules(name, config, names) for name, config in streams.items()}
        self._planned = {name: PlannedSilences(config) for name, config in streams.items()}
        self._endpoints = dict(endpoints)

    @property
    def streams(self) -> Collection[str]:
        return self._rules.keys()

    def route(
        self, connection: Connection, stream: str, now_ns: int, disabled: Collection[str] = ()
    ) -> RoutingResult:
        """Route one batch of a stream in the caller's transaction.

        Args:
            connection: The transaction.
            stream: Name of the stream.
            now_ns: The time, ns since the epoch.
            disabled: Endpoints to which nothing is sent.

        Returns:
            What was done; nothing if another process has the stream locked.
        """
        recent = outbox.lock_stream(connection, stream)
        if recent is None:
            return RoutingResult()
        session = self._session(connection, stream, now_ns, disabled, recent)
        events = outbox.pending(connection, stream, MAX_EVENTS_PER_TRANSACTION)
        acknowledged = [e for e in events if e.kind == EventKind.ACKNOWLEDGED]
        evaluated = [
            one
            for event in events
            if event.kind != EventKind.ACKNOWLEDGED
            and (one := _evaluated_or_suppressed(session, event)) is not None
        ]
        self._read(session, acknowledged, evaluated)
        for one in evaluated:
            group_event(session, one)
        for event in acknowledged:
            _acknowledge(session, event)
        session.write_members()
        for alert in list(session.alerts.changed.values()):
            advance(session, alert)
        session.write()
        if session.recent_openings != recent:
            outbox.save_recent_openings(connection, stream, session.recent_openings)
        budget = session.context.budget
        if budget is not None and (events or session.outgoing.notifications):
            alerts.save_budget(connection, self._budget_name(stream), budget.dump(), now_ns)
        return _result(session, len(events))

    def _session(
        self,
        connection: Connection,
        stream: str,
        now_ns: int,
        disabled: Collection[str],
        recent: dict[str, list[int]],
    ) -> RoutingSession:
        silencing = Silencing(
            self._planned[stream].in_force(now_ns),
            silences.in_force(connection, stream, now_ns),
            faults.query(connection, stream=stream, open_only=True),
        )
        context = RoutingContext(
            connection,
            self._rules[stream],
            now_ns,
            silencing,
            self._budget(connection, stream, now_ns),
            disabled,
            self._urgency_of,
            self._shell,
            self._timezones.get(stream, ""),
        )
        return RoutingSession(context, {rule: list(openings) for rule, openings in recent.items()})

    def _urgency_of(self, endpoint: str) -> str:
        return self._endpoints[endpoint].urgency if endpoint in self._endpoints else Urgency.NOTICE

    def _read(
        self, session: RoutingSession, acknowledged: list[OutboxEvent], evaluated: list[EvaluatedEvent]
    ) -> None:
        """Read everything that the events and the clock can change, in a few statements."""
        connection, stream, read = session.context.connection, session.context.rules.stream, session.alerts
        subjects = [e.event.subject for e in evaluated]
        due = alerts.due(connection, stream, session.now_ns, MAX_EVENTS_PER_TRANSACTION)
        read.members = alerts.members(connection, subjects)
        labelled = labels.of(connection, subjects)
        session.false_positives = {subject for subject, label in labelled.items() if label == "false"}
        wanted = {m.alert_id for m in read.members.values()} | {e.subject for e in acknowledged}
        read.add(due)
        read.add(list(alerts.alerts(connection, wanted - read.by_id.keys()).values()))
        if evaluated:
            keys = {e.group_key for e in evaluated} | {a.group_key for a in read.by_id.values()} | {STORM_KEY}
            read.add(alerts.not_closed(connection, stream, keys))
        read.changed = {a.alert_id: a for a in due}
        names = (
            {e.queue for e in evaluated}
            | {a.queue for a in read.by_id.values()}
            | {f"{stream}/{rule}/{STORM}" for rule in session.recent_openings}
        )
        read.queues = alerts.queue_states(connection, names)
        session.events.waiting_before = outbox.count_waiting(connection, read.by_id.keys())

    def _budget_name(self, stream: str) -> str:
        budget = self._rules[stream].config.budget
        return f"team:{budget.team}" if budget is not None and budget.team is not None else f"stream:{stream}"

    def _budget(self, connection: Connection, stream: str, now_ns: int) -> AlertBudget | None:
        budget = self._rules[stream].config.budget
        if budget is None:
            return None
        state = alerts.budget(connection, self._budget_name(stream))
        return (
            AlertBudget.new(budget.per_day, now_ns)
            if state is None
            else AlertBudget.load(state, budget.per_day)
        )


def _evaluated_or_suppressed(session: RoutingSession, event: OutboxEvent) -> EvaluatedEvent | None:
    """Apply the rules to an event. One that cannot be read is finished, so that the others are routed."""
    try:
        return evaluate_rules(session, event)
    except StorageError as error:
        log.error(
            "alert event cannot be read; it is not sent", event_id=str(event.event_id), error=str(error)
        )
        session.events.suppress(event, SuppressionReason.UNREADABLE)
        return None


def _acknowledge(session: RoutingSession, event: OutboxEvent) -> None:
    """Mark an alert as acknowledged: its receivers are notified, and it is not repeated."""
    alert = session.alerts.by_id.get(event.subject)
    if alert is None or alert.state != AlertState.OPEN:
        session.events.suppress(event, SuppressionReason.ALREADY_CLOSED)
        return
    alert.acked_ns, alert.acked_by = session.now_ns, event.body
    session.pending_changes.setdefault(alert.alert_id, PendingChange.ACKNOWLEDGED)
    session.assign(event, alert)


def _result(session: RoutingSession, events: int) -> RoutingResult:
    budget, outgoing = session.context.budget, session.outgoing
    return RoutingResult(
        events=events,
        deliveries=len(outgoing.deliveries),
        event_results=session.events.counts,
        kinds=Counter(n.kind for n in outgoing.notifications),
        budget_used=budget.used(session.now_ns) if budget is not None else None,
        disabled=Counter(d.endpoint for d in outgoing.deliveries if d.state == DeliveryState.DEAD),
    )
