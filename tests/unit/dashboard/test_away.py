"""Pages while the database or the recorded history is away, and after it is back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.api.server import dashboard_server
from pipeline.config.schema import Config
from tests.support.browsers import open_page
from tests.unit.dashboard.conftest import config_of


@pytest.fixture
def copied(filled: Config, tmp_path: Path) -> Config:
    """Return a config whose files a test may take away."""
    folder = tmp_path / "copied"
    shutil.copytree(Path(filled.database.removeprefix("sqlite:///")).parent, folder)
    return config_of(folder)


@pytest.mark.parametrize(
    ("path", "back"),
    [
        ("/", ".lanes canvas"),
        ("/alerting", "text=Messages of the last 24 hours"),
        ("/models", "text=Who forecasts"),
        ("/system", "text=Partitions and their owners"),
        ("/audit", "text=Changes, the newest first"),
    ],
)
def test_a_page_says_that_the_database_is_away_and_fills_when_it_is_back(copied, browser, path, back):
    file = Path(copied.database.removeprefix("sqlite:///"))
    with dashboard_server(copied, port=0) as server:
        file.rename(file.with_suffix(".away"))
        page, _ = open_page(browser, f"{server.url}{path}")
        said = page.locator(".box.error").first
        said.wait_for()
        assert "The database does not answer" in said.inner_text()
        assert "put it back" in said.inner_text()
        file.with_suffix(".away").rename(file)
        page.locator(back).first.wait_for()
        page.locator(".box.error").first.wait_for(state="detached")


def test_a_chart_says_that_there_are_no_points_and_is_drawn_when_the_history_is_back(copied, browser):
    history = Path(copied.history_path)
    with dashboard_server(copied, port=0) as server:
        history.rename(history.with_suffix(".away"))
        page, _ = open_page(browser, f"{server.url}/series?stream=plant&series=berlin-1")
        page.get_by_text("No recorded point in this range").wait_for()
        history.with_suffix(".away").rename(history)
        page.locator(".plot canvas").first.wait_for()
