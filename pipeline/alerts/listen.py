"""A local receiver of webhooks for people: verifies every signature and prints what arrives (`forewatch hooks listen`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from standardwebhooks import Webhook, WebhookVerificationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.alerts import text
from pipeline.alerts.payload import Payload, decode

_MOST = 1 << 20


def hook_routes(secrets: Sequence[str], show: Callable[[str], None], answer: int = 200) -> list[Route]:
    """Routes that take webhooks at any path. Without ``secrets`` nothing is verified; ``answer`` is the status given to what verifies."""
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
        show(_shown(body, identity, repeated=identity in seen, signed=bool(secrets)))
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


def _shown(body: bytes, identity: str, *, repeated: bool, signed: bool) -> str:
    """What arrived, for a terminal."""
    try:
        payload: Payload = decode(body)
    except ValueError as error:
        return f"not a forewatch payload ({error}): {body[:500]!r}"
    marks = [*(["signature verified"] if signed else ["not verified"]), *(["a repetition of the same id"] if repeated else [])]
    head = f"{payload.type}  {payload.timestamp}  {text.clean(identity)}  ({', '.join(marks)})"
    rows = [f"  {label:<17}{value}" for label, value in [*text.lines(payload.data), *text.commands(payload.data)]]
    return "\n".join([head, f"  {text.clean(payload.data.title)}", *rows, ""])
