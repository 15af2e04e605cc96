"""Messages to systemd arrive on a real Unix socket."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pipeline.core.service_manager import heartbeat_seconds, report_ready, report_stopping, send_heartbeat
from pipeline.observability.watchdog import Watchdog


@pytest.fixture(params=["file", "abstract"])
def manager(request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The socket that a service manager listens on."""
    name = str(tmp_path / "notify") if request.param == "file" else f"@forewatch-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0", 1))
        listener.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield listener


def test_start_and_end_are_reported(manager: socket.socket):
    report_ready("2 streams")
    report_stopping()
    assert manager.recv(1000) == b"READY=1\nSTATUS=2 streams"
    assert manager.recv(1000) == b"STOPPING=1\nSTATUS=stopping"


def test_the_watchdog_sends_heartbeats(manager: socket.socket, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WATCHDOG_USEC", "600000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    with Watchdog(60.0):
        assert [manager.recv(1000) for _ in range(3)] == [b"WATCHDOG=1"] * 3


def test_no_heartbeat_is_due_of_a_child_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WATCHDOG_USEC", "600000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid() + 1))
    assert heartbeat_seconds() is None
    monkeypatch.delenv("WATCHDOG_PID")
    assert heartbeat_seconds() == pytest.approx(0.2)


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/notify"])
def test_without_a_service_manager_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    report_ready("no streams")
    send_heartbeat()
    monkeypatch.delenv("NOTIFY_SOCKET")
    report_stopping()
