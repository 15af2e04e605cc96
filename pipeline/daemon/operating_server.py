"""The HTTP server for operators: health, metrics and the pages of alerts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from pipeline.alerts.routes import alert_routes
from pipeline.config.schema import Config
from pipeline.observability.http_server import HealthView, HttpServer, operating_routes

log = structlog.get_logger(__name__)


@contextmanager
def operating_server(config: Config, health: HealthView, exposition: Callable[[], bytes]) -> Iterator[None]:
    """Serve ``http`` of the config inside the block, if it has that key.

    Args:
        config: The configuration.
        health: Answers of ``/healthz`` and ``/readyz``.
        exposition: Returns the metrics in the text format of Prometheus.

    Raises:
        ConfigError: The address cannot be used.
    """
    if config.http is None:
        yield
        return
    routes = [*operating_routes(health, exposition), *alert_routes(config)]
    server = HttpServer(config.http.host, config.http.port, routes)
    server.start()
    try:
        log.info("serving", url=server.url)
        if not server.on_loopback:
            log.warning(
                "the HTTP server has no authentication and listens beyond this machine; "
                "set http.host to 127.0.0.1, or put a proxy with a login in front",
                host=config.http.host,
            )
        yield
    finally:
        server.stop()
