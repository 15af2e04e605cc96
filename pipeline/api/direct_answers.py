"""Routers whose GET operations answer with JSON that is made once.

FastAPI checks the model that an operation returns against its own schema in another thread, then encodes it.
The models of this API are checked when they are made: here they are encoded in the thread of the operation.
"""

from __future__ import annotations

import gzip
import inspect
import json
from collections.abc import Callable
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

if TYPE_CHECKING:
    from pipeline.api.context import ApiContext

MEDIA_TYPE = "application/json"
COMPRESS_LEVEL = 4
#: Smaller answers are not compressed.
MIN_COMPRESSED_BYTES = 2000
#: Greatest age of a shared answer: some have times beside what the database holds.
SHARED_SECONDS = 1.0


class EncodedAnswer:
    """JSON that many requests get, encoded and compressed once."""

    def __init__(self, plain: bytes) -> None:
        """Take the text of the answer."""
        self._plain = plain

    @classmethod
    def of(cls, content: Any) -> EncodedAnswer:
        """Encode ``content``."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return cls(text.encode())

    @cached_property
    def _gzip(self) -> bytes:
        return gzip.compress(self._plain, COMPRESS_LEVEL, mtime=0)  # the same answer has the same entity tag

    def response(self, accepted: str) -> Response:
        """Return the answer to a request with this ``Accept-Encoding``."""
        headers = {"vary": "accept-encoding"}
        if "gzip" not in accepted or len(self._plain) < MIN_COMPRESSED_BYTES:
            return Response(self._plain, media_type=MEDIA_TYPE, headers=headers)
        return Response(self._gzip, media_type=MEDIA_TYPE, headers=headers | {"content-encoding": "gzip"})


def shared(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a GET operation whose answer is made of the config and the database alone.

    It is made once for all who see the same streams, until the database changes, at most ``SHARED_SECONDS``.
    """
    endpoint.is_shared = True  # type: ignore[attr-defined]
    return endpoint


class _DirectRoute(APIRoute):
    """Route that encodes the model of a GET operation itself."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **given: Any) -> None:
        """Take an operation; those that set headers or are coroutines stay as they are."""
        methods = given.get("methods") or ["GET"]
        if set(methods) == {"GET"} and _is_plain(endpoint):
            endpoint = _shared(endpoint) if hasattr(endpoint, "is_shared") else _encoded(endpoint)
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


def _json_of(model: BaseModel) -> bytes:
    return model.__pydantic_serializer__.to_json(model, by_alias=True)


def _encoded(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(endpoint)
    def answer(*args: Any, **given: Any) -> Any:
        found = endpoint(*args, **given)
        return Response(_json_of(found), media_type=MEDIA_TYPE) if isinstance(found, BaseModel) else found

    return answer


def _shared(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(endpoint)
    def answer(context: ApiContext, **given: Any) -> Any:
        def make() -> EncodedAnswer:
            return EncodedAnswer(_json_of(endpoint(context=context, **given)))

        version = context.database.version()
        if version is None:
            return make().response(context.accepted_encoding)
        key = f"{endpoint.__qualname__} {sorted(given.items())} {version}"
        kept = context.lists.get(context.shared_key(key), make, SHARED_SECONDS)
        return kept.response(context.accepted_encoding)

    return answer
