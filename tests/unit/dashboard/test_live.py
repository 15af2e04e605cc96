"""Live pages: nothing that happens is missed until the next timer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from pipeline.api import events
from pipeline.api.server import dashboard_server
from storage.results import anomalies
from storage.sql.database import Database
from tests.support.alerting import anomaly, closed
from tests.support.browsers import TIMEOUT_MS

#: Timers by which views ask again without an event never end.
WITHOUT_POLLING = """
const begin = window.setTimeout;
window.setTimeout = (act, ms, ...more) => (ms >= 5000 ? 0 : begin(act, ms, ...more));
"""


@pytest.fixture
def page(browser) -> Iterator:
    """Yield a page that asks again after events only."""
    context = browser.new_context()
    context.set_default_timeout(TIMEOUT_MS)
    context.add_init_script(WITHOUT_POLLING)
    yield context.new_page()
    context.close()


def open_anomaly(database: Database, series: str) -> None:
    with database.begin() as connection:
        anomalies.upsert(connection, [anomaly(series)])


def test_an_anomaly_between_the_first_answer_and_the_first_connection_is_shown(config, database, page):
    held: list = []
    page.route("**/api/v1/events*", lambda route: held.append(route))
    with dashboard_server(config, port=0) as server:
        page.goto(server.url)
        page.get_by_text("No record was scored yet").wait_for()
        while not held:
            page.wait_for_timeout(50)
        open_anomaly(database, "b/1")
        held[0].continue_()
        page.locator(".opennow").get_by_text("b/1").wait_for()


def test_an_anomaly_that_began_before_it_was_flagged_has_words(config, database, page):
    one = anomaly("b/1")
    with database.begin() as connection:
        anomalies.upsert(connection, [replace(one, onset_ns=one.start_ns - 3600 * 10**9)])
    with dashboard_server(config, port=0) as server:
        page.goto(server.url)
        page.locator(".opennow").get_by_text("b/1").wait_for()
        closed_one = closed(replace(one, onset_ns=one.start_ns - 3600 * 10**9, revision=9))
        with database.begin() as connection:
            anomalies.upsert(connection, [closed_one])
        page.locator(".opennow").get_by_text("No anomaly is open").wait_for()
        page.locator(".opennow").get_by_text("b/1").wait_for()


def test_a_planned_end_of_the_connection_is_no_loss_of_it(config, database, page, monkeypatch):
    monkeypatch.setattr(events, "MAX_STREAM_SECONDS", 0.2)
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.1)
    connections: list[str] = []
    page.on("request", lambda one: connections.append(one.url) if "/events" in one.url else None)
    with dashboard_server(config, port=0) as server:
        page.goto(server.url)
        page.locator(".connection.live").wait_for()
        page.evaluate(
            """() => { window.states = new Set(); const seen = document.querySelector(".connection");
            const watcher = new MutationObserver(() => window.states.add(seen.className));
            watcher.observe(seen, { attributes: true }); }"""
        )
        while len(connections) < 4:
            page.wait_for_timeout(50)
        open_anomaly(database, "b/1")
        page.locator(".opennow").get_by_text("b/1").wait_for()
        assert page.evaluate("() => [...window.states]") == []
    assert all("?after=" in one for one in connections[1:])
