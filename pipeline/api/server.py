"""HTTP server of the dashboard and the REST API."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from pipeline.access.gate import Gate
from pipeline.api.app import api_route
from pipeline.api.direct_answers import COMPRESS_LEVEL, MIN_COMPRESSED_BYTES
from pipeline.api.guard import AccessGuard
from pipeline.api.login import LoginPages
from pipeline.api.problems import problem
from pipeline.api.routes import fleet
from pipeline.api.starting_site import PREFIX, StartingSite
from pipeline.config.schema import Config
from pipeline.dashboard.assets import page, page_routes
from pipeline.database import database_of
from pipeline.observability.http_server import HttpServer

log = structlog.get_logger(__name__)


@contextmanager
def dashboard_server(
    config: Config, host: str | None = None, port: int | None = None
) -> Iterator[HttpServer]:
    """Yield a running server of the pages and of the API that they use.

    Args:
        config: The configuration whose database and history are shown.
        host: The address to listen on (default: that of ``serve``).
        port: The port; 0 takes a free one (default: that of ``serve``).

    Raises:
        ConfigError: Other machines reach the address and nobody could log in, or the port is in use.
    """
    site = StartingSite(config, host, port)
    try:
        with application(config, site):
            site.server.start()
            yield site.server
    finally:
        site.server.stop()


@contextmanager
def application(config: Config, site: StartingSite) -> Iterator[None]:
    """Let a site serve the pages and the API of a config, and stop it at the end.

    Args:
        config: The configuration whose database and history are shown.
        site: Server that has no application yet.

    Raises:
        ConfigError: Other machines reach the address and nobody could log in.
    """
    with ExitStack() as stack:
        database = stack.enter_context(closing(database_of(config)))
        app = Starlette(exception_handlers={404: _not_found})
        gate = Gate(config, database, site.server.on_loopback)
        gate.require_usable()
        api = api_route(config, database)
        app.router.routes += [*LoginPages(gate).routes(), *page_routes(), api]
        app.user_middleware += _middleware(gate)
        if not gate.on_loopback and not (gate.serve.url or "").startswith("https://"):
            log.warning(
                "API keys and logins cross the network unencrypted, and browsers refuse the login; put a "
                "proxy with TLS in front and name it in serve.url",
                url=site.server.url,
            )
        context = api.app.state.context  # type: ignore[attr-defined]
        threading.Thread(target=fleet.warm_up, args=(context,), name="warm-up", daemon=True).start()
        stack.callback(site.server.stop)
        stack.callback(api.app.state.monitor.stop)  # type: ignore[attr-defined]
        site.use(app)
        yield


def _not_found(request: Request, error: Exception) -> Response:
    """Answer a person with the page that says so, and a program with a problem."""
    path = request.url.path
    if "text/html" in request.headers.get("accept", "") and not path.startswith((f"{PREFIX}/", "/assets/")):
        return page(status=404)
    return problem(404, "There is no such path", "see /api/v1/openapi.json for the operations of the API")


def _middleware(gate: Gate) -> list[Middleware]:
    trusted = gate.serve.trusted_proxies
    proxies = [Middleware(ProxyHeadersMiddleware, trusted_hosts=trusted)] if trusted else []
    return [
        *proxies,
        Middleware(AccessGuard, gate=gate),
        Middleware(GZipMiddleware, minimum_size=MIN_COMPRESSED_BYTES, compresslevel=COMPRESS_LEVEL),
    ]
