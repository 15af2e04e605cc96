"""``workers: 2``: one daemon whose two processes share a topic, on a real Kafka and a real PostgreSQL."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import select

from pipeline.core.types import FaultKind
from storage.results import faults
from storage.sql.database import Database
from storage.stream_state import positions
from storage.tables.stream import PositionRow
from tests.faults.feed import config_tree, record
from tests.support.kafka_server import Topics
from tests.support.supervised_daemons import ROOT, SupervisedDaemon, free_port

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]
PARTITIONS = 4
NOTIFY = "notify"


class Plant:
    """A topic, a database, and a daemon of two workers over them."""

    def __init__(self, folder: Path, topics: Topics, url: str) -> None:
        self.folder, self.topics = folder, topics
        self.topic = topics.create(partitions=PARTITIONS)
        self.database = Database(url)
        kafka = {"brokers": [topics.broker], "topics": [self.topic], "session_timeout": "2s"}
        self.port = free_port()
        tree = config_tree(url, {"kafka": kafka}, lateness="0s")
        self.tree = tree | {"workers": 2, "http": {"port": self.port}}
        self.config = folder / "forewatch.yaml"
        self.write()
        self.second = 0

    def write(self) -> None:
        self.config.write_text(json.dumps(self.tree))

    def daemon(self, **environment: str) -> SupervisedDaemon:
        return SupervisedDaemon(self.config, self.folder / "log", self.port, **environment)

    def send(self, seconds: int) -> None:
        """Add a record a second to each partition."""
        for partition in range(PARTITIONS):
            times = range(self.second, self.second + seconds)
            self.topics.produce(self.topic, [record(f"p{partition}", t, 1.0) for t in times], partition)
        self.second += seconds

    def all_read(self) -> bool:
        with self.database.read() as connection:
            found = list(positions.all_of(connection, "plant"))
        return [p.next_offset for p in found] == [self.second] * PARTITIONS

    def owners(self) -> set[int]:
        """Process ids of the owners of the partitions."""
        with self.database.read() as connection:
            owners = connection.execute(select(PositionRow.owner)).scalars()
            return {int((owner or ":0").rpartition(":")[2]) for owner in owners}

    def faults(self, *, open_only: bool) -> list[str]:
        with self.database.read() as connection:
            found = faults.query(connection, stream="plant", open_only=open_only)
        return [one.message for one in found if one.kind is FaultKind.WORKER_DIED]


@pytest.fixture
def plant(tmp_path: Path, topics: Topics, schema_url: str) -> Iterator[Plant]:
    made = Plant(tmp_path, topics, schema_url)
    yield made
    made.database.close()


def test_two_workers_share_a_topic_and_one_is_replaced(plant: Plant):
    plant.send(20)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(plant.folder / NOTIFY))
        heard: list[str] = []
        threading.Thread(target=_listen, args=(manager, heard), daemon=True).start()
        running = plant.daemon(NOTIFY_SOCKET=str(plant.folder / NOTIFY), WATCHDOG_USEC="3000000")
        try:
            _share_and_replace(plant, running)
            _reload(plant, running)
            running.leave()
            running.until(lambda: any("STOPPING=1" in message for message in heard), "the end arrived")
        finally:
            running.close()
    # READY only once both had started, heartbeats, and the end; all from the supervisor.
    assert [m for m in heard if m.startswith("READY")] == ["READY=1\nSTATUS=2 workers, 1 streams"]
    assert "WATCHDOG=1" in heard
    assert plant.faults(open_only=True) == []


def _share_and_replace(plant: Plant, running: SupervisedDaemon) -> None:
    running.until(running.ready, "both are ready")
    running.until(plant.all_read, "what was there is read")
    pids = {one.pid for one in running.workers()}
    running.until(lambda: plant.owners() == pids, "each worker owns partitions")
    plant.send(20)
    running.until(plant.all_read, "what came is read")
    running.until(
        lambda: sum(running.samples("forewatch_records_total").values()) == 40 * PARTITIONS,
        "the page counts every record once",
    )
    running.until(lambda: set(running.samples("forewatch_lag_records")) == {"0", "1"}, "both have a lag")
    running.until(lambda: running.samples("forewatch_worker_up") == {"0": 1, "1": 1}, "both are up")
    started = {line["worker"] for line in running.lines("stream started")}
    assert started == {0, 1}, "the lines of a worker have its number"

    victim = running.workers()[1]
    victim.kill()
    running.until(lambda: len(plant.faults(open_only=True)) == 1, "a fault says so")
    assert f"process {victim.pid}) was ended by signal 9" in plant.faults(open_only=True)[0]
    status, waiting = running.get("/readyz")
    assert (status, "is started again" in waiting) == (503, True) or len(running.workers()) == 2
    plant.send(20)
    running.until(plant.all_read, "the other one reads on, or the successor")
    running.until(running.ready, "the successor is ready")
    running.until(lambda: plant.faults(open_only=True) == [], "the fault has ended")
    assert running.samples("forewatch_worker_restarts_total") == {"1": 1}
    assert running.get("/healthz")[0] == 200


def _reload(plant: Plant, running: SupervisedDaemon) -> None:
    plant.tree["workers"] = 3
    plant.write()
    running.process.send_signal(signal.SIGHUP)
    running.until(
        lambda: (
            "`workers` cannot change"
            in str(running.lines("config is invalid; the running config stays in force"))
        ),
        "another number is refused",
    )
    assert len(running.lines("config is invalid; the running config stays in force")) == 1, (
        "the workers are not asked"
    )
    plant.tree["workers"] = 2
    plant.tree["streams"]["other"] = json.loads(json.dumps(plant.tree["streams"]["plant"]))
    plant.write()
    running.process.send_signal(signal.SIGHUP)
    running.until(
        lambda: {line.get("worker") for line in running.lines("config reloaded")} == {None, 0, 1},
        "the supervisor and both workers have read it",
    )
    running.until(running.ready, "they are ready with the new stream")


def _listen(manager: socket.socket, heard: list[str]) -> None:
    """Read messages as systemd does: the kernel keeps few of them."""
    with suppress(OSError):  # closed at the end
        while True:
            heard.append(manager.recv(4096).decode())


def test_a_killed_supervisor_takes_its_workers_along(plant: Plant):
    running = plant.daemon()
    try:
        running.until(running.ready, "both are ready")
        frozen = running.workers()[0]
        frozen.suspend()  # such a one notices nothing by itself
        running.process.kill()
        running.process.wait()
        running.until(lambda: running.alive() == [], "no worker is left")
    finally:
        running.close()


def test_an_unusable_database_ends_the_daemon_with_its_exit_code(plant: Plant):
    plant.tree["database"] = plant.tree["database"].rpartition("/")[0] + "/no_such_database"
    plant.write()
    running = plant.daemon()
    try:
        assert running.process.wait(90) == 4
        assert "does not exist" in running.log.read_text()
    finally:
        running.close()


def test_a_config_of_sqlite_is_refused_at_the_start(plant: Plant):
    plant.tree["database"] = "sqlite:///forewatch.db"
    plant.write()
    done = subprocess.run(
        [sys.executable, "-c", "from pipeline.cli import main; main()", "run", str(plant.config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "SQLite database serves one process" in done.stderr) == (2, True)
