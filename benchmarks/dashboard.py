"""Dashboard: time until a browser shows the lanes of many series.

    python -m benchmarks.dashboard                          10,000 series, 1,000 open anomalies, SQLite
    python -m benchmarks.dashboard --database postgresql    the same on a PostgreSQL that is started

Each round opens the page in a new browser context and waits until the page has drawn lanes
(``performance.mark("lanes")``). Printed are the wall-clock times since the navigation, the CPU time of the
page and of the server, and the longest frames while the lanes are scrolled. The first round also pays
for what the server keeps in memory afterwards. A loaded machine changes the wall-clock times; the CPU times
change less.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing import Pipe, Process, connection
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.schema import Config
from pipeline.core.types import AnomalyState, Partition, Severity
from pipeline.dashboard.assets import require_built
from storage.history import parquet
from storage.history.writer import HistoryWriter
from storage.results import anomalies
from storage.sql.database import Database
from tests.support.alerting import SECOND, anomaly, closed
from tests.support.browsers import open_browser

STREAM = {
    "source": {"memory": {"name": "x"}},
    "format": {"json": {"series": ["site", "sensor"], "time": "t", "values": ["temperature", "pressure"]}},
}
SEGMENTS, ROWS_PER_SERIES = 6, 20
LANES_MS = "performance.getEntriesByName('lanes')[0]?.startTime ?? null"
SCROLLED_FRAMES = 120
#: What a frame costs, which other programs of a loaded machine change less than the time between two frames.
FRAME_PARTS = {
    "CPU of the page, ms": ["ProcessTime"],
    "script, ms": ["ScriptDuration"],
    "layout, ms": ["LayoutDuration", "RecalcStyleDuration"],
}
#: Runs in the page: the longest and the median time between two frames while the lanes scroll.
SCROLL = """async () => {
  const lanes = document.querySelector(".lanes"), times = [];
  await new Promise((done) => {
    let step = 0, last = performance.now();
    const next = (now) => {
      times.push(now - last); last = now;
      lanes.scrollTop = ++step * 400;
      if (step < 120) requestAnimationFrame(next); else done();
    };
    requestAnimationFrame(next);
  });
  times.sort((a, b) => a - b);
  return { median: times[times.length >> 1], p95: times[Math.floor(times.length * 0.95)] };
}"""


def fill(config: Config, series: int, open_count: int, closed_count: int) -> None:
    """Store anomalies and a recorded history of a day that ends now.

    Args:
        config: The config.
        series: Number of series.
        open_count: Number of open anomalies.
        closed_count: Number of closed anomalies.
    """
    now = time.time_ns()
    names = [f"site-{n % 50}/sensor-{n}" for n in range(series)]
    rng = np.random.default_rng(1)
    levels = list(Severity)
    made = []
    for n in range(open_count + closed_count):
        start = now - int(rng.integers(60, 86_000)) * SECOND
        one = anomaly(names[n % series], start + n, severity=levels[n % 4], partition=Partition("x", 0))
        made.append(one if n < open_count else closed(one))
    assert sum(one.state is AnomalyState.OPEN for one in made) == open_count
    with closing(Database(config.database)) as database:
        database.upgrade()
        for at in range(0, len(made), 1000):
            with database.begin() as opened:
                anomalies.upsert(opened, made[at : at + 1000])
    writer = HistoryWriter(config.history_path, "plant")
    writer.open(Partition("x", 0), "log", 1, 0)
    each = series * ROWS_PER_SERIES
    for segment in range(SEGMENTS):
        at = np.arange(each)
        values = rng.normal(70, 1, (each, 2))
        start = now - (SEGMENTS - segment) * 3600 * SECOND
        table = parquet.rows(
            segment * each + at,
            start + (at // series) * 60 * SECOND,
            (at % series).astype(np.int32),
            parquet.texts(names),
            ["temperature", "pressure"],
            {"flag": np.zeros(each, bool), "surprise": np.zeros(each, np.float32)},
            dict.fromkeys(("value", "expected", "lower", "upper"), values),
        )
        writer.append(Partition("x", 0), segment * each, (segment + 1) * each, table)
        writer.barrier(Partition("x", 0), (segment + 1) * each)
    writer.close()


def serve(settings: dict[str, Any], pipe: connection.Connection) -> None:
    """Serve the dashboard; answer each message with the CPU seconds used."""
    from pipeline.api.server import dashboard_server

    with dashboard_server(Config.model_validate(settings), port=0) as server:
        pipe.send(server.url)
        while pipe.recv():
            pipe.send(time.process_time())


@contextmanager
def served(settings: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the address of a server and a function that returns its CPU seconds."""
    here, there = Pipe()
    process = Process(target=serve, args=(settings, there))
    process.start()

    def cpu_seconds() -> float:
        here.send(True)
        return float(here.recv())

    try:
        yield here.recv(), cpu_seconds
    finally:
        here.send(False)
        process.join()


def measure(browser: Any, url: str, cpu_seconds: Any) -> dict[str, float]:
    """Open the page once and return its times in ms."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Performance.enable")
    before = cpu_seconds()
    page.goto(f"{url}/?range=24h")
    page.wait_for_selector("[data-lanes]", timeout=60_000)
    while (lanes_ms := page.evaluate(LANES_MS)) is None:
        time.sleep(0.02)
    used = cpu_seconds() - before
    metrics = page_metrics(session)
    frames = page.evaluate(SCROLL)
    after = page_metrics(session)
    fetched = page.evaluate(
        "performance.getEntriesByType('resource').filter((one) => one.name.includes('/fleet'))"
        ".map((one) => [one.responseEnd - one.requestStart, one.encodedBodySize])[0]"
    )
    context.close()
    return {
        "first lanes, ms": lanes_ms,
        "request of the lanes, ms": fetched[0],
        "answer, kB": fetched[1] / 1000,
        "script of the page, ms": 1000 * metrics["ScriptDuration"],
        "layout of the page, ms": 1000 * (metrics["LayoutDuration"] + metrics["RecalcStyleDuration"]),
        "CPU of the page, ms": 1000 * metrics["ProcessTime"],
        "CPU of the server, ms": 1000 * used,
        "memory of the page, MB": metrics["JSHeapUsedSize"] / 1e6,
        "frame, median ms": frames["median"],
        "frame, p95 ms": frames["p95"],
        **{
            f"frame, {name}": 1000 / SCROLLED_FRAMES * sum(after[part] - metrics[part] for part in parts)
            for name, parts in FRAME_PARTS.items()
        },
    }


def page_metrics(session: Any) -> dict[str, float]:
    """Return the counters of a page, times in s."""
    return {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}


def built_sizes() -> dict[str, float]:
    """Return the sizes of the built scripts and styles, in kB."""
    from pipeline.dashboard.assets import STATIC

    found = [path.read_bytes() for path in sorted((STATIC / "assets").glob("*.*"))]
    return {
        "files, kB": sum(map(len, found)) / 1000,
        "files compressed, kB": sum(len(gzip.compress(one)) for one in found) / 1000,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--series", type=int, default=10_000)
    parser.add_argument("--open", type=int, default=1_000)
    parser.add_argument("--closed", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--database", help="URL of an empty database, or postgresql")
    asked = parser.parse_args()
    require_built()
    with tempfile.TemporaryDirectory() as folder, _database(asked.database, Path(folder)) as url:
        settings = {
            "database": url,
            "http": None,
            "storage": {"history_path": f"{folder}/history"},
            "streams": {"plant": STREAM},
        }
        fill(Config.model_validate(settings), asked.series, asked.open, asked.closed)
        with served(settings) as (address, cpu_seconds), open_browser() as browser:
            rounds = [measure(browser, address, cpu_seconds) for _ in range(asked.rounds)]
    print(json.dumps(built_sizes()))
    print(f"{'':28}{'first':>10}{'median':>10}{'least':>10}")
    for name in rounds[0]:
        later = [one[name] for one in rounds[1:]] or [rounds[0][name]]
        print(f"{name:28}{rounds[0][name]:10.1f}{statistics.median(later):10.1f}{min(later):10.1f}")


@contextmanager
def _database(given: str | None, folder: Path) -> Iterator[str]:
    if given != "postgresql":
        yield given or f"sqlite:///{folder}/forewatch.db"
        return
    from tests.support.postgres_server import create_database, running_postgres

    with running_postgres() as server:
        yield create_database(server)


if __name__ == "__main__":
    main()
