"""Between rows and tasks: what a worker must be told of a job, and what becomes of its outcome, in one transaction under the job's token."""

from __future__ import annotations

from sqlalchemy import Connection

from pipeline.build import history_path, models_path
from pipeline.config import Config
from pipeline.retraining.requests import rulings
from pipeline.retraining.work import Outcome, Task, Version
from storage import jobs, models
from storage.jobs import Job
from storage.models import Model


def task_of(connection: Connection, config: Config, job: Job) -> Task:
    """Everything that one attempt at ``job`` needs to know."""
    champion = models.champion(connection, job.stream).to_version
    challenger = job.detail.get("version")
    return Task(
        job=job.id,
        token=job.token,
        kind=job.kind,
        name=job.stream,
        stream=config.streams[job.stream],
        history=history_path(config),
        models=models_path(config),
        champion=_version(connection, champion),
        challenger=_version(connection, challenger),
        rulings=tuple(rulings(connection, job.stream)),
        detail=job.detail,
    )


def _version(connection: Connection, version: str | None) -> Version | None:
    if version is None:
        return None
    found = models.get(connection, version)
    return Version(found.version, found.path, found.sha256)


def publish(connection: Connection, config: Config, job: Job, task: Task, outcome: Outcome, now_ns: int) -> None:
    """Write what came of ``job``. Raises Lost, and then nothing of this transaction may stay."""
    result = outcome.result
    if outcome.made is not None:
        result = result | {"version": outcome.made.version}
        _keep(connection, job, task, outcome, now_ns)
    jobs.finish(connection, job, outcome.state, outcome.reason, now_ns, result=result, cost=outcome.cost)


def _keep(connection: Connection, job: Job, task: Task, outcome: Outcome, now_ns: int) -> None:
    made = outcome.made
    assert made is not None
    parent = task.champion.version if task.champion else None
    author, reason = f"job {job.id}", "trained, not compared yet"
    new = Model(
        made.version, job.stream, made.path, made.sha256, "candidate", parent, author, now_ns, now_ns, reason, outcome.evidence, job.id
    )
    models.add(connection, new)
