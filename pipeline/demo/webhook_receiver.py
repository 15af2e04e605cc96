"""The receiver of alerts in the demo, which verifies signed webhooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.alerts.messages import text
from pipeline.alerts.receiver import Arrival, hook_routes, in_full
from pipeline.alerts.transport.signing import new_secret
from pipeline.observability.http_server import HttpServer


class Receiver:
    """Counts and prints webhooks: the first one in full, then one line for each."""

    def __init__(self) -> None:
        """Start with no webhooks."""
        self.arrived = self.resolved = 0

    def describe(self, arrival: Arrival) -> str:
        """Count a webhook and return its text for the terminal."""
        self.arrived += 1
        self.resolved += arrival.payload.kind == "resolved"
        if self.arrived == 1:
            return f"[webhook] first webhook, shown completely:\n{in_full(arrival)}"
        return f"[webhook] {arrival.payload.kind} ({arrival.marks}): {text.clean(arrival.payload.data.title)}"


@contextmanager
def receiver(folder: Path, say: Callable[[str], None]) -> Iterator[tuple[Receiver, str, Path]]:
    """Serve webhooks on a free port of this machine.

    Yields:
        The receiver, its address, and the file with the secret of the signatures.
    """
    secret, path, counter = new_secret(), folder / "hook.secret", Receiver()
    path.touch(mode=0o600)
    path.write_text(secret + "\n")
    server = HttpServer("127.0.0.1", 0, hook_routes([secret], say, words=counter.describe))
    server.start()
    try:
        yield counter, f"{server.url}/hook", path
    finally:
        server.stop()
