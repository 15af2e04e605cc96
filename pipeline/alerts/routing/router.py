"""The router: one transaction at a time it takes the outbox of a stream and what is due, and makes alerts and
messages of it.

    outbox ─► rules ─► fold into alerts ─► look: wait, hold, speak ─► notices and deliveries

Everything between two turns is in the database, so a router may die at any moment and another one goes on.
Any number of processes may route; a stream is in one process's hand for the length of a transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import NamedTuple

from sqlalchemy import Connection

from pipeline.alerts.routing.grouping import STORM_KEY, Change, fold, understand
from pipeline.alerts.routing.lifecycle import look
from pipeline.alerts.routing.page_budget import AlertBudget
from pipeline.alerts.routing.routing_session import Desk
from pipeline.alerts.routing.rules import STORM, StreamRules
from pipeline.alerts.routing.silencing import Muting, PlannedSilences
from pipeline.config.alerts import Alerts
from pipeline.config.endpoints import EndpointBase
from storage.alerting import alerts, silences
from storage.alerting.alerts import AlertState, Event
from storage.results import faults, labels

#: Events and due alerts of one turn: as long as it lasts, SQLite lets nobody else write.
AT_ONCE = 200


class Turn(NamedTuple):
    """What one turn did."""

    events: int = 0
    deliveries: int = 0
    fates: Mapping[str, int] = {}  # what became of events: sent, or why not
    kinds: Mapping[str, int] = {}  # messages by kind
    budget_used: int | None = None
    off: Mapping[str, int] = {}  # deliveries by endpoint that were suppressed at once, because it is disabled


class Router:
    """Routes the streams of one configuration.

    ``streams``: name → its ``alerts``; ``endpoints``: name → receiver.
    """

    def __init__(self, streams: Mapping[str, Alerts], endpoints: Mapping[str, EndpointBase]) -> None:
        names = tuple(endpoints)
        self._rules = {name: StreamRules(name, config, names) for name, config in streams.items()}
        self._planned = {name: PlannedSilences(config) for name, config in streams.items()}
        self._endpoints = dict(endpoints)

    @property
    def streams(self) -> Collection[str]:
        return self._rules.keys()

    def turn(self, connection: Connection, stream: str, now_ns: int, disabled: Collection[str] = ()) -> Turn:
        """Route one batch of the stream in the caller's transaction; an empty Turn if another process has the
        stream in hand.
        """
        recent = alerts.lock_stream(connection, stream)
        if recent is None:
            return Turn()
        desk = self._desk(connection, stream, now_ns, disabled, recent)
        budget_name = self._budget_name(stream)
        events = alerts.pending(connection, stream, AT_ONCE)
        data = [e for e in events if e.kind != "acknowledged"]
        changes = [understand(desk, e) for e in data]
        self._read(desk, events, changes)
        for change in changes:
            fold(desk, change)
        for event in events:
            if event.kind == "acknowledged":
                _acknowledge(desk, event)
        desk.write_members()
        for alert in list(desk.touched.values()):
            look(desk, alert)
        desk.write()
        if desk.recent != recent:
            alerts.save_recent(connection, stream, desk.recent)
        if desk.budget is not None and (events or desk.notices):
            alerts.save_budget(connection, budget_name, desk.budget.dump(), now_ns)
        used = desk.budget.used(now_ns) if desk.budget is not None else None
        kinds, off = (
            Counter(n.kind for n in desk.notices),
            Counter(d.endpoint for d in desk.deliveries if d.state == "suppressed"),
        )
        return Turn(len(events), len(desk.deliveries), desk.decided, kinds, used, off)

    def _desk(
        self,
        connection: Connection,
        stream: str,
        now_ns: int,
        disabled: Collection[str],
        recent: dict[str, list[int]],
    ) -> Desk:
        rules = self._rules[stream]
        muting = Muting(
            self._planned[stream].in_force(now_ns),
            silences.in_force(connection, stream, now_ns),
            faults.query(connection, stream=stream, open_only=True),
        )
        return Desk(
            connection,
            rules,
            now_ns,
            muting,
            self._budget(connection, stream, now_ns),
            disabled,
            lambda endpoint: self._endpoints[endpoint].urgency if endpoint in self._endpoints else "notice",
            {rule: list(begun) for rule, begun in recent.items()},
        )

    def _read(self, desk: Desk, events: list[Event], changes: list[Change]) -> None:
        """Everything that the events and the clock can touch, in a few statements."""
        connection, stream = desk.connection, desk.rules.stream
        due = alerts.due(connection, stream, desk.now_ns, AT_ONCE)
        desk.members = alerts.members(connection, [c.event.subject for c in changes])
        labelled = labels.of(connection, [c.event.subject for c in changes])
        desk.false = {subject for subject, label in labelled.items() if label == "false"}
        wanted = {m.alert_id for m in desk.members.values()} | {
            e.subject for e in events if e.kind == "acknowledged"
        }
        desk.know(due)
        desk.know(list(alerts.alerts(connection, wanted - desk.alerts.keys()).values()))
        keys = {c.group_key for c in changes} | {a.group_key for a in desk.alerts.values()} | {STORM_KEY}
        if changes:
            desk.know(alerts.live(connection, stream, keys))
        desk.touched = {a.alert_id: a for a in due}
        names = (
            {c.lane for c in changes}
            | {a.lane for a in desk.alerts.values()}
            | {f"{stream}/{r}/{STORM}" for r in desk.recent}
        )
        desk.lanes = alerts.lanes(connection, names)
        desk.waiting = alerts.waiting_counts(connection, desk.alerts.keys())

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


def _acknowledge(desk: Desk, event: Event) -> None:
    """Somebody looks after an alert: its receivers are told, and it is not repeated."""
    alert: AlertState | None = desk.alerts.get(event.subject)
    if alert is None or alert.state != "open":
        desk.suppress(event, "over")
        return
    alert.acked_ns, alert.acked_by = desk.now_ns, event.body
    desk.news.setdefault(alert.alert_id, "acknowledged")
    desk.fold(event, alert)
