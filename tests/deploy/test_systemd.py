"""The units: accepted by systemd, hardened, and the processes speak its protocol."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.dashboard.assets import is_built
from storage.sql.database import Database

ROOT = Path(__file__).resolve().parents[2]
UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
MAX_EXPOSURE = 2.5
CONFIG = """\
database: sqlite:///forewatch.db
http: null
streams:
  plant:
    source: {memory: {}}
    format: {csv: {series: sensor, time: ts, values: [temperature]}}
    detector: light
"""


@pytest.fixture(scope="module")
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not installed (Debian: apt-get install systemd)")
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_accepts_the_unit(analyze: str, unit: Path, tmp_path: Path):
    # verify wants the command to exist; no file of this machine has to be changed for that.
    text = unit.read_text(encoding="utf-8").replace("/opt/forewatch/bin/forewatch", sys.executable)
    copy = tmp_path / unit.name
    copy.write_text(text)
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, check=False
    )
    own = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, own) == (0, [])


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_unit_is_hardened(analyze: str, unit: Path):
    command = [
        analyze,
        "security",
        "--offline=true",
        "--no-pager",
        f"--threshold={MAX_EXPOSURE * 10:.0f}",
        str(unit),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


def test_the_supervisor_ends_its_workers_itself():
    lines = (ROOT / "deploy/systemd/forewatch.service").read_text(encoding="utf-8").splitlines()
    # Workers send no messages to systemd (tests/integration/test_workers.py).
    assert {"Type=notify", "NotifyAccess=main", "KillMode=mixed"} <= set(lines)


@pytest.mark.parametrize("kind", ["sysusers", "tmpfiles"])
def test_users_and_folders_can_be_made(kind: str, tmp_path: Path):
    tool = shutil.which(f"systemd-{kind}")
    if tool is None:
        pytest.skip(f"systemd-{kind} is not installed")
    (tmp_path / "etc").mkdir()
    sysusers, tmpfiles = (
        ROOT / "deploy" / "systemd" / f"forewatch.{name}" for name in ("sysusers", "tmpfiles")
    )
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", str(sysusers)], check=True, capture_output=True)
    assert "forewatch:" in (tmp_path / "etc" / "passwd").read_text()
    if kind == "tmpfiles":
        subprocess.run(
            [tool, f"--root={tmp_path}", "--create", str(tmpfiles)], check=True, capture_output=True
        )
        assert (tmp_path / "var/lib/forewatch").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "etc/forewatch/secrets").stat().st_mode & 0o777 == 0o750


@contextmanager
def supervised(
    folder: Path, *arguments: str, **environment: str
) -> Iterator[tuple[subprocess.Popen, socket.socket]]:
    """Start forewatch as systemd does, with a socket for its messages."""
    address = str(folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(60)
        process = subprocess.Popen(
            [sys.executable, "-c", "from pipeline.cli import main; main()", *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": address, **environment},
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process, listener
        finally:
            process.kill()
            process.wait()


def receive_or_none(listener: socket.socket) -> bytes | None:
    """Return the next message, None if none arrives in time."""
    try:
        return listener.recv(4096)
    except TimeoutError:
        return None


def await_message(listener: socket.socket, wanted: str) -> None:
    deadline = time.monotonic() + 60
    while wanted not in listener.recv(4096).decode().splitlines():
        assert time.monotonic() < deadline


def test_the_daemon_reports_ready_alive_and_stopping(tmp_path: Path):
    (tmp_path / "forewatch.yaml").write_text(CONFIG)
    with supervised(tmp_path, "run", "forewatch.yaml", WATCHDOG_USEC="900000") as (process, listener):
        await_message(listener, "READY=1")
        await_message(listener, "WATCHDOG=1")
        process.send_signal(signal.SIGTERM)
        await_message(listener, "STOPPING=1")
        assert process.wait(30) == 0


def test_a_frozen_daemon_sends_no_heartbeat(tmp_path: Path):
    (tmp_path / "forewatch.yaml").write_text(CONFIG)
    with supervised(tmp_path, "run", "forewatch.yaml", WATCHDOG_USEC="600000") as (process, listener):
        await_message(listener, "READY=1")
        process.send_signal(signal.SIGSTOP)
        listener.settimeout(1.0)
        # What was sent before it was frozen, and then nothing for longer than the limit.
        for _ in iter(lambda: receive_or_none(listener), None):
            pass


def test_serve_reports_ready_and_stopping(tmp_path: Path):
    if not is_built():
        pytest.skip("the pages of the dashboard are not built (make dashboard)")
    (tmp_path / "forewatch.yaml").write_text(CONFIG)
    Database(f"sqlite:///{tmp_path}/forewatch.db").upgrade()
    with supervised(tmp_path, "serve", "forewatch.yaml", "--port", "0") as (process, listener):
        await_message(listener, "READY=1")
        process.send_signal(signal.SIGTERM)
        await_message(listener, "STOPPING=1")
        assert process.wait(30) == 0


def test_the_worker_reports_ready_and_alive_without_its_scheduler(tmp_path: Path):
    pytest.importorskip("distributed")
    arguments = ("worker", "--scheduler", "tcp://127.0.0.1:1")
    with supervised(tmp_path, *arguments, WATCHDOG_USEC="900000") as (process, listener):
        await_message(listener, "READY=1")
        await_message(listener, "WATCHDOG=1")
        process.send_signal(signal.SIGTERM)
        await_message(listener, "STOPPING=1")
        assert process.wait(60) == 0
