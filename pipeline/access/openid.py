"""Login at an OpenID provider by an authorization code with PKCE.

OpenID Connect Core 1.0, sections 3.1.2 and 3.1.3. The HTTP calls and the signatures are Authlib's and
joserfc's, which the extra ``oidc`` installs.
"""

from __future__ import annotations

import hmac
import secrets
import ssl
import threading
import time
import warnings
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pipeline.access.scopes import Scope
from pipeline.access.sessions import Rights
from pipeline.config.serve import OpenIdConfig
from pipeline.config.serve_rules import is_local_name
from pipeline.core.errors import ConfigError, ForewatchError
from pipeline.core.secret_text import hide_secrets

METADATA_SECONDS = 3600.0
CALL_TIMEOUT_SECONDS = 10.0
#: Difference between the clocks of the provider and of this machine.
CLOCK_LEEWAY_SECONDS = 60
#: Signatures that only the provider can make; none of them is keyed by the secret of the client.
ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
)
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class LoginRefused(ForewatchError):
    """The provider, its answer or the groups of the person do not allow a login."""


class OpenIdProvider:
    """The provider of a config. Threads may share it."""

    def __init__(self, config: OpenIdConfig) -> None:
        """Take the settings; nothing is called before the first login.

        Raises:
            ConfigError: Authlib is not installed.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it prefers httpx2 where that is installed
                from authlib.integrations.httpx_client import OAuth2Client
        except ImportError:
            raise ConfigError(
                "serve.oidc: Authlib is not installed; install forewatch[oidc], or remove the key"
            ) from None
        self._config = config
        self._client_class = OAuth2Client
        self._lock = threading.Lock()
        self._metadata: dict[str, Any] | None = None
        self._metadata_at = 0.0
        self._keys: Any = None

    def begin(self, redirect_uri: str) -> tuple[str, dict[str, str]]:
        """Return the address of the login, and ``state``, ``nonce`` and ``verifier``.

        Raises:
            LoginRefused: The provider does not answer, or its discovery document cannot be used.
        """
        metadata = self._discover()
        kept = {name: secrets.token_urlsafe(48) for name in ("state", "nonce", "verifier")}
        with self._client(redirect_uri) as client:
            url, _ = client.create_authorization_url(
                metadata["authorization_endpoint"],
                state=kept["state"],
                nonce=kept["nonce"],
                code_verifier=kept["verifier"],
            )
        return str(url), kept

    def finish(self, code: str, verifier: str, nonce: str, redirect_uri: str) -> Rights:
        """Exchange a code, check the ID token, and return the rights of the person.

        Args:
            code: Code from the query of the callback.
            verifier: PKCE verifier of this login.
            nonce: Nonce of this login.
            redirect_uri: Address of the callback.

        Raises:
            LoginRefused: The provider refuses, the token is not valid, or no group has rights.
        """
        metadata = self._discover()
        with self._client(redirect_uri) as client:
            token = self._call(
                "token",
                lambda: client.fetch_token(
                    metadata["token_endpoint"],
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=verifier,
                ),
            )
            claims = self._checked_claims(client, metadata, str(token.get("id_token", "")), nonce)
            if self._config.groups_claim not in claims and "userinfo_endpoint" in metadata:
                answer = self._call("userinfo", lambda: client.get(metadata["userinfo_endpoint"]).json())
                if isinstance(answer, dict) and answer.get("sub") == claims["sub"]:
                    claims = answer | claims
        return rights_of(self._config, claims)

    def _client(self, redirect_uri: str | None = None) -> Any:
        secret = self._config.client_secret
        context = ssl.create_default_context(cafile=self._config.ca) if self._config.ca else True
        return self._client_class(
            client_id=self._config.client_id,
            client_secret=None if secret is None else secret.reveal().get_secret_value(),
            token_endpoint_auth_method="none" if secret is None else "client_secret_basic",
            scope=" ".join(self._config.scopes),
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
            verify=context,
            timeout=CALL_TIMEOUT_SECONDS,
            follow_redirects=False,
        )

    def _discover(self) -> dict[str, Any]:
        with self._lock:
            if self._metadata is not None and time.monotonic() - self._metadata_at < METADATA_SECONDS:
                return self._metadata
            address = self._config.issuer.rstrip("/") + "/.well-known/openid-configuration"
            with self._client() as client:
                found = self._call(
                    "discovery", lambda: _json(client.request("GET", address, withhold_token=True))
                )
            if found.get("issuer") != self._config.issuer:
                raise LoginRefused(
                    f"the provider calls itself {found.get('issuer')!r}; write that as `serve.oidc.issuer`"
                )
            for name in _ENDPOINTS:
                if not _is_protected(str(found.get(name, ""))):
                    raise LoginRefused(f"{name} of the provider is not an https:// address")
            self._metadata, self._metadata_at, self._keys = found, time.monotonic(), None
            return found

    def _checked_claims(self, client: Any, metadata: dict[str, Any], text: str, nonce: str) -> dict[str, Any]:
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        def keys(fresh: bool) -> Any:
            with self._lock:
                if fresh or self._keys is None:
                    found = self._call(
                        "keys",
                        lambda: _json(client.request("GET", metadata["jwks_uri"], withhold_token=True)),
                    )
                    self._keys = KeySet.import_key_set(found)  # type: ignore[arg-type]
                return self._keys

        registry = jwt.JWTClaimsRegistry(
            leeway=CLOCK_LEEWAY_SECONDS,
            iss={"essential": True, "value": self._config.issuer},
            sub={"essential": True},
            aud={"essential": True, "value": self._config.client_id},
            exp={"essential": True},
            iat={"essential": True},
            nonce={"essential": True},
        )
        try:
            try:
                claims = jwt.decode(text, keys(False), algorithms=ALGORITHMS).claims
            except (JoseError, ValueError):  # the provider may have changed its keys
                claims = jwt.decode(text, keys(True), algorithms=ALGORITHMS).claims
            registry.validate(claims)
        except (JoseError, ValueError, TypeError) as error:
            raise LoginRefused(f"the ID token of the provider is not valid: {_short(error)}") from None
        audience = claims["aud"]
        several = isinstance(audience, list) and len(audience) > 1
        if claims.get("azp", None if several else self._config.client_id) != self._config.client_id:
            raise LoginRefused("the ID token of the provider is for another client")
        if not hmac.compare_digest(str(claims["nonce"]).encode(), nonce.encode()):
            raise LoginRefused("the ID token belongs to another login; begin again at /login")
        return dict(claims)

    @staticmethod
    def _call(what: str, call: Any) -> Any:
        from authlib.common.errors import AuthlibBaseError
        from httpx import HTTPError

        try:
            return call()
        except (AuthlibBaseError, HTTPError, OSError, ValueError) as error:
            raise LoginRefused(f"the OpenID provider does not answer ({what}): {_short(error)}") from None


def rights_of(config: OpenIdConfig, claims: Mapping[str, Any]) -> Rights:
    """Return the rights of a person by groups.

    Of several groups those with the highest scope count, so that a scope of some streams does not become a
    scope of all.

    Raises:
        LoginRefused: No group of the person has rights.
    """
    groups = claims.get(config.groups_claim)
    names = {str(one) for one in groups} if isinstance(groups, list) else {str(groups)} - {"None"}
    found = [rights for name, rights in config.groups.items() if name in names]
    name = str(claims.get(config.name_claim) or claims.get("email") or claims["sub"])[:200]
    if not found:
        raise LoginRefused(
            f"{name} is in none of the groups with rights; ask for a group of `serve.oidc.groups`"
        )
    best = max((Scope(one.scope) for one in found), key=list(Scope).index)
    highest = [one for one in found if one.scope == best]
    if any(not one.streams and not one.teams for one in highest):
        return Rights(name, best)
    streams = sorted({stream for one in highest for stream in one.streams})
    return Rights(name, best, streams, sorted({team for one in highest for team in one.teams}))


def _json(response: Any) -> dict[str, Any]:
    response.raise_for_status()
    found = response.json()
    if not isinstance(found, dict):
        raise ValueError("the answer is not a JSON object")
    return found


def _is_protected(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and is_local_name(parts.hostname or ""))


def _short(error: Exception) -> str:
    return hide_secrets(str(error) or type(error).__name__)[:200]
