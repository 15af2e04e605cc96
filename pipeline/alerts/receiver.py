"""A local receiver of webhooks for people: verifies every signature and prints what arrives (`forewatch hooks
listen`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from standardwebhooks import Webhook, WebhookVerificationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.alerts.messages import text
from pipeline.alerts.messages.payload import Payload, decode

_MOST = 1 << 20


@dataclass(frozen=True, slots=True)
class Arrival:
    """A payload that arrived.

    ``signed``: a signature was verified; ``repeated``: this ``webhook-id`` was here before.
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
                *(["a repetition of the same id"] if self.repeated else []),
            ]
        )


def in_full(arrival: Arrival) -> str:
    """Everything that the payload says, for a terminal."""
    payload = arrival.payload
    head = f"{payload.type}  {payload.timestamp}  {text.clean(arrival.identity)}  ({arrival.marks})"
    rows = [
        f"  {label:<17}{value}" for label, value in [*text.lines(payload.data), *text.commands(payload.data)]
    ]
    return "\n".join([head, f"  {text.clean(payload.data.title)}", *rows, ""])


def hook_routes(
    secrets: Sequence[str],
    show: Callable[[str], None],
    answer: int = 200,
    words: Callable[[Arrival], str] = in_full,
) -> list[Route]:
    """Routes that take webhooks at any path.

    Without ``secrets`` nothing is verified; ``answer`` is the status given to what verifies.
    """
    seen: set[str] = set()

    async def receive(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST:
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
    """Why none of the secrets verifies the request; None if one does, or if there are none."""
    problem = None
    for secret in secrets:
        try:
            Webhook(secret).verify(body, headers, json_parse=False)
        except (WebhookVerificationError, ValueError) as error:
            problem = f"the signature does not verify: {error}"
        else:
            return None
    return problem
