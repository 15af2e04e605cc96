"""Cost of open dashboards for a daemon, and requests at a steady rate.

    python -m benchmarks.open_dashboards commits     time of a commit with 50 open dashboards and without
    python -m benchmarks.open_dashboards requests    200 requests/s for a minute beside 50 event streams

`commits` runs a daemon with `serve` on records of a real broker, in turns with and without readers. A reader
does what a page does: it keeps an event stream open, and reads the lanes again after an event. The two lines
are of the same run. `requests` sends a mix of common requests at a fixed rate from a process of its own, and
prints latencies, errors, and the growth of memory of the server.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil

from benchmarks.api import database_url, fill, make_key, served

READERS = 50
MIX = (
    "/session",
    "/streams",
    "/fleet?range=24h",
    "/anomalies?limit=50",
    "/alerts?limit=50",
    "/faults?limit=50",
    "/partitions",
    "/deliveries?limit=50",
    "/silences?limit=50",
)
TOPIC, STREAM = "dashboards", "plant"


class Client:
    """Requests on one connection that stays open."""

    def __init__(self, url: str, headers: dict[str, str] | None = None) -> None:
        """Take the address of a server."""
        place = urlsplit(url)
        self._host, self._port = place.hostname or "", place.port or 80
        given = {"host": f"{self._host}:{self._port}", "accept-encoding": "gzip"} | (headers or {})
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, path: str) -> asyncio.StreamReader:
        """Send a GET and return the stream of its answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=1 << 22)
        reader, writer = self._streams
        writer.write(f"GET /api/v1{path} HTTP/1.1\r\n{self._headers}\r\n".encode())
        await writer.drain()
        return reader

    async def get(self, path: str) -> int:
        """Read an answer completely and return its status."""
        try:
            reader = await self.send(path)
            found = await reader.readuntil(b"\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError):  # the server closes a connection that is idle for long
            self.close()
            reader = await self.send(path)
            found = await reader.readuntil(b"\r\n\r\n")
        head = found.decode("latin-1").lower()
        status = int(head.split(" ", 2)[1])
        if "transfer-encoding: chunked" in head:
            while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
                await reader.readexactly(size + 2)
            await reader.readexactly(2)
        elif "content-length: " in head and status != 304:
            await reader.readexactly(int(head.split("content-length: ", 1)[1].split("\r\n", 1)[0]))
        return status

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def read_as_a_page(url: str, headers: dict[str, str], begin: float) -> None:
    """Keep an event stream open, and read the lanes again after events."""
    await asyncio.sleep(begin)
    events, lists = Client(url, headers), Client(url, headers)
    reader = await events.send("/events")
    await lists.get("/fleet?range=24h")
    try:
        while line := await reader.readline():
            if line.startswith(b"event:") and b"ready" not in line:
                await asyncio.sleep(0.25)
                await lists.get("/fleet?range=24h")
    finally:
        events.close()
        lists.close()


def run_readers(url: str, headers: dict[str, str], count: int) -> None:
    """Read as ``count`` pages until the process is ended."""

    async def run() -> None:
        await asyncio.gather(*(read_as_a_page(url, headers, n * 0.02) for n in range(count)))

    asyncio.run(run())


@contextmanager
def readers(url: str, count: int, headers: dict[str, str] | None = None) -> Iterator[None]:
    """Keep ``count`` dashboards open in a process of their own."""
    process = multiprocessing.Process(target=run_readers, args=(url, headers or {}, count))
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


async def _paced(url: str, headers: dict[str, str], rate: int, seconds: float) -> tuple[list[float], int]:
    """Return the latencies of requests at a fixed rate, and the number of failures.

    A request whose connection is busy waits, and its wait counts.
    """
    latencies: list[float] = []
    failures = 0
    clients: asyncio.Queue[Client] = asyncio.Queue()
    for _ in range(32):
        clients.put_nowait(Client(url, headers))
    choice = random.Random(1)

    async def one(due: float, path: str) -> None:
        nonlocal failures
        client = await clients.get()
        try:
            failures += await client.get(path) not in (200, 304)
        except (OSError, asyncio.IncompleteReadError):
            failures += 1
            client = Client(url, headers)
        clients.put_nowait(client)
        latencies.append(time.monotonic() - due)

    began, running = time.monotonic(), set()
    for n in range(round(rate * seconds)):
        due = began + n / rate
        if (wait := due - time.monotonic()) > 0:
            await asyncio.sleep(wait)
        task = asyncio.create_task(one(due, choice.choice(MIX)))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    return latencies, failures


def pace(pipe: Connection, url: str, headers: dict[str, str], rate: int, seconds: float) -> None:
    """Send requests and give the latencies to the pipe.

    Args:
        pipe: Receives latencies, failures and the time that it took.
        url: Address of the server.
        headers: Headers of each request.
        rate: Requests a second.
        seconds: Time of the measurement.
    """
    began = time.monotonic()
    latencies, failures = asyncio.run(_paced(url, headers, rate, seconds))
    pipe.send((latencies, failures, time.monotonic() - began))


def measure_requests(options: argparse.Namespace) -> None:
    """Print latencies at a fixed rate, with a key."""
    from storage.sql.database import Database

    with tempfile.TemporaryDirectory() as name, database_url(options.database, Path(name)) as url:
        with closing(Database(url)) as database:
            database.upgrade()
            fill(database)
            headers = {"authorization": f"Bearer {make_key(database)}"}
        with served(url, Path(name)) as server, readers(server.url, options.readers, headers):
            time.sleep(3)
            before, used = server.process.memory_info().rss, server.cpu_seconds()
            ours, theirs = multiprocessing.Pipe()
            arguments = (theirs, server.url, headers, options.rate, options.seconds)
            process = multiprocessing.Process(target=pace, args=arguments)
            process.start()
            latencies, failures, lasted = ours.recv()
            process.join()
            grown, used = server.process.memory_info().rss - before, server.cpu_seconds() - used
    p50, p99, worst = np.percentile(np.array(latencies) * 1000, [50, 99, 100])
    share = 100 * used / lasted
    print(
        f"{len(latencies):,} requests: {len(latencies) / lasted:.0f}/s of {options.rate}/s, {lasted:.0f} s, "
        f"{options.readers} event streams, {options.database}: {failures} failed; "
        f"median {p50:.0f} ms, p99 {p99:.0f} ms, longest {worst:.0f} ms; "
        f"server: {1000 * used / len(latencies):.2f} ms of CPU a request, {share:.0f} % of a core, "
        f"{grown / 1e6:+.0f} MB; load average {psutil.getloadavg()[0]:.1f}"
    )


def produce(brokers: str, rate: int, ending: Any) -> None:
    """Write records in bursts of 20 ms until ``ending`` is set."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 5})
    began, sent = time.time(), 0
    while not ending.is_set():
        while sent < (time.time() - began) * rate:
            jump = 9 if sent // rate % 20 == 0 and sent % 50 < 3 else 0
            record = b'{"sensor":"s%03d","ts":%d,"value":%.3f}' % (
                *(sent % 200, time.time_ns(), 20 + np.sin(sent / 997) + jump),
            )
            producer.produce(TOPIC, record)
            sent += 1
        producer.poll(0)
        time.sleep(0.02)
    producer.flush()


def daemon_settings(url: str, folder: str, brokers: str, port: int, daemon: bool) -> dict[str, Any]:
    """Return the config of the daemon.

    Args:
        url: Address of the database.
        folder: Folder of the recorded history.
        brokers: Address of the broker.
        port: Port of the dashboard.
        daemon: The daemon serves the dashboard.
    """
    record = {"series": "sensor", "time": "ts", "time_unit": "ns", "values": "value"}
    source = {"kafka": {"brokers": [brokers], "topics": [TOPIC]}}
    return {
        "database": url,
        "http": None,
        "serve": {"port": port, "daemon": daemon, "requests_per_minute": 10_000_000},
        "storage": {"history_path": f"{folder}/history"},
        "streams": {STREAM: {"source": source, "format": {"json": record}, "detector": "light"}},
    }


def serve_pages(settings: dict[str, Any]) -> None:
    """Serve as ``forewatch serve`` does, until the process is ended."""
    from pipeline.api.server import dashboard_server
    from pipeline.config.schema import Config

    with dashboard_server(Config.model_validate(settings)):
        threading.Event().wait()


def run_daemon(settings: dict[str, Any], pipe: Connection) -> None:
    """Run a daemon that serves; answer each message with the times of commits."""
    from pipeline.api.daemon_service import DashboardService
    from pipeline.config.schema import Config
    from pipeline.daemon.daemon import daemon
    from pipeline.engine.commit import Committer

    seconds: list[float] = []
    committed = Committer.commit

    def timed(self: Any, parts: Any) -> Any:
        began = time.perf_counter()
        done = committed(self, parts)
        seconds.append(time.perf_counter() - began)
        return done

    Committer.commit = timed  # type: ignore[method-assign]
    config, stopping = Config.model_validate(settings), threading.Event()
    with daemon(config, stopping, [DashboardService(config)]) as running:
        thread = threading.Thread(target=running.run, args=(lambda: None,), daemon=True)
        thread.start()
        while not seconds:
            time.sleep(0.1)
        pipe.send("ready")
        while pipe.recv():
            pipe.send(seconds[:])
            seconds.clear()
        stopping.set()
        thread.join()


def measure_commits(options: argparse.Namespace) -> None:
    """Print the time of commits in turns with and without readers."""
    from kafka.admin import KafkaAdminClient, NewTopic

    from pipeline.local_kafka.broker import LocalBroker
    from tests.support.postgres_server import free_port

    found: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as folder, database_url(options.database, Path(folder)) as url:
        broker = LocalBroker(Path(folder) / "kafka")
        broker.up()
        ending = multiprocessing.Event()
        try:
            admin = KafkaAdminClient(bootstrap_servers=broker.address)
            admin.create_topics([NewTopic(TOPIC, 2, 1)])
            admin.close()
            port = free_port()
            in_daemon = options.served_by == "daemon"
            settings = daemon_settings(url, folder, broker.address, port, in_daemon)
            ours, theirs = multiprocessing.Pipe()
            server = multiprocessing.Process(target=run_daemon, args=(settings, theirs))
            server.start()
            feeder = multiprocessing.Process(target=produce, args=(broker.address, options.rate, ending))
            feeder.start()
            ours.recv()  # the first commit
            if not in_daemon:
                multiprocessing.Process(target=serve_pages, args=(settings,), daemon=True).start()
            for turn in range(2 * options.rounds):
                found[turn % 2 == 1] += _commits_of_a_turn(
                    ours, f"http://127.0.0.1:{port}", turn % 2 == 1, options
                )
            ending.set()
            feeder.join()
            ours.send(False)
            server.join()
        finally:
            ending.set()
            broker.down()
    _print_commits(found, options)


def _print_commits(found: dict[bool, list[float]], options: argparse.Namespace) -> None:
    for with_readers, times in found.items():
        p50, p99, worst = np.percentile(np.array(times) * 1000, [50, 99, 100])
        name = f"{options.readers} open dashboards" if with_readers else "no dashboard"
        line = f"median {p50:.1f} ms, p99 {p99:.1f} ms, longest {worst:.1f} ms"
        print(f"{name:20} {len(times):6,} commits: {line}")
    ratio = np.percentile(found[True], 99) / np.percentile(found[False], 99)
    print(f"p99 with dashboards / without: {ratio:.2f}; load average {psutil.getloadavg()[0]:.1f}")


def _commits_of_a_turn(
    pipe: Connection, url: str, with_readers: bool, options: argparse.Namespace
) -> list[float]:
    def wait() -> list[float]:
        time.sleep(3)
        pipe.send(True)
        pipe.recv()  # of the change between the turns
        time.sleep(options.seconds)
        pipe.send(True)
        times: list[float] = pipe.recv()
        return times

    if not with_readers:
        return wait()
    with readers(url, options.readers):
        return wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("commits", "requests"))
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--readers", type=int, default=READERS)
    parser.add_argument("--rate", type=int, default=None, help="requests/s, or records/s of `commits`")
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--rounds", type=int, default=4, help="turns of each kind of `commits`")
    parser.add_argument(
        "--served-by", choices=("daemon", "process"), default="daemon", help="server of `commits`"
    )
    options = parser.parse_args()
    if options.what == "requests":
        options.rate, options.seconds = options.rate or 200, options.seconds or 60.0
        measure_requests(options)
    else:
        options.rate, options.seconds = options.rate or 2_000, options.seconds or 15.0
        measure_commits(options)


if __name__ == "__main__":
    main()
