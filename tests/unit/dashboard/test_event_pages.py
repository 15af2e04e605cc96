"""Pages of a stream of events: what came, how surprising it was, and what was expected."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pipeline.api.server import dashboard_server
from pipeline.config.schema import Config
from storage.results import anomalies
from storage.sql.database import Database
from tests.support.browsers import open_page
from tests.support.events import START, Event, cycles, saved_door_model
from tests.unit.dashboard.conftest import run_until_read
from tests.unit.dashboard.test_pages import AXE, view

WRONG = ("badge", "open", "unlock", "close", "lock")


def write_events(path: Path) -> int:
    """Write events of two doors, of which one opens before it was unlocked; return their number."""
    wrong: list[Event] = [("north", 6100.0 + step, code) for step, code in enumerate(WRONG)]
    events = sorted([*cycles("north", 10), *cycles("south", 12, 5.0), *wrong], key=lambda one: one[1])
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["door", "t", "event"])
        writer.writerows((door, START + at, code) for door, at, code in events)
    return len(events)


@pytest.fixture(scope="module")
def doors(tmp_path_factory) -> Config:
    """Return a config whose database and history hold the events of ``write_events``."""
    folder = tmp_path_factory.mktemp("doors")
    count = write_events(folder / "events.csv")
    stream = {
        "source": {"files": {"paths": [str(folder / "*.csv")], "follow": True}},
        "format": {"csv": {"series": "door", "time": "t", "code": "event"}},
        "events": {"idle": "1m", "model": str(saved_door_model(folder))},
    }
    config = Config.model_validate(
        {
            "database": f"sqlite:///{folder}/forewatch.db",
            "http": None,
            "storage": {"snapshot_every": "200ms"},
            "streams": {"doors": stream},
        }
    )
    run_until_read(config, count)
    return config


@pytest.fixture(scope="module")
def event_site(doors) -> Iterator[str]:
    """Yield the address of the dashboard of ``doors``."""
    with dashboard_server(doors, port=0) as server:
        yield server.url


@pytest.fixture(scope="module")
def wrong_order(doors) -> str:
    """Return the id of the anomaly."""
    database = Database(doors.database)
    with database.read() as connection:
        (found,) = anomalies.query(connection, stream="doors")
    database.close()
    return str(found.id)


def test_the_chart_of_a_series_lists_its_events(event_site, wrong_order):
    found = view(event_site, "chart", stream="doors", series="north")
    assert found["channels"] == []
    assert found["alarm_surprise"] == 2.0
    codes = [one["code"] for one in found["events"]]
    assert codes[-6:-1] == list(WRONG)
    assert codes[-1] == "end of the session"
    flagged = [one["code"] for one in found["events"] if one["flag"]]
    assert flagged[0] == "open"
    assert set(flagged) <= set(WRONG)
    assert [one["id"] for one in found["anomalies"]] == [wrong_order]


def test_the_anomaly_has_the_events_before_and_those_expected(event_site, wrong_order):
    event = view(event_site, f"anomalies/{wrong_order}")["event"]
    assert (event["code"], event["before"]) == ("open", ["badge"])
    assert event["likely"][0]["code"] == "unlock"
    assert event["likely"][0]["probability"] > 0.9


def test_the_fleet_has_a_lane_for_the_door_with_the_wrong_order(event_site, wrong_order):
    (doors,) = view(event_site, "fleet", range="24h")["streams"]
    assert doors["lanes"]["series"] == ["north"]
    assert len(doors["lanes"]["of"]) == 1


def test_a_file_of_events_is_refused_with_the_way_to_judge_it(event_site, doors):
    path = Path(doors.database.removeprefix("sqlite:///")).with_name("events.csv")
    url, headers = f"{event_site}/api/v1/try", {"x-forewatch-csrf": "1"}
    answer = httpx.post(url, content=path.read_bytes(), headers=headers, trust_env=False, timeout=60)
    assert answer.status_code == 422
    assert "no column of the file holds numbers" in answer.text
    assert "fit_events" in answer.text


def test_the_pages_show_events_without_an_error(event_site, browser, wrong_order):
    page, errors = open_page(
        browser, f"{event_site}/series?stream=doors&series=north", viewport={"width": 1280, "height": 900}
    )
    page.get_by_role("img", name=" of them unexpected").wait_for()
    row = page.get_by_role("table", name="Events").get_by_role("row").filter(has_text="unexpected")
    assert "open" in row.last.inner_text()
    if folder := os.environ.get("FOREWATCH_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/event-series.png", full_page=True)
    page.goto(f"{event_site}/anomalies/{wrong_order}")
    page.get_by_role("list", name="Events before, and the unexpected one").wait_for()
    text = page.inner_text("main")
    assert "“open” came after “badge”" in text
    assert "Expected instead" in text
    assert "unlock" in text
    page.get_by_role("img", name=" of them unexpected").wait_for()
    if folder := os.environ.get("FOREWATCH_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/event-incident.png", full_page=True)
    if AXE.is_file():
        page.evaluate(AXE.read_text())  # Playwright evaluates in the page without a script element
        assert [one["id"] for one in page.evaluate("axe.run()")["violations"]] == []
    page.goto(f"{event_site}/fleet")
    page.get_by_text("north").first.wait_for()
    assert errors == []
