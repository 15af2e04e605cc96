"""HTTP server of the dashboard and the REST API, on loopback addresses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount

from pipeline.api.app import api_route
from pipeline.config.schema import Config
from pipeline.core.errors import ConfigError
from pipeline.dashboard.assets import page_routes
from pipeline.dashboard.guard import LocalPagesOnly
from pipeline.database import database_of
from pipeline.observability.http_server import HttpServer

DEFAULT_PORT = 9465
#: Smaller answers are not compressed.
_MIN_COMPRESSED_BYTES = 2000


@contextmanager
def dashboard_server(
    config: Config, host: str = "127.0.0.1", port: int = DEFAULT_PORT
) -> Iterator[HttpServer]:
    """Yield a running server of the pages and of the API that they use.

    Args:
        config: The configuration whose database and history are shown.
        host: A loopback address: there is no authentication.
        port: The port; 0 takes a free one.

    Raises:
        ConfigError: The address is not a loopback address, or the port is in use.
    """
    with closing(database_of(config)) as database:
        app = Starlette(
            routes=[*page_routes(), api_route(config, database)],
            middleware=[
                Middleware(LocalPagesOnly),
                Middleware(GZipMiddleware, minimum_size=_MIN_COMPRESSED_BYTES, compresslevel=4),
            ],
        )
        server = HttpServer(host, port, [Mount("/", app)])
        try:
            if not server.on_loopback:
                raise ConfigError(
                    f"serve: {host} is not an address of this machine only, and the dashboard has no "
                    "authentication; reach it through a proxy with a login, or an SSH tunnel"
                )
            server.start()
            yield server
        finally:
            server.stop()
