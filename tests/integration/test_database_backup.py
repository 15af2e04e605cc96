"""Backup and restore with a real daemon: nothing is lost and nothing is counted twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from storage.results import anomalies
from storage.sql.database import Database
from storage.stream_state import positions
from tests.support.forked_commands import ForkedCommand, run_command
from tests.support.postgres_server import tools_path
from tests.support.receiver import Receiver

PARTITIONS = 2
#: Records of each partition: before the backup, until the loss, and after the restore.
BEFORE, UNTIL_LOSS, AFTER = 600, 300, 300
SPIKE_EVERY = 150
START_MS = 1_767_225_600_000
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLw5gd2tkVQ3s"


@pytest.fixture(autouse=True)
def _tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", tools_path())


class Installation:
    """A config over a topic, with a daemon that can be started, and a receiver of its alerts."""

    def __init__(self, folder: Path, database: str, broker: str, topic: str, hooks: Receiver) -> None:
        self.folder, self.url = folder, database
        (folder / "secret").write_text(SECRET)
        config = {
            "database": database,
            "http": None,
            "storage": {"snapshot_every": "500ms", "history_path": str(folder / "history")},
            "streams": {
                "plant": {
                    "source": {"kafka": {"brokers": [broker], "topics": [topic]}},
                    "format": {"json": {"series": "s", "time": "t", "values": ["v"]}},
                    "detector": "light",
                    "every": "1m",
                    "future": None,
                    "limits": {"v": {"max": 100}},
                    "alerts": {"max_age": None},
                    "retraining": {"schedule": None, "on_drift": False},
                    "power": False,
                }
            },
            "endpoints": {
                "hooks": {
                    "type": "webhook",
                    "url": hooks.url,
                    "secret": {"file": str(folder / "secret")},
                    "allow": ["loopback"],
                }
            },
        }
        (folder / "forewatch.yaml").write_text(json.dumps(config))

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess:
        done = run_command(arguments, self.folder, os.environ)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    @contextmanager
    def daemon(self) -> Iterator[None]:
        process = ForkedCommand(["run"], self.folder, os.environ, self.folder / "daemon.log")
        try:
            yield
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0, (self.folder / "daemon.log").read_text()[-2000:]
        finally:
            process.kill()
            process.wait()

    def read(self, what: Callable[[Any], Any]) -> Any:
        database = Database(self.url)
        try:
            with database.read() as connection:
                return what(connection)
        finally:
            database.close()

    def positions(self) -> list:
        return self.read(lambda connection: positions.all_of(connection, "plant"))

    def wait_for(self, offset: int) -> None:
        """Wait until every partition is committed up to ``offset``."""

        def done() -> bool:
            found = self.positions()
            return [p.next_offset for p in found] == [offset] * PARTITIONS

        wait_until(done, lambda: f"{self.positions()} {(self.folder / 'daemon.log').read_text()[-1500:]}")

    def anomalies(self) -> dict:
        found = self.read(lambda connection: anomalies.query(connection, stream="plant", limit=1000))
        return {a.id: (a.series, a.start_ns, a.points) for a in found}


def wait_until(condition: Callable[[], object], report: Callable[[], object], seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, report()
        time.sleep(0.2)


def produce(topics, topic: str, start: int, count: int) -> None:
    """Write a noisy series to each partition, with a spike now and then."""
    for partition in range(PARTITIONS):
        values = [
            json.dumps(
                {
                    "s": f"s{partition}",
                    "t": START_MS + row * 60_000,
                    "v": (row * 7919 % 101) / 25 + (500 if row and row % SPIKE_EVERY == 0 else 0),
                }
            ).encode()
            for row in range(start, start + count)
        ]
        topics.produce(topic, values, partition)


def shown(hooks: Receiver) -> dict[str, int]:
    """Return how often each message arrived, by its id."""
    found: dict[str, int] = {}
    for request in hooks.received:
        found[request.headers["webhook-id"]] = found.get(request.headers["webhook-id"], 0) + 1
    return found


@pytest.fixture
def installed(
    tmp_path: Path, database_url: str, kafka_broker: str, topics
) -> Iterator[tuple[Installation, Receiver, str]]:
    topic = topics.create(PARTITIONS)
    with Receiver() as hooks:
        one = Installation(tmp_path, database_url, kafka_broker, topic, hooks)
        one.run("db", "upgrade")
        yield one, hooks, topic


@pytest.mark.kafka
def test_a_restored_database_continues_behind_newer_committed_offsets(installed, topics, tmp_path):
    one, hooks, topic = installed
    produce(topics, topic, 0, BEFORE)
    with one.daemon():
        one.wait_for(BEFORE)
        wait_until(lambda: len(hooks.received) >= 2, lambda: hooks.received)
        one.run("db", "backup", "backup")
        produce(topics, topic, BEFORE, UNTIL_LOSS)
        one.wait_for(BEFORE + UNTIL_LOSS)
        expected = one.anomalies()
        wait_until(
            lambda: len(shown(hooks)) >= 2 * len(expected) - PARTITIONS, lambda: (shown(hooks), expected)
        )
    before_loss = shown(hooks)
    lost_epochs = {p.partition: p.epoch for p in one.positions()}
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o600

    # Kafka now shows offsets that are newer than the backup.
    refused = one.run("db", "restore", "backup", code=4)
    assert "--replace" in refused.stderr
    one.run("db", "restore", "backup", "--replace")
    assert [p.next_offset for p in one.positions()] == [BEFORE] * PARTITIONS
    assert all(p.epoch > lost_epochs[p.partition] for p in one.positions())

    produce(topics, topic, BEFORE + UNTIL_LOSS, AFTER)
    with one.daemon():
        one.wait_for(BEFORE + UNTIL_LOSS + AFTER)
        for position in one.positions():
            assert position.counts.read() == BEFORE + UNTIL_LOSS + AFTER
            assert position.counts.scored == BEFORE + UNTIL_LOSS + AFTER
        again = one.anomalies()
        assert {key: again[key] for key in expected if key in again} == expected
        assert len(again) > len(expected)
        wait_until(lambda: len(shown(hooks)) > len(before_loss), lambda: shown(hooks))
    # Messages about the time after the backup are sent again under their ids, and no others.
    assert before_loss.keys() <= shown(hooks).keys()
    assert max(shown(hooks).values()) <= 2

    history = one.run("anomalies", "explain", next(iter(expected)).hex[:8])
    assert "s0" in history.stdout or "s1" in history.stdout


@pytest.mark.kafka
def test_a_restore_is_refused_while_a_daemon_runs(installed, topics):
    one, _, topic = installed
    produce(topics, topic, 0, 10)
    with one.daemon():
        one.wait_for(10)
        one.run("db", "backup", "backup")
        refused = one.run("db", "restore", "backup", "--replace", code=4)
        assert "in use" in refused.stderr or "another process" in refused.stderr
        produce(topics, topic, 10, 10)
        one.wait_for(20)
