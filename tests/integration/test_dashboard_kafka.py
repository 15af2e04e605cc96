"""Every page over a daemon that serves and reads a real Kafka, through a restart of the daemon."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pipeline.api.daemon_service import DashboardService
from pipeline.config.schema import Config
from pipeline.daemon.daemon import daemon
from pipeline.dashboard.assets import is_built
from tests.support.browsers import open_browser, open_page
from tests.support.postgres_server import free_port
from tests.unit.api.test_daemon_service import answers, eventually

pytestmark = [pytest.mark.kafka, pytest.mark.long]
SERIES, BEFORE = 4, 600
PAGES = ("/", "/alerting", "/models", "/try?stream=plant&series=s0", "/system", "/audit")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    if not is_built():
        pytest.skip("the pages are not built: make dashboard")
    with open_browser() as found:
        yield found


class Feed:
    """Writes a record a second of each series; ``jumping`` are the series with a fault."""

    def __init__(self, topics) -> None:
        self._topics, self.topic, self.jumping, self._row = topics, topics.create(1), set(), 0
        now = time.time_ns()
        self._send([row for n in range(BEFORE) for row in self._rows(now - (BEFORE - n) * 10**9)])

    def _rows(self, time_ns: int) -> list[bytes]:
        self._row += 1
        rows = []
        for n in range(SERIES):
            value = 20 + np.sin(self._row * 1.7 + n) * 0.2 + (40 if n in self.jumping else 0)
            row = {"sensor": f"s{n}", "ts": time_ns, "value": round(float(value), 4)}
            rows.append(json.dumps(row).encode())
        return rows

    def _send(self, rows: list[bytes]) -> None:
        self._topics.produce(self.topic, rows)

    def run(self, ending: threading.Event) -> None:
        while not ending.wait(1.0):
            self._send(self._rows(time.time_ns()))


@pytest.fixture
def feed(topics) -> Iterator[Feed]:
    made, ending = Feed(topics), threading.Event()
    thread = threading.Thread(target=made.run, args=(ending,), daemon=True)
    thread.start()
    yield made
    ending.set()
    thread.join()


@pytest.fixture
def config(feed: Feed, topics, tmp_path: Path, sqlite_template: Path) -> Config:
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    record = {"series": "sensor", "time": "ts", "time_unit": "ns", "values": "value"}
    stream = {
        "source": {"kafka": {"brokers": [topics.broker], "topics": [feed.topic]}},
        "format": {"json": record},
        "detector": "light",
    }
    return Config.model_validate(
        {
            "database": f"sqlite:///{tmp_path}/forewatch.db",
            "http": None,
            "serve": {"port": free_port(), "daemon": True},
            "streams": {"plant": stream},
        }
    )


@contextmanager
def running(config: Config) -> Iterator[str]:
    """Yield the address of the dashboard of a daemon in this process."""
    stopping = threading.Event()
    with daemon(config, stopping, [DashboardService(config)]) as one:
        thread = threading.Thread(target=one.run, args=(lambda: None,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{config.served.port}"
        try:
            assert eventually(lambda: answers(url))
            yield url
        finally:
            stopping.set()
            thread.join()


def open_fault(page, name: str):
    """Return the line of an open anomaly of a series, once it is on the fleet."""
    line = page.locator(".opennow li").filter(has=page.locator(".severity")).filter(has_text=name)
    line.first.wait_for()
    return line.first


def test_a_fault_appears_on_the_open_page_before_and_after_a_restart(config, feed, browser):
    with running(config) as url:
        page, errors = open_page(browser, url)
        page.get_by_text("4 series").first.wait_for()
        feed.jumping.add(1)
        line = open_fault(page, "s1")
        assert "usual" in line.inner_text()
        for path in PAGES:
            page.goto(f"{url}{path}")
            page.wait_for_selector("main h1", state="attached")
            page.wait_for_selector(".skeleton", state="detached")
            assert not page.locator(".box.error").count(), path
        assert not errors
        page.goto(url)
        open_fault(page, "s1").get_by_role("link").click()
        page.get_by_text("What to do").wait_for()
        page.get_by_role("button", name="True anomaly").click()
        page.get_by_text("Labelled true.").wait_for()
        page.goto(url)
        open_fault(page, "s1")
    page.wait_for_selector(".connection.lost")
    with running(config):
        page.wait_for_selector(".connection.live")
        feed.jumping.add(2)
        open_fault(page, "s2")
