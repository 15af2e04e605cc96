"""What pages draw: evidence of a version, silences on a calendar, figures of the daemon, an earlier day."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from pipeline.api.server import dashboard_server
from pipeline.config.schema import Config
from pipeline.config.serve import Http
from pipeline.core.types import Partition
from pipeline.observability.health import Health
from pipeline.observability.http_server import HttpServer, operating_routes
from pipeline.observability.metrics import Metrics
from pipeline.observability.watchdog import Watchdog
from pipeline.training.backtest import Backtest
from pipeline.training.promotion_rule import EvidenceCard
from storage.history import parquet
from storage.history.writer import HistoryWriter
from storage.model_store import models
from storage.model_store.models import ModelState, ModelVersion
from storage.results import anomalies
from storage.sql.database import Database
from tests.support.alerting import anomaly, closed
from tests.support.api_servers import STREAM
from tests.support.browsers import open_page, wait_for_count

SECOND = 10**9
MS = 10**6
HOUR = 3600 * SECOND
DAY = 24 * HOUR
END = 1_790_000_000 * SECOND
VERSION = "abcdefabcdef"


@pytest.fixture
def database(tmp_path: Path, sqlite_template: Path) -> Iterator[Database]:
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    opened = Database(f"sqlite:///{tmp_path}/forewatch.db")
    yield opened
    opened.close()


def config_of(folder: Path, **stream) -> Config:
    """Return a config of one stream with a silence that recurs daily."""
    silence = {"cron": "0 2 * * *", "for": "3h", "match": {"site": "b"}}
    return Config.model_validate(
        {
            "database": f"sqlite:///{folder}/forewatch.db",
            "http": None,
            "storage": {"history_path": str(folder / "history")},
            "streams": {"plant": STREAM | {"alerts": {"silences": {"nightly": silence}}} | stream},
        }
    )


def backtest(version: str, mase: float, alarms: int) -> Backtest:
    tails = {"1": 0.1, "2": 0.012, "3": 0.001}
    power = {"spike": 0.9, "shift": 0.7}
    return Backtest(version, 5000, mase, {"a": mase}, 0.95, tails, alarms, [], [], [], power, {}, 12.5)


def test_the_evidence_of_a_version_is_drawn_beside_its_champion(database, tmp_path, browser):
    card = EvidenceCard(
        "plant", END - DAY, END, 3, 0, backtest(VERSION, 0.8, 4), backtest("packaged", 1.0, 5), 1.4
    )
    row = ModelVersion(
        VERSION,
        "plant",
        "nowhere",
        "0" * 64,
        ModelState.SHADOW,
        None,
        "ada",
        1,
        1,
        "",
        {"backtest": card.as_dict()},
    )
    with database.begin() as connection:
        models.add(connection, row)
    with dashboard_server(config_of(tmp_path), port=0) as server:
        page, errors = open_page(browser, f"{server.url}/models")
        page.get_by_role("button", name=f"Evidence of {VERSION}").click()
        dialog = page.locator("dialog[open]")
        figures = dialog.get_by_role("img").evaluate_all("all => all.map((one) => one.ariaLabel)")
        assert figures[0] == "Forecast error: this version 0.8, champion then 1, a season ago 1.4"
        assert figures[1].endswith("wanted 1 %")
        widths = (
            dialog.locator(".evidence")
            .first.locator("i")
            .evaluate_all("all => all.map((one) => one.getBoundingClientRect().width)")
        )
        assert widths[0] < widths[1] < widths[2]
        assert "its forecast error is 20.0% smaller" in dialog.inner_text()
        command = page.get_by_label("Command", exact=True).inner_text()
        assert "forewatch backfill CONFIG --stream plant --input FILE" in command
        assert not errors


def test_silences_are_on_a_calendar(database, tmp_path, browser):
    with dashboard_server(config_of(tmp_path), port=0) as server:
        page, errors = open_page(browser, f"{server.url}/alerting", timezone_id="Europe/Berlin")
        row = page.locator(".calendar-row", has_text="nightly: site=b")
        row.wait_for()
        assert row.locator("i").count() in (14, 15)
        assert "02:00:00" not in row.get_by_role("img").get_attribute("aria-label"), "the reader's zone"
        page.get_by_role("button", name="A week later").click()
        row.wait_for()
        assert not errors


def test_a_planned_silence_without_its_file_is_named(database, tmp_path, browser):
    missing = {"alerts": {"silences": {"holidays": {"calendar": str(tmp_path / "gone.ics")}}}}
    with dashboard_server(config_of(tmp_path, **missing), port=0) as server:
        page, _ = open_page(browser, f"{server.url}/alerting")
        page.get_by_text("silence holidays: cannot read the calendar").wait_for()


def test_memory_and_commit_times_of_the_daemon_are_shown(database, tmp_path, browser):
    metrics = Metrics()
    for _ in range(100):
        metrics.flow.commit_seconds.labels(stream="plant").observe(0.004)
    metrics.flow.commit_seconds.labels(stream="of another team").observe(0.004)
    for partition in ("0", "1"):
        metrics.flow.lag.labels(stream="plant", topic="t", partition=partition).set(40)
    health = HttpServer("127.0.0.1", 0, operating_routes(Health(Watchdog(60)), metrics.exposition))
    health.start()
    try:
        port = int(health.url.rpartition(":")[2])
        config = config_of(tmp_path).model_copy(update={"http": Http(port=port)})
        with dashboard_server(config, port=0) as server:
            page, errors = open_page(browser, f"{server.url}/system")
            table = page.get_by_role("table", name="Commits")
            table.wait_for()
            assert "4 ms" in table.inner_text()
            assert re.search(r"^plant\s+80\s", table.inner_text(), re.MULTILINE), table.inner_text()
            assert "of another team" not in table.inner_text()
            figures = page.locator(".card", has_text="Memory").first.inner_text()
            assert re.search(r"^Memory\n\d+(\.\d+)? [MG]B$", figures, re.MULTILINE), figures
            assert not errors
    finally:
        health.stop()
    with dashboard_server(config, port=0) as server:
        page, _ = open_page(browser, f"{server.url}/system")
        page.get_by_text("No daemon answers at 127.0.0.1").wait_for()


def record(folder: Path) -> None:
    """Record an hour of one series at 20, and the same hour of the day before at 30."""
    writer = HistoryWriter(str(folder / "history"), "plant")
    rows = 3600
    at = np.arange(rows)
    for number, (end, level) in enumerate(((END - DAY, 30.0), (END, 20.0))):
        values = np.full((rows, 2), level, np.float32)
        table = parquet.rows(
            at,
            end - (rows - at) * SECOND,
            np.zeros(rows, np.int32),
            parquet.texts(["a"]),
            ["temperature", "pressure"],
            {"flag": np.zeros(rows, bool), "guard": np.zeros(rows, np.int8)},
            dict.fromkeys(("value", "expected", "lower", "upper"), values),
        )
        partition = Partition("x", number)
        writer.open(partition, "log", 1, 0)
        writer.append(partition, 0, rows, table)
        writer.barrier(partition, rows)
    writer.close()


def test_yesterday_is_drawn_beneath_the_same_time_of_today(database, tmp_path, browser):
    record(tmp_path)
    with dashboard_server(config_of(tmp_path), port=0) as server:
        since, until = (
            np.datetime_as_string(np.datetime64(ns, "ns"), "s") + "Z" for ns in (END - 3600 * SECOND, END)
        )
        page, errors = open_page(
            browser, f"{server.url}/series?stream=plant&series=a&from={since}&to={until}", timezone_id="UTC"
        )
        page.locator(".plot canvas").first.wait_for()
        page.get_by_role("button", name="yesterday").click()
        legend = page.locator(".plot .u-legend").first
        page.locator(".plot .u-over").first.hover(position={"x": 300, "y": 100})
        before = legend.locator("tr", has_text="before")
        before.wait_for()
        page.locator(".plot .u-over").first.hover(position={"x": 400, "y": 120})
        assert before.locator("td").inner_text() == "30"
        assert legend.locator("tr", has_text="highest").locator("td").inner_text() == "20"
        page.get_by_role("button", name="last week").click()
        page.locator(".plot .u-over").first.hover(position={"x": 300, "y": 100})
        wait_for_count(page.locator(".plot .u-legend td", has_text=re.compile("^30$")), 0)
        assert not errors


def test_verdicts_that_late_points_changed_or_retracted_are_marked(database, tmp_path, browser):
    record(tmp_path)
    changed = replace(closed(anomaly("a", END - 1800 * SECOND)), revised_ns=END)
    gone = replace(closed(anomaly("a", END - 900 * SECOND)), points=0, revised_ns=END)
    with database.begin() as connection:
        anomalies.upsert(connection, [changed, gone])
    since, until = (np.datetime_as_string(np.datetime64(ns, "ns"), "s") + "Z" for ns in (END - HOUR, END))
    with dashboard_server(config_of(tmp_path), port=0) as server:
        address = f"{server.url}/series?stream=plant&series=a&from={since}&to={until}"
        page, errors = open_page(browser, address)
        legend = page.locator(".legend").first
        legend.get_by_text("changed by late points").wait_for()
        legend.get_by_text("retracted").wait_for()
        table = page.get_by_role("table", name="Anomalies")
        wait_for_count(table.locator("tbody tr"), 2)
        assert table.locator("tbody time").count() == 4  # begin, and time of the change, of both
        table.get_by_role("link", name="retracted").click()
        page.get_by_text("This verdict is retracted").wait_for()
        assert not errors


def test_a_time_without_any_record_is_on_the_lane_of_health(database, tmp_path, browser):
    record(tmp_path)
    with database.begin() as connection:
        anomalies.upsert(connection, [closed(anomaly("a", END - 60 * SECOND))])
    with dashboard_server(config_of(tmp_path), port=0) as server:
        page, errors = open_page(browser, f"{server.url}/?range=7d")
        page.locator(".names li.health", has_text="no record for 23 h").wait_for()
        answer = httpx.get(f"{server.url}/api/v1/streams/plant/gaps?range=7d", trust_env=False, timeout=60)
        (gap,) = answer.json()["gaps"]
        assert gap == {"from_ms": (END - DAY - SECOND) // MS, "to_ms": (END - HOUR) // MS}
        assert answer.json()["unread_segments"] == 0
        assert not errors
