"""Verdicts on a file that the request carries."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from pipeline.services.try_file import try_file

router = APIRouter(tags=["try"])

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("/try", response_model=dict[str, Any], openapi_extra=_BODY)
async def try_data(request: Request) -> Any:
    """Return the verdicts on a CSV or Parquet file of up to 20 MiB.

    The answer has the config of a stream that gives the same.

    The query has the settings: ``preset``, ``sensitivity``, ``direction``, ``min_deviation``,
    ``min_points``, and the columns ``time``, ``series`` and ``values``.
    """
    data, query = await request.body(), dict(request.query_params)
    return JSONResponse(await run_in_threadpool(try_file, data, query))
