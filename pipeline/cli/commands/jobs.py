"""``train`` and ``jobs list|show|cancel|retry``: request trainings and manage jobs."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.audit_record import record
from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ByOption,
    ConfigArgument,
    ConfigOption,
    FromOption,
    JsonOption,
    LimitOption,
    StreamOption,
    ToOption,
    config_and_database,
    database_of_file,
    require_stream,
)
from pipeline.cli.output import print_note, show_fields, show_json, show_table
from pipeline.cli.times import show_second, show_time

if TYPE_CHECKING:
    from pipeline.config.schema import Config
    from storage.model_store.jobs import Job
    from storage.sql.database import Database

app = typer.Typer(no_args_is_help=True, help="List and manage trainings and the jobs that follow them.")

Id = Annotated[int, typer.Argument(metavar="ID", help="Number of the job.")]


class StateFilter(StrEnum):
    """States of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"


def train(
    config: ConfigArgument,
    stream: Annotated[
        str, typer.Option("--stream", "-s", metavar="NAME", help="Stream whose model is trained.")
    ],
    wait: Annotated[
        bool, typer.Option("--wait", help="Run the training in the foreground and show its progress.")
    ] = False,
    start: FromOption = None,
    end: ToOption = None,
    by: ByOption = None,
    json: JsonOption = False,
) -> None:
    """Train a stream's model now.

    The training data are the recorded history, or with --from and --to a span of the stream's Kafka log.
    Without --wait a running daemon runs the training. A new version is backtested before it may become
    champion.
    """
    from time import time_ns

    from pipeline.access.audited_changes import job_requested
    from pipeline.cli.argument_values import author_name
    from pipeline.core.errors import InputError, NotInstalled
    from pipeline.core.extras import missing_for_training
    from pipeline.jobs.requests import request_training, trainable

    with config_and_database(config) as (loaded, database):
        database.require_head()
        chosen = require_stream(loaded, stream)
        if not trainable(chosen):
            raise InputError(
                f"stream {stream}: the detector {chosen.detector} has no weights to train; use "
                f"standard or strong"
            )
        if (start is not None or end is not None) and chosen.source.kafka is None:
            raise InputError(
                f"stream {stream}: only a Kafka source can be read from --from to --to; name past "
                f"files with the key `warm_start`"
            )
        lacks = missing_for_training(on_this_machine=loaded.cluster.scheduler is None)
        if lacks and wait:
            raise NotInstalled(lacks)
        now_ns = time_ns()
        with database.begin() as connection:
            detail = {name: time for name, time in (("from_ns", start), ("to_ns", end)) if time is not None}
            number = request_training(
                connection,
                stream,
                chosen,
                now_ns,
                trigger="manual",
                author=author_name(by),
                now_ns=now_ns,
                detail=detail,
            )
            assert number is not None
            record(connection, by, job_requested(number, stream, "train", **detail))
        if not wait:
            print(number)
            print_note(f"queued; a running daemon runs it; follow it with: forewatch jobs show {number}")
            if lacks:
                print_note(f"a daemon of this installation cannot run it: {lacks}")
            return
        job = _wait(loaded, database, number)
    _show(job, json)
    if job.state != "succeeded":
        raise typer.Exit(1)


@app.command("list")
def list_(
    config: ConfigOption = DEFAULT_CONFIG,
    stream: StreamOption = None,
    state: Annotated[StateFilter | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: LimitOption = 20,
    json: JsonOption = False,
) -> None:
    """List jobs, newest first."""
    from storage.model_store import jobs

    with database_of_file(config, stream) as database, database.read() as connection:
        found = jobs.query(connection, stream=stream, states=[state.value] if state else None, limit=limit)
    if json:
        show_json([as_dict(job) for job in found])
        return
    columns = ("id", "created", "kind", "stream", "trigger", "state", "on", "progress", "why")
    show_table(columns, map(_row, found), "no jobs", wrap=("why",))


@app.command()
def show(id_: Id, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show one job.

    Print its state, result, cost and error.
    """
    from storage.model_store import jobs

    with database_of_file(config) as database, database.read() as connection:
        job = jobs.get(connection, id_)
    _show(job, json)


@app.command()
def cancel(id_: Id, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Cancel a queued or running job."""
    from time import time_ns

    from pipeline.access.audited_changes import job_cancelled
    from storage.model_store import jobs

    with database_of_file(config) as database, database.begin() as connection:
        before = jobs.get(connection, id_)
        state = jobs.cancel(connection, id_, time_ns())
        record(connection, None, job_cancelled(before))
    print(
        f"job {id_} is cancelled"
        if state == "cancelled"
        else f"job {id_} will be cancelled before its next step"
    )


@app.command()
def retry(id_: Id, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Queue a failed, rejected or cancelled job again."""
    from pipeline.access.audited_changes import job_retried
    from storage.model_store import jobs

    with database_of_file(config) as database, database.begin() as connection:
        before = jobs.get(connection, id_)
        jobs.retry(connection, id_)
        record(connection, None, job_retried(before))
    print(f"job {id_} is queued; a running daemon runs it")


def as_dict(job: Job) -> dict[str, Any]:
    """Return a job as JSON, with times in ISO 8601."""
    times = {
        name: show_time(getattr(job, f"{name}_ns")) for name in ("due", "created", "started", "finished")
    }
    names = (
        "kind",
        "stream",
        "state",
        "reason",
        "trigger",
        "author",
        "device",
        "ran_on",
        "attempt",
        "owner",
        "detail",
        "progress",
        "result",
        "cost",
    )
    return (
        {"id": job.id}
        | {name: getattr(job, name) for name in names}
        | times
        | {"error": job.error, "traceback": job.traceback}
    )


def _wait(config: Config, database: Database, number: int) -> Job:
    """Run the queue until the job has ended, and show its progress."""
    import time

    from pipeline.jobs.runner_process import RunnerProcess
    from pipeline.observability.progress_bar import progress
    from storage.model_store import jobs

    runner, epoch, said = RunnerProcess(), 0, ""
    try:
        with progress(f"job {number}", "epochs") as shown:
            while True:
                with database.read() as connection:
                    job = jobs.get(connection, number)
                shown.expect(job.progress.get("epochs", 0))
                shown.advance(max(0, job.progress.get("epoch", 0) - epoch))
                epoch = max(epoch, job.progress.get("epoch", 0))
                if job.state in jobs.ENDED_STATES:
                    return job
                if (now := job.reason or _step(job.progress)) != said:
                    said = now
                    print_note(f"job {number}: {now}")
                runner.ensure(config)
                time.sleep(0.2)
    finally:
        runner.stop()


def _show(job: Job, json: bool) -> None:
    fields = as_dict(job)
    if json:
        show_json(fields)
        return
    flat = ("detail", "progress", "result", "cost")
    show_fields(
        {
            name: _flat(value) if name in flat else value
            for name, value in fields.items()
            if name != "traceback"
        }
    )
    if job.traceback:
        print(f"\n{job.traceback.rstrip()}")


def _row(job: Job) -> tuple[Any, ...]:
    return (
        job.id,
        show_second(job.created_ns),
        job.kind,
        job.stream,
        job.trigger,
        job.state,
        job.ran_on or job.device,
        _step(job.progress) if job.state == "running" else None,
        job.reason,
    )


def _step(progress: dict[str, Any]) -> str:
    """Return the phase and its progress."""
    step = progress.get("phase", "")
    at, of = (
        progress.get(name) for name in (("networks", "of") if step == "own networks" else ("epoch", "epochs"))
    )
    return f"{step} {at}/{of}" if of and step in ("train", "own networks") else step


def _flat(value: dict[str, Any]) -> str | None:
    from pipeline.cli.output import format_number

    parts = (
        f"{name} {format_number(item) if isinstance(item, float) else item}"
        for name, item in value.items()
        if not isinstance(item, dict | list)
    )
    return ", ".join(parts) or None
