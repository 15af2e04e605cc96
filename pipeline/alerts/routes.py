"""What the links of messages lead to: ``/alerts/ID`` and ``/alerts/ID.png`` of the daemon's HTTP server."""

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

#: What an alert says comes from outside; a page of it may load nothing but its own picture, and run nothing.
_POLICY = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'",
    "cache-control": "no-store",
}


def alert_routes(config: Config) -> list[Route]:
    """The last message about an alert, and its picture."""
    # Connects at the first request; the daemon's own connection belongs to its loop.
    database, draw = database_of(config), chart_renderer(config)

    def last(request: Request) -> Payload | None:
        with database.read() as connection:
            body = deliveries.last_body(connection, request.path_params["alert"])
        return None if body is None else decode(body)

    def answer(request: Request) -> Response:
        drawn = request.url.path.endswith(".png")
        try:
            payload = last(request)
        except StorageError as error:
            return Response(f"the database does not answer: {error}", status_code=503)
        if payload is None:
            return Response("there is no message about such an alert (any more)", status_code=404)
        if not drawn:
            picture = f"/alerts/{request.path_params['alert']}.png" if payload.data.anomalies else None
            return HTMLResponse(html_of(payload.data, picture), headers=_POLICY)
        png = draw(payload)
        return (
            Response("there is no history to draw", status_code=404)
            if png is None
            else Response(png, media_type="image/png")
        )

    return [Route("/alerts/{alert:uuid}.png", answer), Route("/alerts/{alert:uuid}", answer)]
