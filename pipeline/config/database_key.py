"""The database of a config file, read without the models.

A command that only reads or marks rows of the database, such as `forewatch alerts ack`, needs no more. It
then starts in half of the time, and works while another part of the file has an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.config.clear_secrets import clear_secrets
from pipeline.config.yaml_file import plain_values, read_tree

#: Top-level keys. With a misspelt one the database could be another than the file means.
KEYS: Final = frozenset(
    {
        "cluster",
        "database",
        "database_password",
        "endpoints",
        "engine",
        "http",
        "serve",
        "storage",
        "streams",
        "workers",
    }
)
DEFAULT_DATABASE: Final = "sqlite:///forewatch.db"
_SCHEMES: Final = ("sqlite:///", "postgresql+psycopg://", "postgresql://", "postgres://")


@dataclass(frozen=True, slots=True)
class DatabaseKey:
    """Database of a config file.

    url       SQLAlchemy URL, without a password
    password  password of the user; None without one
    streams   names of the streams
    """

    url: str
    password: str | None
    streams: tuple[str, ...]


def read_database_key(file: Path) -> DatabaseKey | None:
    """Return the database that a config file names.

    None if only the models can say what is wrong.

    Raises:
        ConfigFileError: The file cannot be read, or it is no YAML mapping.
        SecretMissing: The password cannot be read.
    """
    plain = plain_values(read_tree(file))
    url, secret, streams = (
        plain.get("database", DEFAULT_DATABASE),
        plain.get("database_password"),
        plain.get("streams"),
    )
    if not isinstance(streams, dict) or not all(isinstance(name, str) for name in streams):
        return None
    if not plain.keys() <= KEYS or not isinstance(url, str) or not url.startswith(_SCHEMES):
        return None
    if any(clear_secrets(url, ("database",))):
        return None
    return None if not _is_secret(secret) else DatabaseKey(url, _revealed(secret), tuple(streams))


def _is_secret(secret: Any) -> bool:
    if secret is None:
        return True
    is_named = isinstance(secret, dict) and len(secret) == 1 and secret.keys() <= {"env", "file"}
    return is_named and isinstance(next(iter(secret.values())), str)


def _revealed(secret: dict[str, str] | None) -> str | None:
    if secret is None:
        return None
    # Imports pydantic, which a database without a password does not need.
    from pipeline.config.field_types import Secret

    return Secret.model_validate(secret).reveal().get_secret_value()
