"""Network backend of the HTTP client that connects only to addresses that the SSRF filter allows.

It uses the streams of asyncio. The backend of httpcore goes through anyio, whose checkpoints cost a third of a
call. There are no timeouts of single operations, because ``HttpSender`` has one for the whole call.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore

from pipeline.alerts.transport.ssrf import ForbiddenAddress, allowed_networks, resolve_allowed


class SsrfFilterBackend(httpcore.AsyncNetworkBackend):
    """Backend of httpcore behind the SSRF filter; TLS verifies the name, not the address.

    ``encrypted``: TLS follows. Without it only addresses in a network of ``allow`` are connected to.
    """

    def __init__(self, allow: Iterable[str], *, encrypted: bool = True) -> None:
        self._allowed = allowed_networks(allow)
        self._encrypted = encrypted

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = await resolve_allowed(host, port, self._allowed, encrypted=self._encrypted)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} does not resolve: {error.strerror or error}") from None
        failure: OSError | None = None
        for address in addresses:
            try:
                return AsyncioStream(*await asyncio.open_connection(address, port))
            except OSError as error:
                failure = error
        raise httpcore.ConnectError(str(failure)) from None

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise ForbiddenAddress("unix sockets are not allowed")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class AsyncioStream(httpcore.AsyncNetworkStream):
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return await self._reader.read(max_bytes)
        except OSError as error:
            raise httpcore.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            self._writer.write(buffer)
            await self._writer.drain()
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    async def aclose(self) -> None:
        self._writer.close()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        try:
            await self._writer.start_tls(ssl_context, server_hostname=server_hostname)
        except (OSError, EOFError) as error:
            self._writer.close()
            raise httpcore.ConnectError(str(error)) from error
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # an idle connection is readable if the other side has closed it
            return self._reader.at_eof() or self._reader.exception() is not None or self._writer.is_closing()
        return self._writer.get_extra_info(info)
