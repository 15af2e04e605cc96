"""A network of its own for a process, whose way to single ports of this machine can be cut.

with NetworkNamespace([9092, 5432]) as network:
    ...                     # a process calls enter_namespace(network.name) before it connects
    network.cut(9092)       # packets are dropped: no answer, and no end of the connection
    network.mend(9092)

Inside, 127.0.0.1:PORT is forwarded to the same port outside. It needs root, ``ip`` and ``iptables`` (Linux).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import threading
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_CLONE_NEWNET = 0x40000000
_DIRECTIONS = ("--dport", "--sport")


def reason_without_namespaces() -> str:
    """Return the reason why no namespace can be made here, empty if one can."""
    if missing := [name for name in ("ip", "iptables") if shutil.which(name) is None]:
        return f"{' and '.join(missing)} is not installed"
    name = f"forewatch-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespace can be made: {made.stderr.strip()}"
    command = ["ip", "netns", "exec", name, "iptables", "-L"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", name], check=True)
    return f"iptables does not work: {listed.stderr.strip()}" if listed.returncode else ""


def enter_namespace(name: str) -> None:
    """Move this thread, and those that it starts later, into a network namespace."""
    with Path(f"/run/netns/{name}").open("rb") as file:
        library = ctypes.CDLL(None, use_errno=True)
        if library.setns(file.fileno(), _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), name)


class NetworkNamespace:
    """A network namespace with forwarded ports. ``name`` is that of ``ip netns``."""

    def __init__(self, ports: Sequence[int]) -> None:
        """Make nothing yet; ``ports`` are those of 127.0.0.1 that are forwarded."""
        self.name = f"forewatch-{uuid.uuid4().hex[:8]}"
        self._ports = ports
        self._listeners: list[socket.socket] = []

    def __enter__(self) -> NetworkNamespace:
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        subprocess.run(["ip", "-n", self.name, "link", "set", "lo", "up"], check=True)
        opener = threading.Thread(target=self._listen)  # its namespace ends with it
        opener.start()
        opener.join()
        for listener in self._listeners:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for listener in self._listeners:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        subprocess.run(["ip", "netns", "del", self.name], check=True)

    def cut(self, port: int) -> None:
        """Drop each packet from and to a port."""
        self._filter("-A", port)

    def mend(self, port: int) -> None:
        """Let packets from and to a port pass again."""
        self._filter("-D", port)

    def _filter(self, change: str, port: int) -> None:
        for direction in _DIRECTIONS:
            rule = [change, "OUTPUT", "-p", "tcp", direction, str(port), "-j", "DROP"]
            subprocess.run(["ip", "netns", "exec", self.name, "iptables", *rule], check=True)

    def _listen(self) -> None:
        enter_namespace(self.name)
        self._listeners += [socket.create_server(("127.0.0.1", port)) for port in self._ports]

    def _accept(self, listener: socket.socket) -> None:
        port = listener.getsockname()[1]
        while True:
            try:
                inside, _ = listener.accept()
            except OSError:
                return
            try:
                outside = socket.create_connection(("127.0.0.1", port))
            except OSError:
                inside.close()
                continue
            for pair in ((inside, outside), (outside, inside)):
                threading.Thread(target=_forward, args=pair, daemon=True).start()


def _forward(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
