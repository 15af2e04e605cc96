"""Routers whose GET operations answer with JSON that is made once.

FastAPI checks the model that an operation returns against its own schema in another thread, then encodes it.
The models of this API are checked when they are made: here they are encoded in the thread of the operation.
"""

from __future__ import annotations

import gzip
import inspect
import json
from collections.abc import Callable
from functools import wraps
from typing import Any

from fastapi import APIRouter, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

MEDIA_TYPE = "application/json"
COMPRESS_LEVEL = 4


class EncodedAnswer:
    """JSON that many requests get, encoded and compressed once."""

    def __init__(self, content: Any) -> None:
        """Encode ``content``."""
        self._plain = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        self._gzip = gzip.compress(self._plain, COMPRESS_LEVEL)

    def response(self, accepted: str) -> Response:
        """Return the answer to a request with this ``Accept-Encoding``."""
        headers = {"vary": "accept-encoding"}
        if "gzip" not in accepted:
            return Response(self._plain, media_type=MEDIA_TYPE, headers=headers)
        return Response(self._gzip, media_type=MEDIA_TYPE, headers=headers | {"content-encoding": "gzip"})


class _DirectRoute(APIRoute):
    """Route that encodes the model of a GET operation itself."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **given: Any) -> None:
        """Take an operation; those that set headers or are coroutines stay as they are."""
        methods = given.get("methods") or ["GET"]
        if set(methods) == {"GET"} and _is_plain(endpoint):
            endpoint = _encoded(endpoint)
        super().__init__(path, endpoint, **given)


def api_router(**given: Any) -> APIRouter:
    """Return a router of this API; the arguments are those of ``APIRouter``."""
    return APIRouter(route_class=_DirectRoute, **given)


def _is_plain(endpoint: Callable[..., Any]) -> bool:
    if inspect.iscoroutinefunction(endpoint) or hasattr(endpoint, "__wrapped__"):
        return False
    return all(
        one.annotation not in (Response, "Response")
        for one in inspect.signature(endpoint).parameters.values()
    )


def _encoded(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(endpoint)
    def answer(*args: Any, **given: Any) -> Any:
        found = endpoint(*args, **given)
        if not isinstance(found, BaseModel):
            return found
        return Response(found.__pydantic_serializer__.to_json(found, by_alias=True), media_type=MEDIA_TYPE)

    return answer
