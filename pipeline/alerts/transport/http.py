"""HTTP sender: one connection for each call in flight, kept open for the next call.

Addresses pass the SSRF filter; time and the size of the answer are limited. httpcore is the transport below
httpx: it has no redirects, no cookies and no proxies of the environment, none of which are wanted here. Its
connection pool is not used because its cost grows with the square of the connections (64 of them: 7 ms a call
against .25 ms).
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import httpcore

from pipeline.alerts.transport.base import MAX_ANSWER_BYTES_READ, Call, DeliveryResult, Message, redacted
from pipeline.alerts.transport.filtered_network import SsrfFilterBackend
from pipeline.alerts.transport.ssrf import ForbiddenAddress

Origin = tuple[str, str, int]
_IDLE_SECONDS = 30.0
_AGENT = ("user-agent", "forewatch/0.1 (Standard-Webhooks)")


class HttpSender:
    """Sender of HTTP calls.

    ``render`` returns the request of a message, or raises ValueError, for example for a missing secret.
    ``secrets`` are removed from answers.
    """

    def __init__(
        self,
        render: Callable[[Message], Call],
        secrets: Callable[[], list[str]],
        allow: list[str],
        ca: Path | None,
        timeout_s: float,
    ) -> None:
        self._render = render
        self._secrets = secrets
        self._backends = {
            "https": SsrfFilterBackend(allow),
            "http": SsrfFilterBackend(allow, encrypted=False),
        }
        self._ca = ca
        self._timeout = timeout_s
        self._idle: dict[Origin, list[httpcore.AsyncHTTPConnection]] = {}

    async def send(self, message: Message) -> DeliveryResult:
        try:
            call = self._render(message)
        except ValueError as error:
            return self._failed(error)
        return await self.call(call)

    async def call(self, call: Call) -> DeliveryResult:
        """Make one request; errors of receiver and network are results."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._call(call)
        except TimeoutError:
            return DeliveryResult(False, f"no complete answer within {self._timeout:g} s", unanswered=True)
        except ForbiddenAddress as error:
            return DeliveryResult(False, f"refused: {error}")
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError, ValueError) as error:
            return self._failed(error)

    def _failed(self, error: Exception) -> DeliveryResult:
        lost = isinstance(error, (httpcore.ReadError, httpcore.RemoteProtocolError))
        return DeliveryResult(False, redacted(_error_text(error), self._secrets_or_none()), unanswered=lost)

    async def close(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                await connection.aclose()
        self._idle.clear()

    async def _call(self, call: Call) -> DeliveryResult:
        parts = urlsplit(call.url)
        assert parts.hostname is not None
        origin = (parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
        request = httpcore.Request(
            call.method,
            call.url,
            headers=[("host", parts.netloc), _AGENT, ("content-length", str(len(call.body))), *call.headers],
            content=call.body,
        )
        return await self._exchange(origin, await self._take(origin) or self._connect(origin), request)

    async def _exchange(
        self, origin: Origin, connection: httpcore.AsyncHTTPConnection, request: httpcore.Request
    ) -> DeliveryResult:
        whole = False
        try:
            response = await connection.handle_async_request(request)
            body, whole = await _read(response)
            await response.aclose()
        finally:
            if whole:
                self._idle.setdefault(origin, []).append(connection)
            else:
                await asyncio.shield(connection.aclose())
        headers = {k.lower(): v for k, v in response.headers}
        wait = headers.get(b"retry-after")
        return DeliveryResult(
            delivered=200 <= response.status < 300,
            answer=redacted(body.decode("utf-8", "replace"), self._secrets_or_none()) if body else "",
            status=response.status,
            gone=response.status == 410,
            retry_after_s=retry_after(
                wait.decode("latin-1") if wait is not None else None, datetime.now(UTC)
            ),
        )

    async def _take(self, origin: Origin) -> httpcore.AsyncHTTPConnection | None:
        idle = self._idle.get(origin, [])
        while idle:
            connection = idle.pop()
            if connection.is_available() and not connection.has_expired():
                return connection
            await connection.aclose()
        return None

    def _connect(self, origin: Origin) -> httpcore.AsyncHTTPConnection:
        scheme, host, port = origin
        return httpcore.AsyncHTTPConnection(
            httpcore.Origin(scheme.encode(), host.encode("ascii"), port),
            ssl_context=tls(self._ca) if scheme == "https" else None,
            keepalive_expiry=_IDLE_SECONDS,
            network_backend=self._backends[scheme],
        )

    def _secrets_or_none(self) -> list[str]:
        try:
            return self._secrets()
        except ValueError:
            return []


async def _read(response: httpcore.Response) -> tuple[bytes, bool]:
    """Return the beginning of the body, and whether it is complete."""
    read = bytearray()
    async for chunk in response.aiter_stream():
        read += chunk
        if len(read) > MAX_ANSWER_BYTES_READ:
            return bytes(read[:MAX_ANSWER_BYTES_READ]), False
    return bytes(read), True


@lru_cache
def tls(ca: Path | None) -> ssl.SSLContext:
    """Return a TLS context that verifies names and certificate chains.

    It trusts the authorities of the system, and those of ``ca`` or else of certifi.
    """
    import certifi

    context = ssl.create_default_context()
    context.load_verify_locations(ca if ca is not None else certifi.where())
    return context


def _error_text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds of a ``Retry-After`` header (RFC 9110 10.2.3), a number or a date.

    None if the header is missing or not readable.
    """
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        until = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max((until - now).total_seconds(), 0.0)
