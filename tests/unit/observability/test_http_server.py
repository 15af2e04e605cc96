"""Health, readiness and metrics over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from pipeline.core.errors import ConfigError
from pipeline.observability.health import Health
from pipeline.observability.http_server import HttpServer, operating_routes
from pipeline.observability.metrics import Metrics
from pipeline.observability.watchdog import Watchdog


class Site:
    def __init__(self) -> None:
        self.watchdog = Watchdog(60)
        self.health = Health(self.watchdog)
        self.metrics = Metrics()
        self.server = HttpServer("127.0.0.1", 0, operating_routes(self.health, self.metrics.exposition))
        self.server.start()

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.server.url + path, trust_env=False)


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.stop()


def test_readiness_says_what_is_waited_for(site):
    answer = site.get("/readyz")
    assert (answer.status_code, answer.json()) == (
        503,
        {"ready": False, "waiting": {"daemon": "is starting"}},
    )
    site.health.wait("stream plant", "partition sensors[1] is being taken over")
    site.health.ready("daemon")
    assert site.get("/readyz").json()["waiting"] == {
        "stream plant": "partition sensors[1] is being taken over"
    }
    site.health.ready("stream plant")
    assert (site.get("/readyz").status_code, site.get("/readyz").json()) == (
        200,
        {"ready": True, "waiting": {}},
    )


def test_health_follows_the_loop(site):
    assert site.get("/healthz").status_code == 200, "no loop yet"
    site.watchdog.beat()
    assert site.get("/healthz").status_code == 200
    site.watchdog.limit = 0.0
    answer = site.get("/healthz")
    assert (answer.status_code, answer.json()["alive"]) == (503, False)
    site.watchdog.forget()
    site.watchdog.limit = 60.0
    assert site.get("/healthz").json() == {"alive": True, "idle_seconds": 0.0}


def test_metrics_are_served_as_text(site):
    site.metrics.flow.records.labels(stream="plant", outcome="late").inc(3)
    answer = site.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert 'forewatch_records_total{outcome="late",stream="plant"} 3.0' in answer.text


def test_unknown_paths_and_methods(site):
    assert site.get("/nothing").status_code == 404
    assert httpx.post(site.server.url + "/healthz", trust_env=False).status_code == 405


def test_a_taken_port_is_an_error_that_names_the_key():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"port {port}: Address already in use — choose another `http.port`"
        ):
            HttpServer("127.0.0.1", port, [])
    with pytest.raises(ConfigError, match="cannot listen on not-a-host"):
        HttpServer("not-a-host.invalid", 0, [])


def test_stop_frees_port_and_thread():
    site = Site()
    assert site.get("/healthz").status_code == 200
    site.server.stop()
    site.server.stop()
    assert "http" not in {thread.name for thread in threading.enumerate()}
    with socket.create_server(("127.0.0.1", site.server.port)):
        pass


def test_a_server_that_never_started_can_be_stopped():
    server = HttpServer("127.0.0.1", 0, [])
    server.stop()
    with socket.create_server(("127.0.0.1", server.port)):
        pass


def test_a_body_does_not_wait_for_the_acknowledgement_of_its_header(site):
    with httpx.Client(base_url=site.server.url, trust_env=False) as client:
        assert client.get("/healthz").status_code == 200
        [connection] = site.server._server.server_state.connections
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
