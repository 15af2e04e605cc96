"""Page of the system: replay of dead letters by stream, and pages of what does not exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.api.server import dashboard_server
from pipeline.config.schema import Config
from pipeline.core.types import DeadLetter, Partition
from storage.results import dead_letters
from tests.support.alerting import NOON
from tests.support.api_servers import config_of
from tests.support.browsers import open_page


@pytest.fixture
def config(tmp_path: Path, sqlite_template: Path) -> Config:
    """Return a config of the streams ``plant`` and ``web``."""
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    return config_of(f"sqlite:///{tmp_path}/forewatch.db", tmp_path)


def letter(stream: str, offset: int, value: bytes) -> DeadLetter:
    return DeadLetter(stream, Partition("x", 0), offset, NOON, None, value, [], "not_json", "it ends early")


def test_dead_letters_are_replayed_by_stream_and_those_that_still_fail_are_counted(config, database, browser):
    good = b'{"site": "b1", "t": "2026-01-01T00:00:00Z", "temperature": 1, "pressure": 2}'
    with database.begin() as connection:
        dead_letters.add(
            connection, [letter("plant", 1, good), letter("plant", 2, b"{"), letter("web", 3, b"{")]
        )
    with dashboard_server(config, port=0) as server:
        page, errors = open_page(browser, f"{server.url}/system")
        page.get_by_text("not json: 3").wait_for()
        page.get_by_role("button", name="Replay web").click()
        dialog = page.locator("dialog[open]")
        dialog.get_by_text(
            "0 of 1 decode with the present config. The others still do not (malformed: 1)"
        ).wait_for()
        dialog.get_by_role("button", name="Replay web").click()
        dialog.get_by_text("No record decodes, so none was written.").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Replay plant").click()
        dialog.get_by_text("1 of 2 decodes with the present config.").wait_for()
        assert not errors


def test_the_page_of_an_incident_that_does_not_exist_leads_on(config, browser):
    with dashboard_server(config, port=0) as server:
        page, _ = open_page(browser, f"{server.url}/anomalies/00000000-0000-4000-8000-000000000000")
        page.get_by_role("heading", name="There is no such incident").wait_for()
        page.locator("main").get_by_role("link", name="Alerting").click()
        page.get_by_role("heading", name="Alerting", exact=True).wait_for()
