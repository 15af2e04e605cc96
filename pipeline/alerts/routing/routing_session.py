"""Working set of one transaction of the router.

A session has the inputs (``RoutingContext``), the alerts that were read and changed (``RoutedAlerts``), the
results of the events (``EventResults``) and the notifications to queue (``NotificationBatch``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID, uuid5

from sqlalchemy import Connection

from pipeline.alerts.messages.payload import Kind, Payload, encode
from pipeline.alerts.routing.composer import CommandLine
from pipeline.alerts.routing.page_budget import AlertBudget
from pipeline.alerts.routing.rules import StreamRules
from pipeline.alerts.routing.silencing import Silencing
from pipeline.core.durations import SECOND_NS
from pipeline.core.types import NAMESPACE
from storage.alerting import alerts, delivery_queue, outbox
from storage.alerting.alerts import AlertMember, AlertRecord, QueueState
from storage.alerting.deliveries import Delivery, Notification
from storage.alerting.outbox import EventResult, OutboxEvent
from storage.alerting.states import AlertState, DeliveryReason, DeliveryState, EventState

#: Series of other alerts that began this close to an alert's own beginning count as simultaneous.
SIMULTANEOUS_NS = 300 * SECOND_NS
MAX_SIMULTANEOUS_MEMBERS = 100


class PendingChange(StrEnum):
    """Change of an alert since its last notification that must be sent."""

    ACKNOWLEDGED = "acknowledged"
    REVISED = "revised"
    RETRACTED = "retracted"


@dataclass(frozen=True, slots=True)
class RoutingContext:
    """Inputs of a session. Nothing is sent to ``disabled`` endpoints."""

    connection: Connection
    rules: StreamRules
    now_ns: int
    silencing: Silencing
    budget: AlertBudget | None
    disabled: Collection[str]
    urgency_of: Callable[[str], str]
    shell: CommandLine
    timezone: str = ""


@dataclass(slots=True)
class RoutedAlerts:
    """Alerts, members and queues that were read, and those of them that changed.

    ``not_closed`` is keyed by (rule, group key). ``superseded`` are alerts that had recovered before the next
    anomaly of their group began. ``corrected_later`` are closed alerts with an anomaly that was corrected
    while another alert of their group is open. ``restored`` are anomalies that were retracted and are not any
    more.
    """

    by_id: dict[UUID, AlertRecord] = field(default_factory=dict)
    not_closed: dict[tuple[str, str], AlertRecord] = field(default_factory=dict)
    members: dict[UUID, AlertMember] = field(default_factory=dict)
    queues: dict[str, QueueState] = field(default_factory=dict)
    changed: dict[UUID, AlertRecord] = field(default_factory=dict)
    changed_members: dict[UUID, AlertMember] = field(default_factory=dict)
    superseded: set[UUID] = field(default_factory=set)
    corrected_later: set[UUID] = field(default_factory=set)
    restored: set[UUID] = field(default_factory=set)

    def add(self, found: Sequence[AlertRecord]) -> None:
        """Add alerts that were read; those that are there already are not replaced."""
        for alert in found:
            if alert.alert_id not in self.by_id:
                self.by_id[alert.alert_id] = alert
                if alert.state != AlertState.CLOSED:
                    self.not_closed[alert.rule, alert.group_key] = alert


@dataclass(slots=True)
class EventResults:
    """Results of events, grouped by alert until it is known whether the alert is sent.

    ``waiting_before`` counts the events of earlier sessions that wait in an alert; ``counts`` is the number
    of finished events by state or reason.
    """

    results: list[EventResult] = field(default_factory=list)
    by_alert: dict[UUID, list[EventResult]] = field(default_factory=dict)
    waiting_before: dict[UUID, int] = field(default_factory=dict)
    finished_before: list[tuple[UUID, EventState, str | None]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def suppress(self, event: OutboxEvent, reason: str) -> None:
        """Finish an event that is part of no alert."""
        self.results.append(EventResult(event.id, EventState.SUPPRESSED, reason))
        self.counts[reason] += 1

    def assign(self, event: OutboxEvent, alert_id: UUID) -> None:
        """Let an event wait in an alert."""
        result = EventResult(event.id, EventState.WAITING, None, alert_id)
        self.results.append(result)
        self.by_alert.setdefault(alert_id, []).append(result)

    def finish(self, alert_id: UUID, state: EventState, reason: str | None = None) -> int:
        """Finish the events that wait in an alert; returns how many."""
        assigned = self.by_alert.pop(alert_id, [])
        for result in assigned:
            result.state, result.reason = state, reason
        before = self.waiting_before.pop(alert_id, 0)
        if before:
            self.finished_before.append((alert_id, state, reason))
        count = len(assigned) + before
        self.counts[reason or state] += count
        return count

    def write(self, connection: Connection) -> None:
        """Write the results, those of waiting events of earlier sessions first."""
        outbox.finish_waiting(connection, self.finished_before)
        outbox.save_results(connection, self.results)


@dataclass(slots=True)
class NotificationBatch:
    """Notifications to queue, and their deliveries."""

    notifications: list[Notification] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)

    def add(self, notification: Notification, endpoints: Sequence[str], disabled: Collection[str]) -> None:
        """Add a notification and its delivery to each endpoint; to a disabled one it is a dead letter."""
        self.notifications.append(notification)
        for endpoint in endpoints:
            off = endpoint in disabled
            self.deliveries.append(
                Delivery(
                    id=uuid5(notification.id, endpoint),
                    notification_id=notification.id,
                    alert_id=notification.alert_id,
                    endpoint=endpoint,
                    queue=notification.queue,
                    sequence=notification.sequence,
                    kind=notification.kind,
                    state=DeliveryState.DEAD if off else DeliveryState.PENDING,
                    reason=DeliveryReason.ENDPOINT_DISABLED if off else None,
                    attempts=0,
                    repeats=0,
                    created_ns=notification.created_ns,
                    finished_ns=notification.created_ns if off else None,
                )
            )

    def write(self, connection: Connection, now_ns: int) -> None:
        """Insert the notifications and queue the deliveries."""
        delivery_queue.add(connection, self.notifications, self.deliveries, now_ns)


@dataclass(slots=True)
class RoutingSession:
    """One transaction of the router for one stream.

    ``recent_openings`` are openings of alerts by rule, for the storm limit; ``false_positives`` the anomalies
    that people have labelled false.
    """

    context: RoutingContext
    recent_openings: dict[str, list[int]]
    false_positives: set[UUID] = field(default_factory=set)
    alerts: RoutedAlerts = field(default_factory=RoutedAlerts)
    events: EventResults = field(default_factory=EventResults)
    outgoing: NotificationBatch = field(default_factory=NotificationBatch)
    pending_changes: dict[UUID, PendingChange] = field(default_factory=dict)
    _simultaneous: list[AlertMember] | None = None

    @property
    def now_ns(self) -> int:
        return self.context.now_ns

    def queue(self, name: str) -> QueueState:
        """Return the state of a queue, from the database if it was not read yet."""
        queues = self.alerts.queues
        if name not in queues:
            queues |= alerts.queue_states(self.context.connection, [name])
        return queues[name]

    def assign(self, event: OutboxEvent, alert: AlertRecord) -> None:
        """Make an event part of ``alert``, which will be evaluated."""
        self.events.assign(event, alert.alert_id)
        self.alerts.changed[alert.alert_id] = alert

    def notify(
        self, alert: AlertRecord, kind: Kind, compose: Callable[[int], Payload], endpoints: Sequence[str]
    ) -> None:
        """Queue a notification for ``endpoints``.

        Args:
            alert: The alert that it is about.
            kind: Kind of the notification.
            compose: Returns the payload for a sequence number.
            endpoints: Names of the receivers.
        """
        queue = self.queue(alert.queue)
        queue.sequence += 1
        notification = Notification(
            id=uuid5(NAMESPACE, f"notice\x00{queue.queue}\x00{queue.sequence}"),
            alert_id=alert.alert_id,
            stream=alert.stream,
            queue=queue.queue,
            sequence=queue.sequence,
            kind=kind,
            events=self.events.finish(alert.alert_id, EventState.SENT),
            body=encode(compose(queue.sequence)).decode(),
            created_ns=self.now_ns,
        )
        self.outgoing.add(notification, endpoints, self.context.disabled)
        alert.notified = list(dict.fromkeys([*alert.notified, *endpoints]))

    def members_of(self, alert: AlertRecord, limit: int | None) -> list[AlertMember]:
        """Return members of ``alert``, the most surprising first; changed members must be written before."""
        if alert.count == 1:
            changed = [m for m in self.alerts.changed_members.values() if m.alert_id == alert.alert_id]
            if changed:
                return changed
        return alerts.members_of(self.context.connection, alert.alert_id, limit)

    def simultaneous_members(self) -> list[AlertMember]:
        """Return members that began close to any changed alert; read once in a session."""
        if self._simultaneous is None:
            starts = [a.opened_ns for a in self.alerts.changed.values()]
            since_ns, until_ns = min(starts) - SIMULTANEOUS_NS, max(starts) + SIMULTANEOUS_NS
            self._simultaneous = alerts.members_started_between(
                self.context.connection, since_ns, until_ns, MAX_SIMULTANEOUS_MEMBERS
            )
        return self._simultaneous

    def write_members(self) -> None:
        """Write the changed members, which queries of the evaluation read."""
        alerts.save_members(self.context.connection, list(self.alerts.changed_members.values()))

    def write(self) -> None:
        """Write everything except members, recent openings and the budget."""
        connection = self.context.connection
        self.events.write(connection)
        alerts.save_alerts(connection, list(self.alerts.changed.values()))
        alerts.save_queue_states(connection, list(self.alerts.queues.values()))
        self.outgoing.write(connection, self.now_ns)
