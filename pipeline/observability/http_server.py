"""The daemon's HTTP server: health, readiness and metrics, in a thread of its own."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pipeline.core.errors import ConfigError
from pipeline.observability.health import Health
from pipeline.observability.metrics import Metrics

_START_TIMEOUT = 10.0


def operating_routes(health: Health, metrics: Metrics) -> list[BaseRoute]:
    """``/healthz``, ``/readyz`` and ``/metrics``."""

    async def healthz(request: Request) -> Response:
        """200: the loops turn. 503: one stands still, and the watchdog will end the process."""
        alive = health.alive()
        return JSONResponse(
            {"alive": alive, "idle_seconds": round(health.idle(), 3)}, status_code=200 if alive else 503
        )

    async def readyz(request: Request) -> Response:
        """200: every partition is taken over, the database and the sources answer.

        503: ``waiting`` says what is missing.
        """
        waiting = health.waiting()
        return JSONResponse({"ready": not waiting, "waiting": waiting}, status_code=503 if waiting else 200)

    def scrape(request: Request) -> Response:
        """Metrics in the text format of Prometheus."""
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", scrape)]


class HttpServer:
    """Serves ``routes`` until ``stop``; the port is taken at once, so that a conflict is an error before
    anything else starts.
    """

    def __init__(self, host: str, port: int, routes: Sequence[BaseRoute]) -> None:
        self._socket = _listen(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        config = uvicorn.Config(
            Starlette(routes=list(routes)),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
            ws="none",
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="http", daemon=True
        )

    def start(self) -> None:
        """Return once requests are answered."""
        self._thread.start()
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._server.started and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)

    def stop(self) -> None:
        """Let requests in flight end (2 s at most), then free the port. Calling it twice is fine."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        why = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0]
        raise ConfigError(
            f"http: cannot listen on {host} port {port}: {why} — choose another `http.port` (0 takes a free one), or `http: null` to serve nothing"
        ) from None
