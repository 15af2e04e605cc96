"""Models, their promotions, and jobs."""

from __future__ import annotations

from dataclasses import asdict
from time import time_ns
from typing import Annotated, Any, Literal

from fastapi import Path, Query
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from pipeline.access import audited_changes
from pipeline.api.context import ApiContext, Context, ListFilter, Page, require_stream
from pipeline.api.direct_answers import api_router, shared
from pipeline.config.inputs import SourceConfig
from pipeline.core.errors import InputError
from pipeline.core.iso_times import show_time
from pipeline.jobs.requests import request_training, trainable
from pipeline.models import promotion
from pipeline.models.registry import require_usable
from pipeline.monitoring.detection_power import summaries
from storage.model_store import jobs, models, monitor_state
from storage.model_store.jobs import Job, JobState, JobTrigger
from storage.model_store.models import ModelVersion, Promotion
from storage.sql.column_types import safe_tree

router = api_router(tags=["models"])

JobId = Annotated[int, Path(ge=1, lt=1 << 63)]
Version = Annotated[str, Path(pattern="^[0-9a-f]{12}$")]
StreamPath = Annotated[str, Path(max_length=500)]
BackfillInput = Literal["range", "files", "none"]


class ModelItem(BaseModel):
    """One trained version; ``evidence`` has its cards."""

    version: str
    stream: str
    state: str
    reason: str
    parent: str | None
    author: str
    made: str | None
    changed: str | None
    evidence: dict[str, Any]


class PromotionItem(BaseModel):
    """One change of a champion; null stands for the packaged weights."""

    stream: str
    action: str
    from_version: str | None
    to_version: str | None
    pinned: bool
    author: str
    reason: str
    created: str | None


class JobItem(BaseModel):
    """One job with its progress, result and error."""

    id: int
    kind: str
    stream: str
    state: JobState
    reason: str
    trigger: str
    author: str
    progress: dict[str, Any]
    result: dict[str, Any]
    error: str | None
    created: str | None
    started: str | None
    finished: str | None


class ChangeRequest(BaseModel):
    """Reason and author of a change of the champion."""

    reason: str = Field("by hand", min_length=1, max_length=2000)
    author: str = Field("api", min_length=1, max_length=200)


class PromoteRequest(ChangeRequest):
    """With ``pinned`` only a person changes the champion from then on."""

    pinned: bool | None = None


class ChampionItem(BaseModel):
    """Model that a stream uses; without a version, the packaged one."""

    stream: str
    detector: str
    preset: str
    decision: str
    version: str | None
    pinned: bool = Field(description="only a person changes the champion")
    trainable: bool = Field(description="its detector has weights")
    backfill: BackfillInput = Field(description="what `forewatch backfill` can read of its source again")


class JobFilter(ListFilter):
    """Jobs by the time at which they were made."""

    state: JobState | None = None


@router.get("/models")
@shared
def list_models(context: Context, query: Annotated[ListFilter, Query()]) -> Page[ModelItem]:
    """Return versions, the newest first."""
    with context.database.read() as connection:
        found = models.page(connection, query.bounds(context, int, str))
    return query.page(found, _model, lambda one: (one.created_ns, one.version))


@router.get("/champions")
@shared
def list_champions(context: Context) -> Page[ChampionItem]:
    """Return the model that each stream of the config uses."""
    with context.database.read() as connection:
        found = {name: models.current_champion(connection, name) for name in context.config.streams}
    return Page(
        items=[
            ChampionItem(
                stream=name,
                detector=context.config.streams[name].detector,
                preset=context.config.streams[name].preset,
                decision=context.config.streams[name].decision,
                version=one.to_version,
                pinned=one.pinned,
                trainable=trainable(context.config.streams[name]),
                backfill=_backfill_input(context.config.streams[name].source),
            )
            for name, one in found.items()
        ]
    )


def _backfill_input(source: SourceConfig) -> BackfillInput:
    """Return what a backfill can read of a source."""
    if source.kafka is not None:
        return "range"
    return "none" if source.files is None else "files"


@router.get("/detection-power")
def list_detection_power(
    context: Context, stream: Annotated[str, Query(max_length=500)]
) -> Page[dict[str, Any]]:
    """Return the smallest change of each quantity that is detected today."""
    require_stream(context.config, stream)
    with context.database.read() as connection:
        return Page(items=[one.as_dict() for one in summaries(monitor_state.power(connection, stream))])


@router.get("/promotions")
@shared
def list_promotions(context: Context, query: Annotated[ListFilter, Query()]) -> Page[PromotionItem]:
    """Return changes of champions, the newest first."""
    with context.database.read() as connection:
        found = models.page_of_promotions(connection, query.bounds(context, int, str, int))
    return query.page(found, _promotion, lambda one: (one.created_ns, one.stream, one.sequence))


@router.post("/models/{version}/promote")
def promote(context: Context, version: Version, request: PromoteRequest) -> PromotionItem:
    """Make a version the champion; a daemon uses it from its next batch on."""
    with context.database.read() as connection:
        model = models.get(connection, version)
    context.require_visible(model.stream, f"there is no model {version}")
    require_stream(context.config, model.stream)
    require_usable(model)
    with context.database.begin() as connection:
        after = promotion.promote(
            connection,
            model.stream,
            context.config.streams[model.stream],
            model.version,
            author=context.author(request.author),
            reason=request.reason,
            now_ns=time_ns(),
            pinned=request.pinned,
        )
        context.record(connection, audited_changes.champion_changed(after))
    return _promotion(after)


@router.post("/streams/{stream}/train", status_code=202, tags=["jobs"])
def train(context: Context, stream: StreamPath, request: ChangeRequest) -> JobItem:
    """Queue a training on the recorded history; a running daemon runs it."""
    require_stream(context.config, stream)
    chosen, now_ns = context.config.streams[stream], time_ns()
    if not trainable(chosen):
        raise InputError(f"stream {stream}: the detector {chosen.detector} has no weights to train")
    with context.database.begin() as connection:
        author = context.author(request.author)
        number = request_training(
            connection, stream, chosen, now_ns, trigger=JobTrigger.MANUAL, author=author, now_ns=now_ns
        )
        if number is None:
            raise InputError(f"stream {stream}: a training is queued already")
        context.record(
            connection, audited_changes.job_requested(number, stream, "train", reason=request.reason)
        )
    return read_job(context, number)


@router.post("/streams/{stream}/rollback")
def roll_back(context: Context, stream: StreamPath, request: ChangeRequest) -> PromotionItem:
    """Make the previous champion the champion again."""
    return _changed(promotion.roll_back, context, stream, request)


@router.post("/streams/{stream}/unpin")
def unpin(context: Context, stream: StreamPath, request: ChangeRequest) -> PromotionItem:
    """Allow automatic promotions again."""
    return _changed(promotion.unpin, context, stream, request)


@router.get("/jobs", tags=["jobs"])
@shared
def list_jobs(context: Context, query: Annotated[JobFilter, Query()]) -> Page[JobItem]:
    """Return jobs, the newest first."""
    with context.database.read() as connection:
        states = [query.state] if query.state else None
        found = jobs.page(connection, query.bounds(context, int, int), states=states)
    return query.page(found, _job, lambda one: (one.created_ns, one.id))


@router.get("/jobs/{job_id}", tags=["jobs"])
def read_job(context: Context, job_id: JobId) -> JobItem:
    """Return one job."""
    with context.database.read() as connection:
        return _job(_visible_job(context, connection, job_id))


@router.post("/jobs/{job_id}/cancel", tags=["jobs"])
def cancel_job(context: Context, job_id: JobId) -> JobItem:
    """Cancel a queued job, or request the cancellation of a running one."""
    with context.database.begin() as connection:
        job = _visible_job(context, connection, job_id)
        jobs.cancel(connection, job_id, time_ns())
        context.record(connection, audited_changes.job_cancelled(job))
    return read_job(context, job_id)


@router.post("/jobs/{job_id}/retry", tags=["jobs"])
def retry_job(context: Context, job_id: JobId) -> JobItem:
    """Queue a failed, rejected or cancelled job again."""
    with context.database.begin() as connection:
        job = _visible_job(context, connection, job_id)
        jobs.retry(connection, job_id)
        context.record(connection, audited_changes.job_retried(job))
    return read_job(context, job_id)


def _changed(change: Any, context: ApiContext, stream: str, request: ChangeRequest) -> PromotionItem:
    require_stream(context.config, stream)
    with context.database.begin() as connection:
        author = context.author(request.author)
        after = change(connection, stream, author=author, reason=request.reason, now_ns=time_ns())
        context.record(connection, audited_changes.champion_changed(after))
    return _promotion(after)


def _visible_job(context: ApiContext, connection: Connection, job_id: int) -> Job:
    job = jobs.get(connection, job_id)
    context.require_visible(job.stream, f"there is no job {job_id}")
    return job


def _model(one: ModelVersion) -> ModelItem:
    times = {"made": show_time(one.created_ns), "changed": show_time(one.changed_ns)}
    return ModelItem(**asdict(one) | times | {"evidence": safe_tree(one.evidence)})


def _promotion(one: Promotion) -> PromotionItem:
    return PromotionItem(**asdict(one), created=show_time(one.created_ns))


def _job(one: Job) -> JobItem:
    times = {name: show_time(getattr(one, f"{name}_ns")) for name in ("created", "started", "finished")}
    return JobItem(**asdict(one) | times)
