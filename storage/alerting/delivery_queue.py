"""Queues of notifications to endpoints: filled by the router, claimed by workers, every attempt recorded.

There is one queue for each endpoint and series (or group). A worker claims queues, never single deliveries,
and takes only the head of each: so the order within a series holds over any number of workers, and a claim
reads only queues that are due. Both the transaction that adds to a queue and the one that finishes its head
lock the row of the queue, so that neither misses the change of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Connection,
    Integer,
    String,
    and_,
    bindparam,
    case,
    column,
    exists,
    func,
    literal,
    select,
    tuple_,
    union_all,
    update,
    values,
)
from sqlalchemy.orm import aliased

from storage.alerting.deliveries import Delivery, Notification
from storage.alerting.states import AttemptOutcome, DeliveryState
from storage.sql.column_types import SafeText, insert
from storage.sql.statements import in_parts
from storage.tables.alerting import DeliveryAttemptRow, DeliveryQueueRow, DeliveryRow, NotificationRow

T = TypeVar("T")

MAX_QUEUES_PER_STATEMENT = 200


@dataclass(slots=True)
class ClaimedDelivery:
    """The head of a queue that this worker has claimed.

    ``lost``: the answer to the attempt before is not known.
    """

    id: UUID
    alert_id: UUID
    endpoint: str
    queue: str
    kind: str
    attempts: int
    created_ns: int
    lost: bool
    body: str


@dataclass(slots=True)
class DeliveryAttempt:
    """Result of one attempt.

    ``state`` is the state of the delivery after it, ``next_ns`` the time of the next attempt.
    """

    delivery: UUID
    endpoint: str
    queue: str
    attempt: int
    started_ns: int
    latency_ns: int
    outcome: AttemptOutcome
    status: int | None
    answer: str
    state: DeliveryState
    next_ns: int | None
    repeat: bool
    reason: str | None = None


def add(
    connection: Connection, notifications: Sequence[Notification], deliveries: Sequence[Delivery], now_ns: int
) -> None:
    """Insert ``notifications`` and queue their ``deliveries``; rows that are there already do not change."""
    if notifications:
        connection.execute(
            insert(connection, NotificationRow).on_conflict_do_nothing(), [asdict(n) for n in notifications]
        )
    if deliveries:
        connection.execute(
            insert(connection, DeliveryRow).on_conflict_do_nothing(), [asdict(d) for d in deliveries]
        )
        _make_due(
            connection,
            {(d.endpoint, d.queue) for d in deliveries if d.state == DeliveryState.PENDING},
            now_ns,
        )


def due(connection: Connection, room: Mapping[str, int], now_ns: int) -> list[tuple[str, str]]:
    """Return (endpoint, queue) of free queues that are due, the longest due of each endpoint first.

    At most ``room[endpoint]`` of each endpoint. Nothing is locked.
    """
    most = {f"most_{i}": count for i, count in enumerate(room.values())}
    return [
        (endpoint, queue) for endpoint, queue in connection.execute(_due(tuple(room)), most | {"now": now_ns})
    ]


@lru_cache(maxsize=16)  # The statement costs more to build than to run.
def _due(endpoints: tuple[str, ...]) -> CompoundSelect[Any]:
    columns = (DeliveryQueueRow.endpoint, DeliveryQueueRow.queue)
    queues = (
        select(*columns)
        .where(DeliveryQueueRow.owner.is_(None), DeliveryQueueRow.due_ns <= bindparam("now"))
        .order_by(DeliveryQueueRow.due_ns)
    )
    # One index range for each endpoint: a backlog of one is not walked through for the others.
    parts = [
        queues.where(DeliveryQueueRow.endpoint == name).limit(bindparam(f"most_{i}", type_=Integer))
        for i, name in enumerate(endpoints)
    ]
    return union_all(*(select(part.subquery()) for part in parts))


def claim(
    connection: Connection, owner: str, queues: Sequence[tuple[str, str]], now_ns: int
) -> list[ClaimedDelivery]:
    """Claim those of ``queues`` that are still free and due, and return the head of each."""
    mine: list[tuple[str, str]] = []
    key = tuple_(DeliveryQueueRow.endpoint, DeliveryQueueRow.queue)
    for _, part in _grouped(queues, _same_key):
        free = select(DeliveryQueueRow.endpoint, DeliveryQueueRow.queue).where(key.in_(part), *_free(now_ns))
        taken = (
            update(DeliveryQueueRow)
            .where(key.in_(free.with_for_update(skip_locked=True)))
            .values(owner=owner)
        )
        taken = taken.returning(DeliveryQueueRow.endpoint, DeliveryQueueRow.queue)
        mine += [(endpoint, queue) for endpoint, queue in connection.execute(taken)]
    heads = _heads_of(connection, mine)
    if empty := set(mine) - {(head.endpoint, head.queue) for head in heads}:
        _release(connection, owner, [(*queue, None) for queue in empty])
    return heads


def record(
    connection: Connection, owner: str, attempts: Sequence[DeliveryAttempt], now_ns: int
) -> list[DeliveryAttempt]:
    """Write the results of ``attempts`` and free their queues.

    Returns the attempts whose queue another owner has claimed since: they are not written.
    """
    mine = _lock_owned(connection, owner, [(a.endpoint, a.queue) for a in attempts])
    kept = [a for a in attempts if (a.endpoint, a.queue) in mine]
    if kept:
        # Most attempts have the same result: one statement for each result instead of each attempt.
        for (state, reason, tried, again), ended in _grouped(
            kept, lambda a: (a.state, a.reason, a.attempt, a.repeat)
        ):
            finished = update(DeliveryRow).where(
                DeliveryRow.state == DeliveryState.PENDING, DeliveryRow.id.in_([a.delivery for a in ended])
            )
            finished_ns, repeats = (
                now_ns if state != DeliveryState.PENDING else None,
                DeliveryRow.repeats + int(again),
            )
            connection.execute(
                finished.values(
                    state=state, reason=reason, attempts=tried, finished_ns=finished_ns, repeats=repeats
                )
            )
        connection.execute(insert(connection, DeliveryAttemptRow), [_attempt_values(a) for a in kept])
        _release(connection, owner, [(a.endpoint, a.queue, a.next_ns or now_ns) for a in kept])
    return [a for a in attempts if (a.endpoint, a.queue) not in mine]


def reclaim_queues(connection: Connection, owner: str, now_ns: int) -> int:
    """Free the queues of a worker that died, and return how many had a claimed delivery.

    Its messages may have arrived: their next attempt is a repeat.
    """
    owned = (
        select(DeliveryQueueRow.endpoint, DeliveryQueueRow.queue)
        .where(DeliveryQueueRow.owner == owner)
        .with_for_update()
    )
    queues = connection.execute(owned.order_by(DeliveryQueueRow.endpoint, DeliveryQueueRow.queue))
    heads = _heads_of(connection, [(endpoint, queue) for endpoint, queue in queues])
    if heads:
        rows = [
            {
                "delivery_id": h.id,
                "attempt": h.attempts + 1,
                "started_ns": now_ns,
                "latency_ns": 0,
                "outcome": AttemptOutcome.LOST,
                "answer": "the process ended",
            }
            for h in heads
        ]
        connection.execute(insert(connection, DeliveryAttemptRow), rows)
    connection.execute(
        update(DeliveryQueueRow).where(DeliveryQueueRow.owner == owner).values(owner=None, due_ns=now_ns)
    )
    return len(heads)


def redeliver(connection: Connection, ids: Sequence[UUID], now_ns: int, *, force: bool = False) -> list[UUID]:
    """Queue finished deliveries again, with the same id and a new schedule; returns those that were queued.

    Unless ``force``, a delivery is left out whose alert has delivered something newer to the same endpoint.
    """
    newer = aliased(DeliveryRow)
    superseded = exists().where(
        newer.alert_id == DeliveryRow.alert_id,
        newer.endpoint == DeliveryRow.endpoint,
        newer.state == DeliveryState.DELIVERED,
        newer.sequence > DeliveryRow.sequence,
    )
    wanted = select(DeliveryRow.id, DeliveryRow.endpoint, DeliveryRow.queue).where(
        DeliveryRow.state != DeliveryState.PENDING
    )
    if not force:
        wanted = wanted.where(~superseded)
    rows = [
        row for part in in_parts(ids) for row in connection.execute(wanted.where(DeliveryRow.id.in_(part)))
    ]
    if rows:
        again = update(DeliveryRow).where(DeliveryRow.id == bindparam("which"))
        connection.execute(
            again.values(state=DeliveryState.PENDING, reason=None, attempts=0, finished_ns=None),
            [{"which": row.id} for row in rows],
        )
        _make_due(connection, {(row.endpoint, row.queue) for row in rows}, now_ns)
    return [row.id for row in rows]


def _make_due(connection: Connection, queues: set[tuple[str, str]], now_ns: int) -> None:
    """Make queues due that have no due time; one whose head waits for its next attempt keeps waiting."""
    if not queues:
        return
    statement = insert(connection, DeliveryQueueRow)
    due = func.coalesce(DeliveryQueueRow.due_ns, statement.excluded.due_ns)
    statement = statement.on_conflict_do_update(
        index_elements=[DeliveryQueueRow.endpoint, DeliveryQueueRow.queue], set_={"due_ns": due}
    )
    # All transactions that lock several queues use one order, which prevents deadlocks.
    connection.execute(
        statement,
        [{"endpoint": e, "queue": queue, "due_ns": now_ns, "owner": None} for e, queue in sorted(queues)],
    )


def _free(now_ns: int) -> tuple[ColumnElement[bool], ...]:
    return (DeliveryQueueRow.owner.is_(None), DeliveryQueueRow.due_ns <= now_ns)


def _heads_of(connection: Connection, queues: Sequence[tuple[str, str]]) -> list[ClaimedDelivery]:
    """Return the first pending delivery of each queue that has one."""
    other = aliased(DeliveryRow)
    mine = select(DeliveryAttemptRow.outcome == AttemptOutcome.LOST).where(
        DeliveryAttemptRow.delivery_id == DeliveryRow.id
    )
    # "+ 0" keeps PostgreSQL from walking backwards through all attempts instead of using the index of those
    # of this delivery.
    lost = mine.order_by((DeliveryAttemptRow.id + 0).desc()).limit(1)
    columns = (
        DeliveryRow.id,
        DeliveryRow.alert_id,
        DeliveryRow.endpoint,
        DeliveryRow.queue,
        DeliveryRow.kind,
        DeliveryRow.attempts,
    )
    statement = select(
        *columns,
        DeliveryRow.created_ns,
        func.coalesce(lost.scalar_subquery(), literal(False)),
        NotificationRow.body,
    )
    statement = statement.join(NotificationRow, NotificationRow.id == DeliveryRow.notification_id)
    heads: list[ClaimedDelivery] = []
    for _, part in _grouped(queues, _same_key):
        # Two statements that leave the planner one plan: an index look-up for each queue, never a scan of the
        # backlog.
        wanted = values(column("endpoint", String), column("queue", SafeText), name="wanted").data(part).cte()
        waiting = (
            other.endpoint == wanted.c.endpoint,
            other.queue == wanted.c.queue,
            other.state == DeliveryState.PENDING,
        )
        first = connection.scalars(
            select(
                select(other.id).where(*waiting).order_by(other.sequence).limit(1).scalar_subquery()
            ).select_from(wanted)
        )
        heads += [
            ClaimedDelivery(*row)
            for row in connection.execute(
                statement.where(DeliveryRow.id.in_([id_ for id_ in first if id_ is not None]))
            )
        ]
    return heads


def _lock_owned(
    connection: Connection, owner: str, queues: Sequence[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Return those of ``queues`` that ``owner`` still has, locked until the end of the transaction."""
    key = tuple_(DeliveryQueueRow.endpoint, DeliveryQueueRow.queue)
    found: set[tuple[str, str]] = set()
    for _, part in _grouped(sorted(queues), _same_key):
        statement = select(DeliveryQueueRow.endpoint, DeliveryQueueRow.queue).where(
            DeliveryQueueRow.owner == owner, key.in_(part)
        )
        statement = statement.order_by(DeliveryQueueRow.endpoint, DeliveryQueueRow.queue).with_for_update()
        found |= {(endpoint, queue) for endpoint, queue in connection.execute(statement)}
    return found


def _release(connection: Connection, owner: str, queues: Sequence[tuple[str, str, int | None]]) -> None:
    """Free queues, due at the given time if they have pending deliveries.

    The rows of the queues must be locked (see the module).
    """
    waiting = exists().where(
        DeliveryRow.endpoint == DeliveryQueueRow.endpoint,
        DeliveryRow.queue == DeliveryQueueRow.queue,
        DeliveryRow.state == DeliveryState.PENDING,
    )
    key = tuple_(DeliveryQueueRow.endpoint, DeliveryQueueRow.queue)
    for (due_ns,), given in _grouped(queues, lambda queue: (queue[2],)):
        due = case((waiting, literal(due_ns, BigInteger)), else_=None)
        which = and_(key.in_([queue[:2] for queue in given]), DeliveryQueueRow.owner == owner)
        connection.execute(update(DeliveryQueueRow).where(which).values(owner=None, due_ns=due))


def _same_key(_: object) -> tuple[()]:
    return ()


def _grouped(
    items: Iterable[T], key: Callable[[T], tuple[Any, ...]]
) -> Iterator[tuple[tuple[Any, ...], list[T]]]:
    """Group items by key, in parts that one IN list can hold."""
    groups: dict[tuple[Any, ...], list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return (
        (value, group[i : i + MAX_QUEUES_PER_STATEMENT])
        for value, group in groups.items()
        for i in range(0, len(group), MAX_QUEUES_PER_STATEMENT)
    )


def _attempt_values(attempt: DeliveryAttempt) -> dict[str, Any]:
    names = ("attempt", "started_ns", "latency_ns", "outcome", "status", "answer", "next_ns")
    return {"delivery_id": attempt.delivery} | {name: getattr(attempt, name) for name in names}
