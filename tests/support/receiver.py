"""HTTP receivers for tests: a real server on a free port.

It keeps the requests and gives the configured answers, also malformed ones.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.loop_server import LoopServer

Answer = Callable[["Received"], bytes]


@dataclass
class Received:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    peer: int = 0  # the caller's port: one connection has one
    at: float = field(default_factory=time.monotonic)


def answer(status: int = 200, body: bytes = b"ok", **headers: str) -> bytes:
    """A whole HTTP response."""
    lines = [
        f"HTTP/1.1 {status} X",
        f"content-length: {len(body)}",
        *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Receiver(LoopServer):
    """``behave`` may be changed at any time: it is a response, a function of the request, or a coroutine that
    has the connection to itself.
    """

    def __init__(self, behave: Any = None, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.behave: Any = behave if behave is not None else answer()
        self.received: list[Received] = []
        self._tls = tls

    @property
    def url(self) -> str:
        return (
            f"{'https' if self._tls else 'http'}://localhost:{self.port}/hook"
            if self._tls
            else f"http://127.0.0.1:{self.port}/hook"
        )

    def wait(self, count: int, timeout: float = 120.0) -> list[Received]:
        """Until ``count`` requests are there."""
        end = time.monotonic() + timeout
        while len(self.received) < count and time.monotonic() < end:
            time.sleep(0.01)
        assert len(self.received) >= count, f"{len(self.received)} of {count} requests arrived"
        return self.received

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, path, _ = head[0].split(" ", 2)
                headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                request = Received(method, path, headers, body, writer.get_extra_info("peername")[1])
                self.received.append(request)
                behave = self.behave
                if asyncio.iscoroutinefunction(behave):
                    await behave(request, writer)
                    return
                writer.write(behave if isinstance(behave, bytes) else behave(request))
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()
