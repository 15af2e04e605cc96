"""The pages behind the links of messages: what they show, and what a hostile alert cannot make of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.alerts import routes
from pipeline.config.schema import Config
from pipeline.observability.http_server import HttpServer
from storage.sql.database import Database
from tests.support.alerting import RouterBench, anomaly, closed

STREAM = {
    "source": {"memory": {"name": "x"}},
    "format": {"json": {"series": "s", "time": "t", "values": ["temperature"]}},
}
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[httpx.Client, RouterBench]]:
    url = f"sqlite:///{tmp_path}/alerts.db"
    database = Database(url)
    database.upgrade()
    config: Any = Config.model_validate({"database": url, "streams": {"plant": STREAM}})
    monkeypatch.setattr(
        routes,
        "chart_renderer",
        lambda _: lambda payload: PNG if payload.data.anomalies[0].series == "b2/t1" else None,
    )
    server = HttpServer("127.0.0.1", 0, routes.alert_routes(config))
    server.start()
    with httpx.Client(base_url=server.url, trust_env=False) as client:
        yield client, RouterBench(database)
    server.stop()


def test_the_last_message_about_an_alert_and_its_picture(site):
    client, bench = site
    one = anomaly("b2/t1")
    assert client.get(f"/alerts/{one.id}").status_code == 404
    bench.happen(one)
    bench.settle()
    page = client.get(f"/alerts/{one.id}")
    assert page.status_code == 200
    assert "temperature is 93.1" in page.text
    assert f'src="/alerts/{one.id}.png"' in page.text
    picture = client.get(f"/alerts/{one.id}.png")
    assert (picture.content, picture.headers["content-type"]) == (PNG, "image/png")
    bench.happen(closed(one))
    bench.settle()
    assert "temperature was 93.1" in client.get(f"/alerts/{one.id}").text


def test_without_history_there_is_no_picture_and_a_wrong_address_is_nothing(site):
    client, bench = site
    other = anomaly("b2/t2")
    bench.happen(other)
    bench.settle()
    assert client.get(f"/alerts/{other.id}.png").status_code == 404
    for wrong in ("/alerts/", "/alerts/x", "/alerts/..%2f..%2fetc%2fpasswd", "/alerts/x.png"):
        assert client.get(wrong).status_code == 404


def test_a_hostile_series_name_is_text(site):
    client, bench = site
    bad = anomaly("b2/<script>alert(1)</script>", labels={"site": '"><img src=x onerror=alert(1)>'})
    bench.happen(bad)
    bench.settle()
    page = client.get(f"/alerts/{bad.id}")
    assert "<script" not in page.text
    assert "<img src=x" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
