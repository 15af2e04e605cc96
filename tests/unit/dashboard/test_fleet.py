"""Fleet page: data of its lanes, and the page in a browser."""

from __future__ import annotations

import httpx
import pytest

from pipeline.api.direct_answers import MIN_COMPRESSED_BYTES
from pipeline.api.server import dashboard_server
from pipeline.config.schema import Config
from pipeline.core.types import Severity
from storage.results import anomalies
from storage.sql.database import Database
from tests.support.alerting import anomaly
from tests.support.api_servers import STREAM
from tests.support.browsers import open_page, wait_for_count
from tests.unit.dashboard.conftest import HOSTILE, NAMES


def get(url: str, **query) -> httpx.Response:
    return httpx.get(url, params=query, trust_env=False, timeout=60)


def test_fleet_lists_every_series_and_the_anomalies_of_the_daemon(site):
    answer = get(f"{site}/api/v1/fleet", range="1h").json()
    (stream,) = answer["streams"]
    lanes = stream["lanes"]
    assert "berlin-1" in lanes["series"]
    of, start, end = (lanes[name] for name in ("of", "start_ms", "end_ms"))
    assert len(of) == len(start) == len(end) == len(lanes["severity"]) == len(lanes["open"])
    assert all(first <= last for first, last in zip(start, end, strict=True))
    names = get(f"{site}/api/v1/streams/plant/series-names").json()
    assert (set(names["names"]), names["count"]) == (set(NAMES), len(NAMES))
    assert answer["tiles"]["daemon_ms"] > 0


def test_unknown_range_is_refused_with_those_there_are(site):
    answer = get(f"{site}/api/v1/fleet", range="nonsense")
    assert answer.status_code == 422
    assert "24h" in answer.json()["detail"]


def test_page_shows_names_as_text(site, browser):
    page, errors = open_page(browser, f"{site}/?range=1h")
    page.locator(".names li.stream").get_by_text(f"{len(NAMES)} series").wait_for()  # after the lanes
    shown = page.inner_text(".lanes .names")
    assert all(name[:20] in shown for name in HOSTILE if "\u202e" not in name)
    assert page.title() == "Fleet · forewatch"
    assert page.evaluate("document.images.length") == 1  # the logo: no image of a name
    assert not errors


def test_page_filters_with_the_keyboard(site, browser):
    page, _ = open_page(browser, f"{site}/?range=1h")
    page.locator(".names li.stream").get_by_text(f"{len(NAMES)} series").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("berlin-2")
    wait_for_count(page.locator(".names li.series"), 1)
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.hasAttribute('data-row')")


def test_page_returns_without_a_reload_after_the_server_was_away(filled, browser):
    with dashboard_server(filled, port=0) as server:
        port, url = server.port, server.url
        page, _ = open_page(browser, f"{url}/?range=1h")
        page.wait_for_selector(".connection.live")
    page.wait_for_selector(".connection.lost")
    page.wait_for_selector(".stale")
    with dashboard_server(filled, port=port):
        page.wait_for_selector(".connection.live")
        page.wait_for_selector(".stale", state="detached")


def test_empty_database_is_a_designed_page(tmp_path, browser):
    url = f"sqlite:///{tmp_path}/empty.db"
    database = Database(url)
    database.upgrade()
    database.close()
    stream = {
        "source": {"memory": {"name": "x"}},
        "format": {"json": {"series": "s", "time": "t", "values": ["v"]}},
    }
    config = Config.model_validate({"database": url, "http": None, "streams": {"plant": stream}})
    with dashboard_server(config, port=0) as server:
        page, errors = open_page(browser, server.url)
        page.wait_for_selector("text=0 series, no record yet")
        assert not errors


@pytest.mark.parametrize("host", ["evil.example", "10.0.0.1:9465", ""])
def test_foreign_host_name_is_refused(site, host):
    assert httpx.get(site, headers={"host": host}, trust_env=False, timeout=60).status_code == 403


def test_pages_forbid_scripts_and_styles_that_are_not_files(site):
    policy = get(site).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_path_outside_of_the_built_files_is_not_served(site):
    for path in ("/assets/../../server.py", "/assets/%2e%2e/%2e%2e/server.py", "/assets/..%2f..%2fserver.py"):
        assert get(f"{site}{path}").status_code == 404


def test_a_label_filters_also_series_without_anomalies(site, browser):
    page, _ = open_page(browser, f"{site}/?range=1h&filter=sensor%3Dberlin-2")
    page.locator(".names li.series").filter(has_text="berlin-2").wait_for()
    assert page.locator(".names li.series").count() == 1


def test_the_lanes_are_the_same_compressed_and_plain(site):
    plain = httpx.get(
        f"{site}/api/v1/fleet", headers={"accept-encoding": "identity"}, trust_env=False, timeout=60
    )
    packed = httpx.get(
        f"{site}/api/v1/fleet", headers={"accept-encoding": "gzip"}, trust_env=False, timeout=60
    )
    is_packed = packed.headers.get("content-encoding") == "gzip"
    assert is_packed == (len(plain.content) >= MIN_COMPRESSED_BYTES)
    assert "content-encoding" not in plain.headers
    assert plain.json()["streams"] == packed.json()["streams"]


@pytest.mark.parametrize("path", ["/nonsense", "/alerts/1", "/assets/missing.js"])
def test_a_path_that_no_page_has_is_404_for_programs(site, path):
    answer = httpx.get(f"{site}{path}", trust_env=False, timeout=60)
    assert (answer.status_code, answer.json()["title"]) == (404, "There is no such path")


@pytest.mark.parametrize(
    "path", ["/a%0Ab", "/api/v1/streams/a%0Ab/rules", "/api/v1/alerts/", "/api/v1/alerts/%2F"]
)
def test_a_path_with_a_line_break_or_a_further_slash_is_a_problem(site, path):
    answer = get(f"{site}{path}")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


def test_a_path_that_no_page_has_is_a_page_for_people(site, browser):
    page, _ = open_page(browser, f"{site}/nonsense<b>")
    page.get_by_role("heading", name="There is no such page").wait_for()
    assert "/nonsense" in page.inner_text(".box")
    assert page.title() == "Not found · forewatch"
    status = page.evaluate("performance.getEntriesByType('navigation')[0].responseStatus")
    assert status == 404
    page.locator(".box").get_by_role("link", name="Alerting").click()
    page.get_by_role("heading", name="Alerting", exact=True).wait_for()


def test_series_are_grouped_by_a_label_the_worst_group_first(config, database, browser):
    labelled = STREAM | {"format": {"json": {"series": ["site", "sensor"], "time": "t", "values": ["v"]}}}
    streams = {"plant": type(config.streams["plant"]).model_validate(labelled)}
    with database.begin() as connection:
        worst = anomaly("c/1", severity=Severity.CRITICAL)
        some = [anomaly("a/1", severity=Severity.INFO), anomaly("b/1"), anomaly("b/2"), worst]
        anomalies.upsert(connection, some)
    with dashboard_server(config.model_copy(update={"streams": streams}), port=0) as server:
        page, errors = open_page(browser, server.url)
        page.get_by_label("Group by").select_option("site")
        groups = page.locator(".names li.group")
        wait_for_count(groups, 3)
        texts = [one.inner_text() for one in groups.all()]
        assert [one.split()[0] for one in texts] == ["c", "b", "a"]
        assert "2 series, 2 anomalies, worst major, open" in texts[1]
        groups.nth(1).get_by_role("link").press("Enter")
        wait_for_count(groups, 1)
        assert page.locator("[data-filter]").input_value() == "site=b"
        wait_for_count(page.locator(".names li.series"), 2)
        assert not errors
