"""REST API: speed of common requests, with and without a key.

    python -m benchmarks.api                          SQLite
    python -m benchmarks.api --database postgresql    a PostgreSQL that is started

The server is a process of its own with 10,000 anomalies; four threads send requests for some seconds each.
A last row sends a known ``If-None-Match``. Other programs on the machine change all columns but the CPU
time of the server a request.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe, Process, connection
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from pipeline.access.api_keys import KeyRequest, create_key
from pipeline.access.scopes import Scope
from storage.access.audit import Actor, ActorKind
from storage.results import anomalies
from storage.sql.database import Database
from tests.support.alerting import NOON, SECOND, anomaly

ANOMALIES, THREADS = 10_000, 4
PATHS = (
    "/session",
    "/streams",
    "/anomalies?limit=50",
    "/anomalies?stream=plant&severity=major&limit=50",
    "/fleet",
)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its address and its process."""

    url: str
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


def serve(url: str, folder: str, pipe: connection.Connection) -> None:
    """Run the server until the pipe is closed."""
    from pipeline.api.server import dashboard_server
    from tests.support.api_servers import config_of

    config = config_of(url, Path(folder), {"requests_per_minute": 10_000_000})
    with dashboard_server(config, port=0) as server:
        pipe.send(server.url)
        pipe.recv()


@contextmanager
def served(url: str, folder: Path) -> Iterator[Server]:
    """Yield a server in a process of its own."""
    ours, theirs = Pipe()
    process = Process(target=serve, args=(url, str(folder), theirs))
    process.start()
    try:
        yield Server(ours.recv(), psutil.Process(process.pid))
    finally:
        ours.send(None)
        process.join()


def measure(server: Server, path: str, headers: dict[str, str], seconds: float) -> tuple[float, ...]:
    """Return requests a second; median, 99th percentile and CPU time in ms.

    Args:
        server: The server.
        path: Path and query below ``/api/v1``.
        headers: Headers of each request.
        seconds: Time of the measurement.
    """
    times: list[float] = []

    def send() -> None:
        with httpx.Client(headers=headers, timeout=30) as client:
            end = time.monotonic() + seconds
            while (began := time.monotonic()) < end:
                answer = client.get(f"{server.url}/api/v1{path}")
                assert answer.status_code in (200, 304), answer.text
                times.append(time.monotonic() - began)

    httpx.get(f"{server.url}/api/v1{path}", headers=headers, timeout=30)
    threads = [threading.Thread(target=send) for _ in range(THREADS)]
    began, used = time.monotonic(), server.cpu_seconds()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cuts = statistics.quantiles(times, n=100)
    used = (server.cpu_seconds() - used) / len(times)
    return len(times) / (time.monotonic() - began), cuts[49] * 1000, cuts[98] * 1000, used * 1000


@contextmanager
def database_url(kind: str, folder: Path) -> Iterator[str]:
    """Yield the URL of an empty database."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/forewatch.db"
        return
    from tests.support.postgres_server import create_database, running_postgres

    with running_postgres() as server:
        yield create_database(server)


def fill(database: Database) -> None:
    """Store the anomalies."""
    made = [anomaly(f"b/{n % 500}", NOON + n * SECOND) for n in range(ANOMALIES)]
    for part in range(0, ANOMALIES, 1000):
        with database.begin() as opened:
            anomalies.upsert(opened, made[part : part + 1000])


def make_key(database: Database) -> str:
    """Return a new key that sees everything."""
    actor, request = Actor("benchmark", ActorKind.COMMAND), KeyRequest("benchmark", Scope.VIEWER)
    with database.begin() as opened:
        return create_key(opened, request, actor, time.time_ns())[0]


def rows(url: str, folder: Path, seconds: float) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table.

    Args:
        url: Address of the database.
        folder: Folder of the server.
        seconds: Time of each row.
    """
    with closing(Database(url)) as database, ExitStack() as stack:
        database.upgrade()
        fill(database)
        server = stack.enter_context(served(url, folder))
        for path in PATHS:
            yield path, "local", *_row(measure(server, path, {}, seconds))
        headers = {"authorization": f"Bearer {make_key(database)}"}
        for path in PATHS:
            yield path, "key", *_row(measure(server, path, headers, seconds))
        tag = httpx.get(f"{server.url}/api/v1{PATHS[2]}", headers=headers).headers["etag"]
        yield (
            f"{PATHS[2]} (304)",
            "key",
            *_row(measure(server, PATHS[2], headers | {"if-none-match": tag}, seconds)),
        )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seconds", type=float, default=4.0, help="time of each row")
    given = parser.parse_args()
    table = Table("request", "author", "requests/s", "median ms", "p99 ms", "CPU ms of the server")
    with tempfile.TemporaryDirectory() as name, database_url(given.database, Path(name)) as url:
        for row in rows(url, Path(name), given.seconds):
            table.add_row(*row)
    Console(width=120).print(table)


def _row(found: tuple[float, ...]) -> tuple[str, ...]:
    return f"{found[0]:,.0f}", *(f"{one:.1f}" for one in found[1:])


if __name__ == "__main__":
    main()
