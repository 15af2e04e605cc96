"""Alerts and their members, the state of series and groups between alerts, and page budgets.

A transaction of the router locks a stream (``storage.alerting.outbox``), reads, groups, and writes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Select, and_, case, delete, func, literal, select

from storage.alerting import outbox
from storage.alerting.states import AlertKind, AlertState, MemberState, Urgency
from storage.sql.column_types import insert
from storage.sql.statements import (
    Bounds,
    StreamChoice,
    id_begins_with,
    in_parts,
    of_streams,
    page_of,
    where_given,
)
from storage.tables.alerting import AlertBudgetRow, AlertMemberRow, AlertQueueRow, AlertRow

MAX_ALERTS_OF_A_PREFIX = 6


@dataclass(slots=True)
class AlertMember:
    """An anomaly or a fault as part of its alert; ``body`` is its last known state."""

    subject: UUID
    alert_id: UUID
    stream: str
    series: str
    state: MemberState
    severity: str
    surprise: float
    start_ns: int
    end_ns: int
    body: str

    def __post_init__(self) -> None:
        self.state = MemberState(self.state)


@dataclass(slots=True)
class AlertRecord:
    """One alert as the router keeps it: the columns of ``AlertRow``."""

    alert_id: UUID
    stream: str
    kind: AlertKind
    rule: str
    group_key: str
    queue: str
    labels: dict[str, str]
    opened_ns: int
    ended_ns: int
    created_ns: int
    severity: str
    state: AlertState = AlertState.WAITING
    outcome: str | None = None
    urgency: Urgency = Urgency.NOTICE
    surprise: float = 0.0
    count: int = 0
    open_count: int = 0
    resolved_ns: int | None = None
    flush_ns: int | None = None
    quiet_ns: int | None = None
    sent_ns: int | None = None
    sent_count: int = 0
    sent_surprise: float = 0.0
    severities: list[str] = field(default_factory=list)
    suppressed_by: str | None = None
    flapping: bool = False
    acked_ns: int | None = None
    acked_by: str | None = None
    notified: list[str] = field(default_factory=list)
    committed_ns: int | None = None

    def __post_init__(self) -> None:
        self.kind, self.state = AlertKind(self.kind), AlertState(self.state)
        self.urgency = Urgency(self.urgency)


@dataclass(slots=True)
class QueueState:
    """State of a series or group between its alerts.

    ``sequence`` counts its notifications; ``openings`` are the times of recent beginnings, in ns.
    """

    queue: str
    sequence: int = 0
    resolved_ns: int | None = None
    openings: list[int] = field(default_factory=list)


_ALERT_COLUMNS = [getattr(AlertRow, f.name) for f in fields(AlertRecord)]
_MEMBER_COLUMNS = [getattr(AlertMemberRow, f.name) for f in fields(AlertMember)]
_QUEUE_COLUMNS = [getattr(AlertQueueRow, f.name) for f in fields(QueueState)]


def members(connection: Connection, subjects: Collection[UUID]) -> dict[UUID, AlertMember]:
    """Return the members that anomalies or faults are, by their ids."""
    statement = select(*_MEMBER_COLUMNS)
    return {
        member.subject: member
        for part in in_parts(subjects)
        for member in _members(connection, statement.where(AlertMemberRow.subject.in_(part)))
    }


def members_of(connection: Connection, alert_id: UUID, limit: int | None = None) -> list[AlertMember]:
    """Return the members of an alert, the most surprising first."""
    statement = select(*_MEMBER_COLUMNS).where(AlertMemberRow.alert_id == alert_id)
    order = (
        AlertMemberRow.state == MemberState.RETRACTED,
        AlertMemberRow.surprise.desc(),
        AlertMemberRow.start_ns,
    )
    return _members(connection, statement.order_by(*order).limit(limit))


def members_started_between(
    connection: Connection, since_ns: int, until_ns: int, limit: int
) -> list[AlertMember]:
    """Return members of any alert that began in [since, until], the most surprising first."""
    statement = select(*_MEMBER_COLUMNS).where(AlertMemberRow.start_ns.between(since_ns, until_ns))
    return _members(connection, statement.order_by(AlertMemberRow.surprise.desc()).limit(limit))


def earliest_members(connection: Connection, alert_id: UUID, limit: int) -> list[AlertMember]:
    """Return the members of an alert that began first."""
    statement = select(*_MEMBER_COLUMNS).where(
        AlertMemberRow.alert_id == alert_id, AlertMemberRow.state != MemberState.RETRACTED
    )
    order = (AlertMemberRow.start_ns, AlertMemberRow.surprise.desc())
    return _members(connection, statement.order_by(*order).limit(limit))


def count_shared_alerts(
    connection: Connection, stream: str, series: Collection[str], except_alert: UUID, since_ns: int
) -> dict[str, tuple[int, int]]:
    """Count past alerts that a series shared with others, and those of them in which it began first.

    Args:
        connection: A transaction.
        stream: The stream of all of them.
        series: Names of series; those without a shared alert are not in the result.
        except_alert: An alert that is not counted.
        since_ns: Members that began earlier are not counted.
    """
    mine, other = AlertMemberRow.__table__.alias("mine"), AlertMemberRow.__table__.alias("other")
    starts = (
        select(mine.c.series, mine.c.alert_id, mine.c.start_ns, func.min(other.c.start_ns).label("others"))
        .join(other, and_(other.c.alert_id == mine.c.alert_id, other.c.series != mine.c.series))
        .where(
            mine.c.stream == stream,
            mine.c.series.in_(series),
            mine.c.start_ns >= since_ns,
            mine.c.alert_id != except_alert,
        )
        .group_by(mine.c.series, mine.c.alert_id, mine.c.start_ns)
    ).subquery()
    first = func.sum(case((starts.c.start_ns <= starts.c.others, 1), else_=0))
    rows = connection.execute(select(starts.c.series, func.count(), first).group_by(starts.c.series))
    return {name: (int(together), int(led)) for name, together, led in rows}


def alerts(connection: Connection, ids: Collection[UUID]) -> dict[UUID, AlertRecord]:
    """Return alerts by id."""
    statement = select(*_ALERT_COLUMNS)
    return {
        a.alert_id: a
        for part in in_parts(ids)
        for a in _alerts(connection, statement.where(AlertRow.alert_id.in_(part)))
    }


def not_closed(connection: Connection, stream: str, group_keys: Collection[str]) -> list[AlertRecord]:
    """Return the alerts of the stream that are not closed and belong to one of the groups."""
    statement = select(*_ALERT_COLUMNS).where(AlertRow.stream == stream, AlertRow.state != AlertState.CLOSED)
    return [
        a
        for part in in_parts(group_keys)
        for a in _alerts(connection, statement.where(AlertRow.group_key.in_(part)))
    ]


def due(connection: Connection, stream: str, now_ns: int, limit: int) -> list[AlertRecord]:
    """Return alerts whose timer has expired, the oldest timer first."""
    statement = select(*_ALERT_COLUMNS).where(AlertRow.stream == stream, AlertRow.flush_ns <= now_ns)
    return _alerts(connection, statement.order_by(AlertRow.flush_ns).limit(limit))


def next_timer(connection: Connection) -> tuple[int, str] | None:
    """Return (time in ns, stream) of the first timer of all alerts."""
    statement = (
        select(AlertRow.flush_ns, AlertRow.stream)
        .where(AlertRow.flush_ns.is_not(None))
        .order_by(AlertRow.flush_ns)
        .limit(1)
    )
    row = connection.execute(statement).first()
    return None if row is None or row.flush_ns is None else (row.flush_ns, row.stream)


def save_alerts(connection: Connection, changed: Sequence[AlertRecord]) -> None:
    """Insert or overwrite alerts."""
    _upsert(connection, AlertRow, "alert_id", changed)


def save_members(connection: Connection, changed: Sequence[AlertMember]) -> None:
    """Insert or overwrite members of alerts."""
    _upsert(connection, AlertMemberRow, "subject", changed)


def queue_states(connection: Connection, names: Collection[str]) -> dict[str, QueueState]:
    """Return the state of every queue in ``names``; a new queue has an empty one."""
    statement = select(*_QUEUE_COLUMNS)
    rows = (connection.execute(statement.where(AlertQueueRow.queue.in_(part))) for part in in_parts(names))
    known = {row.queue: QueueState(*row) for found in rows for row in found}
    return {name: known.get(name) or QueueState(name) for name in names}


def save_queue_states(connection: Connection, changed: Sequence[QueueState]) -> None:
    """Insert or overwrite states of queues."""
    _upsert(connection, AlertQueueRow, "queue", changed)


def budget(connection: Connection, name: str) -> dict[str, Any] | None:
    """Return the state of a budget, locked for this transaction: streams of one team share it."""
    return connection.scalars(
        select(AlertBudgetRow.state).where(AlertBudgetRow.name == name).with_for_update()
    ).one_or_none()


def save_budget(connection: Connection, name: str, state: dict[str, Any], now_ns: int) -> None:
    """Insert or overwrite the state of a budget."""
    statement = insert(connection, AlertBudgetRow).values(name=name, state=state, updated_ns=now_ns)
    changed = {"state": statement.excluded.state, "updated_ns": statement.excluded.updated_ns}
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=changed))


def query(
    connection: Connection,
    *,
    stream: StreamChoice = None,
    states: Collection[AlertState] | None = None,
    since_ns: int | None = None,
    limit: int | None = None,
) -> list[AlertRecord]:
    """Return alerts, the newest first; filters that are None do not apply."""
    return page(connection, Bounds(stream, since_ns, limit=limit), states)


def page(
    connection: Connection, bounds: Bounds, states: Collection[AlertState] | None = None
) -> list[AlertRecord]:
    """Return a part of the alerts; ``bounds.after`` is (created, id)."""
    order = ((AlertRow.created_ns, True), (AlertRow.alert_id, False))
    statement = where_given(
        page_of(select(*_ALERT_COLUMNS), order, bounds.after, bounds.limit),
        (bounds.stream, of_streams(AlertRow.stream, bounds.stream)),
        (states, AlertRow.state.in_(states or ())),
        (bounds.since_ns, AlertRow.created_ns >= (bounds.since_ns or 0)),
        (bounds.until_ns, AlertRow.created_ns < (bounds.until_ns or 0)),
    )
    return _alerts(connection, statement)


def live(connection: Connection, limit: int) -> list[AlertRecord]:
    """Return alerts that are not closed."""
    closed = literal(AlertState.CLOSED.value, literal_execute=True)  # the index is partial
    return _alerts(connection, select(*_ALERT_COLUMNS).where(AlertRow.state != closed).limit(limit))


def with_prefix(connection: Connection, digits: str) -> list[AlertRecord]:
    """Return up to six alerts whose id begins with these 1 to 32 hex digits."""
    statement = select(*_ALERT_COLUMNS).where(id_begins_with(AlertRow.alert_id, digits))
    return _alerts(connection, statement.order_by(AlertRow.alert_id).limit(MAX_ALERTS_OF_A_PREFIX))


def prune(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` old finished events, and old closed alerts with their members.

    Returns the number of deleted rows.
    """
    gone = outbox.prune(connection, before_ns, limit)
    old = (
        select(AlertRow.alert_id)
        .where(AlertRow.created_ns < before_ns, AlertRow.state == AlertState.CLOSED)
        .limit(limit)
    )
    for part in in_parts(list(connection.scalars(old))):
        gone += connection.execute(delete(AlertMemberRow).where(AlertMemberRow.alert_id.in_(part))).rowcount
        gone += connection.execute(delete(AlertRow).where(AlertRow.alert_id.in_(part))).rowcount
    return gone


def _alerts(connection: Connection, statement: Select[Any]) -> list[AlertRecord]:
    return [AlertRecord(*row) for row in connection.execute(statement)]


def _members(connection: Connection, statement: Select[Any]) -> list[AlertMember]:
    return [AlertMember(*row) for row in connection.execute(statement)]


def _upsert(connection: Connection, table: Any, key: str, rows: Sequence[Any]) -> None:
    if not rows:
        return
    statement = insert(connection, table)
    changed = {column.key: column for column in statement.excluded if column.key != key}
    names = [f.name for f in fields(rows[0])]
    values = [{name: getattr(row, name) for name in names} for row in rows]
    connection.execute(
        statement.on_conflict_do_update(index_elements=[table.__table__.c[key]], set_=changed), values
    )
