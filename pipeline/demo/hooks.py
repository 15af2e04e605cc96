"""The demo's receiver of alerts: a program at the other end of a signed webhook, as a user would write one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.alerts.messages import text
from pipeline.alerts.receiver import Arrival, hook_routes, in_full
from pipeline.alerts.transport.signing import new_secret
from pipeline.observability.http_server import HttpServer


class Receiver:
    """Tells on the terminal what arrives: the first message in full, then one line each."""

    def __init__(self) -> None:
        self.arrived = self.resolved = 0

    def words(self, arrival: Arrival) -> str:
        self.arrived += 1
        self.resolved += arrival.payload.kind == "resolved"
        if self.arrived == 1:
            return f"« the first webhook, in full:\n{in_full(arrival)}"
        return f"« webhook {arrival.payload.kind} ({arrival.marks}): {text.clean(arrival.payload.data.title)}"


@contextmanager
def receiver(folder: Path, say: Callable[[str], None]) -> Iterator[tuple[Receiver, str, Path]]:
    """A server on a free port of this machine; yields what it counts, its address, and the file with the
    secret that it verifies by.
    """
    secret, path, told = new_secret(), folder / "hook.secret", Receiver()
    path.touch(mode=0o600)
    path.write_text(secret + "\n")
    server = HttpServer("127.0.0.1", 0, hook_routes([secret], say, words=told.words))
    server.start()
    try:
        yield told, f"{server.url}/hook", path
    finally:
        server.stop()
