"""Verdicts on a file that the request carries."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from pipeline.api.context import Context, require_stream
from pipeline.api.direct_answers import api_router
from pipeline.services.try_file import try_file, try_recorded

router = api_router(tags=["try"])

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("/try", response_model=dict[str, Any], openapi_extra=_BODY)
async def try_data(context: Context, request: Request) -> Any:
    """Return the verdicts on a file of up to 20 MiB, or on recorded points.

    The file is CSV or Parquet. The answer has the config of a stream that gives the same. With ``stream`` in
    the query there is no file:
    the newest recorded points of that stream are scored.

    The query has the settings: ``preset``, ``sensitivity``, ``direction``, ``min_deviation``,
    ``min_points``, and the columns ``time``, ``series`` and ``values``.
    """
    data, query = await request.body(), dict(request.query_params)
    stream = query.pop("stream", None)
    if stream is None:
        return JSONResponse(await run_in_threadpool(try_file, data, query))
    require_stream(context.config, stream)
    return JSONResponse(await run_in_threadpool(try_recorded, context.config, stream, query))
