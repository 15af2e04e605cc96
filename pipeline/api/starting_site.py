"""Server of the dashboard that answers before its API is loaded.

Its pages say that forewatch starts. Little is imported here, so that it answers soon after the start of a
daemon.
"""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import URLPath
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline.config.schema import Config
from pipeline.config.serve import ServeConfig
from pipeline.dashboard.assets import HEADERS, page_routes
from pipeline.observability.http_connections import MAX_PAGE_CONNECTIONS, limited_protocol
from pipeline.observability.http_server import HttpServer

PREFIX = "/api/v1"
#: Type of the problem that pages take for a start that goes on.
STARTING_TYPE = "urn:forewatch:starting"
_TITLE = "forewatch is starting"
_DETAIL = "It opens its database and loads its detectors, which takes some seconds. Repeat the request then."
_PAGE = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="1">'
    f"<title>{_TITLE}</title><p>{_TITLE}; this page continues by itself.</p></html>"
)


class StartingSite:
    """Server of the pages that gets its application later."""

    def __init__(self, config: Config, host: str | None = None, port: int | None = None) -> None:
        """Bind the port.

        Args:
            config: The configuration.
            host: The address to listen on (default: that of ``serve``).
            port: The port; 0 takes a free one (default: that of ``serve``).

        Raises:
            ConfigError: The port is in use.
        """
        serve = config.served or ServeConfig()
        host, port = serve.host if host is None else host, serve.port if port is None else port
        protocol = limited_protocol(MAX_PAGE_CONNECTIONS, f"{PREFIX}/events")
        self.server = HttpServer(host, port, [_EveryPath(self._dispatch)], protocol, "serve")
        self._problem = ""
        self._starting = Starlette(routes=page_routes(preload=False), exception_handlers={404: self._wait})
        self._app: ASGIApp | None = None

    def use(self, app: ASGIApp) -> None:
        """Pass requests to an application from now on."""
        self._app = app

    def report(self, problem: str) -> None:
        """Tell people on this machine why the application cannot start."""
        if self.server.on_loopback:
            self._problem = problem

    async def _dispatch(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._app or self._starting)(scope, receive, send)

    async def _wait(self, request: Request, error: Exception) -> Response:
        """Answer everything but pages and their files."""
        if not request.url.path.startswith("/api/") and "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(_PAGE, 503, HEADERS | {"retry-after": "1"})
        detail = f"{self._problem}. It is tried again." if self._problem else _DETAIL
        problem = {"type": STARTING_TYPE, "title": _TITLE, "status": 503, "detail": detail}
        headers = {"retry-after": "1", "cache-control": "no-store", "x-content-type-options": "nosniff"}
        return JSONResponse(problem, 503, headers, "application/problem+json")


class _EveryPath(BaseRoute):
    """Route of every path, also of one with a line break."""

    def __init__(self, app: ASGIApp) -> None:
        """Take what answers."""
        self._app = app

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Match."""
        return Match.FULL, {}

    def url_path_for(self, name: str, /, **path_params: Any) -> URLPath:
        """Raise NoMatchFound: no path is looked up by a name."""
        raise NoMatchFound(name, path_params)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        await self._app(scope, receive, send)
