"""The task of a job, and the publication of its result in one transaction under the job's token.

train  ─► rejected
       └► shadow (for ``shadow``) ─► rejected
                                  └► champion ─► post-promotion check ─► stays, or rolled back
With ``promote: manual`` or a pinned champion a better version stays a candidate until a person promotes it.
"""

from __future__ import annotations

from sqlalchemy import Connection

from pipeline.config.schema import Config, Stream
from pipeline.core.durations import to_nanoseconds
from pipeline.decode.known_codes import SeenCodes
from pipeline.jobs.requests import review_labels
from pipeline.jobs.task_types import Task, TaskResult, VersionFiles
from pipeline.models import promotion
from pipeline.services.stored_templates import stored_codes
from storage.model_store import jobs, models
from storage.model_store.jobs import Job, JobState, JobTrigger, TaskKind
from storage.model_store.models import ModelState, ModelVersion

#: Author of an automatic rollback, as the table ``promotions`` stores it.
CHECK_AUTHOR = "guard"


def task_of(connection: Connection, config: Config, job: Job) -> Task:
    """Return the complete task for one attempt at ``job``."""
    champion = models.current_champion(connection, job.stream)
    against = champion.from_version if job.kind == TaskKind.POST_PROMOTION_CHECK else champion.to_version
    stream = config.streams[job.stream]
    return Task(
        job=job.id,
        token=job.token,
        kind=job.kind,
        name=job.stream,
        stream=stream,
        history=config.history_path,
        models=config.models_path,
        champion=_version(connection, against),
        challenger=_version(connection, job.detail.get("version")),
        review_labels=tuple(review_labels(connection, job.stream)),
        detail=job.detail,
        codes=stored_codes(connection, job.stream, stream) if stream.of_events else SeenCodes(),
    )


def publish(
    connection: Connection, config: Config, job: Job, task: Task, outcome: TaskResult, now_ns: int
) -> None:
    """Write the result of ``job`` and what follows from it.

    Raises LeaseLost and ChampionChanged; the caller must then roll the transaction back.

    Args:
        connection: a transaction.
        config: the whole config.
        job: the claimed job.
        task: the task that was submitted.
        outcome: the result of the task.
        now_ns: current time.
    """
    result = outcome.result | ({"version": outcome.made.version} if outcome.made is not None else {})
    jobs.finish(connection, job, outcome.state, outcome.reason, now_ns, result=result, cost=outcome.cost)
    if outcome.state != JobState.SUCCEEDED:
        return
    stream = config.streams[job.stream]
    if job.kind == TaskKind.TRAIN and outcome.made is not None:
        _publish_training(connection, stream, job, task, outcome, outcome.made, now_ns)
    elif job.kind == TaskKind.SHADOW and task.challenger is not None:
        _publish_comparison(connection, stream, job, task, outcome, task.challenger.version, now_ns)
    elif job.kind == TaskKind.POST_PROMOTION_CHECK:
        _publish_check(connection, stream, job, outcome, now_ns)


def _publish_training(
    connection: Connection,
    stream: Stream,
    job: Job,
    task: Task,
    outcome: TaskResult,
    made: VersionFiles,
    now_ns: int,
) -> None:
    parent = task.champion.version if task.champion else None
    state = ModelState.CANDIDATE if outcome.better else ModelState.REJECTED
    row = ModelVersion(
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
    if stream.retraining.shadow.total_seconds() and not outcome.result.get("first_model"):
        _queue_comparison(connection, stream, job, outcome, made.version, now_ns)
    else:
        _accept(connection, stream, job, task, outcome, made.version, now_ns)


def _queue_comparison(
    connection: Connection,
    stream: Stream,
    job: Job,
    outcome: TaskResult,
    version: str,
    now_ns: int,
    at_once: bool = False,
) -> None:
    """Queue the comparison of ``version`` with the champion on the points that arrive until then."""
    due_ns = now_ns if at_once else now_ns + to_nanoseconds(stream.retraining.shadow)
    until_ns = outcome.evidence.get("training", {}).get("until_ns", job.detail.get("until_ns", 0))
    detail = {"version": version, "until_ns": until_ns}
    jobs.add(
        connection,
        TaskKind.SHADOW,
        job.stream,
        due_ns,
        trigger=JobTrigger.FOLLOW_UP,
        author=f"job {job.id}",
        now_ns=now_ns,
        device="cpu",
        detail=detail,
    )
    models.set_state(connection, version, ModelState.SHADOW, "is compared with the champion", now_ns)


def _publish_comparison(
    connection: Connection,
    stream: Stream,
    job: Job,
    task: Task,
    outcome: TaskResult,
    version: str,
    now_ns: int,
) -> None:
    model = models.get(connection, version)
    if model.state != ModelState.SHADOW:  # A person changed the state first.
        models.set_state(connection, version, model.state, model.reason, now_ns, outcome.evidence)
    elif not outcome.better:
        models.set_state(connection, version, ModelState.REJECTED, outcome.reason, now_ns, outcome.evidence)
    else:
        models.set_state(connection, version, ModelState.SHADOW, outcome.reason, now_ns, outcome.evidence)
        _accept(connection, stream, job, task, outcome, version, now_ns)


def _accept(
    connection: Connection,
    stream: Stream,
    job: Job,
    task: Task,
    outcome: TaskResult,
    version: str,
    now_ns: int,
) -> None:
    """Promote ``version``, or keep it as a candidate where only a person may promote it."""
    champion = models.current_champion(connection, job.stream)
    if champion.to_version != (task.champion.version if task.champion else None):
        # The champion changed since: compare with the new one.
        _queue_comparison(connection, stream, job, outcome, version, now_ns, at_once=True)
    elif champion.pinned or stream.retraining.promote == "manual":
        why = "the champion is pinned" if champion.pinned else "promote: manual"
        models.set_state(
            connection,
            version,
            ModelState.CANDIDATE,
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


def _publish_check(
    connection: Connection, stream: Stream, job: Job, outcome: TaskResult, now_ns: int
) -> None:
    champion = models.current_champion(connection, job.stream)
    if champion.sequence != job.detail["sequence"]:
        return  # The version is no longer the champion.
    version = job.detail["version"]
    models.set_state(connection, version, ModelState.CHAMPION, outcome.reason, now_ns, outcome.evidence)
    if outcome.better and not champion.pinned:
        promotion.roll_back(connection, job.stream, author=CHECK_AUTHOR, reason=outcome.reason, now_ns=now_ns)
    else:
        promotion.schedule_check(connection, job.stream, stream, champion, job.detail["look"] + 1)


def _version(connection: Connection, version: str | None) -> VersionFiles | None:
    if version is None:
        return None
    found = models.get(connection, version)
    return VersionFiles(found.version, found.path, found.sha256)
