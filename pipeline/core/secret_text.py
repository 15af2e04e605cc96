"""Recognition of secrets in names, URLs and texts, and their replacement by ``***``.

The configuration refuses what is recognised here, and messages, logs and errors hide it. There is one list,
so that no text shows what the configuration refuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote, urlsplit

HIDDEN = "***"

_SECRET_WORDS = (
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "credential",
    "apikey",
    "accesskey",
    "privatekey",
    "accountkey",
    "sharedkey",
    "routingkey",
    "integrationkey",
    "keypem",
    "jaasconfig",
)
#: Names that hold a secret, but are too short to look for them within others.
_SECRET_NAMES = frozenset(("pass", "pw", "pat", "psk"))
#: Names of settings that contain such a word and hold no secret: paths, addresses and names of classes.
_HARMLESS_ENDINGS = ("file", "path", "location", "url", "uri", "callback", "provider", "header", "type")
_HEADER_WORDS = frozenset(("auth", "authorization", "cookie", "key", "session", "signature", "jwt", "bearer"))
#: Query parameters that hold a secret in the address of a webhook, beside those with a secret name.
_QUERY_NAMES = frozenset(("key", "sig", "signature", "code", "auth", "authorization", "sign", "hash", "jwt"))

_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*://")
_DATABASE = re.compile(r"^(postgres|sqlite|mysql|mariadb|oracle|mssql)", re.IGNORECASE)
_DATABASE_PASSWORD = re.compile(r"://[^:/@]*:[^@]+@")

#: Addresses of webhooks whose path is the secret.
_SECRET_PATHS = (
    r"hooks\.slack(?:-gov)?\.com/",
    r"[\w.-]*\.?webhook\.office\.com/",
    r"outlook\.office(?:365)?\.com/webhook",
    r"[\w.-]+\.logic\.azure\.com(?::\d+)?/",
    r"[\w.-]+\.powerplatform\.com(?::\d+)?/",
    r"(?:[\w-]+\.)?discord(?:app)?\.com/api/webhooks/",
    r"chat\.googleapis\.com/v1/spaces/",
    r"api\.telegram\.org/bot",
    r"hooks\.zapier\.com/hooks/",
    r"maker\.ifttt\.com/",
    r"events\.pagerduty\.com/integration/",
    r"alert\.victorops\.com/integrations/",
    r"[\w.-]+/hooks/[a-z0-9]{24,}",  # Mattermost, Rocket.Chat
)
_SECRET_PATH = re.compile(rf"(?:{'|'.join(_SECRET_PATHS)})(?=[^\s'\"])", re.IGNORECASE)

#: Texts that are secrets wherever they stand.
_TOKEN_SHAPES = (
    re.compile(r"whsec_[\w+/=-]+"),
    re.compile(r"\bfw_[0-9a-f]{12}_[\w-]{16,}"),  # a key of forewatch
    re.compile(r"\bxox[abeoprs]-[\w-]{8,}"),
    re.compile(r"\bxapp-[\w-]{8,}"),
    re.compile(r"\bgh[opsur]_\w{16,}|\bgithub_pat_\w{16,}|\bglpat-[\w-]{16,}"),
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"\beyJ[\w-]{8,}\.eyJ[\w-]+\.[\w-]*"),
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)"),
)
_SCHEME_OF_HEADER = re.compile(r"^\s*(basic|bearer|token|digest|geniekey|apikey)\s+\S", re.IGNORECASE)

_KEYWORD = r"(?:pass(?:word|wd|phrase)|secret|token|api[_-]?key|jaas[_.]config|cookie|private[_-]?key)"
_REPLACEMENTS = (
    (re.compile(r"(\w[\w+.-]*://[^\s/:@'\"]*:)[^\s'\"]+(?=@)"), rf"\1{HIDDEN}"),
    (re.compile(r"(\b(?!postgres|sqlite)[A-Za-z][\w+.-]*://)[^\s/:@'\"?#]+(?=@)"), rf"\1{HIDDEN}"),
)
_QUERY = re.compile(r"([?&;#])([^\s=&;?#'\"]+)=([^\s&;#'\"]+)")
_PATH = re.compile(rf"({_SECRET_PATH.pattern})[^\s'\"]*", re.IGNORECASE)
_TEXTS = (
    (
        re.compile(
            rf"({_KEYWORD}['\"]?\s*[=:]\s*)(?:'[^']*'|\"[^\"]*\"|[^\s,;&)}}]+)",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"\b((?:Bearer|Basic|GenieKey)\s+)[^\s'\",]+", re.IGNORECASE), rf"\1{HIDDEN}"),
)


def is_secret_name(name: str) -> bool:
    """Return whether a setting or query parameter with this name holds a secret, in any spelling."""
    plain = re.sub(r"[^a-z0-9]", "", unquote(name).lower())
    if plain in _SECRET_NAMES:
        return True
    return any(word in plain for word in _SECRET_WORDS) and not plain.endswith(_HARMLESS_ENDINGS)


def is_secret_header(name: str) -> bool:
    """Return whether an HTTP header with this name holds a secret."""
    words = set(re.split(r"[^a-z0-9]+", name.lower()))
    return bool(words & _HEADER_WORDS) or name.lower().endswith(("key", "auth")) or is_secret_name(name)


def holds_token(text: str) -> bool:
    """Return whether the text contains a token or a private key of a known shape."""
    return any(shape.search(text) for shape in _TOKEN_SHAPES)


def is_credential_value(text: str) -> bool:
    """Return whether the value of a header is a credential, whatever the header is called."""
    return _SCHEME_OF_HEADER.match(text) is not None or holds_token(text)


def secret_in_url(url: str, *, webhook: bool = False) -> str | None:
    """Name the part of a URL that holds a secret, None if there is no such part.

    A database URL may name a user. In other URLs a user name is often a token, so it counts as a secret.

    Args:
        url: The text; anything but a URL has no such part.
        webhook: Whether short names such as ``key`` and ``sig`` also hold secrets.
    """
    if not _SCHEME.match(url):
        return None
    try:
        parts = urlsplit(url)
        authority, query, fragment = parts.netloc, parts.query, parts.fragment
    except ValueError:
        authority, query, fragment = url.partition("://")[2].partition("/")[0], url.partition("?")[2], ""
    user = authority.rpartition("@")[0]
    if _DATABASE.match(url):
        if ":" in user or _DATABASE_PASSWORD.search(url):
            return "a password"
    elif user:
        return "a user or password"
    for name in _parameter_names(query, fragment):
        if is_secret_name(name) or (webhook and name.lower() in _QUERY_NAMES):
            return f"the parameter {name}"
    if _SECRET_PATH.search(url):
        return "the path of a webhook, which is its secret"
    return "a token" if holds_token(url) else None


def _parameter_names(*queries: str) -> Iterable[str]:
    for query in queries:
        for pair in re.split(r"[&;?]", query):
            name, equals, value = pair.partition("=")
            if equals and value:
                yield unquote(name).strip()


def hide_in_urls(text: str) -> str:
    """Replace passwords, secret parameters, secret paths and known tokens in a text by ``***``."""
    for pattern, replacement in _REPLACEMENTS:
        text = pattern.sub(replacement, text)
    text = _PATH.sub(rf"\1{HIDDEN}", text)
    text = _QUERY.sub(_hidden_parameter, text)
    for shape in _TOKEN_SHAPES:
        text = shape.sub(lambda found: "whsec_***" if found[0].startswith("whsec_") else HIDDEN, text)
    return text


def hide_secrets(text: str) -> str:
    """Replace what ``hide_in_urls`` replaces, and values that follow a word such as ``password=``."""
    text = hide_in_urls(text)
    for pattern, replacement in _TEXTS:
        text = pattern.sub(replacement, text)
    return text


def hide_in_tree(value: Any) -> Any:
    """Return a JSON value with ``hide_secrets`` applied to every text in it."""
    if isinstance(value, dict):
        return {key: hide_in_tree(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [hide_in_tree(item) for item in value]
    return hide_secrets(value) if isinstance(value, str) else value


def hide_user(address: str) -> str:
    """Return what should be an address, with or without a scheme, without what stands before its ``@``."""
    return hide_in_urls(re.sub(r"^([A-Za-z][\w+.-]*://)?.*@", rf"\1{HIDDEN}@", address, flags=re.DOTALL))


def assigns_secret(text: str) -> bool:
    """Return whether a text such as ``user=me password=x`` sets a secret."""
    return any(is_secret_name(name) for name in re.findall(r"([\w.-]+)\s*=\s*[^\s=]", text))


def _hidden_parameter(found: re.Match[str]) -> str:
    before, name, value = found.groups()
    secret = is_secret_name(name) or unquote(name).lower() in _QUERY_NAMES
    return f"{before}{name}={HIDDEN if secret else value}"
