"""Parts of all formats: addresses and headers that may be secrets, and texts of limited length."""

from __future__ import annotations

import json
from typing import Any

from pipeline.config.endpoints import HttpEndpoint, check_header, check_url
from pipeline.config.field_types import Secret

JSON = ("content-type", "application/json")


def address(endpoint: HttpEndpoint) -> str:
    """Return the address to call. Raises ValueError if it is a secret that is missing or may not be called."""
    if isinstance(endpoint.url, str):
        return endpoint.url
    url = endpoint.url.reveal().get_secret_value()
    check_url(url, inside=bool(endpoint.allow))
    return url


def headers(endpoint: HttpEndpoint) -> list[tuple[str, str]]:
    """Return the user's own headers. Raises ValueError if a secret is missing or cannot be sent as a header."""
    found = []
    for name, value in endpoint.headers.items():
        text = value if isinstance(value, str) else value.reveal().get_secret_value()
        check_header(name, text)
        found.append((name.lower(), text))
    return found


def http_secrets(endpoint: HttpEndpoint) -> list[str]:
    """Return the secret address and secret headers."""
    hidden = [endpoint.url, *endpoint.headers.values()]
    return [s.reveal().get_secret_value() for s in hidden if isinstance(s, Secret)]


def dumps(value: Any) -> bytes:
    """Return compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def cut(text: str, limit: int) -> str:
    """Return at most ``limit`` characters of a text."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
