"""Jobs: queued by the clock, a drift or a person; run by whoever claims them; ended once.

A claim raises the row's ``token``, and every later word of its owner names it: who was given up for dead and
comes back changes nothing any more (``Lost``). Whether an owner is dead is judged by watching, on one's own
monotonic clock, that its ``beat`` stands still, so no clock is compared between machines.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import Connection, delete, select, update

from pipeline.core.errors import InputError
from storage.sql.column_types import insert
from storage.tables.models import JobRow

LIVE = ("queued", "running")
ENDED = ("succeeded", "failed", "cancelled", "rejected")
#: Times that a job is begun before it is given up.
ATTEMPTS = 3


class Lost(Exception):
    """The job is somebody else's now, or was ended: what its former owner found counts for nothing."""


@dataclass(slots=True)
class Job:
    """One row of ``jobs``."""

    id: int
    kind: str
    stream: str
    due_ns: int
    trigger: str
    author: str
    detail: dict[str, Any]
    device: str
    created_ns: int
    state: str = "queued"
    reason: str = ""
    ran_on: str | None = None
    attempt: int = 0
    token: int = 0
    owner: str | None = None
    beat: int = 0
    progress: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    traceback: str | None = None
    cost: dict[str, Any] = field(default_factory=dict)
    cancelled_ns: int | None = None
    started_ns: int | None = None
    finished_ns: int | None = None


_NAMES = [one.name for one in fields(Job)]
_COLUMNS = [getattr(JobRow, name) for name in _NAMES]


def add(
    connection: Connection,
    kind: str,
    stream: str,
    due_ns: int,
    *,
    trigger: str,
    author: str,
    now_ns: int,
    device: str = "auto",
    detail: dict[str, Any] | None = None,
) -> int | None:
    """Queue a job; its id, or None where there is one of this kind, stream and due time already."""
    job = Job(0, kind, stream, due_ns, trigger, author, detail or {}, device, now_ns)
    values = {name: getattr(job, name) for name in _NAMES if name != "id"}
    return connection.execute(
        insert(connection, JobRow).values(values).on_conflict_do_nothing().returning(JobRow.id)
    ).scalar_one_or_none()


def claim(
    connection: Connection, owner: str, now_ns: int, *, streams: Collection[str], only: int | None = None
) -> Job | None:
    """Become the owner of the next due job of ``streams`` (or of the job ``only``); None where there is none.
    Raises its token.
    """
    waiting = (
        select(*_COLUMNS)
        .where(JobRow.state == "queued", JobRow.stream.in_(list(streams)))
        .order_by(JobRow.due_ns, JobRow.id)
    )
    waiting = waiting.where(JobRow.id == only) if only is not None else waiting.where(JobRow.due_ns <= now_ns)
    for row in connection.execute(waiting.limit(5)).all():
        mine = update(JobRow).where(JobRow.id == row.id, JobRow.token == row.token, JobRow.state == "queued")
        changed: dict[str, Any] = {
            "state": "running",
            "token": row.token + 1,
            "attempt": row.attempt + 1,
            "owner": owner,
            "beat": 0,
        }
        changed |= {"started_ns": now_ns, "progress": {}, "error": None, "traceback": None, "reason": ""}
        if connection.execute(mine.values(changed)).rowcount:
            return get(connection, row.id)
    return None


def beat(
    connection: Connection, job: Job, progress: dict[str, Any], reason: str = "", ran_on: str | None = None
) -> bool:
    """Its owner lives; True: somebody wants it cancelled. Raises Lost."""
    values: dict[str, Any] = {
        "beat": JobRow.beat + 1,
        "progress": progress,
        "reason": reason,
        "ran_on": ran_on,
    }
    row = connection.execute(_mine(job).values(values).returning(JobRow.cancelled_ns)).one_or_none()
    if row is None:
        raise Lost(f"job {job.id} is no longer ours")
    return row.cancelled_ns is not None


def finish(
    connection: Connection,
    job: Job,
    state: str,
    reason: str,
    now_ns: int,
    *,
    result: dict[str, Any] | None = None,
    cost: dict[str, Any] | None = None,
    error: str | None = None,
    traceback: str | None = None,
) -> None:
    """End it, in the transaction that publishes what came of it.

    Raises Lost, and then nothing of that transaction may stay.
    """
    values: dict[str, Any] = {
        "state": state,
        "reason": reason,
        "finished_ns": now_ns,
        "result": result or {},
        "cost": cost or {},
    }
    if not connection.execute(_mine(job).values(values | {"error": error, "traceback": traceback})).rowcount:
        raise Lost(f"job {job.id} was given to somebody else or ended meanwhile; its result is refused")


def give_back(
    connection: Connection,
    job: Job,
    reason: str,
    *,
    error: str | None = None,
    traceback: str | None = None,
    stopped: bool = False,
) -> None:
    """Somebody else may go on with it.

    ``stopped``: it was no failure, so the attempt does not count. Raises Lost.
    """
    values: dict[str, Any] = {
        "state": "queued",
        "owner": None,
        "reason": reason,
        "error": error,
        "traceback": traceback,
    }
    if not connection.execute(
        _mine(job).values(values | {"attempt": JobRow.attempt - int(stopped)})
    ).rowcount:
        raise Lost(f"job {job.id} is no longer ours")


def bury(connection: Connection, job: Job, now_ns: int) -> str | None:
    """The owner that ``job`` was seen with is dead: queue it again, or give it up after ``ATTEMPTS``.

    Its new state; None: it lived after all.
    """
    over = job.attempt >= ATTEMPTS
    state = "cancelled" if job.cancelled_ns is not None else "failed" if over else "queued"
    reason = f"{job.owner} went away in attempt {job.attempt}"
    values = {
        "state": state,
        "reason": reason,
        "token": job.token + 1,
        "owner": None,
        "finished_ns": None if state == "queued" else now_ns,
    }
    return (
        state
        if connection.execute(_mine(job).where(JobRow.beat == job.beat).values(values)).rowcount
        else None
    )


def cancel(connection: Connection, job_id: int, now_ns: int) -> str:
    """A waiting job is cancelled at once, a running one as soon as its owner hears of it; returns which.

    Raises InputError.
    """
    waiting = update(JobRow).where(JobRow.id == job_id, JobRow.state == "queued")
    if connection.execute(
        waiting.values(state="cancelled", reason="cancelled", cancelled_ns=now_ns, finished_ns=now_ns)
    ).rowcount:
        return "cancelled"
    if connection.execute(
        update(JobRow).where(JobRow.id == job_id, JobRow.state == "running").values(cancelled_ns=now_ns)
    ).rowcount:
        return "running"
    raise InputError(f"job {job_id} is {get(connection, job_id).state}: there is nothing to cancel")


def retry(connection: Connection, job_id: int) -> None:
    """Queue a job that ended without success once more. Raises InputError."""
    ended = update(JobRow).where(JobRow.id == job_id, JobRow.state.in_(("failed", "cancelled", "rejected")))
    fresh: dict[str, Any] = {
        "state": "queued",
        "reason": "asked for again",
        "attempt": 0,
        "owner": None,
        "cancelled_ns": None,
    }
    if not connection.execute(
        ended.values(fresh | {"finished_ns": None, "progress": {}, "error": None, "traceback": None})
    ).rowcount:
        raise InputError(
            f"job {job_id} is {get(connection, job_id).state}: only one that failed, was rejected or cancelled can be retried"
        )


def get(connection: Connection, job_id: int) -> Job:
    """Raises InputError where there is none."""
    row = connection.execute(select(*_COLUMNS).where(JobRow.id == job_id)).one_or_none()
    if row is None:
        raise InputError(f"there is no job {job_id}; `forewatch jobs list` shows those there are")
    return Job(*row)


def query(
    connection: Connection,
    *,
    stream: str | None = None,
    kind: str | None = None,
    states: Sequence[str] | None = None,
    limit: int | None = None,
) -> list[Job]:
    """Jobs, the newest first."""
    statement = select(*_COLUMNS).order_by(JobRow.created_ns.desc(), JobRow.id.desc()).limit(limit)
    if stream is not None:
        statement = statement.where(JobRow.stream == stream)
    if kind is not None:
        statement = statement.where(JobRow.kind == kind)
    if states is not None:
        statement = statement.where(JobRow.state.in_(list(states)))
    return [Job(*row) for row in connection.execute(statement)]


def existing(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Those of ``ids`` that there still are."""
    return set(connection.scalars(select(JobRow.id).where(JobRow.id.in_(ids))))


def prune(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` jobs that ended before ``before_ns``; returns how many."""
    old = (
        select(JobRow.id)
        .where(JobRow.created_ns < before_ns, JobRow.state.in_(ENDED), JobRow.finished_ns < before_ns)
        .limit(limit)
    )
    return connection.execute(delete(JobRow).where(JobRow.id.in_(old))).rowcount


def _mine(job: Job) -> Any:
    return update(JobRow).where(JobRow.id == job.id, JobRow.token == job.token, JobRow.state == "running")
