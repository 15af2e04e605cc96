"""Targets of a redirect after login: paths of this site only."""

from __future__ import annotations

from urllib.parse import urlsplit

DEFAULT_TARGET = "/"
MAX_TARGET_CHARACTERS = 2000


def safe_target(text: str | None) -> str:
    r"""Return ``text`` if it is a path of this site, else ``/``.

    Browsers read ``//host`` and ``/\\host`` as another site, and leave out control characters.
    """
    if not text or len(text) > MAX_TARGET_CHARACTERS or not text.startswith("/"):
        return DEFAULT_TARGET
    if text[1:2] in ("/", "\\") or not all("!" <= character <= "~" for character in text) or "\\" in text:
        return DEFAULT_TARGET
    try:
        parts = urlsplit(text)
    except ValueError:
        return DEFAULT_TARGET
    if parts.scheme or parts.netloc or parts.path.startswith(("/login", "/logout", "/api/")):
        return DEFAULT_TARGET
    return text
