"""A backfill on a cluster whose worker, command or scheduler is killed.

No row is lost, and none is scored twice. The scheduler, and a worker in each phase of its part:
``pytest -m long tests/faults/test_cluster_kills.py``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from storage.sql.database import Database
from storage.stream_state import reader as stored_readers
from tests.integration.test_cluster_backfill import in_one_process, results
from tests.support.past_records import past_config, past_rows, write_csv
from tests.support.postgres_server import create_database, drop_database

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(900)]

#: Small parts and batches, so that there is time to kill something.
ROWS_IN_A_PART, BATCH = 1200, 20
COMMAND = (
    "from pipeline.services import backfill_plan as plan; "
    f"plan.PART_SECONDS = {ROWS_IN_A_PART} * plan.COSTS['light'].row; from pipeline.cli import main; main()"
)
IMPATIENT = f"from pipeline.jobs import cluster_session; cluster_session.WORKERLESS_SECONDS = 2; {COMMAND}"
PATIENCE_SECONDS = 480.0
#: Exit code of a backfill without workers, or whose part ended too many processes.
PART_FAILED = 3
ARMED = Path(__file__).parent / "armed_workers"
#: Phases of the part of a worker; each of them ends one process.
WORKER_PHASES = (
    "before claim",
    "claimed",
    "scored",
    "advanced",
    "before COMMIT",
    "in COMMIT",
    "committed",
    "snapshot begun",
    "snapshot written",
)


class Runs:
    """One input, its results in one process, and a database for a run on a cluster."""

    def __init__(self, folder: Path, expected: dict[str, Any], report: dict[str, Any], url: str) -> None:
        self.folder, self.expected, self.report, self.url = folder, expected, report, url

    def command(self, cluster: str, code: str = COMMAND, **environment: str) -> subprocess.Popen[str]:
        files = sorted(str(path) for path in self.folder.glob("*.csv"))
        arguments = ["backfill", "forewatch.yaml", "-s", "plant", "--json", "--cluster", cluster, *files]
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            cwd=self.folder,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=(self.folder / "errors.log").open("a"),
            text=True,
        )

    def rows_read(self) -> int:
        database = Database(self.url)
        with database.read() as connection:
            read = sum(stored_readers.progress(connection, "plant (backfill cluster ").values())
        database.close()
        return read

    def check(self, command: subprocess.Popen[str]) -> dict[str, Any]:
        """Wait for the end, and compare all results with those of one process."""
        out, _ = command.communicate(timeout=PATIENCE_SECONDS)
        assert command.returncode == 0, (self.folder / "errors.log").read_text()[-3000:]
        done = json.loads(out)
        assert {key: done[key] for key in self.report} == self.report
        assert results(self.url, "revision") == self.expected
        return done


@pytest.fixture
def runs(tmp_path, postgres_server, postgres_template) -> Iterator[Runs]:
    urls = [create_database(postgres_server, postgres_template) for _ in range(2)]
    for number in range(4):
        write_csv(tmp_path / f"f{number}.csv", past_rows(12, 170, number, 100 * number), broken_every=70)
    files = sorted(tmp_path.glob("*.csv"))
    report = in_one_process(past_config(urls[0]), files, tmp_path / "one.parquet")
    config = past_config(urls[1]).model_dump(mode="json", exclude_unset=True)
    config |= {"engine": {"max_batch": BATCH}, "storage": {"snapshot_every": "200ms"}}
    (tmp_path / "forewatch.yaml").write_text(json.dumps(config))
    yield Runs(tmp_path, results(urls[0], "revision"), report, urls[1])
    for url in urls:
        drop_database(postgres_server, url)


def wait_for(condition: Callable[[], bool], command: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert command.poll() is None, "the backfill ended before something was killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def busy_worker(command: subprocess.Popen[str]) -> psutil.Process:
    """Return a worker process of a local cluster."""
    children = psutil.Process(command.pid).children(recursive=True)
    return next(one for one in children if "spawn_main" in " ".join(one.cmdline()))


@contextmanager
def killed_at_the_end(process: subprocess.Popen[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            for one in (*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)):
                one.kill()
        process.wait(30)


def test_a_killed_worker_and_a_killed_command_lose_nothing_and_repeat_nothing(runs):
    first = runs.command("local:2")
    with killed_at_the_end(first):
        wait_for(lambda: runs.rows_read() > 300, first)
        busy_worker(first).kill()
        before = runs.rows_read()
        wait_for(lambda: runs.rows_read() > before + 300, first)
        first.send_signal(signal.SIGKILL)
        first.wait(30)
    again = runs.command("local:2")
    with killed_at_the_end(again):
        done = runs.check(again)
    assert done["parts"] >= 4


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_workers_that_die_in_every_phase_lose_nothing_and_repeat_nothing(runs):
    phases, reached = runs.folder / "phases", runs.folder / "phases.reached"
    reached.touch()
    environment = {
        "PYTHONPATH": f"{ARMED}{os.pathsep}{Path(__file__).parents[2]}",
        "FOREWATCH_TEST_PHASES": str(phases),
    }
    for _ in WORKER_PHASES:
        # A worker that ended with its command may not have come to its phase.
        deaths = reached.read_text().split("\n")
        phases.write_text("\n".join(phase for phase in WORKER_PHASES if phase not in deaths))
        command = runs.command("local:2", **environment)
        with killed_at_the_end(command):
            if command.wait(1500) == 0:
                break
            # A part that ends six processes ends the command, which asks to be run again.
            assert command.returncode == PART_FAILED
    runs.check(command)
    assert sorted(reached.read_text().splitlines()) == sorted(WORKER_PHASES)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def scheduler_at(port: int) -> subprocess.Popen[bytes]:
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-show"]
    return subprocess.Popen([*dask, *options], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def worker_of(address: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "from pipeline.cli import main; main()", "worker", "--scheduler", address],
        stderr=subprocess.DEVNULL,
        env=os.environ | {"DASK_DISTRIBUTED__WORKER__DAEMON": "true"},
    )


@pytest.mark.long
def test_a_killed_scheduler_loses_nothing_and_repeats_nothing(runs):
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    scheduler = scheduler_at(port)
    worker = worker_of(address)
    command = runs.command(address)
    with killed_at_the_end(worker), killed_at_the_end(command):
        with killed_at_the_end(scheduler):
            wait_for(lambda: runs.rows_read() > 300, command)
            scheduler.kill()
            scheduler.wait(30)
        with killed_at_the_end(scheduler_at(port)):
            done = runs.check(command)
    assert done["restarts"] >= 1


@pytest.mark.long
def test_a_command_without_workers_ends_and_goes_on_when_it_is_run_again(runs):
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with killed_at_the_end(scheduler_at(port)):
        first = runs.command(address, IMPATIENT)
        with killed_at_the_end(first):
            with killed_at_the_end(worker_of(address)):
                wait_for(lambda: runs.rows_read() > 300, first)
            assert first.wait(PATIENCE_SECONDS) == PART_FAILED
        assert "the cluster has had no worker for 2 s" in (runs.folder / "errors.log").read_text()
        again = runs.command(address)
        with killed_at_the_end(worker_of(address)), killed_at_the_end(again):
            runs.check(again)
