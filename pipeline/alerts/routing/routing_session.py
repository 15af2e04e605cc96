"""The router's working set in one transaction: what it read, what it changed, what it wants to say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid5

from sqlalchemy import Connection

from pipeline.alerts.messages.payload import Kind, Payload, encode
from pipeline.alerts.routing.page_budget import AlertBudget
from pipeline.alerts.routing.rules import StreamRules
from pipeline.alerts.routing.silencing import Muting
from pipeline.core.types import NAMESPACE
from storage.alerting import alerts, deliveries
from storage.alerting.alerts import AlertState, Event, Fate, Lane, Member

#: Series of other alerts that began this close to an alert's own beginning broke at the same time.
_AROUND = 300 * 1_000_000_000
_AROUND_MOST = 100


@dataclass(slots=True)
class Desk:
    """``disabled`` are endpoints that get nothing now.

    Fates of this turn's events are gathered by alert until it is known what becomes of them.
    """

    connection: Connection
    rules: StreamRules
    now_ns: int
    muting: Muting
    budget: AlertBudget | None
    disabled: Collection[str]
    urgency_of: Callable[[str], str]
    recent: dict[str, list[int]]
    false: set[UUID] = field(default_factory=set)  # anomalies that people say are none
    alerts: dict[UUID, AlertState] = field(default_factory=dict)
    live: dict[tuple[str, str], AlertState] = field(default_factory=dict)
    members: dict[UUID, Member] = field(default_factory=dict)
    lanes: dict[str, Lane] = field(default_factory=dict)
    touched: dict[UUID, AlertState] = field(default_factory=dict)
    changed_members: dict[UUID, Member] = field(default_factory=dict)
    # alerts that ended before the next one of their series began
    over: set[UUID] = field(default_factory=set)
    news: dict[UUID, str] = field(default_factory=dict)  # alert → revised | retracted | acknowledged
    fates: list[Fate] = field(default_factory=list)
    folded: dict[UUID, list[Fate]] = field(default_factory=dict)
    waiting: dict[UUID, int] = field(default_factory=dict)
    settled: list[tuple[UUID, str, str | None]] = field(default_factory=list)
    decided: Counter[str] = field(default_factory=Counter)  # events by what became of them for good
    notices: list[deliveries.Notice] = field(default_factory=list)
    deliveries: list[deliveries.Delivery] = field(default_factory=list)
    _around: list[Member] | None = None

    def know(self, found: Sequence[AlertState]) -> None:
        """Take alerts that were read into the set."""
        for alert in found:
            if alert.alert_id not in self.alerts:
                self.alerts[alert.alert_id] = alert
                if alert.state != "closed":
                    self.live[alert.rule, alert.group_key] = alert

    def lane(self, name: str) -> Lane:
        if name not in self.lanes:
            self.lanes |= alerts.lanes(self.connection, [name])
        return self.lanes[name]

    def suppress(self, event: Event, reason: str) -> None:
        self.fates.append(Fate(event.id, "suppressed", reason))
        self.decided[reason] += 1

    def fold(self, event: Event, alert: AlertState) -> None:
        """The event is part of ``alert``, whatever becomes of that."""
        fate = Fate(event.id, "waiting", None, alert.alert_id)
        self.fates.append(fate)
        self.folded.setdefault(alert.alert_id, []).append(fate)
        self.touched[alert.alert_id] = alert

    def settle(self, alert: AlertState, state: str, reason: str | None = None) -> int:
        """What waits in ``alert`` is decided: sent, or suppressed. Returns how many events that are."""
        folded = self.folded.pop(alert.alert_id, [])
        for fate in folded:
            fate.state, fate.reason = state, reason
        before = self.waiting.pop(alert.alert_id, 0)
        if before:
            self.settled.append((alert.alert_id, state, reason))
        self.decided[reason or state] += len(folded) + before
        return len(folded) + before

    def say(
        self, alert: AlertState, kind: Kind, make: Callable[[int], Payload], endpoints: Sequence[str]
    ) -> None:
        """Queue a message for ``endpoints``; ``make(sequence)`` writes it."""
        lane = self.lane(alert.lane)
        lane.sequence += 1
        notice_id = uuid5(NAMESPACE, f"notice\x00{lane.lane}\x00{lane.sequence}")
        body = encode(make(lane.sequence)).decode()
        events = self.settle(alert, "sent")
        common = (alert.alert_id, alert.stream, lane.lane, lane.sequence, kind)
        self.notices.append(deliveries.Notice(notice_id, *common, events, body, self.now_ns))
        for endpoint in endpoints:
            off = endpoint in self.disabled
            self.deliveries.append(
                deliveries.Delivery(
                    id=uuid5(notice_id, endpoint),
                    notice_id=notice_id,
                    alert_id=alert.alert_id,
                    endpoint=endpoint,
                    lane=lane.lane,
                    sequence=lane.sequence,
                    kind=kind,
                    state="suppressed" if off else "pending",
                    reason="disabled" if off else None,
                    attempts=0,
                    repeats=0,
                    created_ns=self.now_ns,
                    finished_ns=self.now_ns if off else None,
                )
            )
        alert.told = list(dict.fromkeys([*alert.told, *endpoints]))

    def members_of(self, alert: AlertState, limit: int | None) -> list[Member]:
        """The members of ``alert``, the most surprising first; what this turn changed is already written."""
        if alert.count == 1:
            mine = [m for m in self.changed_members.values() if m.alert_id == alert.alert_id]
            if mine:
                return mine
        return alerts.members_of(self.connection, alert.alert_id, limit)

    def around(self) -> list[Member]:
        """Members that began near any alert of this turn: read once a turn."""
        if self._around is None:
            starts = [a.opened_ns for a in self.touched.values()]
            first, last = min(starts) - _AROUND, max(starts) + _AROUND
            self._around = alerts.around(self.connection, first, last, _AROUND_MOST)
        return self._around

    def write_members(self) -> None:
        alerts.save_members(self.connection, list(self.changed_members.values()))

    def write(self) -> None:
        """Everything else; waiting events of earlier turns first, then those of this one."""
        alerts.settle_waiting(self.connection, self.settled)
        alerts.settle(self.connection, self.fates)
        alerts.save_alerts(self.connection, list(self.touched.values()))
        alerts.save_lanes(self.connection, list(self.lanes.values()))
        deliveries.add(self.connection, self.notices, self.deliveries, self.now_ns)
