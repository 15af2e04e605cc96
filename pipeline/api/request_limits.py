"""Limits of a request: size of the body, characters of the address."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.api.problems import problem
from pipeline.services.try_file import MAX_FILE_BYTES

MAX_BODY_BYTES = 64 << 10
#: End of a path whose body is a file, and the limit of the file.
_FILE_LIMITS_BYTES = {"/try": MAX_FILE_BYTES}


class RequestLimits:
    """Middleware that refuses large bodies, and NUL in an address."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 413 or 422."""
        if scope["type"] == "http" and b"%00" in scope.get("raw_path", b"") + scope["query_string"]:
            detail = "the address contains the character NUL, which no name has; remove %00"
            await problem(422, "The request cannot be used", detail)(scope, receive, send)
            return
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        limit = next(
            (n for end, n in _FILE_LIMITS_BYTES.items() if scope["path"].endswith(end)), MAX_BODY_BYTES
        )
        messages: list[Message] = []
        size, more = 0, True
        while more:
            message = await receive()
            messages.append(message)
            size += len(message.get("body", b""))
            if size > limit:
                detail = f"the body is larger than {limit} bytes; send less"
                await problem(413, "The request is too large", detail)(scope, receive, send)
                return
            more = message.get("more_body", False)

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        await self._app(scope, replay, send)
