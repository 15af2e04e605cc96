"""Pages while a daemon starts: they say so at once, and go on by themselves."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from pipeline.api.daemon_service import DashboardService
from pipeline.api.server import application
from pipeline.api.starting_site import STARTING_TYPE, StartingSite
from pipeline.config.schema import Config
from tests.support.api_servers import STREAM
from tests.support.browsers import open_page
from tests.support.postgres_server import free_port
from tests.unit.api.test_daemon_service import eventually


@pytest.fixture
def waiting(filled) -> Iterator[StartingSite]:
    """Yield a server that has no application yet."""
    site = StartingSite(filled, port=0)
    site.server.start()
    yield site
    site.server.stop()


def get(url: str, **headers: str) -> httpx.Response:
    return httpx.get(url, headers=headers, trust_env=False, timeout=60)


def test_programs_get_a_problem_with_the_time_to_come_back(waiting):
    answer = get(f"{waiting.server.url}/api/v1/fleet")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == STARTING_TYPE
    assert "starting" in answer.json()["title"]


def test_a_login_waits_on_a_page_that_loads_itself_again(waiting):
    answer = get(f"{waiting.server.url}/login?next=/", accept="text/html")
    assert answer.status_code == 503
    assert 'http-equiv="refresh"' in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_people_of_this_machine_read_why_it_does_not_start(waiting):
    waiting.report("serve: there is no API key")
    assert "there is no API key" in get(f"{waiting.server.url}/api/v1/fleet").json()["detail"]


def test_a_page_opened_during_the_start_fills_by_itself(filled, waiting, browser):
    page, _ = open_page(browser, f"{waiting.server.url}/?range=1h")
    page.get_by_role("heading", name="forewatch is starting").wait_for()
    assert page.get_by_text("This page continues by itself").is_visible()
    with application(filled, waiting):
        page.locator(".names li.series").filter(has_text="berlin-1").wait_for()
        page.locator(".connection.live").wait_for()


def test_a_daemon_announces_its_pages_before_the_database_exists(tmp_path, sqlite_template):
    port = free_port()
    config = Config.model_validate(
        {
            "database": f"sqlite:///{tmp_path}/forewatch.db",
            "serve": {"port": port, "daemon": True},
            "streams": {"plant": STREAM},
        }
    )
    service = DashboardService(config)
    service.announce()
    try:
        url = f"http://127.0.0.1:{port}/api/v1/streams"
        assert eventually(lambda: reached(url) == 503)
        assert not (tmp_path / "forewatch.db").exists()
        (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
        service.start()
        assert eventually(lambda: reached(url) == 200)
    finally:
        service.stop()
    assert reached(url) is None


def reached(url: str) -> int | None:
    """Return the status of a path; None where nothing listens."""
    try:
        return get(url).status_code
    except httpx.ConnectError:
        return None
