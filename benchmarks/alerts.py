"""Alerts: how fast they go out, how many a delivery process takes, and whether the budget holds on
undisturbed data.

    python -m benchmarks.alerts latency     commit of an anomaly → first byte at the receiver, 100 events/s, 20 endpoints
    python -m benchmarks.alerts throughput  deliveries/s of one delivery process to a fast local receiver
    python -m benchmarks.alerts mail        mails/s to a local mail server over STARTTLS, with charts and without
    python -m benchmarks.alerts produce     record produced to a real Kafka → webhook, through a whole daemon
    python -m benchmarks.alerts budget      pages a day of simulated undisturbed months, 10 to 100,000 series

``--database`` takes the URL of an empty PostgreSQL database or ``postgresql`` (one is started); left out:
SQLite. The delivery process and the receiver are processes of their own. Times are wall-clock times of one
machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ENDPOINTS = 20


# ------------------------------------------------------------------------------------------------------ receiver


def receive(queue: Any) -> None:
    """A fast receiver of any path: notes when the first byte of each request came.

    Sends (port), and at the end the arrivals.
    """

    class Hook(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport, self.buffer, self.first = transport, b"", 0

        def data_received(self, data: bytes) -> None:
            self.first = self.first or time.time_ns()
            self.buffer += data
            head, found, rest = self.buffer.partition(b"\r\n\r\n")
            if not found:
                return
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            if len(rest) >= length:
                arrivals.append((self.first, rest))
                self.buffer, self.first = b"", 0
                self.transport.write(b"HTTP/1.1 204 X\r\n\r\n")

    arrivals: list[tuple[int, bytes]] = []

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Hook, "127.0.0.1", 0)
        queue.put(server.sockets[0].getsockname()[1])
        while True:
            # What was read is handed over in lots, and the last lot when nothing came for a second.
            before = len(arrivals)
            await asyncio.sleep(1.0)
            if len(arrivals) == before and before:
                queue.put(
                    [
                        (at, json.loads(body)["data"]["anomalies"][0]["id"], _start(body))
                        for at, body in arrivals
                    ]
                )
                arrivals.clear()

    asyncio.run(serve())


def _start(body: bytes) -> str:
    return json.loads(body)["data"]["anomalies"][0]["start"]


class Receiver:
    """The receiver's process."""

    def __init__(self) -> None:
        self._queue: Any = multiprocessing.Queue()
        self._process = multiprocessing.Process(target=receive, args=(self._queue,), daemon=True)

    def __enter__(self) -> Receiver:
        self._process.start()
        self.port = self._queue.get(timeout=20)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def arrivals(self, count: int, patience: float = 120.0) -> list[tuple[int, str, str]]:
        """(first byte at ns, anomaly, its start) of ``count`` requests, or of those that came."""
        found: list[tuple[int, str, str]] = []
        end = time.monotonic() + patience
        while len(found) < count and time.monotonic() < end:
            try:
                found += self._queue.get(timeout=2)
            except Exception:
                continue
        return found


# ---------------------------------------------------------------------------------------------- delivery process


def endpoints_of(port: int, in_flight: int) -> dict[str, Any]:
    from tests.support.alerting import endpoint

    os.environ.setdefault("BENCH_SECRET", "whsec_" + "A" * 44)
    common = {
        "type": "webhook",
        "secret": {"env": "BENCH_SECRET"},
        "allow": ["loopback"],
        "in_flight": in_flight,
    }
    return {f"hook-{i}": endpoint(url=f"http://127.0.0.1:{port}/{i}", **common) for i in range(ENDPOINTS)}


def rules(fan_out: bool) -> dict[str, Any]:
    """Every event to every endpoint, or each site's to its own."""
    own = [{"name": f"site-{i}", "match": {"site": f"b{i}"}, "to": [f"hook-{i}"]} for i in range(ENDPOINTS)]
    return {"storm": None, "max_age": None, "group": {"repeat": None}, "rules": [] if fan_out else own}


def deliver(url: str, port: int, in_flight: int, fan_out: bool, notified: Any) -> None:
    """Return the delivery loop that ``forewatch deliver`` runs.

    Args:
        url: Database.
        port: Port of the receiver.
        in_flight: Simultaneous calls.
        fan_out: Send to several endpoints.
        notified: Queue of the numbers of notifications.
    """
    from pipeline.alerts.delivery.loop import DeliveryLoop
    from pipeline.alerts.metrics import AlertMetrics
    from pipeline.alerts.routing.router import Router
    from pipeline.config.alerts import AlertsConfig
    from pipeline.config.stream_names import OPERATIONS_STREAM
    from pipeline.observability.metrics import Metrics
    from storage.sql.database import Database

    ends = endpoints_of(port, in_flight)
    router = Router(
        {"plant": AlertsConfig.model_validate(rules(fan_out)), OPERATIONS_STREAM: AlertsConfig()}, ends
    )
    loop = DeliveryLoop(Database(url), router, ends, AlertMetrics(Metrics()))
    notified.put("up")
    loop.run(threading.Event())


@contextmanager
def delivering(url: str, port: int, in_flight: int, fan_out: bool) -> Iterator[None]:
    notified: Any = multiprocessing.Queue()
    process = multiprocessing.Process(
        target=deliver, args=(url, port, in_flight, fan_out, notified), daemon=True
    )
    process.start()
    notified.get(timeout=60)
    try:
        yield
    finally:
        process.kill()
        process.join()


# ---------------------------------------------------------------------------------------------------- benchmarks


def latency(options: argparse.Namespace, database: Any) -> dict[str, Any]:
    """Commit → first byte at the receiver."""
    from tests.support.alerting import RouterBench, anomaly

    deliveries = options.rate * options.seconds * (ENDPOINTS if options.fan_out else 1)
    with Receiver() as receiver:
        bench = RouterBench(database, rules(options.fan_out), endpoints_of(receiver.port, 8))
        committed: dict[str, int] = {}
        with delivering(_url(database), receiver.port, 8, options.fan_out):
            time.sleep(2)
            began = time.monotonic()
            for i in range(options.rate * options.seconds):
                time.sleep(max(0.0, began + i / options.rate - time.monotonic()))
                one = anomaly(f"b{i % ENDPOINTS}/{i}")
                bench.now_ns = time.time_ns()
                bench.happen(one)
                committed[str(one.id)] = time.time_ns()
            found = receiver.arrivals(deliveries)
    late = np.array([at - committed[which] for at, which, _ in found if which in committed]) / 1e6
    return {
        "events_per_s": options.rate,
        "endpoints": ENDPOINTS,
        "fan_out": options.fan_out,
        "arrived": len(found),
        "of": deliveries,
    } | _ms(late)


def throughput(options: argparse.Namespace, database: Any) -> dict[str, Any]:
    """A backlog of single messages over many series is worked off."""
    from tests.support.alerting import RouterBench

    count = options.count
    with Receiver() as receiver:
        bench = RouterBench(database, rules(False), endpoints_of(receiver.port, 32))
        _backlog(bench.database, count)
        with delivering(_url(database), receiver.port, 32, False):
            found = receiver.arrivals(count, 600)
    times = np.sort(np.array([at for at, _, _ in found])) / 1e9
    middle = times[len(times) // 10 :]
    return {
        "deliveries": len(found),
        "of": count,
        "per_s": round((len(middle) - 1) / (middle[-1] - middle[0])),
    }


def mail(options: argparse.Namespace, database: Any) -> dict[str, Any]:
    """Measure mails a second of one sender, with the chart of each and without any."""
    from concurrent.futures import ThreadPoolExecutor
    from datetime import UTC, datetime
    from uuid import uuid4

    from pipeline.alerts.messages.chart import ChartRenderer
    from pipeline.alerts.messages.payload import encode
    from pipeline.alerts.sample import sample_payload
    from pipeline.alerts.transport.base import Message
    from pipeline.alerts.transport.email import EmailSender
    from pipeline.config.endpoints import EmailEndpoint
    from tests.support.mail_server import MailServer

    payload = sample_payload()
    figures: dict[str, Any] = {"mails": options.count, "load": os.getloadavg()[0]}
    with MailServer() as server:
        endpoint = EmailEndpoint.model_validate(
            {
                "type": "email",
                "host": "127.0.0.1",
                "port": server.port,
                "security": "none",
                "sender": "forewatch@example.org",
                "to": ["ops@example.org"],
                "allow": ["loopback"],
            }
        )
        for name, picture in (("plain", lambda _: None), ("charts", ChartRenderer(_points_of_a_day))):
            sender = EmailSender(endpoint, picture)
            began = time.perf_counter()
            with ThreadPoolExecutor(endpoint.in_flight) as threads:
                messages = (
                    Message(uuid4(), "queue", encode(payload), payload, datetime.now(UTC))
                    for _ in range(options.count)
                )
                results = list(threads.map(sender._send, messages))
            figures[f"{name}_per_second"] = round(options.count / (time.perf_counter() - began), 1)
            assert all(r.delivered for r in results), next(r for r in results if not r.delivered)
            asyncio.run(sender.close())
        figures["with_chart"] = sum(b"image/png" in one.content for one in server.letters)
    return figures


def _points_of_a_day(stream: str, series: str, since_ns: int, until_ns: int, columns: list[str]) -> Any:
    import pyarrow as pa

    time_ns = np.arange(until_ns - 300 * 60 * 10**9, until_ns, 60 * 10**9)
    value = np.sin(np.arange(len(time_ns)) / 30)
    made = {"time": time_ns.astype("datetime64[ns]"), "flag": value > 0.99}
    return pa.table(made | {c: value for c in columns if c != "flag"})


def produce(options: argparse.Namespace, database: Any) -> dict[str, Any]:
    """Produced to a real Kafka → webhook: a daemon of its own, calm series among which each of some records
    breaks a limit of its series.
    """
    import subprocess
    import sys

    from kafka import KafkaProducer
    from ruamel.yaml import YAML

    from tests.support.kafka_server import running_broker

    with (
        tempfile.TemporaryDirectory() as folder,
        running_broker(Path(folder) / "kafka") as broker,
        Receiver() as receiver,
    ):
        path, secret = Path(folder) / "produce.yaml", Path(folder) / "secret"
        secret.write_text("whsec_" + "A" * 44)
        hook = {
            "type": "webhook",
            "url": f"http://127.0.0.1:{receiver.port}/",
            "secret": {"file": str(secret)},
            "allow": ["loopback"],
        }
        stream = {
            "source": {"kafka": {"brokers": [broker], "topics": ["produce"]}},
            "format": {"json": {"series": "sensor", "time": "ts", "time_unit": "ns", "values": ["value"]}},
            "detector": "light",
            "limits": {"value": {"max": 100}},
            "alerts": {"storm": None, "max_age": None},
        }
        outside = {"database": _url(database), "http": None, "storage": {"history": False}}
        YAML().dump(outside | {"streams": {"plant": stream}, "endpoints": {"hook": hook}}, path)
        _topic(broker, "produce")
        command = [sys.executable, "-c", "from pipeline.cli import main; main()", "run", str(path)]
        daemon = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            for line in daemon.stderr or ():
                if "taken over" in line:
                    break
            threading.Thread(target=lambda: [None for _ in daemon.stderr or ()], daemon=True).start()
            producer = KafkaProducer(bootstrap_servers=broker, linger_ms=2)
            sent = _pace(producer, options.rate, options.seconds)
            producer.flush()
            found = receiver.arrivals(sent)
        finally:
            daemon.terminate()
            daemon.wait(30)
    late = np.array([at - _ns(start) for at, _, start in found]) / 1e6
    # What came in the first two seconds is start-up: the first picture of everything in memory, the first
    # connection.
    return {
        "records_per_s": 10 * options.rate,
        "anomalies_per_s": options.rate,
        "arrived": len(found),
        "of": sent,
    } | _ms(late[2 * options.rate :])


def _pace(producer: Any, rate: int, seconds: int) -> int:
    """``rate`` broken limits and nine times as many calm records a second, each with the wall clock as its
    time; returns how many broke.
    """
    began = time.time()
    for i in range(10 * rate * seconds):
        time.sleep(max(0.0, began + i / (10 * rate) - time.time()))
        broken = i % 10 == 0
        name = f"broken-{i}" if broken else f"calm-{i % 97}"
        record = {"sensor": name, "ts": time.time_ns(), "value": 400.0 if broken else 20.0 + i % 5}
        producer.send("produce", json.dumps(record).encode(), key=name.encode())
    return rate * seconds


def _topic(broker: str, name: str) -> None:
    from kafka.admin import KafkaAdminClient, NewTopic

    admin = KafkaAdminClient(bootstrap_servers=broker)
    admin.create_topics([NewTopic(name, 1, 1)])
    admin.close()


def _ns(stamp: str) -> int:
    from datetime import datetime

    return round(datetime.fromisoformat(stamp).timestamp() * 1e6) * 1000


def budget(options: argparse.Namespace, database: Any) -> dict[str, Any]:
    """Pages a day over simulated undisturbed months, five a day wanted; and how many of 50 strong anomalies
    among them paged at once.
    """
    from tests.unit.alerts.test_page_budget import simulate

    natures: dict[str, dict[str, Any]] = {
        "calibrated": {},
        "tail three times too long": {"heavy": 3.0},
        "in clusters of four": {"heavy": 2.0, "cluster": 4},
        "tail grows by half in the middle": {"shift": 1.5},
    }
    figures: dict[str, Any] = {}
    for series, rate in ((10, 1e-3), (1_000, 1e-4), (100_000, 1e-4)):
        if series > options.series:
            continue
        for name, nature in natures.items():
            runs = [
                simulate(5.0, series * 1440 * rate, seed, strong=50, **nature)
                for seed in range(1 if series > 10_000 else 3)
            ]
            row = {
                "pages_per_day": [round(r.pages_per_day, 2) for r in runs],
                "strong": f"{sum(r.strong for r in runs)} of {50 * len(runs)}",
            }
            figures[f"{series:,} series, {name}"] = row
            print(
                f"{series:>9,} series  {name:<34} {row['pages_per_day']}  strong at once {row['strong']}",
                flush=True,
            )
    return figures


def _backlog(database: Any, count: int) -> None:
    from uuid import uuid5

    from pipeline.core.types import NAMESPACE
    from storage.alerting import deliveries, delivery_queue
    from tests.contract.test_alerts_formats import encode, payload

    body, now = encode(payload("opened")).decode(), time.time_ns()
    notifications, queued = [], []
    for i in range(count):
        notice, queue = uuid5(NAMESPACE, f"{now} {i}"), f"plant/{i}"
        notifications.append(
            deliveries.Notification(notice, notice, "plant", queue, 1, "opened", 1, body, now)
        )
        common = (notice, f"hook-{i % ENDPOINTS}", queue, 1, "opened", "pending", None, 0, 0, now, None)
        queued.append(deliveries.Delivery(uuid5(notice, "x"), notice, *common))
    with database.begin() as connection:
        delivery_queue.add(connection, notifications, queued, now)


def _ms(values: Any) -> dict[str, float]:
    return {f"p{q}_ms": round(float(np.percentile(values, q)), 1) for q in (50, 90, 99)} | {
        "max_ms": round(float(values.max()), 1)
    }


def _url(database: Any) -> str:
    return database.url.render_as_string(hide_password=False)


@contextmanager
def opened(which: str | None) -> Iterator[Any]:
    """An empty database with the schema in it."""
    from storage.sql.database import Database

    with ExitStack() as stack:
        if which == "postgresql":
            from tests.support.postgres_server import create_database, running_postgres

            url = create_database(stack.enter_context(running_postgres()))
        else:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            url = which or f"sqlite:///{Path(folder)}/alerts.db"
        database = Database(url)
        database.upgrade()
        yield database
        database.close()


BENCHMARKS: dict[str, Callable[[argparse.Namespace, Any], dict[str, Any]]] = {
    "latency": latency,
    "throughput": throughput,
    "mail": mail,
    "produce": produce,
    "budget": budget,
}


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=BENCHMARKS)
    parser.add_argument("--database")
    parser.add_argument("--rate", type=int, default=100, help="events a second (latency, produce)")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument(
        "--fan-out", action="store_true", help="every event to all endpoints, not to one of them"
    )
    parser.add_argument("--series", type=int, default=100_000, help="largest number of series (budget)")
    parser.add_argument("--count", type=int, default=10_000, help="deliveries (throughput, mail)")
    options = parser.parse_args()
    with opened(options.database) as database:
        figures = BENCHMARKS[options.what](options, database)
        print(
            json.dumps(
                {
                    "benchmark": f"alerts {options.what}",
                    "database": database.dialect,
                    "load": round(os.getloadavg()[0], 1),
                }
                | figures
            )
        )


if __name__ == "__main__":
    main()
