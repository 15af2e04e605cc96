"""Answers that are encoded once: the same as those of FastAPI, for less work."""

from __future__ import annotations

import json

from fastapi import FastAPI, Response
from pydantic import BaseModel, Field
from starlette.testclient import TestClient

from pipeline.api.direct_answers import EncodedAnswer, api_router


class Item(BaseModel):
    name: str
    value: float = Field(alias="v")


def routes_of(router):
    @router.get("/item")
    def item() -> Item:
        """Return a model."""
        return Item(name="ü\u202e😀", v=float("nan"))

    @router.get("/tagged")
    def tagged(response: Response) -> Item:
        """Set a header."""
        response.headers["x-tag"] = "1"
        return Item(name="a", v=1.0)

    @router.post("/item", status_code=201)
    def made() -> Item:
        """Return another status."""
        return Item(name="b", v=2.0)

    return router


def client_of(router) -> TestClient:
    app = FastAPI()
    app.include_router(router)
    return TestClient(app)


def test_answers_documents_and_headers_are_those_of_fastapi():
    from fastapi import APIRouter

    ours, theirs = client_of(routes_of(api_router())), client_of(routes_of(APIRouter()))
    for method, path in (("GET", "/item"), ("GET", "/tagged"), ("POST", "/item")):
        one, other = ours.request(method, path), theirs.request(method, path)
        assert (one.status_code, one.content, one.headers.get("x-tag")) == (
            other.status_code,
            other.content,
            other.headers.get("x-tag"),
        )
        assert one.headers["content-type"] == "application/json"
    assert ours.get("/openapi.json").json() == theirs.get("/openapi.json").json()


def test_an_encoded_answer_is_compressed_for_those_who_accept_it():
    answer = EncodedAnswer.of({"names": ["مرحبا"] * 500})
    plain, packed = answer.response("identity"), answer.response("br, gzip")
    assert json.loads(plain.body) == {"names": ["مرحبا"] * 500}
    assert packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < len(plain.body) / 5
