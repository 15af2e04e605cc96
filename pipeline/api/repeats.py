"""Repeated requests: a POST with the same ``Idempotency-Key`` changes things once."""

from __future__ import annotations

import hashlib
import time

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.api.guard import principal_of
from pipeline.api.problems import problem
from pipeline.core.errors import StorageError
from storage.access import kept_answers
from storage.access.kept_answers import KeptAnswer
from storage.sql.database import Database

HEADER = "idempotency-key"
MAX_KEY_CHARACTERS = 200
#: A larger answer is not kept; the request is refused if it comes again.
MAX_ANSWER_BYTES = 256 << 10
#: Paths that change nothing.
_FREE_PATHS = ("/try", "/try/topic")


class RepeatedRequests:
    """Middleware that keeps the answer to a POST, and gives it to a repeat."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a repeat from the database, or pass a new request on."""
        key = Headers(scope=scope).get(HEADER) if scope["type"] == "http" else None
        if key is None or scope["method"] != "POST" or scope["path"].endswith(_FREE_PATHS):
            await self._app(scope, receive, send)
            return
        if not 1 <= len(key) <= MAX_KEY_CHARACTERS or not key.isascii() or not key.isprintable():
            detail = f"{HEADER}: write 1 to {MAX_KEY_CHARACTERS} characters, such as a UUID"
            await problem(422, "The request cannot be used", detail)(scope, receive, send)
            return
        database: Database = scope["app"].state.context.database
        messages, body = await _whole_body(receive)
        principal = principal_of(scope)
        id_ = _hash(principal.identity if principal else "local", key)
        request_hash = _hash(scope["path"], scope["query_string"].decode("latin-1"), body)
        try:
            found = await run_in_threadpool(_begin, database, id_, request_hash)
        except StorageError as error:
            detail = f"{error}. Repeat the request later."
            await problem(503, "The database does not answer", detail)(scope, receive, send)
            return
        if found is not None:
            await _repeated(found, request_hash)(scope, receive, send)
            return

        async def replay() -> Message:
            return messages.pop(0) if messages else await receive()

        answer = _Answer()
        try:
            await self._app(scope, replay, answer.receive)
        finally:  # before it is sent, so that a repeat finds it
            await run_in_threadpool(_keep, database, id_, request_hash, answer)
        for message in answer.messages:
            await send(message)


class _Answer:
    """The answer that a request gets."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.status = 0
        self.media_type: str | None = None
        self.body = b""

    async def receive(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.media_type = Headers(raw=message["headers"]).get("content-type")
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")
        self.messages.append(message)


def _begin(database: Database, id_: bytes, request_hash: bytes) -> KeptAnswer | None:
    with database.begin() as connection:
        return kept_answers.begin(connection, id_, request_hash, time.time_ns())


def _keep(database: Database, id_: bytes, request_hash: bytes, answer: _Answer) -> None:
    """Keep the answer to a change; a request that changed nothing may come again."""
    try:
        with database.begin() as connection:
            if not 200 <= answer.status < 300:
                kept_answers.forget(connection, id_)
            elif len(answer.body) <= MAX_ANSWER_BYTES:
                kept = KeptAnswer(request_hash, answer.status, answer.media_type, answer.body)
                kept_answers.finish(connection, id_, kept)
    except StorageError:
        pass  # the row stays: a repeat is refused, because the outcome is not known


def _repeated(found: KeptAnswer, request_hash: bytes) -> Response:
    if found.request_hash != request_hash:
        detail = f"this {HEADER} was used for another request; make a new one for each change"
        return problem(422, "The request cannot be used", detail)
    if found.status is None:
        detail = "the first request is being answered, or its outcome was lost; look before you repeat it"
        response = problem(409, "The outcome is not known", detail)
        response.headers["retry-after"] = "1"
        return response
    return Response(
        found.body or b"",
        status_code=found.status,
        media_type=found.media_type,
        headers={"idempotency-replayed": "true"},
    )


async def _whole_body(receive: Receive) -> tuple[list[Message], bytes]:
    """Return the messages of a body, whose size ``RequestLimits`` has checked."""
    messages, more = [], True
    while more:
        messages.append(await receive())
        more = messages[-1].get("more_body", False)
    return messages, b"".join(one.get("body", b"") for one in messages)


def _hash(*parts: str | bytes) -> bytes:
    found = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        found.update(len(data).to_bytes(8, "big") + data)
    return found.digest()
