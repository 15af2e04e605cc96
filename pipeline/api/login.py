"""Pages of login and logout: by an API key, or at an OpenID provider."""

from __future__ import annotations

import hmac
import html
import secrets
import time
from pathlib import Path
from string import Template
from urllib.parse import parse_qsl, urlencode

import structlog
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from pipeline.access.api_keys import hash_secret
from pipeline.access.gate import Gate, Refusal
from pipeline.access.openid import LoginRefused, OpenIdProvider
from pipeline.access.redirect_targets import safe_target
from pipeline.access.sessions import Rights, csrf_token, end_session, is_csrf_token, start_session
from pipeline.api.guard import client_address, cookies, csrf_cookie, principal_of, session_cookie, too_many
from pipeline.core.errors import StorageError
from pipeline.dashboard.assets import HEADERS
from storage.access import sessions
from storage.access.sessions import LoginAttempt

log = structlog.get_logger(__name__)

FOLDER = Path(__file__).parent
MAX_FORM_BYTES = 8 << 10
CALLBACK = "/login/oidc/callback"
#: Time in which a form of login can be sent.
FORM_SECONDS = 3600
_HEADERS = HEADERS | {"cache-control": "no-store"}


class LoginPages:
    """Routes of login and logout of one server."""

    def __init__(self, gate: Gate) -> None:
        """Take the settings of a gate.

        Raises:
            ConfigError: Authlib is needed and not installed.
        """
        self._gate = gate
        oidc = gate.serve.oidc
        self._provider = None if oidc is None else OpenIdProvider(oidc)
        self._template = Template((FOLDER / "login.html").read_text(encoding="utf-8"))

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        return [
            Route("/login", self._show, methods=["GET"]),
            Route("/login", self._log_in, methods=["POST"]),
            Route("/login.css", lambda request: FileResponse(FOLDER / "login.css", headers=HEADERS)),
            Route("/logout", self._log_out, methods=["POST"]),
            Route("/login/oidc", self._begin, methods=["GET"]),
            Route(CALLBACK, self._finish, methods=["GET"]),
        ]

    @property
    def _form_cookie(self) -> str:
        return "__Host-forewatch-login" if self._gate.secure_cookies else "forewatch_login"

    @property
    def _redirect_uri(self) -> str:
        return (self._gate.serve.url or "").rstrip("/") + CALLBACK

    def _show(self, request: Request) -> Response:
        return self._form(safe_target(request.query_params.get("next")))

    def _form(self, target: str, error: str = "", status: int = 200) -> Response:
        """Return the form with a new token, which its cookie must repeat.

        Another site cannot send a form that logs a person in.
        """
        token = secrets.token_urlsafe(32)
        provider = ""
        if self._provider is not None:
            address = html.escape(f"/login/oidc?{urlencode({'next': target})}")
            provider = f'<a class="provider" href="{address}">Log in at the provider of your organisation</a>'
        page = self._template.substitute(
            message=f'<p class="error" role="alert">{html.escape(error)}</p>' if error else "",
            provider=provider,
            csrf=html.escape(csrf_token(token)),
            next=html.escape(target),
        )
        response = HTMLResponse(page, status_code=status, headers=_HEADERS)
        self._set(response, self._form_cookie, token, FORM_SECONDS)
        return response

    async def _log_in(self, request: Request) -> Response:
        """Start a session by a key of the form."""
        size = request.headers.get("content-length", "")
        body = await request.body() if size.isdecimal() and int(size) <= MAX_FORM_BYTES else b""
        fields = dict(parse_qsl(body.decode("utf-8", "replace"), max_num_fields=10)) if body else {}
        return await run_in_threadpool(self._log_in_with, request, fields)

    def _log_in_with(self, request: Request, fields: dict[str, str]) -> Response:
        target, address = safe_target(fields.get("next")), client_address(request.scope)
        token = cookies(request.headers).get(self._form_cookie, "")
        if not token or not is_csrf_token(fields.get("csrf", ""), token):
            return self._form(target, "The form is too old. Send it again.", 403)
        try:
            if (wait := self._gate.limiter.failures_exceeded(address)) is not None:
                return too_many(wait, "too many refused keys came from this address")
            found = self._gate.by_key(fields.get("key", "").strip(), address)
            if isinstance(found, Refusal):
                if found.retry_seconds is not None:
                    return too_many(found.retry_seconds, "too many refused keys came from this address")
                return self._form(target, "This key is unknown, revoked or expired.", 401)
            rights = Rights(found.name, found.scope, found.streams, found.teams, found.key_id)
            return self._started(request, rights, target)
        except StorageError:
            return self._form(target, "The database does not answer. Try again later.", 503)

    def _started(self, request: Request, rights: Rights, target: str) -> Response:
        """Return to the page with a new session; an earlier one of this browser ends."""
        now_ns, secure = time.time_ns(), self._gate.secure_cookies
        old = cookies(request.headers).get(session_cookie(secure))
        address = client_address(request.scope)
        with self._gate.database.begin() as connection:
            if old:
                end_session(connection, old, principal_of(request.scope), now_ns)
            token = start_session(connection, rights, self._gate.serve, address, now_ns)
        self._gate.forget()
        log.info("a person has logged in", name=rights.name, scope=rights.scope.value, address=address)
        response = RedirectResponse(target, status_code=303, headers=_HEADERS)
        seconds = int(self._gate.serve.session_max.total_seconds())
        self._set(response, session_cookie(secure), token, seconds)
        self._set(response, csrf_cookie(secure), csrf_token(token), seconds, for_scripts=True)
        self._forget(response, self._form_cookie)
        return response

    def _log_out(self, request: Request) -> Response:
        """End the session; the page sends the token of the session as for any change."""
        secure = self._gate.secure_cookies
        token = cookies(request.headers).get(session_cookie(secure), "")
        response: Response = Response(status_code=204, headers=_HEADERS)
        if token:
            if not is_csrf_token(request.headers.get("x-forewatch-csrf", ""), token):
                return Response("the token of the session is missing", status_code=403, headers=_HEADERS)
            try:
                with self._gate.database.begin() as connection:
                    end_session(connection, token, principal_of(request.scope), time.time_ns())
                self._gate.forget()
            except StorageError:
                return Response("the database does not answer; try again later", 503, headers=_HEADERS)
        self._forget(response, session_cookie(secure))
        self._forget(response, csrf_cookie(secure))
        response.headers["clear-site-data"] = '"cache"'
        return response

    def _begin(self, request: Request) -> Response:
        """Send the browser to the provider."""
        target = safe_target(request.query_params.get("next"))
        if self._provider is None:
            return self._form(target, "There is no OpenID provider in the config.", 404)
        try:
            address, kept = self._provider.begin(self._redirect_uri)
            browser = secrets.token_urlsafe(32)
            attempt = LoginAttempt(
                hash_secret(kept["state"]),
                hash_secret(browser),
                kept["nonce"],
                kept["verifier"],
                target,
                time.time_ns(),
            )
            with self._gate.database.begin() as connection:
                sessions.begin_login(connection, attempt)
        except LoginRefused as error:
            log.warning("a login at the OpenID provider fails", error=str(error))
            return self._form(target, str(error), 502)
        except StorageError:
            return self._form(target, "The database does not answer. Try again later.", 503)
        response = RedirectResponse(address, status_code=303, headers=_HEADERS)
        self._set(response, self._form_cookie, browser, FORM_SECONDS)
        return response

    def _finish(self, request: Request) -> Response:
        """Check the answer of the provider, and start a session."""
        query, browser = request.query_params, cookies(request.headers).get(self._form_cookie, "")
        try:
            with self._gate.database.begin() as connection:
                attempt = sessions.take_login(connection, hash_secret(query.get("state", "")), time.time_ns())
            if attempt is None or not hmac.compare_digest(attempt.browser_hash, hash_secret(browser)):
                return self._form("/", "This login was begun elsewhere, or took too long. Begin again.", 403)
            if self._provider is None or "code" not in query:
                reason = query.get("error", "no code")[:100]
                return self._form(attempt.target, f"The provider refused the login: {reason}.", 403)
            rights = self._provider.finish(query["code"], attempt.verifier, attempt.nonce, self._redirect_uri)
            return self._started(request, rights, attempt.target)
        except LoginRefused as error:
            log.warning("a login at the OpenID provider fails", error=str(error))
            return self._form("/", str(error), 403)
        except StorageError:
            return self._form("/", "The database does not answer. Try again later.", 503)

    def _set(
        self,
        response: Response,
        name: str,
        value: str,
        seconds: int,
        *,
        for_scripts: bool = False,
    ) -> None:
        response.set_cookie(
            name,
            value,
            max_age=seconds,
            path="/",
            secure=self._gate.secure_cookies,
            httponly=not for_scripts,
            samesite="lax",
        )

    def _forget(self, response: Response, name: str) -> None:
        response.delete_cookie(
            name, path="/", secure=self._gate.secure_cookies, httponly=True, samesite="lax"
        )
