"""The outbox, and the alerts that the router makes of it. One transaction of the router is: lock a stream,
read, fold, write.

Two processes never route one stream at the same time (``lock_stream``), so what is read here does not change
until it is written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Select, and_, bindparam, case, delete, exists, func, or_, select, update

from storage.sql.column_types import insert
from storage.tables.alerting import (
    AlertBudgetRow,
    AlertEventRow,
    AlertLaneRow,
    AlertMemberRow,
    AlertRow,
    AlertStreamRow,
)

_AT_ONCE = 500  # names in one IN list


@dataclass(slots=True)
class Event:
    """One row of the outbox."""

    event_id: UUID
    stream: str
    kind: str
    subject: UUID
    body: str
    created_ns: int
    id: int = 0


@dataclass(slots=True)
class Member:
    """An anomaly or a fault as part of its alert; ``body`` is its last known state."""

    subject: UUID
    alert_id: UUID
    stream: str
    series: str
    state: str
    severity: str
    surprise: float
    start_ns: int
    end_ns: int
    body: str


@dataclass(slots=True)
class AlertState:
    """One alert as the router keeps it: the columns of ``AlertRow``."""

    alert_id: UUID
    stream: str
    kind: str
    rule: str
    group_key: str
    lane: str
    labels: dict[str, str]
    opened_ns: int
    ended_ns: int
    created_ns: int
    severity: str
    state: str = "waiting"
    outcome: str | None = None
    urgency: str = "notice"
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
    held_by: str | None = None
    flapping: bool = False
    acked_ns: int | None = None
    acked_by: str | None = None
    told: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Lane:
    """What is remembered of a series or group between its alerts."""

    lane: str
    sequence: int = 0
    resolved_ns: int | None = None
    openings: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Fate:
    """What became of one event."""

    id: int
    state: str
    reason: str | None = None
    alert_id: UUID | None = None


def add_events(connection: Connection, events: Sequence[Event]) -> int:
    """Insert into the outbox; an event that is there already stays as it is. Returns how many were given."""
    if events:
        statement = insert(connection, AlertEventRow).on_conflict_do_nothing(index_elements=["event_id"])
        connection.execute(statement, [_event_values(e) for e in events])
    return len(events)


def ensure_streams(connection: Connection, streams: Iterable[str]) -> None:
    """Every routed stream has its row to lock."""
    rows = [{"stream": s, "recent": {}} for s in streams]
    if rows:
        connection.execute(insert(connection, AlertStreamRow).on_conflict_do_nothing(), rows)


def streams_with_work(connection: Connection, streams: Collection[str], now_ns: int) -> list[str]:
    """Of ``streams`` those with events to route or alerts that are due."""
    pending = exists().where(AlertEventRow.stream == AlertStreamRow.stream, AlertEventRow.state == "pending")
    due = exists().where(AlertRow.stream == AlertStreamRow.stream, AlertRow.flush_ns <= now_ns)
    statement = select(AlertStreamRow.stream).where(AlertStreamRow.stream.in_(streams), or_(pending, due))
    return list(connection.scalars(statement))


def lock_stream(connection: Connection, stream: str) -> dict[str, Any] | None:
    """Take the stream for this transaction; its ``recent`` beginnings, or None if another process has it in
    hand.
    """
    statement = (
        select(AlertStreamRow.recent).where(AlertStreamRow.stream == stream).with_for_update(skip_locked=True)
    )
    return connection.scalars(statement).one_or_none()


def save_recent(connection: Connection, stream: str, recent: dict[str, Any]) -> None:
    connection.execute(update(AlertStreamRow).where(AlertStreamRow.stream == stream).values(recent=recent))


def pending(connection: Connection, stream: str, limit: int) -> list[Event]:
    """The oldest events of the stream that were not routed yet."""
    columns = [getattr(AlertEventRow, f.name) for f in fields(Event)]
    statement = select(*columns).where(AlertEventRow.stream == stream, AlertEventRow.state == "pending")
    return [Event(*row) for row in connection.execute(statement.order_by(AlertEventRow.id).limit(limit))]


def settle(connection: Connection, fates: Sequence[Fate]) -> None:
    """Write what became of events that were pending."""
    if fates:
        statement = update(AlertEventRow).where(AlertEventRow.id == bindparam("which"))
        values = [
            {"which": f.id, "state": f.state, "reason": f.reason, "alert_id": f.alert_id} for f in fates
        ]
        connection.execute(statement, values)


def settle_waiting(connection: Connection, alerts: Sequence[tuple[UUID, str, str | None]]) -> None:
    """(alert, state, reason): write what became of the events that waited in an alert."""
    if alerts:
        statement = update(AlertEventRow).where(
            AlertEventRow.alert_id == bindparam("which"), AlertEventRow.state == "waiting"
        )
        connection.execute(statement, [{"which": a, "state": s, "reason": r} for a, s, r in alerts])


def waiting_counts(connection: Connection, alerts: Collection[UUID]) -> dict[UUID, int]:
    """How many events wait in each alert that has any."""
    statement = (
        select(AlertEventRow.alert_id, func.count())
        .where(AlertEventRow.state == "waiting")
        .group_by(AlertEventRow.alert_id)
    )
    rows = (connection.execute(statement.where(AlertEventRow.alert_id.in_(part))) for part in _parts(alerts))
    return {alert_id: count for found in rows for alert_id, count in found if alert_id is not None}


def members(connection: Connection, subjects: Collection[UUID]) -> dict[UUID, Member]:
    columns = [getattr(AlertMemberRow, f.name) for f in fields(Member)]
    rows = (
        connection.execute(select(*columns).where(AlertMemberRow.subject.in_(part)))
        for part in _parts(subjects)
    )
    return {row.subject: Member(*row) for found in rows for row in found}


def members_of(connection: Connection, alert_id: UUID, limit: int | None = None) -> list[Member]:
    """The members of an alert, the most surprising first."""
    columns = [getattr(AlertMemberRow, f.name) for f in fields(Member)]
    statement = select(*columns).where(AlertMemberRow.alert_id == alert_id)
    order = (AlertMemberRow.state == "retracted", AlertMemberRow.surprise.desc(), AlertMemberRow.start_ns)
    return [Member(*row) for row in connection.execute(statement.order_by(*order).limit(limit))]


def around(connection: Connection, since_ns: int, until_ns: int, limit: int) -> list[Member]:
    """Members of any alert that began in [since, until], the most surprising first."""
    columns = [getattr(AlertMemberRow, f.name) for f in fields(Member)]
    within = AlertMemberRow.start_ns.between(since_ns, until_ns)
    return [
        Member(*row)
        for row in connection.execute(
            select(*columns).where(within).order_by(AlertMemberRow.surprise.desc()).limit(limit)
        )
    ]


def earliest(connection: Connection, alert_id: UUID, limit: int) -> list[Member]:
    """The members of an alert that began first."""
    columns = [getattr(AlertMemberRow, f.name) for f in fields(Member)]
    statement = select(*columns).where(
        AlertMemberRow.alert_id == alert_id, AlertMemberRow.state != "retracted"
    )
    return [
        Member(*row)
        for row in connection.execute(
            statement.order_by(AlertMemberRow.start_ns, AlertMemberRow.surprise.desc()).limit(limit)
        )
    ]


def history_of(
    connection: Connection, stream: str, series: Collection[str], before: UUID, since_ns: int
) -> dict[str, tuple[int, int]]:
    """series → (alerts with others that it was part of, those in which nobody began earlier), without the
    alert ``before``.
    """
    mine, other = AlertMemberRow.__table__.alias("mine"), AlertMemberRow.__table__.alias("other")
    starts = (
        select(mine.c.series, mine.c.alert_id, mine.c.start_ns, func.min(other.c.start_ns).label("others"))
        .join(other, and_(other.c.alert_id == mine.c.alert_id, other.c.series != mine.c.series))
        .where(
            mine.c.stream == stream,
            mine.c.series.in_(series),
            mine.c.start_ns >= since_ns,
            mine.c.alert_id != before,
        )
        .group_by(mine.c.series, mine.c.alert_id, mine.c.start_ns)
    ).subquery()
    first = func.sum(case((starts.c.start_ns <= starts.c.others, 1), else_=0))
    rows = connection.execute(select(starts.c.series, func.count(), first).group_by(starts.c.series))
    return {name: (int(together), int(led)) for name, together, led in rows}


def alerts(connection: Connection, ids: Collection[UUID]) -> dict[UUID, AlertState]:
    return {
        a.alert_id: a
        for part in _parts(ids)
        for a in _alerts(connection, _select().where(AlertRow.alert_id.in_(part)))
    }


def live(connection: Connection, stream: str, group_keys: Collection[str]) -> list[AlertState]:
    """The alerts of the stream that are not closed and belong to one of the groups."""
    statement = _select().where(AlertRow.stream == stream, AlertRow.state != "closed")
    return [
        a
        for part in _parts(group_keys)
        for a in _alerts(connection, statement.where(AlertRow.group_key.in_(part)))
    ]


def due(connection: Connection, stream: str, now_ns: int, limit: int) -> list[AlertState]:
    """Alerts whose timer has run out, the oldest timer first."""
    statement = _select().where(AlertRow.stream == stream, AlertRow.flush_ns <= now_ns)
    return _alerts(connection, statement.order_by(AlertRow.flush_ns).limit(limit))


def next_flush(connection: Connection) -> tuple[int, str] | None:
    """(when, stream) of the first timer of all alerts."""
    statement = (
        select(AlertRow.flush_ns, AlertRow.stream)
        .where(AlertRow.flush_ns.is_not(None))
        .order_by(AlertRow.flush_ns)
        .limit(1)
    )
    row = connection.execute(statement).first()
    return None if row is None or row.flush_ns is None else (row.flush_ns, row.stream)


def save_alerts(connection: Connection, changed: Sequence[AlertState]) -> None:
    _upsert(connection, AlertRow, "alert_id", changed)


def save_members(connection: Connection, changed: Sequence[Member]) -> None:
    _upsert(connection, AlertMemberRow, "subject", changed)


def lanes(connection: Connection, names: Collection[str]) -> dict[str, Lane]:
    """Every lane that is asked for; one that is new is empty."""
    columns = (AlertLaneRow.lane, AlertLaneRow.sequence, AlertLaneRow.resolved_ns, AlertLaneRow.openings)
    rows = (connection.execute(select(*columns).where(AlertLaneRow.lane.in_(part))) for part in _parts(names))
    known = {row.lane: Lane(*row) for found in rows for row in found}
    return {name: known.get(name) or Lane(name) for name in names}


def save_lanes(connection: Connection, changed: Sequence[Lane]) -> None:
    _upsert(connection, AlertLaneRow, "lane", changed)


def budget(connection: Connection, name: str) -> dict[str, Any] | None:
    """State of a budget, locked for this transaction: streams of one team share it."""
    return connection.scalars(
        select(AlertBudgetRow.state).where(AlertBudgetRow.name == name).with_for_update()
    ).one_or_none()


def save_budget(connection: Connection, name: str, state: dict[str, Any], now_ns: int) -> None:
    statement = insert(connection, AlertBudgetRow).values(name=name, state=state, updated_ns=now_ns)
    changed = {"state": statement.excluded.state, "updated_ns": statement.excluded.updated_ns}
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=changed))


def query(
    connection: Connection,
    *,
    stream: str | None = None,
    state: Collection[str] | None = None,
    since_ns: int | None = None,
    limit: int | None = None,
) -> list[AlertState]:
    """Alerts, the newest first."""
    statement = _select().order_by(AlertRow.created_ns.desc(), AlertRow.alert_id).limit(limit)
    for given, condition in (
        (stream, AlertRow.stream == stream),
        (state, AlertRow.state.in_(state or ())),
        (since_ns, AlertRow.created_ns >= (since_ns or 0)),
    ):
        if given is not None:
            statement = statement.where(condition)
    return _alerts(connection, statement)


def ledger(connection: Connection) -> dict[tuple[str, str | None], int]:
    """(state, reason) → events: their sum is every event that was ever created and not pruned."""
    rows = connection.execute(
        select(AlertEventRow.state, AlertEventRow.reason, func.count()).group_by(
            AlertEventRow.state, AlertEventRow.reason
        )
    )
    return {(state, reason): int(count) for state, reason, count in rows}


def fates(connection: Connection) -> dict[tuple[str, str], int]:
    """(stream, reason or state) → events."""
    fate = func.coalesce(AlertEventRow.reason, AlertEventRow.state)
    rows = connection.execute(
        select(AlertEventRow.stream, fate, func.count()).group_by(AlertEventRow.stream, fate)
    )
    return {(stream, what): int(count) for stream, what, count in rows}


def suppressed(connection: Connection) -> list[tuple[Event, str]]:
    """Events that were not sent and why, oldest first."""
    columns = [getattr(AlertEventRow, f.name) for f in fields(Event)]
    statement = (
        select(*columns, AlertEventRow.reason)
        .where(AlertEventRow.state == "suppressed")
        .order_by(AlertEventRow.id)
    )
    return [(Event(*row[:-1]), row[-1] or "") for row in connection.execute(statement)]


def get(connection: Connection, prefix: str) -> list[AlertState]:
    """Alerts whose id begins with the hex digits ``prefix`` (1 to 32 of them), six at most."""
    within = AlertRow.alert_id.between(UUID(prefix.ljust(32, "0")), UUID(prefix.ljust(32, "f")))
    return _alerts(connection, _select().where(within).order_by(AlertRow.alert_id).limit(6))


def backlog(connection: Connection) -> dict[str, tuple[int, int]]:
    """stream → (events that were not routed yet, creation time of the oldest)."""
    statement = select(AlertEventRow.stream, func.count(), func.min(AlertEventRow.created_ns)).where(
        AlertEventRow.state == "pending"
    )
    return {
        s: (int(n), int(oldest))
        for s, n, oldest in connection.execute(statement.group_by(AlertEventRow.stream))
    }


def prune(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` settled events, and closed alerts with their members, that are older; returns
    how many rows.
    """
    settled = AlertEventRow.state.in_(("sent", "suppressed"))
    events = select(AlertEventRow.id).where(AlertEventRow.created_ns < before_ns, settled).limit(limit)
    gone = connection.execute(delete(AlertEventRow).where(AlertEventRow.id.in_(events))).rowcount
    old = (
        select(AlertRow.alert_id)
        .where(AlertRow.created_ns < before_ns, AlertRow.state == "closed")
        .limit(limit)
    )
    closed = list(connection.scalars(old))
    for part in _parts(closed):
        gone += connection.execute(delete(AlertMemberRow).where(AlertMemberRow.alert_id.in_(part))).rowcount
        gone += connection.execute(delete(AlertRow).where(AlertRow.alert_id.in_(part))).rowcount
    return gone


def _select() -> Select[Any]:
    return select(*(getattr(AlertRow, f.name) for f in fields(AlertState)))


def _alerts(connection: Connection, statement: Select[Any]) -> list[AlertState]:
    return [AlertState(*row) for row in connection.execute(statement)]


def _upsert(connection: Connection, table: Any, key: str, rows: Sequence[Any]) -> None:
    if not rows:
        return
    statement = insert(connection, table)
    changed = {column.name: column for column in statement.excluded if column.name != key}
    names = [f.name for f in fields(rows[0])]
    values = [{name: getattr(row, name) for name in names} for row in rows]
    connection.execute(statement.on_conflict_do_update(index_elements=[key], set_=changed), values)


def _event_values(event: Event) -> dict[str, Any]:
    names = ("event_id", "stream", "kind", "subject", "body", "created_ns")
    return {name: getattr(event, name) for name in names} | {
        "state": "pending",
        "reason": None,
        "alert_id": None,
    }


def _parts(names: Collection[Any]) -> Iterable[list[Any]]:
    """Parts that one IN list can hold; none at all for an empty collection."""
    listed = list(names)
    return (listed[i : i + _AT_ONCE] for i in range(0, len(listed), _AT_ONCE))
