"""Local receiver of webhooks that verifies signatures and prints payloads (`forewatch hooks listen`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from standardwebhooks import Webhook, WebhookVerificationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.alerts.messages import text
from pipeline.alerts.messages.payload import Payload, decode

MAX_BODY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Arrival:
    """A payload that arrived.

    ``signed``: a signature was verified; ``repeated``: the ``webhook-id`` arrived before.
    """

    payload: Payload
    identity: str
    signed: bool
    repeated: bool

    @property
    def marks(self) -> str:
        return ", ".join(
            [
                "signature verified" if self.signed else "not verified",
                *(["repetition of an earlier id"] if self.repeated else []),
            ]
        )


def in_full(arrival: Arrival) -> str:
    """Return all lines of the payload, for a terminal."""
    payload = arrival.payload
    head = f"{payload.type}  {payload.timestamp}  {text.clean(arrival.identity)}  ({arrival.marks})"
    rows = [
        f"  {label + ':':<31}{value}"
        for label, value in [*text.lines(payload.data), *text.commands(payload.data)]
    ]
    return "\n".join([head, f"  {text.clean(payload.data.title)}", *rows, ""])


def hook_routes(
    secrets: Sequence[str],
    show: Callable[[str], None],
    answer: int = 200,
    words: Callable[[Arrival], str] = in_full,
) -> list[Route]:
    """Return routes that receive webhooks at any path.

    Args:
        secrets: Secrets of which one must verify a request; without any, nothing is verified.
        show: Called with the text of each request.
        answer: Status of the answer to a verified request.
        words: Returns the text of a payload.
    """
    seen: set[str] = set()

    async def receive(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                return Response("too large", status_code=413)
        identity = request.headers.get("webhook-id", "")
        problem = _problem(secrets, body, dict(request.headers))
        if problem is not None:
            show(f"refused: {problem}")
            return Response(problem, status_code=401)
        try:
            show(words(Arrival(decode(body), identity, bool(secrets), identity in seen)))
        except ValueError as error:
            show(f"not a forewatch payload ({error}): {body[:500]!r}")
        seen.add(identity)
        return Response(status_code=answer)

    return [Route("/{path:path}", receive, methods=["POST"])]


def _problem(secrets: Sequence[str], body: bytes, headers: dict[str, str]) -> str | None:
    """Return why no secret verifies the request; None if one does, or if there are none."""
    problem = None
    for secret in secrets:
        try:
            Webhook(secret).verify(body, headers, json_parse=False)
        except (WebhookVerificationError, ValueError) as error:
            problem = f"signature not verified: {error}"
        else:
            return None
    return problem
