"""Notices on their way to endpoints: queued by the router, claimed by workers, every attempt recorded.

The queue of one series to one endpoint is a *lane*. A worker claims lanes, never single deliveries, and takes
only the head of each: so the order within a series holds over any number of workers, and a claim looks at
nothing but lanes that are due. Who adds to a lane and who finishes its head both hold the lane's row locked,
so that neither overlooks the other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
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
    delete,
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

from storage.sql.column_types import SafeText, insert
from storage.tables.alerting import DeliveryAttemptRow, DeliveryLaneRow, DeliveryRow, NoticeRow

T = TypeVar("T")

_AT_ONCE = 200  # lanes in one IN list


@dataclass(slots=True)
class Notice:
    """One message about an alert; ``events`` is how many events of the outbox it stands for."""

    id: UUID
    alert_id: UUID
    stream: str
    lane: str
    sequence: int
    kind: str
    events: int
    body: str
    created_ns: int


@dataclass(slots=True)
class Delivery:
    """One notice on its way to one endpoint."""

    id: UUID
    notice_id: UUID
    alert_id: UUID
    endpoint: str
    lane: str
    sequence: int
    kind: str
    state: str
    reason: str | None
    attempts: int
    repeats: int
    created_ns: int
    finished_ns: int | None


@dataclass(slots=True)
class Claimed:
    """The head of a lane that this worker has in hand."""

    id: UUID
    alert_id: UUID
    endpoint: str
    lane: str
    kind: str
    attempts: int
    created_ns: int
    lost: bool  # the answer of the attempt before is not known
    body: str


@dataclass(slots=True)
class Attempt:
    """What came of one attempt; ``state`` is the delivery's after it, ``next_ns`` when it is tried again."""

    delivery: UUID
    endpoint: str
    lane: str
    attempt: int
    started_ns: int
    latency_ns: int
    outcome: str
    status: int | None
    answer: str
    state: str
    next_ns: int | None
    repeat: bool
    reason: str | None = None


_DELIVERY = [getattr(DeliveryRow, name) for name in Delivery.__slots__]


def add(
    connection: Connection, notices: Sequence[Notice], deliveries: Sequence[Delivery], now_ns: int
) -> None:
    """Queue ``deliveries`` of ``notices``; one that is there already stays as it is."""
    if notices:
        connection.execute(
            insert(connection, NoticeRow).on_conflict_do_nothing(), [asdict(n) for n in notices]
        )
    if deliveries:
        connection.execute(
            insert(connection, DeliveryRow).on_conflict_do_nothing(), [asdict(d) for d in deliveries]
        )
        _wake(connection, {(d.endpoint, d.lane) for d in deliveries if d.state == "pending"}, now_ns)


def due(connection: Connection, room: Mapping[str, int], now_ns: int) -> list[tuple[str, str]]:
    """(endpoint, lane) of free lanes that are due, up to ``room[endpoint]`` of each endpoint, the longest due
    first. Nothing is locked.
    """
    most = {f"most_{i}": count for i, count in enumerate(room.values())}
    return [
        (endpoint, lane) for endpoint, lane in connection.execute(_due(tuple(room)), most | {"now": now_ns})
    ]


@lru_cache(maxsize=16)  # making it costs more than running it
def _due(endpoints: tuple[str, ...]) -> CompoundSelect[Any]:
    columns = (DeliveryLaneRow.endpoint, DeliveryLaneRow.lane)
    lanes = (
        select(*columns)
        .where(DeliveryLaneRow.owner.is_(None), DeliveryLaneRow.due_ns <= bindparam("now"))
        .order_by(DeliveryLaneRow.due_ns)
    )
    # One index range for each endpoint: a backlog of one is not walked through for the others.
    parts = [
        lanes.where(DeliveryLaneRow.endpoint == name).limit(bindparam(f"most_{i}", type_=Integer))
        for i, name in enumerate(endpoints)
    ]
    return union_all(*(select(part.subquery()) for part in parts))


def claim(connection: Connection, owner: str, lanes: Sequence[tuple[str, str]], now_ns: int) -> list[Claimed]:
    """Take those of ``lanes`` in hand that are still free and due, and return the head of each."""
    mine: list[tuple[str, str]] = []
    key = tuple_(DeliveryLaneRow.endpoint, DeliveryLaneRow.lane)
    for _, part in _grouped(lanes, _alike):
        free = select(DeliveryLaneRow.endpoint, DeliveryLaneRow.lane).where(key.in_(part), *_free(now_ns))
        taken = (
            update(DeliveryLaneRow).where(key.in_(free.with_for_update(skip_locked=True))).values(owner=owner)
        )
        taken = taken.returning(DeliveryLaneRow.endpoint, DeliveryLaneRow.lane)
        mine += [(endpoint, lane) for endpoint, lane in connection.execute(taken)]
    heads = _heads(connection, mine)
    if empty := set(mine) - {(head.endpoint, head.lane) for head in heads}:
        _release(connection, owner, [(*lane, None) for lane in empty])
    return heads


def record(connection: Connection, owner: str, attempts: Sequence[Attempt], now_ns: int) -> list[Attempt]:
    """Write what came of ``attempts`` and free their lanes.

    Returns those whose lane was no longer ``owner``'s: they count for nothing.
    """
    mine = _locked(connection, owner, [(a.endpoint, a.lane) for a in attempts])
    kept = [a for a in attempts if (a.endpoint, a.lane) in mine]
    if kept:
        # Most attempts end alike: one statement for each way to end instead of one for each of them.
        for (state, reason, tried, again), ended in _grouped(
            kept, lambda a: (a.state, a.reason, a.attempt, a.repeat)
        ):
            finished = update(DeliveryRow).where(
                DeliveryRow.state == "pending", DeliveryRow.id.in_([a.delivery for a in ended])
            )
            finished_ns, repeats = now_ns if state != "pending" else None, DeliveryRow.repeats + int(again)
            connection.execute(
                finished.values(
                    state=state, reason=reason, attempts=tried, finished_ns=finished_ns, repeats=repeats
                )
            )
        connection.execute(insert(connection, DeliveryAttemptRow), [_attempt_values(a) for a in kept])
        _release(connection, owner, [(a.endpoint, a.lane, a.next_ns or now_ns) for a in kept])
    return [a for a in attempts if (a.endpoint, a.lane) not in mine]


def abandon(connection: Connection, owner: str, now_ns: int) -> int:
    """Free the lanes of a worker that died.

    Its messages may have arrived: their next attempt is a repeat. Returns how many.
    """
    held = (
        select(DeliveryLaneRow.endpoint, DeliveryLaneRow.lane)
        .where(DeliveryLaneRow.owner == owner)
        .with_for_update()
    )
    lanes = connection.execute(held.order_by(DeliveryLaneRow.endpoint, DeliveryLaneRow.lane))
    heads = _heads(connection, [(endpoint, lane) for endpoint, lane in lanes])
    if heads:
        rows = [
            {
                "delivery_id": h.id,
                "attempt": h.attempts + 1,
                "started_ns": now_ns,
                "latency_ns": 0,
                "outcome": "lost",
                "answer": "the process ended",
            }
            for h in heads
        ]
        connection.execute(insert(connection, DeliveryAttemptRow), rows)
    connection.execute(
        update(DeliveryLaneRow).where(DeliveryLaneRow.owner == owner).values(owner=None, due_ns=now_ns)
    )
    return len(heads)


def hurry(connection: Connection, endpoint: str, now_ns: int) -> int:
    """An endpoint is well again: what waits for its next attempt is due now. Returns how many lanes."""
    waiting = (
        DeliveryLaneRow.endpoint == endpoint,
        DeliveryLaneRow.owner.is_(None),
        DeliveryLaneRow.due_ns > now_ns,
    )
    return connection.execute(update(DeliveryLaneRow).where(*waiting).values(due_ns=now_ns)).rowcount


def finish_pending(
    connection: Connection,
    endpoint: str,
    state: str,
    reason: str,
    now_ns: int,
    streams: Collection[str] | None = None,
) -> int:
    """Settle what ``endpoint`` has pending (of ``streams`` only, if given), unless a worker has it in hand.

    Returns how many.
    """
    in_hand = exists().where(
        DeliveryLaneRow.endpoint == DeliveryRow.endpoint,
        DeliveryLaneRow.lane == DeliveryRow.lane,
        DeliveryLaneRow.owner.is_not(None),
    )
    waiting = [DeliveryRow.endpoint == endpoint, DeliveryRow.state == "pending", ~in_hand]
    if streams is not None:
        waiting.append(exists().where(NoticeRow.id == DeliveryRow.notice_id, NoticeRow.stream.in_(streams)))
    return connection.execute(
        update(DeliveryRow).where(*waiting).values(state=state, reason=reason, finished_ns=now_ns)
    ).rowcount


def pending_endpoints(connection: Connection) -> list[str]:
    """Endpoints that have lanes with something to deliver."""
    return list(
        connection.scalars(
            select(DeliveryLaneRow.endpoint).where(DeliveryLaneRow.due_ns.is_not(None)).distinct()
        )
    )


def redeliver(connection: Connection, ids: Sequence[UUID], now_ns: int, *, force: bool = False) -> list[UUID]:
    """Queue finished deliveries again, with the same id and a fresh schedule. Returns those that were queued.

    Left out is one whose alert has delivered something newer to the same endpoint since, unless ``force``.
    """
    newer = aliased(DeliveryRow)
    overtaken = exists().where(
        newer.alert_id == DeliveryRow.alert_id,
        newer.endpoint == DeliveryRow.endpoint,
        newer.state == "delivered",
        newer.sequence > DeliveryRow.sequence,
    )
    wanted = select(DeliveryRow.id, DeliveryRow.endpoint, DeliveryRow.lane).where(
        DeliveryRow.state != "pending"
    )
    if not force:
        wanted = wanted.where(~overtaken)
    rows = [
        row
        for i in range(0, len(ids), 500)
        for row in connection.execute(wanted.where(DeliveryRow.id.in_(ids[i : i + 500])))
    ]
    if rows:
        again = update(DeliveryRow).where(DeliveryRow.id == bindparam("which"))
        connection.execute(
            again.values(state="pending", reason=None, attempts=0, finished_ns=None),
            [{"which": row.id} for row in rows],
        )
        _wake(connection, {(row.endpoint, row.lane) for row in rows}, now_ns)
    return [row.id for row in rows]


def query(
    connection: Connection,
    *,
    endpoint: str | None = None,
    state: str | None = None,
    alert_id: UUID | None = None,
    since_ns: int | None = None,
    limit: int | None = None,
) -> list[Delivery]:
    """Deliveries, the newest first."""
    statement = (
        select(*_DELIVERY)
        .order_by(DeliveryRow.created_ns.desc(), DeliveryRow.sequence.desc(), DeliveryRow.endpoint)
        .limit(limit)
    )
    for given, condition in (
        (endpoint, DeliveryRow.endpoint == endpoint),
        (state, DeliveryRow.state == state),
        (alert_id, DeliveryRow.alert_id == alert_id),
        (since_ns, DeliveryRow.created_ns >= (since_ns or 0)),
    ):
        if given is not None:
            statement = statement.where(condition)
    return [Delivery(*row) for row in connection.execute(statement)]


def find(connection: Connection, prefix: str, limit: int = 6) -> list[Delivery]:
    """Deliveries whose id begins with the hex digits ``prefix`` (1 to 32 of them)."""
    within = DeliveryRow.id.between(UUID(prefix.ljust(32, "0")), UUID(prefix.ljust(32, "f")))
    return [Delivery(*row) for row in connection.execute(select(*_DELIVERY).where(within).limit(limit))]


def attempts_of(connection: Connection, delivery: UUID) -> list[dict[str, Any]]:
    """Every attempt of a delivery, the first first."""
    columns = DeliveryAttemptRow.__table__.columns
    statement = (
        select(*columns).where(DeliveryAttemptRow.delivery_id == delivery).order_by(DeliveryAttemptRow.id)
    )
    return [dict(row._mapping) for row in connection.execute(statement)]


def body_of(connection: Connection, notice: UUID) -> str | None:
    return connection.scalar(select(NoticeRow.body).where(NoticeRow.id == notice))


def last_body(connection: Connection, alert_id: UUID) -> str | None:
    """The newest message about an alert."""
    newest = (
        select(NoticeRow.body)
        .where(NoticeRow.alert_id == alert_id)
        .order_by(NoticeRow.sequence.desc())
        .limit(1)
    )
    return connection.scalar(newest)


def due_of(connection: Connection, endpoint: str, lane: str) -> int | None:
    """When the head of a lane is tried next."""
    return connection.scalar(
        select(DeliveryLaneRow.due_ns).where(
            DeliveryLaneRow.endpoint == endpoint, DeliveryLaneRow.lane == lane
        )
    )


def ledger(connection: Connection) -> dict[tuple[str, str, str | None], int]:
    """(endpoint, state, reason) → deliveries: their sum is every delivery that was ever created and not
    pruned."""
    by = (DeliveryRow.endpoint, DeliveryRow.state, DeliveryRow.reason)
    return {(e, s, r): int(n) for e, s, r, n in connection.execute(select(*by, func.count()).group_by(*by))}


def notice_events(connection: Connection) -> int:
    """Events of the outbox that notices stand for."""
    return int(connection.scalar(select(func.coalesce(func.sum(NoticeRow.events), 0))) or 0)


def backlog(connection: Connection) -> dict[str, tuple[int, int]]:
    """endpoint → (pending deliveries, creation time of the oldest)."""
    statement = select(DeliveryRow.endpoint, func.count(), func.min(DeliveryRow.created_ns)).where(
        DeliveryRow.state == "pending"
    )
    return {
        e: (int(n), int(oldest))
        for e, n, oldest in connection.execute(statement.group_by(DeliveryRow.endpoint))
    }


def prune(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` finished deliveries that are older, with their attempts and notices; returns how
    many rows.
    """
    old = list(
        connection.scalars(
            select(DeliveryRow.id)
            .where(DeliveryRow.created_ns < before_ns, DeliveryRow.state != "pending")
            .limit(limit)
        )
    )
    gone = 0
    for i in range(0, len(old), 500):
        gone += connection.execute(
            delete(DeliveryAttemptRow).where(DeliveryAttemptRow.delivery_id.in_(old[i : i + 500]))
        ).rowcount
        gone += connection.execute(delete(DeliveryRow).where(DeliveryRow.id.in_(old[i : i + 500]))).rowcount
    used = exists().where(DeliveryRow.alert_id == NoticeRow.alert_id, DeliveryRow.notice_id == NoticeRow.id)
    orphans = select(NoticeRow.id).where(NoticeRow.created_ns < before_ns, ~used).limit(limit)
    return gone + connection.execute(delete(NoticeRow).where(NoticeRow.id.in_(orphans))).rowcount


def _wake(connection: Connection, lanes: set[tuple[str, str]], now_ns: int) -> None:
    """There is something in these lanes; one whose head waits for its next attempt goes on waiting."""
    if not lanes:
        return
    statement = insert(connection, DeliveryLaneRow)
    due = func.coalesce(DeliveryLaneRow.due_ns, statement.excluded.due_ns)
    statement = statement.on_conflict_do_update(index_elements=["endpoint", "lane"], set_={"due_ns": due})
    # One order for everybody who locks several lanes: no deadlocks.
    connection.execute(
        statement,
        [{"endpoint": e, "lane": lane, "due_ns": now_ns, "owner": None} for e, lane in sorted(lanes)],
    )


def _free(now_ns: int) -> tuple[ColumnElement[bool], ...]:
    return (DeliveryLaneRow.owner.is_(None), DeliveryLaneRow.due_ns <= now_ns)


def _heads(connection: Connection, lanes: Sequence[tuple[str, str]]) -> list[Claimed]:
    """The first pending delivery of each lane that has one."""
    other = aliased(DeliveryRow)
    mine = select(DeliveryAttemptRow.outcome == "lost").where(
        DeliveryAttemptRow.delivery_id == DeliveryRow.id
    )
    # "+ 0": or PostgreSQL would rather walk through all attempts backwards than look into the index of this
    # delivery's.
    lost = mine.order_by((DeliveryAttemptRow.id + 0).desc()).limit(1)
    columns = (
        DeliveryRow.id,
        DeliveryRow.alert_id,
        DeliveryRow.endpoint,
        DeliveryRow.lane,
        DeliveryRow.kind,
        DeliveryRow.attempts,
    )
    statement = select(
        *columns,
        DeliveryRow.created_ns,
        func.coalesce(lost.scalar_subquery(), literal(False)),
        NoticeRow.body,
    )
    statement = statement.join(NoticeRow, NoticeRow.id == DeliveryRow.notice_id)
    heads: list[Claimed] = []
    for _, part in _grouped(lanes, _alike):
        # Two statements that leave a planner no choice: one look into an index for each lane, never a walk
        # through the backlog.
        wanted = values(column("endpoint", String), column("lane", SafeText), name="wanted").data(part).cte()
        waiting = (other.endpoint == wanted.c.endpoint, other.lane == wanted.c.lane, other.state == "pending")
        first = connection.scalars(
            select(
                select(other.id).where(*waiting).order_by(other.sequence).limit(1).scalar_subquery()
            ).select_from(wanted)
        )
        heads += [
            Claimed(*row)
            for row in connection.execute(
                statement.where(DeliveryRow.id.in_([id_ for id_ in first if id_ is not None]))
            )
        ]
    return heads


def _locked(connection: Connection, owner: str, lanes: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Of ``lanes`` those that are still ``owner``'s, locked until the end of the transaction."""
    key = tuple_(DeliveryLaneRow.endpoint, DeliveryLaneRow.lane)
    found: set[tuple[str, str]] = set()
    for _, part in _grouped(sorted(lanes), _alike):
        statement = select(DeliveryLaneRow.endpoint, DeliveryLaneRow.lane).where(
            DeliveryLaneRow.owner == owner, key.in_(part)
        )
        statement = statement.order_by(DeliveryLaneRow.endpoint, DeliveryLaneRow.lane).with_for_update()
        found |= {(endpoint, lane) for endpoint, lane in connection.execute(statement)}
    return found


def _release(connection: Connection, owner: str, lanes: Sequence[tuple[str, str, int | None]]) -> None:
    """Give lanes back, due at the given time if anything is in them.

    Only for lanes whose rows are locked (see the module's text).
    """
    waiting = exists().where(
        DeliveryRow.endpoint == DeliveryLaneRow.endpoint,
        DeliveryRow.lane == DeliveryLaneRow.lane,
        DeliveryRow.state == "pending",
    )
    key = tuple_(DeliveryLaneRow.endpoint, DeliveryLaneRow.lane)
    for (due_ns,), given in _grouped(lanes, lambda lane: (lane[2],)):
        due = case((waiting, literal(due_ns, BigInteger)), else_=None)
        which = and_(key.in_([lane[:2] for lane in given]), DeliveryLaneRow.owner == owner)
        connection.execute(update(DeliveryLaneRow).where(which).values(owner=None, due_ns=due))


def _alike(_: object) -> tuple[()]:
    return ()


def _grouped(
    items: Iterable[T], key: Callable[[T], tuple[Any, ...]]
) -> Iterator[tuple[tuple[Any, ...], list[T]]]:
    """``items`` by their key, as many at once as one IN list should hold."""
    groups: dict[tuple[Any, ...], list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return (
        (value, group[i : i + _AT_ONCE])
        for value, group in groups.items()
        for i in range(0, len(group), _AT_ONCE)
    )


def _attempt_values(attempt: Attempt) -> dict[str, Any]:
    names = ("attempt", "started_ns", "latency_ns", "outcome", "status", "answer", "next_ns")
    return {"delivery_id": attempt.delivery} | {name: getattr(attempt, name) for name in names}
