"""The HTTP server under clients that hold connections, with few descriptors, in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress

import httpx
import pytest

from pipeline.observability import http_connections
from pipeline.observability.http_server import HttpServer

SERVER = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from pipeline.observability.health import Health
from pipeline.observability.http_server import HttpServer, operating_routes
from pipeline.observability.log_setup import configure_logs
from pipeline.observability.metrics import Metrics
from pipeline.observability.watchdog import Watchdog

configure_logs("info", human=False)
server = HttpServer("127.0.0.1", 0, operating_routes(Health(Watchdog(60)), Metrics().exposition))
server.start()
print(server.port, flush=True)
for line in sys.stdin:
    held = []
    try:
        while line.strip() == "exhaust":
            held.append(open(os.devnull))
    except OSError:
        pass
    print("exhausted", flush=True)
    sys.stdin.readline()
    for file in held:
        file.close()
    print("free", flush=True)
"""


class Server:
    """The server with 64 descriptors."""

    def __init__(self, folder):
        self.errors = folder / "stderr"
        self._stderr = self.errors.open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=os.environ | {"PYTHONPATH": os.getcwd()},
        )
        self.port = int(self.answer())

    def answer(self) -> str:
        return self._process.stdout.readline().strip()

    def say(self, line: str) -> str:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self.answer()

    def get(self, path: str = "/healthz", timeout: float = 120) -> int:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", trust_env=False, timeout=timeout).status_code

    def connect(self, timeout: float = 120) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._stderr.close()


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.close()


def test_idle_connections_do_not_shut_others_out(server):
    with ExitStack() as stack:
        for _ in range(150):
            stack.enter_context(server.connect())
        for _ in range(20):
            assert server.get() == 200
            stack.enter_context(server.connect())
            time.sleep(0.1)
        assert server.get("/metrics") == 200
    assert server.errors.stat().st_size < 20_000


def test_a_process_without_descriptors_logs_once_and_answers_again(server):
    assert server.say("exhaust") == "exhausted"
    with ExitStack() as stack:
        for _ in range(30):
            with suppress(TimeoutError):  # the queue of the kernel is full
                stack.enter_context(server.connect(timeout=0.2))
        time.sleep(3)
        logged = server.errors.read_text()
        assert logged.count("the HTTP server cannot accept connections") == 1
        assert "Traceback" not in logged
        assert len(logged) < 20_000
    assert server.say("release") == "free"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if server.get(timeout=1) == 200:
                return
    pytest.fail("the server does not answer after descriptors are free")


def test_malformed_requests_do_not_fill_the_log(server):
    for _ in range(200):
        with server.connect() as client:
            client.sendall(b"NONSENSE\r\n\r\n")
            client.recv(100)
    assert server.get() == 200
    assert server.errors.stat().st_size < 20_000


@pytest.mark.parametrize(
    "sent", [b"", b"GET /healthz HTTP/1.1\r\nX: ", b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n"]
)
def test_a_connection_without_a_complete_request_is_closed(monkeypatch, sent):
    """Also one that sends a byte now and then."""
    monkeypatch.setattr(http_connections, "HEADER_TIMEOUT_SECONDS", 1.0)
    server = HttpServer("127.0.0.1", 0, [])
    server.start()
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            began = time.monotonic()
            client.sendall(sent)
            client.settimeout(0.2)
            while time.monotonic() - began < 60:
                try:
                    client.sendall(b"a" if sent else b"")
                    if client.recv(1000) == b"":
                        break
                except TimeoutError:
                    continue
                except OSError:
                    break
            assert 0.5 < time.monotonic() - began < 60
    finally:
        server.stop()


def test_an_address_beyond_loopback_is_known():
    servers = [HttpServer(host, 0, []) for host in ("0.0.0.0", "127.0.0.1", "localhost")]
    assert [server.on_loopback for server in servers] == [False, True, True]
    for server in servers:
        server.stop()
