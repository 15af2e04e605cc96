"""Middleware before the API and the pages: who asks, from where, and how often.

Order of the checks: the name of the host, keys in the address, the proof of the author (key, session, or this
machine), forged requests, the number of requests. What passes has a principal in its scope.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.access.api_keys import contains_key
from pipeline.access.gate import Gate, Proof, ProofKind, Refusal
from pipeline.access.principal import Principal
from pipeline.access.redirect_targets import safe_target
from pipeline.access.sessions import is_csrf_token
from pipeline.api.problems import problem
from pipeline.config.serve_rules import is_local_name
from pipeline.core.errors import StorageError
from storage.access.audit import ActorKind

#: A form of another site cannot send this header.
CSRF_HEADER = "x-forewatch-csrf"
#: Name of the principal in the scope of a request.
PRINCIPAL = "forewatch.principal"
API_PATH = "/api/"
#: Pages that are shown before a login.
OPEN_PATHS = re.compile(r"/(login(/.*)?|login\.css|logout|favicon\.svg|assets/.*)")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_KEY_PARAMETERS = frozenset({"key", "api_key", "apikey", "api-key", "access_token", "token", "authorization"})
_API_HEADERS = {
    "cache-control": "private, no-cache",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    # With no-referrer a browser sends the forms of our own pages with the origin "null".
    "referrer-policy": "same-origin",
    "vary": "authorization, cookie",
    "x-content-type-options": "nosniff",
}


def session_cookie(secure: bool) -> str:
    """Return the name of the cookie of a session."""
    return "__Host-forewatch-session" if secure else "forewatch_session"


def csrf_cookie(secure: bool) -> str:
    """Return the name of the cookie with the token that pages send back."""
    return "__Host-forewatch-csrf" if secure else "forewatch_csrf"


class AccessGuard:
    """Middleware that refuses requests without a permitted author."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        """Wrap ``app``."""
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its principal, or answer with the reason of the refusal."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[PRINCIPAL] = None
        send = _with_headers(send, self._extra_headers(scope))
        answer = self._malformed(scope) or await self._unproven(scope) or self._forged(scope)
        answer = answer or self._too_many(scope)
        await (self._app if answer is None else answer)(scope, receive, send)

    def _extra_headers(self, scope: Scope) -> dict[str, str]:
        headers = dict(_API_HEADERS) if scope["path"].startswith(API_PATH) else {}
        if (self._gate.serve.url or "").startswith("https://"):
            headers["strict-transport-security"] = "max-age=31536000"
        return headers

    def _malformed(self, scope: Scope) -> Response | None:
        """Refuse foreign names of a local server, and keys in an address."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._gate.on_loopback and not _is_local_host(host) and host != self._gate.site:
            return problem(
                403,
                "The name of the server is foreign",
                "this server answers only under the name of this machine: localhost or its loopback address; "
                "`serve.url` in the config names another one",
            )
        if _has_key(scope["query_string"]) or contains_key(scope["path"]):
            return problem(
                400,
                "The address contains a key",
                "send the key in the header `Authorization` (scheme Bearer); addresses are kept in logs. "
                "Revoke the key if others can read them",
            )
        if len(headers.getlist("authorization")) > 1 or len(headers.getlist("host")) > 1:
            return problem(400, "A header is repeated", "send Authorization and Host once")
        return None

    async def _unproven(self, scope: Scope) -> Response | None:
        """Find the principal; answer if there is none and the path needs one."""
        api = scope["path"].startswith(API_PATH)
        proof = self._proof(scope)
        if isinstance(proof, Proof) and (known := self._gate.remembered(proof)) is not None:
            scope[PRINCIPAL] = known
            return None
        try:
            found = (
                proof if isinstance(proof, Refusal) else await run_in_threadpool(self._gate.author_of, proof)
            )
        except StorageError as error:
            if not api:  # pages hold no data, and say themselves that the database is away
                return None
            return problem(503, "The database does not answer", f"{error}. Repeat the request later.")
        if isinstance(found, Principal):
            scope[PRINCIPAL] = found
            return None
        if OPEN_PATHS.fullmatch(scope["path"]):
            return None
        if api:
            return _unauthorized(found)
        return RedirectResponse(f"/login?next={quote(_target(scope), safe='')}", status_code=303)

    def _proof(self, scope: Scope) -> Proof | Refusal:
        headers = Headers(scope=scope)
        address = client_address(scope)
        given = headers.get("authorization")
        if given is not None:
            kind, _, text = given.partition(" ")
            if kind.lower() != "bearer":
                return Refusal("the header Authorization does not have the scheme Bearer and a key")
            return Proof(ProofKind.KEY, text.strip(), address)
        if token := cookies(headers).get(session_cookie(self._gate.secure_cookies)):
            return Proof(ProofKind.SESSION, token, address)
        return Proof(ProofKind.NOTHING, "", address)

    def _forged(self, scope: Scope) -> Response | None:
        """Refuse changes by pages of other sites; a key in a header proves itself."""
        principal: Principal | None = scope[PRINCIPAL]
        if scope["method"] in _SAFE_METHODS or (principal and principal.kind is ActorKind.KEY):
            return None
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        here = {headers.get("host", ""), self._gate.site}
        fetched = headers.get("sec-fetch-site")
        # A proxy may set a policy by which the origin of our own forms is "null"; no page can set the other.
        own_form = origin == "null" and fetched == "same-origin"
        foreign = origin is not None and not own_form and urlsplit(origin).netloc not in here
        if foreign or fetched not in (None, "same-origin", "none"):
            return problem(403, "The request is forged", "the request comes from a page of another site")
        if not scope["path"].startswith(API_PATH):
            return None  # forms carry their own token
        given = headers.get(CSRF_HEADER, "")
        if principal is not None and principal.kind is ActorKind.SESSION:
            token = cookies(headers).get(session_cookie(self._gate.secure_cookies), "")
            if not is_csrf_token(given, token):
                detail = f"a change needs the token of the session in {CSRF_HEADER}; load the page again"
                return problem(403, "The request is forged", detail)
        elif not given:
            return problem(403, "The request is forged", f"a change needs the header {CSRF_HEADER}")
        return None

    def _too_many(self, scope: Scope) -> Response | None:
        principal: Principal | None = scope[PRINCIPAL]
        if not scope["path"].startswith(API_PATH) or principal is None:
            return None
        wait = self._gate.limiter.count_request(principal.identity)
        return (
            None
            if wait is None
            else too_many(wait, "wait, or send fewer requests; `serve.requests_per_minute`")
        )


def principal_of(scope: Scope) -> Principal | None:
    """Return the author of a request that passed the guard."""
    found: Principal | None = scope.get(PRINCIPAL)
    return found


def client_address(scope: Scope) -> str | None:
    """Return the address of the client, or of the proxy that is not trusted."""
    client = scope.get("client")
    return client[0] if client else None


def cookies(headers: Headers) -> dict[str, str]:
    """Return the cookies of a request."""
    return cookie_parser(headers.get("cookie", ""))


def too_many(wait_seconds: int, what: str) -> Response:
    """Return the answer to too many requests."""
    response = problem(429, "There are too many requests", f"{what} (again in {wait_seconds} s)")
    response.headers["retry-after"] = str(wait_seconds)
    return response


def _unauthorized(refusal: Refusal) -> Response:
    if refusal.retry_seconds is not None:
        return too_many(refusal.retry_seconds, "too many refused keys came from this address")
    response = problem(401, "The author of the request is unknown", refusal.detail)
    response.headers["www-authenticate"] = 'Bearer realm="forewatch"'
    return response


def _target(scope: Scope) -> str:
    query = scope["query_string"].decode("latin-1")
    path = quote(scope["path"], safe="/")
    return safe_target(f"{path}?{query}" if query else path)


def _has_key(query_string: bytes) -> bool:
    text = query_string.decode("latin-1")
    if contains_key(text):
        return True
    return any(name.lower() in _KEY_PARAMETERS or contains_key(value) for name, value in _pairs(text))


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    try:
        yield from parse_qsl(text, keep_blank_values=True, max_num_fields=1000)
    except ValueError:
        return


def _is_local_host(host: str) -> bool:
    try:
        return is_local_name(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False


def _with_headers(send: Send, headers: dict[str, str]) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start" and headers:
            found = MutableHeaders(scope=message)
            for name, value in headers.items():
                if name == "vary":
                    found.add_vary_header(value)
                else:
                    found.setdefault(name, value)
        await send(message)

    return wrapped
