"""Places of data that ``forewatch init`` looks at: files, topics, databases, Prometheus servers."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from pipeline.core.errors import InputError
from pipeline.services.config_wizard import Imported, import_file, import_topic

_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


class Place(NamedTuple):
    """Name of the stream, and a function that looks at the data, given answers."""

    name: str
    look: Callable[[Mapping[str, str]], Imported]


def place_of(
    source: str | None, kafka: tuple[str, str] | None, query: str | None, headers: Sequence[str]
) -> Place:
    """Return where to look.

    Args:
        source: Path of a file, a URL, or ``env:NAME``.
        kafka: Broker and topic.
        query: Table, query or selector.
        headers: Further headers, ``NAME: VALUE``.

    Raises:
        InputError: The options do not fit together.
    """
    if source is not None and kafka is not None:
        raise InputError("give --from or --kafka, not both")
    if kafka is not None:
        _refuse("--kafka", query, headers)
        return Place(_name(kafka[1]), lambda answers: import_topic(*kafka, answers))
    assert source is not None
    variable, address = _variable(source)
    if not _URL.match(address):
        _refuse("a file", query, headers)
        path = Path(address)
        return Place(_name(path.name.partition(".")[0]), lambda answers: import_file(path, answers))
    if address.lower().startswith(("http://", "https://")):
        from pipeline.services.remote_wizard import import_metrics

        sent = dict(_header(one) for one in headers)
        name = _name(urlsplit(address).hostname or "metrics")
        return Place(
            name, lambda answers: import_metrics(address, sent, (query or "").strip(), name, answers)
        )
    _refuse("a database", None, headers)
    return _database(address, variable, query)


def _database(address: str, variable: str | None, query: str | None) -> Place:
    from pipeline.services.remote_wizard import import_table

    name = _name(urlsplit(address).path.rpartition("/")[2].partition(".")[0])
    secret = variable or re.sub(r"\W", "_", name).upper() + "_URL"

    def look(answers: Mapping[str, str]) -> Imported:
        os.environ[secret] = address  # the config is tried in this process
        found = import_table(address, {"env": secret}, query, answers)
        found.name = _name(found.name) if found.name else name
        if variable is None:
            found.advice.append(
                f"the config reads the URL of the database from a variable: export {secret}=URL before the "
                "start"
            )
        return found

    return Place(name, look)


def _variable(source: str) -> tuple[str | None, str]:
    """Return the variable of ``env:NAME``, and the address."""
    if not source.startswith("env:"):
        return None, source
    name = source.removeprefix("env:")
    if not os.environ.get(name):
        raise InputError(f"--from {source}: the variable {name} is not set; export {name}=URL")
    return name, os.environ[name]


def _header(text: str) -> tuple[str, str]:
    name, sign, value = text.partition(":")
    if not sign or not name.strip():
        raise InputError("--header: write NAME: VALUE, such as 'Authorization: Bearer TOKEN'")
    return name.strip(), value.strip()


def _refuse(place: str, query: str | None, headers: Sequence[str]) -> None:
    if query is not None:
        raise InputError(f"--query is for databases and Prometheus, not for {place}; remove it")
    if headers:
        raise InputError(f"--header is for Prometheus, not for {place}; remove it")


def _name(raw: str) -> str:
    """Return a name for a stream."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", raw).strip("-") or "data"
