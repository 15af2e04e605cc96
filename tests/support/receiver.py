"""HTTP receivers for tests: a real server on a free port.

It keeps the requests and gives the configured answers, also malformed ones.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

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


class Receiver:
    """``behave`` may be changed at any time: it is a response, a function of the request, or a coroutine that
    has the connection to itself.
    """

    def __init__(self, behave: Any = None, tls: ssl.SSLContext | None = None) -> None:
        self.behave: Any = behave if behave is not None else answer()
        self.received: list[Received] = []
        self._tls = tls
        self._started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.port = 0

    def __enter__(self) -> Receiver:
        self._thread.start()
        self._started.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

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

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        )
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

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
