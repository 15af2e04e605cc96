"""Routes of the pages and of their data, ``/api/v1/views/…``."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from pipeline.core.errors import ForewatchError, InputError, StorageError
from pipeline.core.secret_text import hide_secrets
from pipeline.dashboard.alerting import alerting, preview
from pipeline.dashboard.assets import HEADERS, page_routes
from pipeline.dashboard.fleet import find_names, fleet
from pipeline.dashboard.incident import acknowledge, end_silence, explain, incident, label, silence
from pipeline.dashboard.live import ChangeMonitor
from pipeline.dashboard.models_view import models_view
from pipeline.dashboard.series_view import MAX_PIXELS, series_view
from pipeline.dashboard.source import ViewSource
from pipeline.dashboard.system import system
from pipeline.dashboard.tryout import MAX_FILE_BYTES, tried

PREFIX = "/api/v1/views"
MAX_BODY_BYTES = 64 << 10
_SECURITY = HEADERS | {"cache-control": "no-store"}

View = Callable[[Request, ViewSource], Any]
Change = Callable[[ViewSource, dict[str, Any]], Any]


def problem(status: int, title: str, detail: str) -> Response:
    """Return an error as ``application/problem+json`` (RFC 9457)."""
    return JSONResponse(
        {"type": "about:blank", "title": title, "status": status, "detail": hide_secrets(detail)},
        status_code=status,
        media_type="application/problem+json",
        headers=_SECURITY,
    )


def dashboard_routes(source: ViewSource) -> list[BaseRoute]:
    """Return the routes of all pages and of their data."""
    monitor = ChangeMonitor(source)

    async def try_out(request: Request) -> Response:
        data = await _body(request, MAX_FILE_BYTES)
        if data is None:
            return problem(413, "The file is too large", f"Try reads up to {MAX_FILE_BYTES >> 20} MB.")
        query = dict(request.query_params)
        return await run_in_threadpool(_answered, lambda: tried(data, query))

    async def events(request: Request) -> Response:
        if monitor.full:
            return problem(503, "Too many open pages", "Close some pages of the dashboard.")
        return StreamingResponse(monitor.events(), media_type="text/event-stream", headers=_SECURITY)

    return [
        *page_routes(),
        *(
            Route(f"{PREFIX}/{path}", _write(source, change), methods=["POST"])
            for path, change in _CHANGES.items()
        ),
        Route(f"{PREFIX}/try", try_out, methods=["POST"]),
        Route(f"{PREFIX}/events", events),
        *(Route(f"{PREFIX}/{path}", _read(source, view)) for path, view in _VIEWS.items()),
    ]


def _number(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise InputError(f"{name}={text}: write a whole number from 1 to {most}")
    return int(text)


def _time(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not text.removeprefix("-").isdecimal() or len(text) > 15:
        raise InputError(f"{name}={text}: write milliseconds since 1970")
    return int(text)


def _series(request: Request, source: ViewSource) -> Any:
    query = request.query_params
    bounds = (_time(request, "from"), _time(request, "to"))
    pixels = _number(request, "pixels", 1000, MAX_PIXELS)
    return series_view(source, query.get("stream", ""), query.get("series", ""), bounds, pixels)


_VIEWS: dict[str, View] = {
    "series": _series,
    "incident": lambda request, source: incident(
        source, request.query_params.get("kind", ""), request.query_params.get("id", "")
    ),
    "system": lambda request, source: system(source),
    "alerting": lambda request, source: alerting(source),
    "alerting/preview": lambda request, source: preview(source, dict(request.query_params)),
    "models": lambda request, source: models_view(source, request.query_params.get("stream")),
    "fleet": lambda request, source: fleet(source, request.query_params.get("range", "24h")),
    "names": lambda request, source: find_names(
        source, request.query_params.get("text", ""), _number(request, "limit", 20, 100)
    ),
}


_CHANGES: dict[str, Change] = {
    "incident/acknowledge": acknowledge,
    "incident/label": label,
    "incident/silence": silence,
    "incident/end-silence": end_silence,
    "incident/explain": explain,
}


def _write(source: ViewSource, change: Change) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        data = await _body(request, MAX_BODY_BYTES)
        if data is None:
            return problem(413, "The request is too large", f"Send at most {MAX_BODY_BYTES} bytes.")
        try:
            body = json.loads(data)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            return problem(400, "The request is not JSON", "Send one JSON object.")
        return await run_in_threadpool(_answered, lambda: change(source, body))

    return answer


async def _body(request: Request, most: int) -> bytes | None:
    """Return the body; None if it is longer than ``most``."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            return None
        parts.append(part)
    return b"".join(parts)


def _read(source: ViewSource, view: View) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        return _answered(lambda: view(request, source))

    return answer


def _answered(make: Callable[[], Any]) -> Response:
    try:
        body = json.dumps(make(), allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except StorageError as error:
        return problem(
            503, "The database does not answer", f"{error}. The page continues when the database is back."
        )
    except InputError as error:
        return problem(404 if "there is no" in str(error) else 422, "This cannot be shown", str(error))
    except OSError as error:
        return problem(503, "The recorded history cannot be read", str(error))
    except ForewatchError as error:
        return problem(409, "This cannot be done", str(error))
    return Response(body.encode("utf-8", "replace"), media_type="application/json", headers=_SECURITY)
