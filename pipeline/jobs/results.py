"""Between rows and tasks: what a worker must be told of a job, and what becomes of its outcome, in one
transaction under the job's token.

train  ─► rejected
       └► shadow (for ``shadow``) ─► rejected
                                  └► champion ─► looked at by the guard ─► stays, or rolled back
With ``promote: manual`` or a pinned champion a version that is better stays a candidate until a person
promotes it.
"""

from __future__ import annotations

from sqlalchemy import Connection

from pipeline.config.schema import Config, Stream
from pipeline.jobs.requests import rulings
from pipeline.jobs.task_types import Outcome, Task, Version
from pipeline.models import promotion
from storage.model_store import jobs, models
from storage.model_store.jobs import Job
from storage.model_store.models import Model


def task_of(connection: Connection, config: Config, job: Job) -> Task:
    """Everything that one attempt at ``job`` needs to know."""
    champion = models.champion(connection, job.stream)
    against = champion.from_version if job.kind == "guard" else champion.to_version
    return Task(
        job=job.id,
        token=job.token,
        kind=job.kind,
        name=job.stream,
        stream=config.streams[job.stream],
        history=config.history_path,
        models=config.models_path,
        champion=_version(connection, against),
        challenger=_version(connection, job.detail.get("version")),
        rulings=tuple(rulings(connection, job.stream)),
        detail=job.detail,
    )


def publish(
    connection: Connection, config: Config, job: Job, task: Task, outcome: Outcome, now_ns: int
) -> None:
    """Write what came of ``job``.

    Raises Lost and Overtaken, and then nothing of this transaction may stay.
    """
    result = outcome.result | ({"version": outcome.made.version} if outcome.made is not None else {})
    jobs.finish(connection, job, outcome.state, outcome.reason, now_ns, result=result, cost=outcome.cost)
    if outcome.state != "succeeded":
        return
    stream = config.streams[job.stream]
    if job.kind == "train" and outcome.made is not None:
        _train(connection, stream, job, task, outcome, outcome.made, now_ns)
    elif job.kind == "shadow" and task.challenger is not None:
        _shadow(connection, stream, job, task, outcome, task.challenger.version, now_ns)
    elif job.kind == "guard":
        _guard(connection, stream, job, outcome, now_ns)


def _train(
    connection: Connection, stream: Stream, job: Job, task: Task, outcome: Outcome, made: Version, now_ns: int
) -> None:
    parent = task.champion.version if task.champion else None
    state = "candidate" if outcome.better else "rejected"
    row = Model(
        made.version,
        job.stream,
        made.path,
        made.sha256,
        state,
        parent,
        f"job {job.id}",
        now_ns,
        now_ns,
        outcome.reason,
        outcome.evidence,
        job.id,
    )
    if not models.add(connection, row) or not outcome.better:
        return
    if stream.retraining.shadow.total_seconds():
        _compare_later(connection, stream, job, outcome, made.version, now_ns)
    else:
        _accept(connection, stream, job, task, outcome, made.version, now_ns)


def _compare_later(
    connection: Connection,
    stream: Stream,
    job: Job,
    outcome: Outcome,
    version: str,
    now_ns: int,
    at_once: bool = False,
) -> None:
    """Judge ``version`` on the points that come until then."""
    due_ns = now_ns if at_once else now_ns + round(stream.retraining.shadow.total_seconds() * 1e9)
    until_ns = outcome.evidence.get("training", {}).get("until_ns", job.detail.get("until_ns", 0))
    detail = {"version": version, "until_ns": until_ns}
    jobs.add(
        connection,
        "shadow",
        job.stream,
        due_ns,
        trigger="follow-up",
        author=f"job {job.id}",
        now_ns=now_ns,
        device="cpu",
        detail=detail,
    )
    models.judge(connection, version, "shadow", "in the shadow of the champion", now_ns)


def _shadow(
    connection: Connection, stream: Stream, job: Job, task: Task, outcome: Outcome, version: str, now_ns: int
) -> None:
    model = models.get(connection, version)
    if model.state != "shadow":  # a person was faster
        models.judge(connection, version, model.state, model.reason, now_ns, outcome.evidence)
    elif not outcome.better:
        models.judge(connection, version, "rejected", outcome.reason, now_ns, outcome.evidence)
    else:
        models.judge(connection, version, "shadow", outcome.reason, now_ns, outcome.evidence)
        _accept(connection, stream, job, task, outcome, version, now_ns)


def _accept(
    connection: Connection, stream: Stream, job: Job, task: Task, outcome: Outcome, version: str, now_ns: int
) -> None:
    """It is better than what it was compared with."""
    champion = models.champion(connection, job.stream)
    if champion.to_version != (task.champion.version if task.champion else None):
        # another one decides by now
        _compare_later(connection, stream, job, outcome, version, now_ns, at_once=True)
    elif champion.pinned or stream.retraining.promote == "manual":
        why = "the champion is pinned" if champion.pinned else "promote: manual"
        models.judge(
            connection,
            version,
            "candidate",
            f"{outcome.reason} ({why}: waits for `forewatch models promote {version}`)",
            now_ns,
        )
    else:
        promotion.promote(
            connection,
            job.stream,
            stream,
            version,
            author=f"job {job.id}",
            reason=outcome.reason,
            now_ns=now_ns,
        )


def _guard(connection: Connection, stream: Stream, job: Job, outcome: Outcome, now_ns: int) -> None:
    champion = models.champion(connection, job.stream)
    if champion.sequence != job.detail["sequence"]:
        return  # it does not decide any more
    models.judge(connection, job.detail["version"], "champion", outcome.reason, now_ns, outcome.evidence)
    if outcome.better and not champion.pinned:
        promotion.roll_back(connection, job.stream, author="guard", reason=outcome.reason, now_ns=now_ns)
    else:
        promotion.watch(connection, job.stream, stream, champion, job.detail["look"] + 1)


def _version(connection: Connection, version: str | None) -> Version | None:
    if version is None:
        return None
    found = models.get(connection, version)
    return Version(found.version, found.path, found.sha256)
