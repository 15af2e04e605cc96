"""The Python client on a real server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from forewatch import ApiError, Client, ForewatchError
from storage.results import anomalies
from storage.sql.database import Database
from tests.support.alerting import NOON, SECOND, RouterBench, anomaly
from tests.support.api_servers import Site, served
from tests.support.postgres_server import free_port


@pytest.fixture
def site(sqlite_template, tmp_path) -> Iterator[Site]:
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    database = Database(f"sqlite:///{tmp_path}/forewatch.db")
    with served(database, tmp_path, {"requests_per_minute": 200}) as running:
        yield running
    database.close()


def test_anomalies_are_listed_labelled_and_compared(site):
    with site.database.begin() as connection:
        anomalies.upsert(connection, [anomaly(f"b/{n}", NOON + n * SECOND) for n in range(120)])
    with Client(site.url, key=site.key("operator", name="ci")) as client:
        found = list(client.anomalies(stream="plant", since=datetime(2026, 1, 1, tzinfo=UTC)))
        assert len({one["id"] for one in found}) == 120
        assert client.session()["name"] == "ci"
        assert [one["name"] for one in client.streams()] == ["plant", "web"]
        labelled = client.label(found[0]["id"], "true", "seen")
        assert labelled["review"] == client.anomaly(found[0]["id"])["review"]
        with pytest.raises(ApiError, match="read it again") as error:
            client.label(found[0]["id"], "false", if_match='"stale"')
        assert error.value.status == 412


def test_alerts_and_silences_on_a_server_without_keys(site):
    bench = RouterBench(site.database)
    bench.happen(anomaly())
    bench.settle()
    with Client(site.url) as client:
        [alert] = client.alerts(stream="plant")
        client.acknowledge(alert["id"])
        made = client.silence(datetime.now(UTC) + timedelta(hours=1), "plant", {"site": "b*"}, "repair")
        client.end_silence(made["id"])
        with pytest.raises(ApiError, match="there is no silence"):
            client.end_silence(made["id"])
        with pytest.raises(ApiError) as error:
            client.points("nothing", "b")
        assert error.value.status == 404


def test_a_wrong_key_is_an_error_that_does_not_show_it(site):
    site.key()
    wrong = "fw_0123456789ab_" + "A" * 43
    with Client(site.url, key=wrong) as client, pytest.raises(ApiError) as error:
        client.streams()
    assert error.value.status == 401
    assert wrong not in str(error.value)


def test_a_server_that_is_away_is_an_error():
    with (
        Client(f"http://127.0.0.1:{free_port()}", retries=0) as client,
        pytest.raises(ForewatchError, match="answer"),
    ):
        client.streams()


def test_requests_are_repeated_with_the_same_idempotency_key():
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            seen.append(self.headers["idempotency-key"])
            self.send_response([429, 503, 201][len(seen) - 1])
            self.send_header("retry-after", "0")
            self.send_header("content-type", "application/json")
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *args) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with Client(f"http://127.0.0.1:{server.server_port}") as client:
            assert client.acknowledge("x") == {}
    finally:
        server.shutdown()
        server.server_close()
    assert len(seen) == 3
    assert len(set(seen)) == 1
