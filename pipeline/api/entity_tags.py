"""Entity tags: an unchanged answer is 304, a stale change is 412 (RFC 9110)."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import Header
from pydantic import BaseModel
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.core.errors import ForewatchError

IfMatch = Annotated[
    str | None, Header(description="`ETag` of the answer that the change is based on; 412 if it has changed")
]
_MEDIA_TYPES = ("application/json", "application/vnd.apache.arrow.stream")


class PreconditionFailed(ForewatchError):
    """The object has changed since the answer that ``If-Match`` names."""


def tag_of(item: BaseModel) -> str:
    """Return the entity tag of an object of the API."""
    return _tag(item.model_dump_json().encode("utf-8", "surrogatepass"))


def require_match(if_match: str | None, item: BaseModel) -> None:
    """Check that an object has not changed since a client read it.

    Raises:
        PreconditionFailed: It has changed.
    """
    if if_match is not None and not _names(if_match, tag_of(item)):
        raise PreconditionFailed("it has changed since you read it; read it again, then decide again")


class EntityTags:
    """Middleware that answers 304 to a client that has the same answer already."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add ``ETag`` to the whole answers of GET; streams pass unchanged."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("if-none-match")
        start: Message | None = None

        async def tagged(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_whole(message):
                start = message
                return
            if start is None or message["type"] != "http.response.body":
                await send(message)
                return
            first, start = start, None
            if message.get("more_body"):
                await send(first)
                await send(message)
                return
            headers = MutableHeaders(scope=first)
            headers.setdefault("etag", _tag(message.get("body", b"")))
            if given is not None and _names(given, headers["etag"]):
                del headers["content-length"]
                first, message = {**first, "status": 304}, {**message, "body": b""}
            await send(first)
            await send(message)

        await self._app(scope, receive, tagged)


def _is_whole(message: Message) -> bool:
    kind = Headers(raw=message["headers"]).get("content-type", "").partition(";")[0]
    return message["status"] == 200 and kind in _MEDIA_TYPES


def _names(given: str, tag: str) -> bool:
    return given.strip() == "*" or tag in (one.strip().removeprefix("W/") for one in given.split(","))


def _tag(body: bytes) -> str:
    return f'"{hashlib.blake2b(body, digest_size=16).hexdigest()}"'
