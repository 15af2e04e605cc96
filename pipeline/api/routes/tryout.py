"""Verdicts on a file that the request carries."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from pipeline.access.scopes import NotPermitted
from pipeline.api.context import Context, Name, require_stream
from pipeline.api.direct_answers import api_router
from pipeline.services.try_file import try_file
from pipeline.services.try_recorded import try_recorded

router = api_router(tags=["try"])

#: A slider judges the same records again; after this time they are read again.
KEPT_SAMPLE_SECONDS = 300.0

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


class TopicSettings(BaseModel):
    """Topic, and the settings of verdicts as for a file."""

    model_config = ConfigDict(extra="forbid")

    topic: str = Field(min_length=1, max_length=249, pattern=r"^[A-Za-z0-9._-]+$")
    stream: Name = Field(description="stream whose brokers and credentials are used")
    preset: Name = ""
    sensitivity: Name = ""
    direction: Name = ""
    min_deviation: Name = ""
    min_points: Name = ""
    timezone: Name = ""
    holidays: Name = ""
    values: Name = ""
    show: Name = ""


@router.post("/try/topic", response_model=dict[str, Any])
def try_topic_data(context: Context, query: Annotated[TopicSettings, Query()]) -> Any:
    """Return verdicts on the newest records of a topic, and a config to read it.

    Only who sees all streams may name a topic: its records belong to no stream.
    """
    from pipeline.services.try_topic import read_topic, try_topic

    require_stream(context.config, query.stream)
    if context.visible is not None:
        raise NotPermitted("a key of some streams cannot read a topic that belongs to none of them")
    settings = query.model_dump(exclude={"topic", "stream"})
    sample = context.topic_samples.get(
        f"{query.stream}\0{query.topic}",
        lambda: read_topic(context.config, query.stream, query.topic),
        KEPT_SAMPLE_SECONDS,
    )
    return JSONResponse(try_topic(sample, settings))


@router.post("/try", response_model=dict[str, Any], openapi_extra=_BODY)
async def try_data(context: Context, request: Request) -> Any:
    """Return the verdicts on a file of up to 20 MiB, or on recorded points.

    The file is CSV or Parquet. The answer has the config of a stream that gives the same. With ``stream`` in
    the query there is no file:
    the newest recorded points of that stream are scored.

    The query has the settings: ``preset``, ``sensitivity``, ``direction``, ``min_deviation``,
    ``min_points``, those of the season (``timezone`` of the time of day, ``holidays`` that are like weekends,
    ``none`` for none), and the columns ``time``, ``series`` and ``values``.
    """
    data, query = await request.body(), dict(request.query_params)
    stream = query.pop("stream", None)
    if stream is None:
        return JSONResponse(await run_in_threadpool(try_file, data, query))
    require_stream(context.config, stream)
    return JSONResponse(
        await run_in_threadpool(try_recorded, context.database, context.config, stream, query)
    )
