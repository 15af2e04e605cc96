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
from starlette.routing import Mount
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from pipeline.access.gate import Gate
from pipeline.api.app import PREFIX, api_route
from pipeline.api.guard import AccessGuard
from pipeline.api.login import LoginPages
from pipeline.api.problems import problem
from pipeline.api.routes import fleet
from pipeline.config.schema import Config
from pipeline.config.serve import ServeConfig
from pipeline.dashboard.assets import page, page_routes
from pipeline.database import database_of
from pipeline.observability.http_connections import MAX_PAGE_CONNECTIONS, limited_protocol
from pipeline.observability.http_server import HttpServer

log = structlog.get_logger(__name__)

DEFAULT_PORT = 9465
#: Smaller answers are not compressed.
_MIN_COMPRESSED_BYTES = 2000


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
    serve = config.served or ServeConfig()
    host = serve.host if host is None else host
    with ExitStack() as stack:
        database = stack.enter_context(closing(database_of(config)))
        app = Starlette(exception_handlers={404: _not_found})
        protocol = limited_protocol(MAX_PAGE_CONNECTIONS, f"{PREFIX}/events")
        server = HttpServer(host, serve.port if port is None else port, [Mount("/", app)], protocol)
        stack.callback(server.stop)
        gate = Gate(config, database, server.on_loopback)
        gate.require_usable()
        api = api_route(config, database)
        stack.callback(api.app.state.monitor.stop)  # type: ignore[attr-defined]
        app.router.routes += [*LoginPages(gate).routes(), *page_routes(), api]
        app.user_middleware += _middleware(gate)
        if not gate.on_loopback and not (serve.url or "").startswith("https://"):
            log.warning(
                "API keys and logins cross the network unencrypted, and browsers refuse the login; put a "
                "proxy with TLS in front and name it in serve.url",
                host=host,
            )
        context = api.app.state.context  # type: ignore[attr-defined]
        threading.Thread(target=fleet.warm_up, args=(context,), name="warm-up", daemon=True).start()
        server.start()
        yield server


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
        Middleware(GZipMiddleware, minimum_size=_MIN_COMPRESSED_BYTES, compresslevel=4),
    ]
