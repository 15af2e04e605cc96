"""Client of a schema registry with the interface of Confluent's.

A record begins with a zero byte and the id of its schema (4 bytes, big endian). Schemas never change, so each
is read once. While the registry does not answer, the stream waits; no record is refused for that.
"""

from __future__ import annotations

import base64
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from pipeline.config.record_formats import SchemaRegistry
from pipeline.core.errors import ConfigError, SourceUnavailable

TIMEOUT_SECONDS = 10.0
#: Time for which an unknown id is not asked for again.
UNKNOWN_SECONDS = 60.0
_MAGIC_BYTES = 5


class SchemaIds:
    """Schemas of a registry by their ids."""

    def __init__(self, name: str, config: SchemaRegistry) -> None:
        """Prepare calls for the stream called ``name``. Raises ConfigError."""
        self._name, self._url = name, config.url.rstrip("/")
        self._headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
        if config.username is not None and config.password is not None:
            secret = f"{config.username}:{config.password.reveal().get_secret_value()}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(secret.encode()).decode()}"
        try:
            self._tls = ssl.create_default_context(cafile=config.ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"streams.{name}.format: the certificate {config.ca}: {error}") from None
        self._unknown: dict[int, float] = {}

    def schema(self, number: int, form: str = "") -> dict[str, Any]:
        """Return the answer for a schema: ``schema``, ``schemaType``, ``references``.

        Raises:
            ValueError: The registry has no such schema.
            SourceUnavailable: The registry cannot be reached, or refuses.
        """
        if time.monotonic() < self._unknown.get(number, 0.0):
            raise ValueError(f"the registry has no schema {number}")
        answer = self._get(f"/schemas/ids/{number}" + (f"?format={form}" if form else ""))
        if answer is None:
            self._unknown[number] = time.monotonic() + UNKNOWN_SECONDS
            raise ValueError(f"the registry has no schema {number}")
        return answer

    def version(self, subject: str, version: int, form: str = "") -> dict[str, Any]:
        """Return a schema that another one refers to. Raises as ``schema`` does."""
        path = f"/subjects/{urllib.parse.quote(subject, safe='')}/versions/{version}"
        answer = self._get(path + (f"?format={form}" if form else ""))
        if answer is None:
            raise ValueError(f"the registry has no version {version} of {subject}")
        return answer

    def _get(self, path: str) -> dict[str, Any] | None:
        request = urllib.request.Request(self._url + path, headers=self._headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=self._tls) as response:
                return dict(json.loads(response.read()))
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise SourceUnavailable(
                f"stream {self._name}: the schema registry {self._url} answers {error.code}; check its "
                f"address, user and password"
            ) from None
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", error)
            raise SourceUnavailable(
                f"stream {self._name}: the schema registry {self._url} cannot be read: {why}"
            ) from None


def split_framing(value: bytes) -> tuple[int, bytes]:
    """Return the id of the schema and the rest of a record. Raises ValueError."""
    if len(value) < _MAGIC_BYTES or value[0] != 0:
        raise ValueError("does not begin with a zero byte and the id of a schema")
    return int.from_bytes(value[1:_MAGIC_BYTES], "big"), value[_MAGIC_BYTES:]
