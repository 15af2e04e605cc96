"""Errors as ``application/problem+json`` (RFC 9457), each with what to do."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from pipeline.access.scopes import NotPermitted
from pipeline.api.entity_tags import PreconditionFailed
from pipeline.core.errors import ForewatchError, InputError, StorageError
from pipeline.core.secret_text import hide_secrets


class Problem(BaseModel):
    """An error; ``detail`` says what is wrong and what to do."""

    type: str = "about:blank"
    title: str = Field(examples=["The request cannot be used"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["the time range is empty: `from` must be before `to`"])


MEDIA_TYPE = "application/problem+json"


def describe_problems(document: dict[str, Any]) -> dict[str, Any]:
    """Return an OpenAPI document in which every error has the media type of problems."""
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    response["content"] = {MEDIA_TYPE: response["content"]["application/json"]}
    return document


def problem(status: int, title: str, detail: str) -> Response:
    """Return an error as a response."""
    body = Problem(title=title, status=status, detail=hide_secrets(detail))
    return JSONResponse(body.model_dump(), status_code=status, media_type=MEDIA_TYPE)


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error of the routes of ``app`` with a problem."""

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        said = (f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
        return problem(422, "The request cannot be used", "; ".join(said))

    @app.exception_handler(HTTPException)
    def http(request: Request, error: HTTPException) -> Response:
        response = problem(error.status_code, "The request cannot be answered", str(error.detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(StorageError)
    def storage(request: Request, error: StorageError) -> Response:
        return problem(503, "The database does not answer", f"{error}. Repeat the request later.")

    @app.exception_handler(NotPermitted)
    def forbidden(request: Request, error: NotPermitted) -> Response:
        return problem(403, "The key does not permit this", str(error))

    @app.exception_handler(PreconditionFailed)
    def changed(request: Request, error: PreconditionFailed) -> Response:
        return problem(412, "The object has changed", str(error))

    @app.exception_handler(InputError)
    def refused(request: Request, error: InputError) -> Response:
        missing = str(error).startswith("there is no") or "has no series" in str(error)
        title = "There is no such thing" if missing else "The request cannot be used"
        return problem(404 if missing else 422, title, str(error))

    @app.exception_handler(ForewatchError)
    def impossible(request: Request, error: ForewatchError) -> Response:
        return problem(409, "The request conflicts with the present state", str(error))

    @app.exception_handler(OSError)
    def history(request: Request, error: OSError) -> Response:
        return problem(503, "The recorded history cannot be read", f"{error}. Repeat the request later.")
