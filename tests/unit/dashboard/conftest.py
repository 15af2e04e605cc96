"""A served dashboard over a database and a history that a real daemon filled from files."""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection

from pipeline.api.server import dashboard_server
from pipeline.config.schema import Config
from pipeline.daemon.daemon import daemon
from pipeline.dashboard.assets import is_built
from storage.alerting import deliveries, outbox
from storage.sql.database import Database
from storage.stream_state import positions
from tests.support.api_servers import plant_config
from tests.support.browsers import open_browser

HOSTILE = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=document.title='owned'>",
    "مرحبا بالعالم",
    "\u202eevil override",
    "x" * 250,
    "🔥 温度 sensor",
)
NAMES = ("berlin-1", "berlin-2", *HOSTILE)
JUMPING = (0, 2, 6)
ROWS = 900
EVERY_NS = 1_000_000_000


def write_records(path: Path) -> None:
    """Write the last quarter of an hour of every series as CSV; three of them jump near the end."""
    rng = np.random.default_rng(5)
    start = time.time_ns() - ROWS * EVERY_NS
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sensor", "t", "v", "w"])
        for row in range(ROWS):
            for number, name in enumerate(NAMES):
                jump = 9 if number in JUMPING and row in range(800, 815) else 0
                v, w = 20 + float(rng.normal(0, 0.2)) + jump, 5 + float(rng.normal())
                writer.writerow([name, start + row * EVERY_NS, f"{v:.4f}", f"{w:.4f}"])


def config_of(folder: Path) -> Config:
    """Return a config of one stream of files, with an endpoint that refuses."""
    secret = folder / "secret"
    secret.write_text("whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    secret.chmod(0o600)
    stream = {
        "source": {"files": {"paths": [str(folder / "*.csv")], "follow": True}},
        "format": {"csv": {"series": ["sensor"], "time": "t", "values": ["v", "w"]}},
        "every": "1s",
        "detector": "light",
        "alerts": {"units": {"v": "°C"}},
    }
    endpoint = {
        "type": "webhook",
        "url": "http://127.0.0.1:9/hook",
        "secret": {"file": str(secret)},
        "allow": ["loopback"],
    }
    return Config.model_validate(
        {
            "database": f"sqlite:///{folder}/forewatch.db",
            "http": None,
            "storage": {"snapshot_every": "200ms"},
            "streams": {"plant": stream},
            "endpoints": {"ops": endpoint},
        }
    )


def is_done(connection: Connection, config: Config, records: int) -> bool:
    """Return True if ``records`` are scored, and the messages of their anomalies are queued."""
    return (
        sum(p.counts.scored for p in positions.all_of(connection)) >= records
        and not any(outbox.pending(connection, name, 1) for name in config.streams)
        and (not config.endpoints or bool(deliveries.query(connection)))
    )


def run_until_read(config: Config, records: int) -> None:
    """Run a daemon until it has scored ``records`` and routed their anomalies, then stop it."""
    stopping, database = threading.Event(), Database(config.database)
    with daemon(config, stopping) as running, closing(database):
        thread = threading.Thread(target=running.run, args=(lambda: None,), daemon=True)
        thread.start()
        deadline, done = time.monotonic() + 180, False
        while not done and time.monotonic() < deadline:
            time.sleep(0.1)
            with database.read() as connection:
                done = is_done(connection, config, records)
        stopping.set()
        thread.join()
    assert done, "the daemon has not read and routed all records"


@pytest.fixture
def config(tmp_path: Path, sqlite_template: Path) -> Config:
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    return plant_config(f"sqlite:///{tmp_path}/forewatch.db", tmp_path)


@pytest.fixture
def database(config: Config) -> Iterator[Database]:
    opened = Database(config.database)
    yield opened
    opened.close()


@pytest.fixture(scope="package")
def filled(tmp_path_factory) -> Config:
    """Return a config whose database and history hold the records of ``write_records``."""
    folder = tmp_path_factory.mktemp("dashboard")
    config = config_of(folder)
    write_records(folder / "records.csv")
    run_until_read(config, ROWS * len(NAMES) - len(NAMES))
    return config


@pytest.fixture(scope="package")
def site(filled) -> Iterator[str]:
    """Yield the address of the dashboard of ``filled``."""
    with dashboard_server(filled, port=0) as server:
        yield server.url


@pytest.fixture(scope="package")
def browser() -> Iterator:
    """Yield a browser; skip where there is none, or where the pages are not built."""
    if not is_built():
        pytest.skip("the pages are not built: make dashboard")
    with open_browser() as found:
        yield found


@pytest.fixture(autouse=True)
def closed_pages(request: pytest.FixtureRequest) -> Iterator[None]:
    """Close the pages of a test: an open page asks its server, and draws, for as long as the browser runs."""
    opened = request.getfixturevalue("browser") if "browser" in request.fixturenames else None
    yield
    for context in opened.contexts if opened else ():
        context.close()
