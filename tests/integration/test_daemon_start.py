"""The start and the end of the long-running commands: a database that is away, signals, and the last log line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import make_url

from storage.sql.database import Database
from tests.support.postgres_server import (
    PostgresServer,
    create_database,
    free_port,
    require_password,
    running_postgres,
)

pytestmark = pytest.mark.postgres

FOREWATCH = [sys.executable, "-c", "from pipeline.cli import main; main()"]


class Process:
    """A long-running command in a process of its own, with its log lines."""

    def __init__(
        self, folder: Path, *command: str, database: str, more: str = "", env: dict[str, str] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        (folder / "data.csv").write_text("ts,sensor,value\n2026-01-01T00:00:00Z,a,1\n")
        (folder / "forewatch.yaml").write_text(f"""\
database: {database}
http: {{port: {self.port}}}
storage: {{history: false}}
streams:
  plant:
    source: {{files: {{paths: [data.csv], follow: true}}}}
    format: {{csv: {{series: sensor, time: ts, values: value}}}}
    detector: light
{more}""")
        self._log = folder / "log"
        with self._log.open("w") as out:
            self.process = subprocess.Popen(
                [*FOREWATCH, *command], cwd=folder, stdout=out, stderr=out, env=os.environ | (env or {})
            )

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    def events(self, text: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if text in line["event"]]

    def until(self, condition: Callable[[], bool], what: str, timeout: float = 180.0) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                if condition():
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            assert self.process.poll() is None, self._log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"{what}: not within {timeout:.0f} s; {self._log.read_text()[-3000:]}")

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=10)

    def catches_sigterm(self) -> bool:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        caught = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), 16)
        return bool(caught >> (signal.SIGTERM - 1) & 1)

    def end(self, timeout: float = 120.0) -> int:
        return self.process.wait(timeout)

    def terminate(self, timeout: float = 120.0) -> int:
        self.process.terminate()
        return self.end(timeout)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def one(*command: str, **options: Any) -> Process:
        started.append(Process(tmp_path / str(len(started)), *command, **options))
        return started[-1]

    yield one
    for process in started:
        process.process.kill()
        process.process.wait()


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def stopped(own_postgres: PostgresServer) -> Iterator[str]:
    """URL of a new database on a server that is stopped."""
    url = create_database(own_postgres)
    own_postgres.stop()
    yield url
    with suppress(RuntimeError):  # the test has started it
        own_postgres.start()


def test_daemon_waits_for_a_database_that_is_away_at_the_start(start, stopped, own_postgres):
    daemon = start("run", database=stopped)
    daemon.until(lambda: bool(daemon.events("the database does not answer")), "the log line")
    daemon.until(lambda: "database" in daemon.get("/readyz").json()["waiting"], "the reason")
    answer = daemon.get("/readyz")
    assert answer.status_code == 503
    assert "Connection refused" in answer.json()["waiting"]["database"]
    assert daemon.get("/healthz").status_code == 200
    time.sleep(2.5)
    assert daemon.process.poll() is None
    lines = daemon.events("the database does not answer")
    assert [line["level"] for line in lines] == ["warning"], "one line, not one for each attempt"

    own_postgres.start()
    daemon.until(lambda: daemon.get("/readyz").status_code == 200, "ready")
    assert daemon.terminate() == 0
    last = daemon.log()[-1]
    assert (last["event"], last["exit_code"]) == ("process stopped", 0)


@pytest.mark.parametrize("command", ["run", "deliver"])
def test_stop_while_the_database_is_away(start, stopped, command):
    more = "endpoints: {chat: {type: webhook, url: https://oncall.example/hook, secret: {env: HOOK}}}\n"
    process = start(command, database=stopped, more=more)
    process.until(lambda: bool(process.events("the database does not answer")), "the log line")
    began = time.monotonic()
    assert process.terminate() == 0
    assert time.monotonic() - began < 40, "it does not wait for the database"
    assert process.log()[-1]["event"] == "process stopped"


def test_deliver_begins_when_the_database_answers(start, stopped, own_postgres):
    more = "endpoints: {chat: {type: webhook, url: https://oncall.example/hook, secret: {env: HOOK}}}\n"
    process = start("deliver", database=stopped, more=more)
    process.until(lambda: bool(process.events("the database does not answer")), "the log line")
    own_postgres.start()
    process.until(lambda: bool(process.events("the database answers")), "the log line of the end")
    assert process.terminate() == 0


def test_a_refused_database_ends_the_process_with_a_message(start, own_postgres):
    url = make_url(create_database(own_postgres))
    require_password(own_postgres, "operator")
    newer = create_database(own_postgres)
    database = Database(newer)
    database.upgrade()
    database.close()
    with psycopg.connect(newer.replace("+psycopg", "", 1), autocommit=True) as connection:
        connection.execute("UPDATE forewatch_version SET version_num = '9999'")
    operator = url.set(username="operator")
    cases = (
        (operator, "wrong", "password authentication failed"),
        (operator, None, "no password supplied"),
        (operator, "right", "permission denied for schema public"),
        (url.set(database="nowhere"), None, '"nowhere" does not exist'),
        (url.set(username="stranger"), None, '"stranger" does not exist'),
        (make_url(newer), None, "which this version of forewatch does not know"),
    )
    processes = []
    for one, password, text in cases:
        env = {"PGPASSWORD": password} if password else {}
        processes.append((start("run", database=one.render_as_string(), env=env), text))
    for process, text in processes:
        code, last = process.end(), process.log()[-1]
        assert code == 4, last
        assert (last["event"], last["level"], last["exit_code"]) == ("process ends with an error", "error", 4)
        assert text in last["error"]


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.3, 0.6, 1.0, 2.0])
def test_sigterm_in_the_first_seconds(start, tmp_path, seconds):
    """The handler is there before the rest is imported; before it, Python itself starts."""
    process = start("run", database=f"sqlite:///{tmp_path}/forewatch.db")
    process.until(process.catches_sigterm, "it catches SIGTERM")
    time.sleep(seconds)
    assert process.terminate() == 0
    last = process.log()[-1]
    assert last["event"].startswith("process stopped")
    assert (last["level"], last["exit_code"]) == ("info", 0)


def test_config_errors_and_unexpected_errors_are_log_lines(start, tmp_path):
    folder = tmp_path / "broken"
    process = Process(folder, "run", "nowhere.yaml", database="sqlite:///x.db")
    assert process.end() == 2
    last = process.log()[-1]
    assert (last["level"], last["exit_code"]) == ("error", 2)
    assert "nowhere.yaml" in last["error"]

    code = (
        "import pipeline.daemon.daemon as d, sys; from pipeline.cli import main\n"
        "def fail(*_, **__): raise EOFError('cut short')\n"
        "d.run_daemon = fail; sys.argv = ['forewatch', 'run']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False
    )
    last = json.loads(done.stderr.splitlines()[-1])
    assert done.returncode == 1
    assert (last["event"], last["level"]) == ("process ends with an unexpected error", "error")
    assert "EOFError: cut short" in last["exception"]
