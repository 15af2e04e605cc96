"""HTTP server of the daemon: health, readiness and metrics, in a separate thread."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Protocol

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from pipeline.core.errors import ConfigError
from pipeline.observability.http_connections import ACCEPT_BACKLOG, LimitedProtocol, LimitedServer

_START_TIMEOUT_SECONDS = 10.0


class HealthView(Protocol):
    """Liveness and readiness of a process, as ``Health`` has them."""

    def alive(self) -> bool:
        """Return whether the loops turn."""
        ...

    def idle(self) -> float:
        """Return the seconds since the last turn of the slowest loop."""
        ...

    def waiting(self) -> dict[str, str]:
        """Return the pending conditions with their reasons; empty means ready."""
        ...


def operating_routes(health: HealthView, exposition: Callable[[], bytes]) -> list[BaseRoute]:
    """Return the routes ``/healthz``, ``/readyz`` and ``/metrics``.

    ``exposition`` returns the metrics in the text format of Prometheus.
    """

    async def healthz(request: Request) -> Response:
        """Answer 200 while the loops turn, and 503 when one has stopped."""
        alive = health.alive()
        return JSONResponse(
            {"alive": alive, "idle_seconds": round(health.idle(), 3)}, status_code=200 if alive else 503
        )

    async def readyz(request: Request) -> Response:
        """Answer 200 when all partitions are owned and the database and the sources answer.

        Otherwise answer 503 with the pending conditions in ``waiting``.
        """
        waiting = health.waiting()
        return JSONResponse({"ready": not waiting, "waiting": waiting}, status_code=503 if waiting else 200)

    def scrape(request: Request) -> Response:
        """Return the metrics in the text format of Prometheus."""
        return Response(exposition(), media_type=CONTENT_TYPE_LATEST)

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", scrape)]


class HttpServer:
    """Server of ``routes`` until ``stop``.

    The constructor binds the port, so that a conflict is reported before anything else starts. The number of
    connections and the time of a request are limited (``http_connections``).
    """

    def __init__(
        self,
        host: str,
        port: int,
        routes: Sequence[BaseRoute],
        protocol: type[LimitedProtocol] = LimitedProtocol,
        key: str = "http",
    ) -> None:
        self._socket = _listen(host, port, key)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        self.on_loopback: bool = ip_address(self._socket.getsockname()[0].partition("%")[0]).is_loopback
        config = uvicorn.Config(
            Starlette(routes=list(routes)),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
            ws="none",
            # The address of a client is that of its connection; `serve.trusted_proxies` names exceptions.
            proxy_headers=False,
            http=protocol,
            loop="asyncio",
            backlog=ACCEPT_BACKLOG,
        )
        self._server = LimitedServer(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="http", daemon=True
        )

    def start(self) -> None:
        """Start the thread and wait until requests are answered."""
        self._thread.start()
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while not self._server.started and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)

    def stop(self) -> None:
        """Wait up to 2 s for open requests, then free the port; a second call does nothing."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()


def _listen(host: str, port: int, key: str) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, UnicodeError) as error:
        why = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0]
        disable = ", or write `http: null` to disable the server" if key == "http" else ""
        raise ConfigError(
            f"{key}: cannot listen on {host} port {port}: {why} — choose another `{key}.port` (0 "
            f"takes a free one){disable}"
        ) from None
