"""Routes of the pages and of their data, ``/api/v1/views/…``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from pipeline.core.errors import ForewatchError, InputError, StorageError
from pipeline.core.secret_text import hide_secrets
from pipeline.dashboard.assets import HEADERS, page_routes
from pipeline.dashboard.fleet import find_names, fleet
from pipeline.dashboard.live import ChangeMonitor
from pipeline.dashboard.source import ViewSource

PREFIX = "/api/v1/views"
MAX_BODY_BYTES = 64 << 10
_SECURITY = HEADERS | {"cache-control": "no-store"}

View = Callable[[Request, ViewSource], Any]
Change = Callable[[dict[str, Any], ViewSource], Any]


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

    async def events(request: Request) -> Response:
        if monitor.full:
            return problem(503, "Too many open pages", "Close some pages of the dashboard.")
        return StreamingResponse(monitor.events(), media_type="text/event-stream", headers=_SECURITY)

    return [
        *page_routes(),
        Route(f"{PREFIX}/events", events),
        *(Route(f"{PREFIX}/{path}", _read(source, view)) for path, view in _VIEWS.items()),
    ]


def _number(request: Request, name: str, default: int, most: int) -> int:
    text = request.query_params.get(name, str(default))
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise InputError(f"{name}={text}: write a whole number from 1 to {most}")
    return int(text)


_VIEWS: dict[str, View] = {
    "fleet": lambda request, source: fleet(source, request.query_params.get("range", "24h")),
    "names": lambda request, source: find_names(
        source, request.query_params.get("text", ""), _number(request, "limit", 20, 100)
    ),
}


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
