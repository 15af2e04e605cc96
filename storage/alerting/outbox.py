"""Rows of the outbox: changes of anomalies and faults, and the result of each.

Two processes never route one stream at the same time (``lock_stream``), so rows that a transaction of the
router has read do not change until it writes them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, delete, exists, func, or_, select, update

from storage.alerting.states import EventKind, EventState
from storage.sql.column_types import insert
from storage.sql.statements import in_parts
from storage.tables.alerting import AlertEventRow, AlertRow, AlertStreamRow


@dataclass(slots=True)
class OutboxEvent:
    """One row of the outbox. ``id`` is given by the database."""

    event_id: UUID
    stream: str
    kind: EventKind
    subject: UUID
    body: str
    created_ns: int
    id: int = 0

    def __post_init__(self) -> None:
        self.kind = EventKind(self.kind)


@dataclass(slots=True)
class EventResult:
    """State of one event after it was routed, with the reason if it was suppressed."""

    id: int
    state: EventState
    reason: str | None = None
    alert_id: UUID | None = None


_EVENT_COLUMNS = [getattr(AlertEventRow, f.name) for f in fields(OutboxEvent)]


def add_events(connection: Connection, events: Sequence[OutboxEvent]) -> int:
    """Insert events; one that is there already is not changed. Returns how many were given."""
    if events:
        statement = insert(connection, AlertEventRow).on_conflict_do_nothing(index_elements=["event_id"])
        connection.execute(statement, [_event_values(e) for e in events])
    return len(events)


def ensure_streams(connection: Connection, streams: Iterable[str]) -> None:
    """Insert the row that is locked while a stream is routed, for each of ``streams``."""
    rows = [{"stream": s, "recent": {}} for s in streams]
    if rows:
        connection.execute(insert(connection, AlertStreamRow).on_conflict_do_nothing(), rows)


def streams_with_work(connection: Connection, streams: Collection[str], now_ns: int) -> list[str]:
    """Return those of ``streams`` with events to route or alerts that are due."""
    pending = exists().where(
        AlertEventRow.stream == AlertStreamRow.stream, AlertEventRow.state == EventState.PENDING
    )
    due = exists().where(AlertRow.stream == AlertStreamRow.stream, AlertRow.flush_ns <= now_ns)
    statement = select(AlertStreamRow.stream).where(AlertStreamRow.stream.in_(streams), or_(pending, due))
    return list(connection.scalars(statement))


def lock_stream(connection: Connection, stream: str) -> dict[str, Any] | None:
    """Lock the stream for this transaction and return its recent openings of alerts, by rule.

    Returns None if another process has it locked.
    """
    statement = (
        select(AlertStreamRow.recent).where(AlertStreamRow.stream == stream).with_for_update(skip_locked=True)
    )
    return connection.scalars(statement).one_or_none()


def save_recent_openings(connection: Connection, stream: str, recent: dict[str, Any]) -> None:
    """Overwrite the recent openings of alerts of a locked stream."""
    connection.execute(update(AlertStreamRow).where(AlertStreamRow.stream == stream).values(recent=recent))


def pending(connection: Connection, stream: str, limit: int) -> list[OutboxEvent]:
    """Return the oldest events of the stream that were not routed yet."""
    statement = select(*_EVENT_COLUMNS).where(
        AlertEventRow.stream == stream, AlertEventRow.state == EventState.PENDING
    )
    rows = connection.execute(statement.order_by(AlertEventRow.id).limit(limit))
    return [OutboxEvent(*row) for row in rows]


def save_results(connection: Connection, results: Sequence[EventResult]) -> None:
    """Write the results of events that were pending."""
    if results:
        statement = update(AlertEventRow).where(AlertEventRow.id == bindparam("which"))
        values = [
            {"which": r.id, "state": r.state, "reason": r.reason, "alert_id": r.alert_id} for r in results
        ]
        connection.execute(statement, values)


def finish_waiting(connection: Connection, results: Sequence[tuple[UUID, EventState, str | None]]) -> None:
    """Write (alert, state, reason) to the events that wait in these alerts."""
    if results:
        statement = update(AlertEventRow).where(
            AlertEventRow.alert_id == bindparam("which"), AlertEventRow.state == EventState.WAITING
        )
        connection.execute(statement, [{"which": a, "state": s, "reason": r} for a, s, r in results])


def count_waiting(connection: Connection, alerts: Collection[UUID]) -> dict[UUID, int]:
    """Count the events that wait in each alert that has any."""
    statement = (
        select(AlertEventRow.alert_id, func.count())
        .where(AlertEventRow.state == EventState.WAITING)
        .group_by(AlertEventRow.alert_id)
    )
    rows = (
        connection.execute(statement.where(AlertEventRow.alert_id.in_(part))) for part in in_parts(alerts)
    )
    return {alert_id: count for found in rows for alert_id, count in found if alert_id is not None}


def count_by_state(connection: Connection) -> dict[tuple[str, str | None], int]:
    """Count all events by (state, reason)."""
    by = (AlertEventRow.state, AlertEventRow.reason)
    rows = connection.execute(select(*by, func.count()).group_by(*by))
    return {(state, reason): int(count) for state, reason, count in rows}


def count_by_stream(connection: Connection) -> dict[tuple[str, str], int]:
    """Count all events by (stream, reason or state)."""
    result = func.coalesce(AlertEventRow.reason, AlertEventRow.state)
    rows = connection.execute(
        select(AlertEventRow.stream, result, func.count()).group_by(AlertEventRow.stream, result)
    )
    return {(stream, what): int(count) for stream, what, count in rows}


def suppressed(connection: Connection) -> list[tuple[OutboxEvent, str]]:
    """Return the suppressed events and their reasons, oldest first."""
    statement = (
        select(*_EVENT_COLUMNS, AlertEventRow.reason)
        .where(AlertEventRow.state == EventState.SUPPRESSED)
        .order_by(AlertEventRow.id)
    )
    return [(OutboxEvent(*row[:-1]), row[-1] or "") for row in connection.execute(statement)]


def first_commits(connection: Connection, since_ns: int) -> dict[UUID, int]:
    """Return anomaly → creation time of its first event since ``since_ns``, in ns."""
    statement = (
        select(AlertEventRow.subject, func.min(AlertEventRow.created_ns))
        .where(AlertEventRow.created_ns >= since_ns, AlertEventRow.kind == EventKind.ANOMALY)
        .group_by(AlertEventRow.subject)
    )
    return {subject: int(created_ns) for subject, created_ns in connection.execute(statement)}


def backlog(connection: Connection) -> dict[str, tuple[int, int]]:
    """Return stream → (pending events, creation time of the oldest in ns)."""
    statement = select(AlertEventRow.stream, func.count(), func.min(AlertEventRow.created_ns)).where(
        AlertEventRow.state == EventState.PENDING
    )
    rows = connection.execute(statement.group_by(AlertEventRow.stream))
    return {stream: (int(count), int(oldest)) for stream, count, oldest in rows}


def prune(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` sent or suppressed events that are older; returns how many."""
    finished = AlertEventRow.state.in_((EventState.SENT, EventState.SUPPRESSED))
    old = select(AlertEventRow.id).where(AlertEventRow.created_ns < before_ns, finished).limit(limit)
    return connection.execute(delete(AlertEventRow).where(AlertEventRow.id.in_(old))).rowcount


def _event_values(event: OutboxEvent) -> dict[str, Any]:
    names = ("event_id", "stream", "kind", "subject", "body", "created_ns")
    return {name: getattr(event, name) for name in names} | {
        "state": EventState.PENDING,
        "reason": None,
        "alert_id": None,
    }
