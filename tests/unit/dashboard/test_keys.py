"""Keys and answers that cross: what is pressed or typed before an answer has arrived is not lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pipeline.api.server import dashboard_server
from tests.support.browsers import open_page, wait_for_count


@contextmanager
def held(page: Any, pattern: str) -> Iterator[list[Any]]:
    """Hold the requests of a page that match; they go on at the end."""
    waiting: list[Any] = []
    page.route(pattern, lambda route: waiting.append(route))
    try:
        yield waiting
    finally:
        for one in waiting:
            one.continue_()
        page.unroute(pattern)


def wait_until(page: Any, waiting: list[Any]) -> None:
    """Wait until a request is held."""
    while not waiting:
        page.wait_for_timeout(20)


def test_the_key_of_the_palette_is_not_typed_into_it(site, browser):
    page, errors = open_page(browser, f"{site}/system")
    page.get_by_role("heading", name="System", exact=True).wait_for()
    page.keyboard.press("?")
    page.keyboard.type("audit")
    field = page.get_by_role("combobox", name="Search pages")
    assert field.input_value() == "audit"
    assert not errors


def test_enter_before_the_series_have_arrived_opens_the_one_that_was_typed(site, browser):
    page, errors = open_page(browser, f"{site}/system")
    page.keyboard.press("Control+k")
    page.get_by_role("option", name="berlin-1").wait_for()
    with held(page, "**/api/v1/series?*") as waiting:
        page.keyboard.type("berlin-2")
        wait_until(page, waiting)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
    page.wait_for_url("**/series?*series=berlin-2*")
    assert not errors


def test_enter_waits_for_the_series_if_none_of_the_known_ones_matches(site, browser):
    page, errors = open_page(browser, f"{site}/system")
    with held(page, "**/api/v1/series?*") as waiting:
        page.keyboard.press("Control+k")
        page.keyboard.type("berlin-2")
        page.keyboard.press("Enter")
        wait_until(page, waiting)
        assert page.get_by_role("dialog", name="Command palette").is_visible()
    page.wait_for_url("**/series?*series=berlin-2*")
    assert not errors


def test_a_filter_typed_before_the_lanes_have_arrived_is_kept(filled, browser):
    with dashboard_server(filled, port=0) as server:
        page, _ = open_page(browser, f"{server.url}/system")
        page.get_by_role("heading", name="System", exact=True).wait_for()
        with held(page, "**/api/v1/fleet?*") as waiting:
            page.keyboard.press("f")
            wait_until(page, waiting)
            page.keyboard.press("/")
            page.keyboard.type("berlin-2")
        wait_for_count(page.locator(".names li.series"), 1)
        assert page.get_by_role("searchbox").input_value() == "berlin-2"
        page.go_back()
        page.get_by_role("heading", name="System", exact=True).wait_for()


def test_keys_of_a_chart_add_up_while_it_is_read(site, browser):
    page, errors = open_page(browser, f"{site}/series?stream=plant&series=berlin-1")
    page.locator(".plot canvas").first.wait_for()
    with held(page, "**/api/v1/chart?*") as waiting:
        for key in "--]":
            page.keyboard.press(key)
        wait_until(page, waiting)
        assert page.locator(".plot canvas").first.is_visible(), "the chart before stays"
        query = parse_qs(urlsplit(page.url).query)
        first, last = (page.evaluate(f"Date.parse('{query[name][0]}')") for name in ("from", "to"))
    page.wait_for_selector("[aria-busy=false]")
    assert 3.9 * 890_000 < last - first < 4.1 * 900_000, "zoomed out twice"
    assert not errors


def test_rules_typed_before_those_in_force_have_arrived_are_kept(site, browser):
    page, errors = open_page(browser, f"{site}/models")
    page.get_by_role("heading", name="Models", exact=True).wait_for()
    with held(page, "**/api/v1/streams/plant/rules") as waiting:
        page.keyboard.press("a")
        page.get_by_label("Rules: the block alerts of the stream").fill("rules: []")
        wait_until(page, waiting)
    page.get_by_role("option", name="as configured (normal)").wait_for(state="attached")
    assert page.get_by_label("Rules: the block alerts of the stream").input_value() == "rules: []"
    assert not errors


def test_a_lost_server_is_shown_at_once_and_a_server_that_is_back_too(filled, browser):
    with dashboard_server(filled, port=0) as server:
        port = server.port
        page, _ = open_page(browser, f"{server.url}/alerting")
        page.wait_for_selector(".connection.live")
        page.get_by_role("heading", name="Deliveries").wait_for()
    page.wait_for_selector(".stale")
    with dashboard_server(filled, port=port):
        page.wait_for_selector(".connection.live")
        page.wait_for_selector(".stale", state="detached")
