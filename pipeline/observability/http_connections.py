"""Limits on the connections of the HTTP server: their number, their time, and what is logged about them."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

log = structlog.get_logger(__name__)

MAX_CONNECTIONS = 32
#: Connections of a server whose pages each keep one open.
MAX_PAGE_CONNECTIONS = 300
#: Connections that are accepted in one turn of the loop, and that wait in the kernel.
ACCEPT_BACKLOG = 16
#: Time for a complete request header, from the connection or from the last response.
HEADER_TIMEOUT_SECONDS = 10.0
#: Time for a request and its response.
REQUEST_TIMEOUT_SECONDS = 60.0
LOG_INTERVAL_SECONDS = 60.0

_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class LimitedProtocol(H11Protocol):
    """A connection that ends when its client is too slow, or to make room for a newer one."""

    #: Set by the server, see ``limited_protocol``.
    max_connections = MAX_CONNECTIONS
    endless_path = ""
    _waits_since = 0.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Header and body are two writes. With Nagle's algorithm the second one waits for the client's delayed
        # acknowledgement, 40 ms; asyncio turns it off only for sockets that name their protocol.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._restart_timer(HEADER_TIMEOUT_SECONDS)
        open_ones = [one for one in self.connections if not _is_closing(one)]
        if len(open_ones) > self.max_connections:
            idle = [
                one for one in open_ones if isinstance(one, LimitedProtocol) and one is not self and one.idle
            ]
            # The new connection stays, so that a client that holds many open cannot shut others out.
            min(idle, key=lambda one: one._waits_since, default=self).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        self._restart_timer(HEADER_TIMEOUT_SECONDS)
        super().on_response_complete()

    @property
    def idle(self) -> bool:
        """Return whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _restart_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._waits_since = self.loop.time()
        self._timer = self.loop.call_later(seconds, self._time_out)

    def _time_out(self) -> None:
        waited = self.loop.time() - self._waits_since
        if self.idle or self.transport.is_closing():  # a client that does not read holds up the end
            self.transport.abort()
        elif self.endless_path and self.cycle.scope["path"] == self.endless_path:
            self._restart_timer(REQUEST_TIMEOUT_SECONDS)  # its response has a limit of its own
        elif waited >= REQUEST_TIMEOUT_SECONDS:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(REQUEST_TIMEOUT_SECONDS - waited + 0.01, self._time_out)


def limited_protocol(max_connections: int, endless_path: str) -> type[LimitedProtocol]:
    """Return the protocol of a server with other limits.

    Args:
        max_connections: Largest number of connections.
        endless_path: Path whose responses may take any time.
    """
    limits = {"max_connections": max_connections, "endless_path": endless_path}
    return type("LimitedPageProtocol", (LimitedProtocol,), limits)


def _is_closing(connection: Any) -> bool:
    return connection.transport is None or connection.transport.is_closing()


class LimitedServer(uvicorn.Server):
    """Server that logs an error of its event loop, such as a lack of descriptors, once a minute."""

    _logged_at: float | None = None
    _not_logged = 0

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self._report)
        await super().serve(sockets)

    def _report(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        now = time.monotonic()
        if self._logged_at is not None and now - self._logged_at < LOG_INTERVAL_SECONDS:
            self._not_logged += 1
            return
        error = context.get("exception")
        more = {"not_logged": self._not_logged} if self._not_logged else {}
        self._logged_at, self._not_logged = now, 0
        if isinstance(error, OSError) and error.errno in _OUT_OF_RESOURCES:
            log.error("the HTTP server cannot accept connections", error=str(error), **more)
        else:
            log.error("error in the HTTP server", error=context.get("message"), exc_info=error, **more)
