"""HTTP receiver of push sources.

``POST /push/STREAM`` keeps a body in the spool of its stream, and is answered by

    204 (200 for OTLP)  the body is on the disk, and its points will be scored exactly once
    400                 the body cannot be read; it is kept, too, and becomes a dead letter with the reason
    401, 403            no or a wrong key; without a key, a page of a browser
    413, 415            the body is too large; its format is another one. Nothing is kept
    429, 503            the spool is full; no stream of that name receives (yet), or the disk fails.
                        The sender tries again after ``Retry-After``

Sources with the same address share one server.
"""

from __future__ import annotations

import asyncio
import hmac
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pipeline.config.serve_rules import is_local_name
from pipeline.core.errors import ConfigError, SourceUnavailable
from pipeline.observability.http_connections import LOG_INTERVAL_SECONDS, limited_protocol
from pipeline.observability.http_server import HttpServer
from pipeline.sources.push.bodies import BodyTooLargeError, Compression, compression_of, unpack
from pipeline.sources.push.line_times import factor_between, multiply_times
from pipeline.sources.push.segments import Entry
from pipeline.sources.push.spool import Spool, SpoolFullError, SpoolWriteError

#: A sender may use many connections at the same time; Prometheus has up to fifty.
MAX_CONNECTIONS = 256
#: Bodies that are read into memory at the same time, and those of them that are unpacked.
MAX_BODIES, MAX_UNPACKED = 16, 2
#: Time after which a sender may try again when the spool is full.
RETRY_AFTER_SECONDS = 5
#: Endings of the paths of OTLP, Prometheus and InfluxDB, which senders add to the address or want there.
_OTLP_PATH, _PATHS = "v1/metrics", ("", "api/v1/write", "v1/metrics", "write", "api/v2/write")
#: Words before a key in ``Authorization``; clients of InfluxDB write the second one.
_SCHEMES = ("bearer", "token")

_VERSION_2 = "io.prometheus.write.v2.request"

log = structlog.get_logger(__name__)


class OtherFormatError(ValueError):
    """A body whose type is not one that the format of the stream reads."""


#: Returns the number of points of a content, given its type. Raises ValueError with the reason if it cannot
#: be read, OtherFormatError if another sender's configuration is needed.
CheckContent = Callable[[bytes, str], int]


@dataclass(slots=True)
class PushTarget:
    """Stream that receives: its spool, key and limits.

    ``count`` gets the status, the bytes and the points of each answered request. ``precision`` is the unit of
    the times of line protocol, None for other formats.
    """

    spool: Spool
    check: CheckContent
    key: str | None
    max_body_bytes: int
    max_content_bytes: int
    count: Callable[[int, int, int], None] = lambda status, size, points: None
    precision: str | None = None


@dataclass(slots=True)
class _Listener:
    server: HttpServer
    targets: dict[str, PushTarget] = field(default_factory=dict)


_listeners: dict[tuple[str, int, str], _Listener] = {}
_lock = threading.Lock()


def attach(host: str, port: int, stream: str, target: PushTarget) -> str:
    """Receive for a stream until ``detach``, and return the address.

    Args:
        host: Address to listen on.
        port: Port; 0 takes a free one for this stream alone.
        stream: Name of the stream, the last part of the path.
        target: Its spool, key and limits.

    Raises:
        SourceUnavailable: The port cannot be used, or the address is not of this machine and there is no key.
    """
    name = _name(host, port, stream)
    with _lock:
        listener = _listeners.get(name)
        if listener is None:
            listener = _bind(host, port)
        if target.key is None and not listener.server.on_loopback:
            if not listener.targets:
                listener.server.stop()
            raise SourceUnavailable(f"push: {host} is not of this machine only, so a `key` is needed")
        listener.targets[stream] = target
        if name not in _listeners:
            _listeners[name] = listener
            listener.server.start()
    url = f"{listener.server.url}/push/{stream}"
    log.info("receiving", stream=stream, url=url)
    return url


def detach(host: str, port: int, stream: str) -> None:
    """End the receiving of a stream; the last one ends the server."""
    name = _name(host, port, stream)
    with _lock:
        listener = _listeners.get(name)
        if listener is None:
            return
        listener.targets.pop(stream, None)
        if not listener.targets:
            del _listeners[name]
    if not listener.targets:
        listener.server.stop()


def _name(host: str, port: int, stream: str) -> tuple[str, int, str]:
    return host, port, "" if port else stream


def _bind(host: str, port: int) -> _Listener:
    """Return a listener that is not started. Raises SourceUnavailable."""
    targets: dict[str, PushTarget] = {}
    receiver = _Receiver(targets)
    routes = [
        Route(f"/push/{{stream}}{f'/{end}' if end else ''}", receiver.receive, methods=["POST"])
        for end in _PATHS
    ]
    try:
        server = HttpServer(host, port, routes, limited_protocol(MAX_CONNECTIONS, ""), key="push")
    except ConfigError as error:
        raise SourceUnavailable(str(error)) from None
    return _Listener(server, targets)


class _Receiver:
    """Handler of requests; it runs in the event loop of the server."""

    def __init__(self, targets: dict[str, PushTarget]) -> None:
        self._targets = targets
        self._logged_at: dict[tuple[str, int], float] = {}
        self._bodies = asyncio.Semaphore(MAX_BODIES)
        self._unpacked = asyncio.Semaphore(MAX_UNPACKED)

    async def receive(self, request: Request) -> Response:
        stream = request.path_params["stream"]
        target = self._targets.get(stream)
        if target is None:
            # It may be starting: after a 404 senders would drop their data.
            return _later(503, f"no stream {stream!r} receives here, or not yet")
        if (refused := _refused(request, target) or _other_precision(request, target)) is not None:
            target.count(refused.status_code, 0, 0)
            return refused
        async with self._bodies:
            try:
                body = await _body(request, target.max_body_bytes)
            except ClientDisconnect:
                return Response(status_code=400)
            if body is None:
                response, points = _text(413, f"the body has more than {target.max_body_bytes:,} bytes"), 0
            else:
                response, points = await self._keep(request, target, body)
        target.count(response.status_code, len(body or b""), points)
        if response.status_code >= 400:
            self._log(stream, response)
        return response

    def _log(self, stream: str, response: Response) -> None:
        """Log a refusal, each status of a stream once a minute."""
        now, status = time.monotonic(), response.status_code
        if now - self._logged_at.get((stream, status), -math.inf) < LOG_INTERVAL_SECONDS:
            return
        self._logged_at[stream, status] = now
        reason = bytes(response.body).decode("utf-8", "replace").strip()
        log.warning("pushed data are refused", stream=stream, status=status, reason=reason)

    async def _keep(self, request: Request, target: PushTarget, body: bytes) -> tuple[Response, int]:
        """Check a body and keep it, and return the answer and the number of its points."""
        kind = request.headers.get("content-type", "")
        compression = compression_of(request.headers.get("content-encoding", ""))
        points, reason, factor = 0, "", _time_factor(request, target) or 1
        try:
            async with self._unpacked:
                if factor != 1:
                    body = await run_in_threadpool(_with_times, target, body, compression, factor)
                    compression = Compression.NONE
                points = await run_in_threadpool(_points, target, body, compression, kind)
        except BodyTooLargeError as error:
            return _text(413, str(error)), 0
        except OtherFormatError as error:
            return _text(415, str(error)), 0
        except ValueError as error:
            reason = str(error)
        entry = Entry(time.time_ns(), points, kind, compression, body)
        try:
            await run_in_threadpool(target.spool.append, entry)
        except SpoolFullError:
            return _later(429, "the spool is full: the stream is scored more slowly than data arrive"), 0
        except SpoolWriteError as error:
            return _later(503, f"the spool cannot be written: {error}"), 0
        if reason:
            return _text(400, reason), 0
        return _accepted(request, kind, points), points


def _points(target: PushTarget, body: bytes, compression: int, kind: str) -> int:
    return target.check(unpack(body, compression, target.max_content_bytes), kind)


def _with_times(target: PushTarget, body: bytes, compression: int, factor: int) -> bytes:
    """Return the lines of a body with their times multiplied."""
    return multiply_times(unpack(body, compression, target.max_content_bytes), factor)


def _refused(request: Request, target: PushTarget) -> Response | None:
    """Return the answer to a request that may not push, None if it may."""
    if target.key is None:
        # The server is on this machine only. Pages of browsers on it must not push.
        host = urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
        if "origin" in request.headers or not is_local_name(host):
            return _text(403, "without a `key`, only programs of this machine may push")
    else:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() not in _SCHEMES or not hmac.compare_digest(
            given.strip().encode(), target.key.encode()
        ):
            response = _text(401, "the header `Authorization: Bearer KEY` is missing or holds another key")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > target.max_body_bytes:
        return _text(413, f"the body has more than {target.max_body_bytes:,} bytes")
    return None


def _time_factor(request: Request, target: PushTarget) -> int | None:
    """Return the factor of the times of a request, None if there is none."""
    given = request.query_params.get("precision", "")
    return factor_between(given, target.precision) if given and target.precision is not None else 1


def _other_precision(request: Request, target: PushTarget) -> Response | None:
    """Return the answer to times of a smaller unit than the stream reads.

    The sender keeps them.
    """
    if _time_factor(request, target) is not None:
        return None
    unit = request.query_params["precision"][:20]
    return _later(
        503,
        f"the times are in {unit}, and the stream reads {target.precision}, which is larger or unknown: set "
        f"`precision: {unit}` in its format, or send precision={target.precision}",
    )


async def _body(request: Request, limit: int) -> bytes | None:
    """Return the body, None if it has more than ``limit`` bytes."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
    return b"".join(parts)


def _accepted(request: Request, kind: str, points: int) -> Response:
    """Return the answer to data that are kept.

    OTLP wants an empty message, remote write 2 the number of samples.
    """
    if _VERSION_2 in kind.lower():
        counts = {"Samples": points, "Histograms": 0, "Exemplars": 0}
        headers = {f"X-Prometheus-Remote-Write-{what}-Written": str(n) for what, n in counts.items()}
        return Response(status_code=204, headers=headers)
    if not request.url.path.endswith(_OTLP_PATH):
        return Response(status_code=204)
    if kind.startswith("application/json"):
        return Response("{}", media_type="application/json")
    return Response(b"", media_type="application/x-protobuf")


def _later(status: int, text: str) -> Response:
    response = _text(status, text)
    response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def _text(status: int, text: str) -> Response:
    return PlainTextResponse(text + "\n", status_code=status)
