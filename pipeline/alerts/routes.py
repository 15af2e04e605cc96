"""Pages behind the links of messages: ``/alerts/ID`` and ``/alerts/ID.png`` of the HTTP server."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from pipeline.alerts.factory import chart_renderer
from pipeline.alerts.messages.html import html_of
from pipeline.alerts.messages.payload import Payload, decode
from pipeline.config.schema import Config
from pipeline.core.errors import StorageError
from pipeline.database import database_of
from storage.alerting import deliveries

#: The text of an alert comes from outside: its page may load only its own chart, and run no script.
_POLICY = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'",
    "cache-control": "no-store",
}


def alert_routes(config: Config) -> list[Route]:
    """Return the routes of the last message about an alert, and of its chart."""
    # A database of its own, connected at the first request: the connection of the daemon belongs to its loop.
    database, draw = database_of(config), chart_renderer(config)

    def last(request: Request) -> Payload | None:
        with database.read() as connection:
            body = deliveries.last_body(connection, request.path_params["alert"])
        return None if body is None else decode(body)

    def answer(request: Request) -> Response:
        is_chart = request.url.path.endswith(".png")
        try:
            payload = last(request)
        except StorageError as error:
            return Response(f"database unavailable: {error}", status_code=503)
        if payload is None:
            return Response("no message about this alert is stored", status_code=404)
        if not is_chart:
            picture = f"/alerts/{request.path_params['alert']}.png" if payload.data.anomalies else None
            return HTMLResponse(html_of(payload.data, picture), headers=_POLICY)
        png = draw(payload)
        return (
            Response("no recorded history to draw", status_code=404)
            if png is None
            else Response(png, media_type="image/png")
        )

    return [Route("/alerts/{alert:uuid}.png", answer), Route("/alerts/{alert:uuid}", answer)]
