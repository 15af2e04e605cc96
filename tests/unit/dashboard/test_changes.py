"""Changes of models by buttons, and pages of alerts about faults, each in a browser."""

from __future__ import annotations

from pathlib import Path

from safetensors.numpy import load_file

from detectors.forecasters import lstm_features
from pipeline.api.server import dashboard_server
from pipeline.core.types import Fault, FaultKind
from pipeline.models import promotion, registry
from storage.access import audit
from storage.alerting import alerts
from storage.alerting.states import AlertState
from storage.model_store import jobs, models
from storage.model_store.models import ModelVersion
from storage.sql.database import Database
from tests.support.alerting import NOON, RouterBench, anomaly, closed
from tests.support.browsers import open_page, wait_for_count

WEIGHTS = Path(__file__).parents[3] / "detectors" / "weights" / "shared_lstm.safetensors"


def stored_version(database: Database, folder: Path) -> str:
    """Store the packaged weights as a trained version; return its name."""
    about = {"architecture": "shared_lstm", "features": {"version": lstm_features.VERSION}}
    path, sha256 = registry.publish(str(folder / "models"), "plant", load_file(WEIGHTS), about)
    version = sha256[: registry.VERSION_DIGITS]
    with database.begin() as connection:
        models.add(connection, ModelVersion(version, "plant", path, sha256, "candidate", None, "ada", 1, 1))
    return version


def test_a_model_is_promoted_and_rolled_back(config, database, tmp_path, browser):
    version = stored_version(database, tmp_path)
    with dashboard_server(config, port=0) as server:
        page, errors = open_page(browser, f"{server.url}/models")
        page.get_by_role("button", name=f"Promote {version}").click()
        dialog = page.locator("dialog[open]")
        assert "instead of the present champion" in dialog.inner_text()
        dialog.get_by_role("button", name="Promote").click()
        dialog.get_by_text(f"{version} is the champion of plant").wait_for()
        page.keyboard.press("Escape")
        with database.read() as connection:
            champion = models.current_champion(connection, "plant")
        assert (champion.to_version, champion.pinned) == (version, True)
        page.get_by_role("button", name="Roll back").click()
        page.locator("dialog[open]").get_by_role("button", name="Roll back").click()
        page.get_by_text("The previous champion forecasts again.").wait_for()
        with database.read() as connection:
            assert models.current_champion(connection, "plant").to_version is None
        assert not errors


def test_a_champion_is_pinned_and_unpinned(config, database, tmp_path, browser):
    version = stored_version(database, tmp_path)
    with database.begin() as connection:
        promotion.promote(
            connection, "plant", config.streams["plant"], version, author="a", reason="b", now_ns=1
        )
    with dashboard_server(config, port=0) as server:
        page, errors = open_page(browser, f"{server.url}/models")
        for button, pinned in (("Pin", True), ("Unpin", False)):
            page.get_by_role("button", name=button, exact=True).click()
            dialog = page.locator("dialog[open]")
            dialog.get_by_role("button", name=button, exact=True).click()
            dialog.locator(".done").wait_for()
            page.keyboard.press("Escape")
            with database.read() as connection:
                champion = models.current_champion(connection, "plant")
            assert (champion.to_version, champion.pinned) == (version, pinned)
        assert not errors


def test_a_stream_that_cannot_be_read_again_is_offered_no_time_range(config, browser):
    with dashboard_server(config, port=0) as server:
        page, errors = open_page(browser, f"{server.url}/models")
        command = page.get_by_label("Command", exact=True)
        command.wait_for()
        assert "--input FILE" in command.inner_text()
        assert "--from" not in command.inner_text()
        assert not errors


def test_a_change_that_is_cancelled_changes_nothing(config, database, tmp_path, browser):
    version = stored_version(database, tmp_path)
    with dashboard_server(config, port=0) as server:
        page, _ = open_page(browser, f"{server.url}/models")
        page.get_by_role("button", name=f"Promote {version}").click()
        page.locator("dialog[open]").get_by_role("button", name="Cancel").click()
        page.locator("dialog[open]").wait_for(state="detached")
    with database.read() as connection:
        assert models.promotions(connection) == []


def test_the_page_of_an_alert_about_a_fault_says_what_to_do(config, database, browser):
    bench = RouterBench(database)
    bench.happen(Fault("plant", FaultKind.SOURCE_DOWN, "the broker is away: start it", NOON))
    bench.later(600)
    with database.read() as connection:
        [alert] = alerts.query(connection, states=list(AlertState))
    with dashboard_server(config, port=0) as server:
        page, errors = open_page(browser, f"{server.url}/alerts/{alert.alert_id}")
        page.wait_for_selector(".sentence")
        assert "source down: the broker is away: start it" in page.inner_text(".sentence")
        assert not errors


def test_an_open_alert_stands_before_newer_ones_that_have_closed(config, database, browser):
    bench = RouterBench(database)
    bench.happen(anomaly("b/open"))
    bench.settle()
    short = anomaly("b/closed", start_ns=NOON + 10**12, end_ns=NOON + 10**12)
    bench.happen(short)
    bench.settle()
    bench.happen(closed(short))
    bench.settle()
    with database.read() as connection:
        found = alerts.query(connection, states=list(AlertState))
    assert [one.state for one in sorted(found, key=lambda one: one.opened_ns)] == ["open", "closed"]
    with dashboard_server(config, port=0) as server:
        page, errors = open_page(browser, f"{server.url}/alerting")
        rows = page.get_by_role("region", name="Alerts").locator("tbody tr")
        wait_for_count(rows, 2)
        assert ["b/open" in rows.nth(0).inner_text(), "b/closed" in rows.nth(1).inner_text()] == [True, True]
        assert not errors


def test_a_training_is_queued_from_the_page_and_written_down(config, database, browser):
    with dashboard_server(config, port=0) as server:
        page, errors = open_page(browser, f"{server.url}/models")
        page.get_by_role("button", name="Train now").click()
        dialog = page.locator("dialog[open]")
        dialog.get_by_role("button", name="Train now").click()
        dialog.get_by_text("is queued.").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("region", name="Jobs").get_by_text("queued").wait_for()
        assert not errors
    with database.read() as connection:
        [job] = jobs.query(connection, stream="plant", limit=5)
        [entry] = audit.query(connection)
    assert (job.kind, job.trigger) == ("train", "manual")
    assert (entry.action, entry.object, entry.stream) == ("job.request", str(job.id), "plant")
