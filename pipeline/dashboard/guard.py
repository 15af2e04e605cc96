"""Checks of requests to a server without authentication.

They must come from a page of this machine.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

#: A form of another site cannot send this header.
CSRF_HEADER = "x-forewatch-csrf"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class LocalPagesOnly:
    """Middleware that refuses foreign host names and changes by other sites.

    A foreign name in ``Host`` means DNS rebinding: a page of another site that resolves to this machine.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403."""
        if scope["type"] == "http" and (reason := _refusal(scope)) is not None:
            await PlainTextResponse(reason, status_code=403)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _refusal(scope: Scope) -> str | None:
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    if not _is_local(host):
        return "this server answers only under the name of this machine: localhost or its loopback address"
    if scope["method"] in _SAFE_METHODS:
        return None
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return "the request comes from a page of another site"
    if not headers.get(CSRF_HEADER):
        return f"a change needs the header {CSRF_HEADER}"
    return None


def _is_local(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
