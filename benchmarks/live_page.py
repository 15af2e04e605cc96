"""Time from a record to the page that shows it: a fault on the fleet, and a point on the chart of its series.

    python -m benchmarks.live_page [--faults 8]

A daemon with `serve` reads records of a real broker, one a second of each series. Two pages are open in a
browser: the fleet, and one series. A fault is a jump of one series; it is shown when its name is among the open
anomalies of the fleet. A point is shown when the chart has as many points as were sent. A look takes 20 ms.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.api import database_url
from benchmarks.open_dashboards import STREAM, TOPIC, daemon_settings, run_daemon
from pipeline.dashboard.assets import require_built
from tests.support.browsers import open_browser

SERIES = 12
#: Points of a series before the live ones; usual ranges need some blocks of them.
BEFORE = 600
FAULT_SECONDS = 5
SHOWN_POINTS = "Number(/: ([\\d,]+) points/.exec(document.querySelector('.plot [role=img]')?.ariaLabel)?.[1]"
SHOWN_POINTS += ".replaceAll(',', '') ?? 0)"


class Feeder:
    """Writes a record a second of each series; ``jumping`` is the series with a fault."""

    def __init__(self, brokers: str) -> None:
        """Write the points before now."""
        from confluent_kafka import Producer

        self._producer = Producer({"bootstrap.servers": brokers, "linger.ms": 0})
        self.jumping: int | None = None
        self.sent = 0
        self.sent_at: list[float] = []
        self._jumped_at: float | None = None
        now = time.time_ns()
        for n in range(BEFORE):
            self._send(now - (BEFORE - n) * 10**9)
        self._producer.flush()

    def _send(self, time_ns: int) -> None:
        self.sent += 1
        for number in range(SERIES):
            value = 20 + np.sin(self.sent * 1.7 + number) * 0.2 + (40 if number == self.jumping else 0)
            record = {"sensor": f"sensor-{number:02}", "ts": time_ns, "value": round(value, 4)}
            self._producer.produce(TOPIC, json.dumps(record).encode())
        if self.jumping is not None and self._jumped_at is None:
            self._jumped_at = time.monotonic()
        self._producer.flush()
        self.sent_at.append(time.monotonic())

    def run(self, ending: threading.Event) -> None:
        """Write until ``ending`` is set."""
        while not ending.wait(1.0):
            self._send(time.time_ns())

    def begin_fault(self, series: int) -> None:
        """Let a series jump from its next record on."""
        self._jumped_at, self.jumping = None, series

    def jumped_at(self) -> float:
        """Return the time of the first record of the fault."""
        while self._jumped_at is None:
            time.sleep(0.01)
        return self._jumped_at


def fault_delays(page: Any, feeder: Feeder, faults: int) -> list[float]:
    """Return the seconds from the first record of each fault to the page."""
    found = []
    for number in range(faults):
        feeder.begin_fault(number % SERIES)
        began = feeder.jumped_at()
        page.locator(".opennow li", has_text=f"sensor-{number % SERIES:02}").first.wait_for(timeout=60_000)
        found.append(time.monotonic() - began)
        time.sleep(FAULT_SECONDS)
        feeder.jumping = None
        time.sleep(3)
    return found


def point_delays(page: Any, feeder: Feeder, seconds: float) -> list[float]:
    """Return the seconds from the write of each point to the chart."""
    found: list[float] = []
    shown, ends = feeder.sent, time.monotonic() + seconds
    while time.monotonic() < ends:
        now = int(page.evaluate(SHOWN_POINTS))
        found += [time.monotonic() - at for at in feeder.sent_at[shown:now]]
        shown = max(shown, now)
        time.sleep(0.02)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faults", type=int, default=8)
    options = parser.parse_args()
    require_built()
    from kafka.admin import KafkaAdminClient, NewTopic

    from pipeline.local_kafka.broker import LocalBroker
    from tests.support.postgres_server import free_port

    ending = threading.Event()
    with tempfile.TemporaryDirectory() as folder, database_url("sqlite", Path(folder)) as url:
        broker = LocalBroker(Path(folder) / "kafka")
        broker.up()
        try:
            admin = KafkaAdminClient(bootstrap_servers=broker.address)
            admin.create_topics([NewTopic(TOPIC, 1, 1)])
            admin.close()
            port = free_port()
            ours, theirs = multiprocessing.Pipe()
            settings = daemon_settings(url, folder, broker.address, port, True)
            server = multiprocessing.Process(target=run_daemon, args=(settings, theirs), daemon=True)
            server.start()
            feeder = Feeder(broker.address)
            feeding = threading.Thread(target=feeder.run, args=(ending,), daemon=True)
            feeding.start()
            ours.recv()  # the first commit
            time.sleep(10)
            with open_browser() as browser:
                fleet, chart = browser.new_page(), browser.new_page()
                fleet.goto(f"http://127.0.0.1:{port}/?range=1h")
                fleet.wait_for_selector("[data-lanes]", timeout=60_000)
                chart.goto(f"http://127.0.0.1:{port}/series?stream={STREAM}&series=sensor-11")
                chart.wait_for_selector(".plot canvas", timeout=60_000)
                _print("a point on its chart", point_delays(chart, feeder, 20))
                fleet.bring_to_front()
                _print("a fault on the fleet", fault_delays(fleet, feeder, options.faults))
            ending.set()
            feeding.join()
            ours.send(False)
            server.join()
        finally:
            ending.set()
            broker.down()
    print(f"load average {psutil.getloadavg()[0]:.1f}")


def _print(name: str, seconds: list[float]) -> None:
    p50, p95, worst = np.percentile(seconds, [50, 95, 100])
    print(f"{name}: {len(seconds)} of them, median {p50:.2f} s, p95 {p95:.2f} s, longest {worst:.2f} s")


if __name__ == "__main__":
    main()
