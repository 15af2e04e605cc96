"""Jobs: rows that are queued, claimed under a lease and ended once.

The scheduler, a drift or a person queues a job. A claim raises the ``token`` of the row, and every later write
of the owner names that token. A former owner whose lease expired therefore changes nothing (``LeaseLost``).
A lease expires when the ``beat`` of the row does not change for the duration of the lease, measured on the
monotonic clock of the observer, so that no clock is compared between machines.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, delete, select, update

from pipeline.core.errors import InputError
from storage.sql.column_types import insert
from storage.sql.statements import Bounds, StreamChoice, of_streams, page_of, where_given
from storage.tables.models import JobRow

#: Attempts before a job fails.
MAX_ATTEMPTS = 3


class TaskKind(StrEnum):
    """Kinds of work, with the words that the table ``jobs`` stores."""

    TRAIN = "train"
    SHADOW = "shadow"
    POST_PROMOTION_CHECK = "guard"


class JobTrigger(StrEnum):
    """Reasons for which a job is queued."""

    SCHEDULE = "schedule"
    DRIFT = "drift"
    HISTORY = "history"
    MANUAL = "manual"
    FOLLOW_UP = "follow-up"


class JobState(StrEnum):
    """States of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"


LIVE_STATES = (JobState.QUEUED, JobState.RUNNING)
ENDED_STATES = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.REJECTED)


class LeaseLost(Exception):
    """The job has another owner or has ended: the result of its former owner is discarded."""


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
    state: str = JobState.QUEUED
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
    """Queue a job and return its id.

    Return None if a job of this kind, stream and due time exists.

    Args:
        connection: a transaction.
        kind: a ``TaskKind``.
        stream: name of the stream.
        due_ns: time from which the job may run.
        trigger: a ``JobTrigger``.
        author: the person or component that asks for the job.
        now_ns: time of creation.
        device: auto, cpu or gpu.
        detail: arguments of the task.
    """
    job = Job(0, kind, stream, due_ns, trigger, author, detail or {}, device, now_ns)
    values = {name: getattr(job, name) for name in _NAMES if name != "id"}
    return connection.execute(
        insert(connection, JobRow).values(values).on_conflict_do_nothing().returning(JobRow.id)
    ).scalar_one_or_none()


def claim(
    connection: Connection, owner: str, now_ns: int, *, streams: Collection[str], only: int | None = None
) -> Job | None:
    """Claim the next due job of ``streams`` and raise its token.

    Return None if no job is due.

    Args:
        connection: a transaction.
        owner: name of the claiming process.
        now_ns: current time.
        streams: names of the streams whose jobs may be claimed.
        only: id of the one job to claim, whenever it is due.
    """
    waiting = (
        select(*_COLUMNS)
        .where(JobRow.state == JobState.QUEUED, JobRow.stream.in_(list(streams)))
        .order_by(JobRow.due_ns, JobRow.id)
    )
    waiting = waiting.where(JobRow.id == only) if only is not None else waiting.where(JobRow.due_ns <= now_ns)
    for row in connection.execute(waiting.limit(5)).all():
        unclaimed = update(JobRow).where(
            JobRow.id == row.id, JobRow.token == row.token, JobRow.state == JobState.QUEUED
        )
        changed: dict[str, Any] = {
            "state": JobState.RUNNING,
            "token": row.token + 1,
            "attempt": row.attempt + 1,
            "owner": owner,
            "beat": 0,
        }
        changed |= {"started_ns": now_ns, "progress": {}, "error": None, "traceback": None, "reason": ""}
        if connection.execute(unclaimed.values(changed)).rowcount:
            return get(connection, row.id)
    return None


def heartbeat(
    connection: Connection, job: Job, progress: dict[str, Any], reason: str = "", ran_on: str | None = None
) -> bool:
    """Renew the lease and return whether a cancellation was requested.

    Raises LeaseLost.

    Args:
        connection: a transaction.
        job: a claimed job.
        progress: figures to show in the row.
        reason: why the job waits, if it does.
        ran_on: device that the task uses.
    """
    values: dict[str, Any] = {
        "beat": JobRow.beat + 1,
        "progress": progress,
        "reason": reason,
        "ran_on": ran_on,
    }
    row = connection.execute(
        _claimed_by_token(job).values(values).returning(JobRow.cancelled_ns)
    ).one_or_none()
    if row is None:
        raise LeaseLost(f"job {job.id} has another owner or has ended")
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
    """End the job in the transaction that publishes its result.

    Raises LeaseLost; the caller must then roll the transaction back.

    Args:
        connection: a transaction.
        job: a claimed job.
        state: one of ``ENDED_STATES``.
        reason: one sentence for the row.
        now_ns: current time.
        result: figures of the result.
        cost: time and memory that the job took.
        error: first line of an error.
        traceback: full text of an error.
    """
    values: dict[str, Any] = {
        "state": state,
        "reason": reason,
        "finished_ns": now_ns,
        "result": result or {},
        "cost": cost or {},
    }
    values |= {"error": error, "traceback": traceback}
    if not connection.execute(_claimed_by_token(job).values(values)).rowcount:
        raise LeaseLost(f"job {job.id} has another owner or has ended; its result is discarded")


def release(
    connection: Connection,
    job: Job,
    reason: str,
    *,
    error: str | None = None,
    traceback: str | None = None,
    stopped: bool = False,
) -> None:
    """Return the job to the queue.

    Raises LeaseLost.

    Args:
        connection: a transaction.
        job: a claimed job.
        reason: one sentence for the row.
        error: first line of an error.
        traceback: full text of an error.
        stopped: the owner was stopped, so the attempt does not count.
    """
    values: dict[str, Any] = {
        "state": JobState.QUEUED,
        "owner": None,
        "reason": reason,
        "error": error,
        "traceback": traceback,
    }
    values["attempt"] = JobRow.attempt - int(stopped)
    if not connection.execute(_claimed_by_token(job).values(values)).rowcount:
        raise LeaseLost(f"job {job.id} has another owner or has ended")


def reclaim_expired_lease(connection: Connection, job: Job, now_ns: int) -> str | None:
    """Take the job from an owner whose lease expired and return its new state.

    The job is queued again, or fails after ``MAX_ATTEMPTS``. Return None if the owner renewed its lease since
    ``job`` was read.
    """
    over = job.attempt >= MAX_ATTEMPTS
    state = (
        JobState.CANCELLED if job.cancelled_ns is not None else JobState.FAILED if over else JobState.QUEUED
    )
    values = {
        "state": state,
        "reason": f"the lease of {job.owner} expired in attempt {job.attempt}",
        "token": job.token + 1,
        "owner": None,
        "finished_ns": None if state == JobState.QUEUED else now_ns,
    }
    silent = _claimed_by_token(job).where(JobRow.beat == job.beat)
    return state if connection.execute(silent.values(values)).rowcount else None


def cancel(connection: Connection, job_id: int, now_ns: int) -> str:
    """Cancel a queued job, or request the cancellation of a running one; return its state.

    The owner of a running job cancels it at its next heartbeat. Raises InputError for a job that has ended.
    """
    waiting = update(JobRow).where(JobRow.id == job_id, JobRow.state == JobState.QUEUED)
    ended = waiting.values(
        state=JobState.CANCELLED, reason="cancelled", cancelled_ns=now_ns, finished_ns=now_ns
    )
    if connection.execute(ended).rowcount:
        return JobState.CANCELLED
    running = update(JobRow).where(JobRow.id == job_id, JobRow.state == JobState.RUNNING)
    if connection.execute(running.values(cancelled_ns=now_ns)).rowcount:
        return JobState.RUNNING
    raise InputError(
        f"job {job_id} is {get(connection, job_id).state}: only a queued or running job can be cancelled"
    )


def retry(connection: Connection, job_id: int) -> None:
    """Queue a job that ended without success again. Raises InputError."""
    unsuccessful = (JobState.FAILED, JobState.CANCELLED, JobState.REJECTED)
    ended = update(JobRow).where(JobRow.id == job_id, JobRow.state.in_(unsuccessful))
    fresh: dict[str, Any] = {
        "state": JobState.QUEUED,
        "reason": "retry requested",
        "attempt": 0,
        "owner": None,
        "cancelled_ns": None,
    }
    if not connection.execute(
        ended.values(fresh | {"finished_ns": None, "progress": {}, "error": None, "traceback": None})
    ).rowcount:
        raise InputError(
            f"job {job_id} is {get(connection, job_id).state}: only a failed, rejected or cancelled job can be retried"
        )


def get(connection: Connection, job_id: int) -> Job:
    """Return one job. Raises InputError if it does not exist."""
    row = connection.execute(select(*_COLUMNS).where(JobRow.id == job_id)).one_or_none()
    if row is None:
        raise InputError(f"there is no job {job_id}; list the jobs with `forewatch jobs list`")
    return Job(*row)


def query(
    connection: Connection,
    *,
    stream: StreamChoice = None,
    kind: str | None = None,
    states: Sequence[str] | None = None,
    limit: int | None = None,
) -> list[Job]:
    """Return jobs, the newest first.

    Args:
        connection: a connection.
        stream: only jobs of this stream.
        kind: only jobs of this ``TaskKind``.
        states: only jobs in these states.
        limit: maximum number of jobs.
    """
    return page(connection, Bounds(stream, limit=limit), kind, states)


def page(
    connection: Connection,
    bounds: Bounds,
    kind: str | None = None,
    states: Sequence[str] | None = None,
) -> list[Job]:
    """Return a part of the jobs, the newest first.

    Args:
        connection: a connection.
        bounds: the part; ``after`` is (created, id).
        kind: only jobs of this ``TaskKind``.
        states: only jobs in these states.
    """
    order = ((JobRow.created_ns, True), (JobRow.id, True))
    statement = where_given(
        page_of(select(*_COLUMNS), order, bounds.after, bounds.limit),
        (bounds.stream, of_streams(JobRow.stream, bounds.stream)),
        (kind, JobRow.kind == kind),
        (states, JobRow.state.in_(states or ())),
        (bounds.since_ns, JobRow.created_ns >= (bounds.since_ns or 0)),
        (bounds.until_ns, JobRow.created_ns < (bounds.until_ns or 0)),
    )
    return [Job(*row) for row in connection.execute(statement)]


def existing(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Return those of ``ids`` that exist."""
    return set(connection.scalars(select(JobRow.id).where(JobRow.id.in_(ids))))


def prune(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` jobs that ended before ``before_ns``; return their number."""
    old = (
        select(JobRow.id)
        .where(JobRow.created_ns < before_ns, JobRow.state.in_(ENDED_STATES), JobRow.finished_ns < before_ns)
        .limit(limit)
    )
    return connection.execute(delete(JobRow).where(JobRow.id.in_(old))).rowcount


def _claimed_by_token(job: Job) -> Any:
    return update(JobRow).where(
        JobRow.id == job.id, JobRow.token == job.token, JobRow.state == JobState.RUNNING
    )
