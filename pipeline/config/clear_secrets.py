"""The rule that a config file contains no secret: each is named by ``{env: NAME}`` or ``{file: PATH}``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pipeline.config.problems import Finding, KeyPath
from pipeline.core.secret_text import (
    assigns_secret,
    holds_token,
    is_credential_value,
    is_secret_header,
    is_secret_name,
    secret_in_url,
)

_REFERENCE = "write {env: NAME} or {file: PATH}"
_DATABASE_REMEDY = "take it out and write `database_password: {env: NAME}` or `{file: PATH}`"
_SCHEDULER_REMEDY = (
    "a Dask scheduler has no passwords; write tls://host:8786 with `tls: {ca: …, cert: …, key: …}`"
)
_STORE_REMEDY = "give the credentials of the store in its own environment variables or configuration file"


def clear_secrets(node: Any, path: KeyPath = ()) -> Iterator[Finding]:
    """Yield a finding for each secret that stands in the config itself.

    Args:
        node: The parsed file, or the part of it at ``path``.
        path: Keys that lead to ``node``.
    """
    if _is_reference(node):
        if isinstance(node.get("env"), str) and holds_token(node["env"]):
            yield Finding((*path, "env"), "a token stands in the config", "write the name of a variable")
        return
    if isinstance(node, dict):
        for key, value in node.items():
            yield from clear_secrets(value, (*path, key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from clear_secrets(value, (*path, number))
    elif (found := _secret_of(node, path)) is not None:
        yield Finding(path, f"{found} stands in the config", _remedy(path))


def _is_reference(node: Any) -> bool:
    return isinstance(node, dict) and bool(node) and node.keys() <= {"env", "file"}


def _secret_of(value: Any, path: KeyPath) -> str | None:
    """Name the secret that a single value is or contains, None without one."""
    if value is None or isinstance(value, bool) or value == "":
        return None
    text, name, section = str(value), str(path[-1]) if path else "", _section(path)
    if section == "security" and (is_secret_name(name) or assigns_secret(text)):
        return "a password" if "pass" in name.lower() else "a secret"
    if path[:1] == ("database",) and assigns_secret(text):
        return "a password"
    if section == "headers" and (is_secret_header(name) or is_credential_value(text)):
        return "the value of this header"
    if (part := secret_in_url(text, webhook=path[:1] == ("endpoints",))) is not None:
        return part
    return "a token" if holds_token(text) else None


def _section(path: KeyPath) -> str:
    """Return ``security`` or ``headers`` for a path below such a mapping, else ""."""
    if path[:1] == ("endpoints",) and len(path) > 3 and path[2] in ("security", "headers"):
        return str(path[2])
    if path[:1] == ("streams",) and path[2:5] == ("source", "kafka", "security") and len(path) > 5:
        return "security"
    if path[:1] == ("streams",) and path[2:3] == ("outputs",) and len(path) > 6:
        return str(path[5]) if path[5] in ("security", "headers") else ""
    return ""


def _remedy(path: KeyPath) -> str:
    if path[:1] == ("database",):
        return _DATABASE_REMEDY
    if path[:1] == ("cluster",):
        return _SCHEDULER_REMEDY
    if path[:1] == ("storage",):
        return _STORE_REMEDY
    if path[-1] in ("sasl_plain_password", "sasl.password", "sasl_password"):
        return "use the key `password` beside it: {env: NAME} or {file: PATH}"
    if path[:1] == ("endpoints",) or _section(path):
        return _REFERENCE
    return "take it out"
