"""Checker of the alerts from outside: received messages against the table of anomalies and the ledger."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import func, select

from pipeline.alerts.messages.payload import stamp
from pipeline.core.types import Anomaly
from storage.alerting import deliveries
from storage.alerting.states import DeliveryState, EventState
from storage.results import anomalies
from storage.sql.database import Database
from storage.tables.alerting import AlertEventRow
from tests.support.receiver import Received

STREAM = "plant"
#: Message id of Standard Webhooks: the same in each attempt of a delivery.
ID_HEADER = "webhook-id"


@dataclass
class AlertReport:
    """Differences between what happened and what the receiver got.

    ``untold`` are anomalies in no message, ``twice`` alerts that were opened by two messages,
    ``conflicting`` messages with one id and two bodies, and anomalies whose last message is not the table's.
    """

    anomalies: int = 0
    messages: int = 0
    repeated: int = 0
    untold: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    conflicting: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        parts = (
            ("told to nobody", self.untold),
            ("told twice", self.twice),
            ("conflicting", self.conflicting),
        )
        return [f"{name}: {one}" for name, found in parts for one in found]


def check_alerts(database: Database, received: Sequence[Received]) -> AlertReport:
    """Compare the messages of a receiver with the anomalies and deliveries of a database."""
    with database.read() as connection:
        found = anomalies.query(connection, stream=STREAM)
        delivered = deliveries.query(connection, state=DeliveryState.DELIVERED)
    report = AlertReport(anomalies=len(found), messages=len(received))
    bodies: dict[str, set[bytes]] = defaultdict(set)
    opened: Counter[str] = Counter()
    for request in received:
        key = request.headers[ID_HEADER]
        body = json.loads(request.body)
        if not bodies[key] and body["type"] == "alert.opened.v1":
            opened[body["data"]["alert_id"]] += 1
        bodies[key].add(request.body)
    report.repeated = len(received) - len(bodies)
    report.twice = [alert for alert, count in opened.items() if count > 1]
    report.conflicting = [f"message {key} has two bodies" for key, some in bodies.items() if len(some) > 1]
    last = _last_views(received)
    for anomaly in found:
        view = last.get(str(anomaly.id))
        if view is None:
            report.untold.append(f"{anomaly.series} from {stamp(anomaly.start_ns)}")
        elif (wanted := _summary(anomaly)) != (got := {key: view[key] for key in wanted}):
            report.conflicting.append(f"anomaly {anomaly.id}: {got}, and not {wanted}")
    missing = len(delivered) - len(bodies)
    if missing > 0:
        report.conflicting.append(f"{missing} deliveries of the ledger never arrived")
    return report


def unfinished(database: Database, stream: str = STREAM) -> int:
    """Return the number of events without a result and of deliveries that are not made."""
    open_states = (EventState.PENDING, EventState.WAITING)
    events = select(func.count()).where(AlertEventRow.stream == stream, AlertEventRow.state.in_(open_states))
    with database.read() as connection:
        waiting = deliveries.query(connection, state=DeliveryState.PENDING)
        return len(waiting) + connection.execute(events).scalar_one()


def _last_views(received: Sequence[Received]) -> dict[str, dict]:
    """Return the newest view of each anomaly, by the sequence of its queue."""
    newest: dict[str, tuple[int, dict]] = {}
    for request in received:
        data = json.loads(request.body)["data"]
        for view in data["anomalies"]:
            if data["sequence"] >= newest.get(view["id"], (-1, {}))[0]:
                newest[view["id"]] = data["sequence"], view
    return {key: view for key, (_, view) in newest.items()}


def _summary(anomaly: Anomaly) -> dict[str, object]:
    return {
        "series": anomaly.series,
        "state": anomaly.state.value,
        "severity": anomaly.severity.value,
        "start": stamp(anomaly.start_ns),
        "end": stamp(anomaly.end_ns),
        "points": anomaly.points,
    }
