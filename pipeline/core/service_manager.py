"""Messages to systemd: the protocol of ``sd_notify(3)`` on a Unix socket.

Without a service manager (no ``NOTIFY_SOCKET``) every function does nothing.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

#: Variables of the environment that are meant for one process, not for its children.
SERVICE_MANAGER_VARIABLES = frozenset({"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"})
#: Share of the limit of systemd after which the next sign of life is due.
_HEARTBEAT_SHARE = 1 / 3


def report_ready(status: str) -> None:
    """Report that the start is over; ``status`` is shown by ``systemctl status``."""
    _send(f"READY=1\nSTATUS={status}")


def report_stopping() -> None:
    """Report that the process ends as intended, which may take a while."""
    _send("STOPPING=1\nSTATUS=stopping")


def send_heartbeat() -> None:
    """Report that the process works; due every ``heartbeat_seconds``."""
    _send("WATCHDOG=1")


def heartbeat_seconds() -> float | None:
    """Return the interval of ``send_heartbeat``; None if systemd expects none of this process."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    if not limit.isdecimal() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(limit) / 1e6 * _HEARTBEAT_SHARE


def _send(message: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    if address.startswith("@"):  # a socket without a file
        address = "\0" + address[1:]
    # A service manager that does not listen any more must not end the service.
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(1.0)
        sender.connect(address)
        sender.sendall(message.encode())
