"""HTTP server of the dashboard on the loopback addresses of this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import BaseRoute, Mount

from pipeline.config.schema import Config
from pipeline.core.errors import ConfigError
from pipeline.dashboard.guard import LocalPagesOnly
from pipeline.dashboard.routes import dashboard_routes
from pipeline.dashboard.source import ViewSource
from pipeline.observability.http_server import HttpServer
from storage.sql.database import Database

DEFAULT_PORT = 9465
#: Smaller answers are not compressed.
_MIN_COMPRESSED_BYTES = 2000


@contextmanager
def dashboard_server(
    config: Config,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    more_routes: Callable[[Config, Database], Sequence[BaseRoute]] = lambda config, database: (),
) -> Iterator[HttpServer]:
    """Yield a running server of the dashboard.

    Args:
        config: The configuration whose database and history are shown.
        host: A loopback address: there is no authentication.
        port: The port; 0 takes a free one.
        more_routes: Returns further routes over the same database, behind the same checks of requests.

    Raises:
        ConfigError: The address is not a loopback address, or the port is in use.
    """
    with closing(ViewSource.of(config)) as source:
        app = Starlette(
            routes=[*dashboard_routes(source), *more_routes(config, source.database)],
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
