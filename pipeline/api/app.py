"""The application of the REST API, mounted at ``/api/v1``."""

from __future__ import annotations

from typing import Any

from fastapi import Depends, FastAPI
from starlette.routing import Mount

from pipeline.api.context import ApiContext
from pipeline.api.entity_tags import EntityTags
from pipeline.api.events import EventMonitor
from pipeline.api.permissions import describe_permissions, require_scope
from pipeline.api.problems import Problem, add_problem_handlers, describe_problems
from pipeline.api.repeats import RepeatedRequests
from pipeline.api.request_limits import RequestLimits
from pipeline.api.routes import (
    access,
    alerts,
    anomalies,
    budgets,
    chart,
    config_check,
    daemon,
    dead_letters,
    deliveries,
    drift,
    endpoints,
    fleet,
    forecasters,
    incidents,
    labels,
    live_events,
    operations,
    preview,
    series,
    silences,
    training,
    tryout,
)
from pipeline.api.starting_site import PREFIX
from pipeline.config.schema import Config
from storage.sql.database import Database

_ROUTES = (
    *(fleet, operations, daemon, dead_letters, series, chart, anomalies, incidents, alerts, deliveries),
    *(endpoints, budgets, preview, silences, training, forecasters, drift, labels, tryout),
    *(config_check, live_events, access),
)
_DESCRIPTION = (
    "What the command line shows and changes. Times are ISO 8601 in UTC. Errors are "
    "`application/problem+json` and say what to do. "
    "Send an API key in the header `Authorization` (scheme Bearer). A change without a key needs the header "
    "`x-forewatch-csrf`: after a login at /login with the token of the session, else with any value."
)


class _Api(FastAPI):
    """Application whose document names the media type of errors."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document; it is made once."""
        if self.openapi_schema is None:
            self.openapi_schema = describe_permissions(describe_problems(super().openapi()))
        return self.openapi_schema


def create_app(config: Config, database: Database, *, guarded: bool = False) -> FastAPI:
    """Return the API of a config.

    Args:
        config: The configuration in force.
        database: Its database; a connection that no engine uses.
        guarded: Every request comes through the guard; without it all are of the local principal.
    """
    app = build_app()
    app.state.guarded = guarded
    context = app.state.context = ApiContext(config, database)
    app.state.monitor = EventMonitor(config, database, context.answers.expire)
    return app


def build_app() -> FastAPI:
    """Return the API without a config, which only its document can do without."""
    app = _Api(
        title="forewatch",
        version="1",
        description=_DESCRIPTION,
        redirect_slashes=False,  # a path with a slash at its end is another one: a problem, not a redirect
        docs_url=None,
        redoc_url=None,
        responses={
            status: {"model": Problem} for status in (400, 401, 403, 404, 409, 412, 413, 422, 429, 503)
        },
        dependencies=[Depends(require_scope)],
    )
    for module in _ROUTES:
        app.include_router(module.router)
    add_problem_handlers(app)
    app.add_middleware(EntityTags)
    app.add_middleware(RepeatedRequests)
    app.add_middleware(RequestLimits)
    return app


def api_route(config: Config, database: Database) -> Mount:
    """Return the API as one route of a server, behind the guard."""
    return Mount(PREFIX, create_app(config, database, guarded=True))
