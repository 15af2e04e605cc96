"""A TCP proxy before PostgreSQL that loses the connection at a COMMIT: just before it arrives, or just after
it was carried out.

with CommitProxy(url) as proxy:
    database = Database(proxy.url)
    proxy.lose = "reply"        # or "request"; None lets everything pass
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Literal

from sqlalchemy import make_url


class CommitProxy:
    """``lost`` counts the connections that were cut so far; after each the proxy lets everything pass again."""

    def __init__(self, url: str) -> None:
        target = make_url(url)
        self._target = (target.host or "127.0.0.1", target.port or 5432)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = target.set(host="127.0.0.1", port=self._listener.getsockname()[1]).render_as_string(
            hide_password=False
        )
        self.lose: Literal["request", "reply"] | None = None
        self.lost = 0

    def __enter__(self) -> CommitProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            committing = threading.Event()
            threading.Thread(target=self._upward, args=(client, server, committing), daemon=True).start()
            threading.Thread(target=self._downward, args=(client, server, committing), daemon=True).start()

    def _upward(self, client: socket.socket, server: socket.socket, committing: threading.Event) -> None:
        while data := _receive(client):
            if self.lose is not None and b"COMMIT\0" in data:  # the whole statement, not a READ COMMITTED
                if self.lose == "request":
                    self._cut(client, server)
                    return
                committing.set()
            server.sendall(data)
        _close(server)

    def _downward(self, client: socket.socket, server: socket.socket, committing: threading.Event) -> None:
        while data := _receive(server):
            if committing.is_set():
                self._cut(client, server)
                return
            client.sendall(data)
        _close(client)

    def _cut(self, client: socket.socket, server: socket.socket) -> None:
        self.lose = None
        self.lost += 1
        _close(client)
        _close(server)


def _receive(peer: socket.socket) -> bytes:
    try:
        return peer.recv(1 << 16)
    except OSError:
        return b""


def _close(peer: socket.socket) -> None:
    with suppress(OSError):
        peer.shutdown(socket.SHUT_RDWR)
    peer.close()
