"""A served API and dashboard on real HTTP, with keys, for tests of access."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from pipeline.access.api_keys import KeyRequest, create_key
from pipeline.access.scopes import Scope
from pipeline.api.server import dashboard_server
from pipeline.config.schema import Config
from storage.access import audit
from storage.access.audit import Actor, ActorKind, AuditEntry
from storage.sql.database import Database

STREAM = {
    "source": {"memory": {"name": "x"}},
    "format": {"json": {"series": ["site"], "time": "t", "values": ["temperature", "pressure"]}},
}
ADA = Actor("ada", ActorKind.COMMAND, address="host")
#: Header of a change on a server without logins.
CHANGE = {"x-forewatch-csrf": "1"}


def plant_config(url: str, folder: Path) -> Config:
    """Return a config of one stream."""
    return Config.model_validate(
        {"database": url, "storage": {"history_path": str(folder / "history")}, "streams": {"plant": STREAM}}
    )


def config_of(url: str, folder: Path, serve: Any = None) -> Config:
    """Return a config of two streams with teams."""
    streams = {"plant": STREAM | {"team": "east"}, "web": STREAM | {"team": "west"}}
    values = {"database": url, "storage": {"history_path": str(folder / "history")}, "streams": streams}
    return Config.model_validate(values | ({} if serve is None else {"serve": serve}))


@dataclass(slots=True)
class Site:
    """A running server and its database."""

    url: str
    database: Database

    def key(self, scope: str = "viewer", **given: Any) -> str:
        """Make a key."""
        request = KeyRequest(given.pop("name", f"{scope} {time.time_ns()}"), Scope(scope), **given)
        with self.database.begin() as connection:
            return create_key(connection, request, ADA, time.time_ns())[0]

    def client(self, key: str | None = None, **given: Any) -> httpx.Client:
        """Return a client; with a key it sends the key."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(
            base_url=self.url, headers=headers | given.pop("headers", {}), timeout=120, **given
        )

    def audited(self, action: str | None = None) -> list[AuditEntry]:
        """Return the audit log, the newest first."""
        with self.database.read() as connection:
            return audit.query(connection, audit.AuditFilter(action=action), 500)


@contextmanager
def served(database: Database, folder: Path, serve: Any = None, **given: Any) -> Iterator[Site]:
    """Yield a server on a free port of this machine."""
    config = config_of(database.url.render_as_string(hide_password=False), folder, serve)
    with dashboard_server(config, **{"port": 0} | given) as server:
        yield Site(server.url, database)


def refusal_of(client: httpx.Client) -> httpx.Response:
    """Return the first answer with status 401: a proof is remembered for a moment."""
    deadline = time.monotonic() + 30
    while (answer := client.get("/api/v1/streams")).status_code != 401 and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


class Browser(httpx.Client):
    """A client with cookies that logs in, and sends the token of its session with changes."""

    def log_in(self, key: str, target: str = "/") -> httpx.Response:
        """Send the form of login."""
        form = self.get("/login", params={"next": target}).text
        return self.post(
            "/login",
            data={"key": key, "csrf": field(form, "csrf"), "next": field(form, "next")},
            headers={"origin": str(self.base_url).rstrip("/")},
        )

    @property
    def token(self) -> dict[str, str]:
        """Header with the token of the session."""
        return {"x-forewatch-csrf": self.cookies["forewatch_csrf"]}


def field(form: str, name: str) -> str:
    """Return the value of a hidden field."""
    import html

    return html.unescape(form.partition(f'name="{name}" value="')[2].partition('"')[0])
