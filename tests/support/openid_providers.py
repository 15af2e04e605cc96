"""A provider whose ID tokens a test chooses, signed with a real key."""

from __future__ import annotations

import base64
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from joserfc import jwt
from joserfc.jwk import RSAKey


class SigningProvider:
    """Discovery, keys and tokens on a free port of this machine; a context."""

    def __init__(self) -> None:
        self.claims: dict[str, Any] = {}
        self.forgery = ""
        self.last_form: dict[str, str] = {}
        self.key = RSAKey.generate_key(2048)
        self._number = 0
        self.new_key()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(provider.document(self.path))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                provider.last_form = {name: values[0] for name, values in parse_qs(body).items()}
                self._answer({"access_token": "a", "token_type": "Bearer", "id_token": provider.token()})

            def _answer(self, value: Any) -> None:
                body = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> SigningProvider:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def new_key(self) -> None:
        """Change the key, as providers do from time to time."""
        self._number += 1
        self.key = RSAKey.generate_key(2048, {"kid": f"key-{self._number}"})

    def document(self, path: str) -> dict[str, Any]:
        """Return the discovery document or the public keys."""
        if path == "/jwks":
            return {"keys": [self.key.as_dict(private=False)]}
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/jwks",
        }

    def token(self) -> str:
        """Return the ID token, forged if the test asks for it."""
        if self.forgery == "none":
            return f"{_signed_part('none', self.key.kid, self.claims)}."
        if self.forgery == "garbage":
            return "a.b.c"
        if self.forgery == "hmac":  # the public key as a shared secret
            text = _signed_part("HS256", self.key.kid, self.claims)
            digest = hmac.digest(self.key.as_pem(private=False), text.encode(), "sha256")
            return f"{text}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"
        signer = RSAKey.generate_key(2048) if self.forgery == "other_key" else self.key
        return jwt.encode({"alg": "RS256", "kid": self.key.kid}, self.claims, signer)


def _signed_part(algorithm: str, key_id: str | None, claims: dict[str, Any]) -> str:
    parts = ({"alg": algorithm, "kid": key_id}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in parts)
