"""Scope of each operation; an operation that is not named here needs ``admin``."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException

from pipeline.access.principal import Principal, local_principal
from pipeline.access.scopes import Scope
from pipeline.api.guard import principal_of

#: (method, path template) → scope. Other GET operations need ``viewer``.
SCOPES = {
    ("GET", "/audit"): Scope.ADMIN,
    ("POST", "/alerts/{alert_id}/acknowledge"): Scope.OPERATOR,
    ("POST", "/config/check"): Scope.ADMIN,
    ("POST", "/dead-letters/replay"): Scope.OPERATOR,
    ("POST", "/deliveries/{delivery_id}/redeliver"): Scope.OPERATOR,
    ("POST", "/jobs/{job_id}/cancel"): Scope.OPERATOR,
    ("POST", "/jobs/{job_id}/retry"): Scope.OPERATOR,
    ("POST", "/models/{version}/promote"): Scope.OPERATOR,
    ("POST", "/silences"): Scope.OPERATOR,
    ("DELETE", "/silences/{silence_id}"): Scope.OPERATOR,
    ("POST", "/streams/{stream}/preview"): Scope.VIEWER,
    ("POST", "/streams/{stream}/rollback"): Scope.OPERATOR,
    ("POST", "/streams/{stream}/train"): Scope.OPERATOR,
    ("POST", "/streams/{stream}/unpin"): Scope.OPERATOR,
    ("POST", "/try"): Scope.VIEWER,
    ("POST", "/try/topic"): Scope.OPERATOR,
    ("PUT", "/anomalies/{anomaly_id}/label"): Scope.OPERATOR,
}


def scope_of(method: str, path: str) -> Scope:
    """Return the scope that an operation needs.

    Args:
        method: Method of the request.
        path: Template of the path, below ``/api/v1``.
    """
    found = SCOPES.get((method.upper(), path))
    if found is None:
        found = Scope.VIEWER if method.upper() in ("GET", "HEAD") else Scope.ADMIN
    return found


async def require_scope(request: Request) -> None:
    """Refuse a request whose author lacks the scope of the operation.

    Raises:
        NotPermitted: The scope is missing.
        HTTPException: The author is unknown.
    """
    author(request).require(scope_of(request.method, request.scope["route"].path))


def author(request: Request) -> Principal:
    """Return the author of a request.

    Raises:
        HTTPException: The author is unknown: the request did not pass the guard.
    """
    found = principal_of(request.scope)
    if found is None:
        if not request.app.state.guarded:
            return local_principal()
        raise HTTPException(
            401, "send an API key in the header `Authorization` (scheme Bearer), or log in at /login"
        )
    return found


def describe_permissions(document: dict[str, Any]) -> dict[str, Any]:
    """Add kinds of proof, and the scope of each operation, to an OpenAPI document."""
    document["components"]["securitySchemes"] = {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": "API key of `forewatch keys create`; never in an address",
        },
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": "__Host-forewatch-session",
            "description": "cookie of a login at /login; changes also need `x-forewatch-csrf`",
        },
    }
    document["security"] = [{"key": []}, {"session": []}]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            operation["x-forewatch-scope"] = scope_of(method, path).value
    return document
