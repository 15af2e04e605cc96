"""A training and everything that may die under it: worker, runner, scheduler, database, registry. One job,
one version, and the champion stays.

The short ones are part of ``make test``; those marked ``long`` run with
``pytest -m long tests/faults/test_retraining_faults.py``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from pipeline.jobs import tasks
from pipeline.jobs.requests import request_training
from pipeline.jobs.runner import Runner
from pipeline.jobs.runner_process import RunnerProcess
from storage.model_store import jobs, models
from storage.sql.database import Database
from tests.integration.test_retraining_jobs import ThreadWorkers, turn_until, write_config
from tests.support.certificates import Authority
from tests.support.postgres_server import create_database
from tests.support.trainings import config_of, tide, write_history

pytestmark = pytest.mark.postgres
WAIT = 240.0
FOREWATCH = (sys.executable, "-c", "from pipeline.cli import main; main()")


def queue(config, database):
    now_ns = time.time_ns()
    with database.begin() as connection:
        return request_training(
            connection,
            "plant",
            config.streams["plant"],
            now_ns,
            trigger="manual",
            author="ada",
            now_ns=now_ns,
        )


def stored(database, number):
    with database.read() as connection:
        return jobs.get(connection, number)


def wait_for(condition, what, timeout=WAIT):
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


def dask_workers(pid):
    """Processes below ``pid`` that compute: the children of Dask's nannies."""
    with suppress(psutil.NoSuchProcess):
        return [
            one
            for one in psutil.Process(pid).children(recursive=True)
            if "spawn_main" in " ".join(one.cmdline())
        ]
    return []


def check_one_version(database, number):
    """However often it was begun: one version, whose files are whole, and the row says so."""
    job = stored(database, number)
    assert job.state == "succeeded", (job.reason, job.traceback)
    with database.read() as connection:
        (model,) = models.query(connection)
    assert model.version == job.result["version"]
    assert model.job_id == number
    return job


@pytest.fixture
def database(schema_url):
    opened = Database(schema_url)
    yield opened
    opened.close()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_worker_and_runner_are_killed_in_the_middle(database, schema_url, tmp_path: Path):
    """kill -9 of the Dask worker while it trains, then of the process that holds the lease; a third one
    finishes from the checkpoint.
    """
    config = config_of(schema_url, tmp_path, epochs=6, lease="2s")
    write_history(
        config, {f"press-{i}": tide(5000, i) for i in range(8)}
    )  # long enough to be killed twice, also by a machine with nothing else to do
    number = queue(config, database)
    first, second = RunnerProcess(), RunnerProcess()
    try:
        first.ensure(config)
        wait_for(lambda: stored(database, number).progress.get("epoch", 0) >= 1, "an epoch")
        for worker in dask_workers(first.pid):
            worker.kill()
        wait_for(lambda: stored(database, number).attempt == 2, "a second attempt")
        wait_for(lambda: stored(database, number).progress.get("epoch", 0) >= 2, "it goes on")
        os.kill(first.pid, signal.SIGKILL)
        second.ensure(config)
        wait_for(lambda: stored(database, number).state in jobs.ENDED_STATES, "the end")
    finally:
        first.stop()
        second.stop()
    job = check_one_version(database, number)
    assert job.attempt == 3
    assert job.owner.endswith(f":{second.pid}") or second.pid is None


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("phase", ["train", "own networks", "backtest"])
@pytest.mark.parametrize("victim", ["worker", "runner"])
def test_a_kill_in_each_phase_of_a_job(database, schema_url, tmp_path: Path, phase, victim):
    """Reading the data, training networks of their own, judging: whoever is killed there, another goes on,
    and there is one version.
    """
    config = config_of(schema_url, tmp_path, epochs=3, lease="2s", models_by=["sensor"])
    write_history(config, {f"press-{i}": tide(6000, i) for i in range(12)})
    number = queue(config, database)
    runners = [RunnerProcess(), RunnerProcess()]
    try:
        runners[0].ensure(config)
        wait_for(lambda: stored(database, number).progress.get("phase") == phase, phase)
        workers = dask_workers(runners[0].pid)
        if victim == "runner":
            os.kill(runners[0].pid, signal.SIGKILL)
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        runners[1].ensure(config)
        wait_for(lambda: stored(database, number).state in jobs.ENDED_STATES, "the end")
    finally:
        for runner in runners:
            runner.stop()
    assert check_one_version(database, number).attempt == 2


def test_the_database_is_down_during_a_training(faulty_postgres, tmp_path: Path):
    url = create_database(faulty_postgres)
    database = Database(url)
    database.upgrade()
    config = config_of(url, tmp_path, lease="1s")
    write_history(config, {f"press-{i}": tide(300, i) for i in range(2)})
    begun, go_on = threading.Event(), threading.Event()

    def slow(task, told, cancelled):
        begun.set()
        go_on.wait(60)
        return tasks.run_task(task, told, cancelled)

    runner = Runner(config, database, "a", ThreadWorkers(slow))
    number = queue(config, database)
    turn_until(runner, begun.is_set)
    faulty_postgres.stop()
    go_on.set()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        runner.turn()
        time.sleep(0.1)
    assert runner.busy, "the result is kept"
    faulty_postgres.start()
    turn_until(runner, lambda: not runner.busy)
    assert check_one_version(database, number).attempt == 1
    database.close()


@pytest.mark.parametrize("full", [False, True], ids=["no folder", "full disk"])
def test_the_registry_cannot_be_written(database, schema_url, tmp_path: Path, monkeypatch, full):
    def no_room(*_, **options):
        raise OSError(28, "No space left on device")

    config = config_of(schema_url, tmp_path)
    write_history(config, {f"press-{i}": tide(300, i) for i in range(2)})
    if full:
        monkeypatch.setattr("detectors.artifacts.open", no_room, raising=False)
    else:
        (tmp_path / "models").write_text("a file where the folder should be")
    runner = Runner(config, database, "a", ThreadWorkers())
    number = queue(config, database)
    turn_until(runner, lambda: stored(database, number).state in jobs.ENDED_STATES)
    job = stored(database, number)
    assert job.state == "failed"
    assert "cannot write" in job.reason
    assert "check that the folder may be written" in job.error
    with database.read() as connection:
        assert models.current_champion(connection, "plant").sequence == 0
    assert not full or "No space left" in job.reason
    monkeypatch.undo()
    if not full:
        (tmp_path / "models").unlink()
    with database.begin() as connection:
        jobs.retry(connection, number)
    turn_until(runner, lambda: stored(database, number).state in jobs.ENDED_STATES)
    check_one_version(database, number)


@pytest.mark.parametrize(
    ("values", "reason"),
    [(np.full(400, 3.0), "constant"), (np.full(400, np.nan), "fewer than"), (tide(12), "fewer than")],
    ids=["constant", "missing", "short"],
)
def test_data_that_teach_nothing(database, schema_url, tmp_path: Path, values, reason):
    config = config_of(schema_url, tmp_path)
    write_history(config, {"press-0": values})
    runner = Runner(config, database, "a", ThreadWorkers())
    number = queue(config, database)
    turn_until(runner, lambda: stored(database, number).state in jobs.ENDED_STATES)
    assert stored(database, number).state == "rejected"
    assert reason in stored(database, number).reason
    with database.read() as connection:
        assert models.query(connection) == []


def test_a_training_that_diverges_keeps_the_champion(database, schema_url, tmp_path: Path, monkeypatch):
    """A loss that is no number from the first step on: the row says so, nothing is made, and whoever decided
    goes on.
    """
    from detectors.forecasters import shared_lstm

    real = shared_lstm.loss_of

    def nothing(module, location, log_scale, target):
        loss = real(module, location, log_scale, target)
        return loss * float("nan") if torch.is_grad_enabled() else loss

    monkeypatch.setattr(shared_lstm, "loss_of", nothing)
    config = config_of(schema_url, tmp_path)
    write_history(config, {f"press-{i}": tide(400, i) for i in range(2)})
    runner = Runner(config, database, "a", ThreadWorkers())
    number = queue(config, database)
    turn_until(runner, lambda: stored(database, number).state in jobs.ENDED_STATES)
    job = stored(database, number)
    assert (job.state, job.result["status"]) == ("rejected", "diverged"), job.traceback
    assert "gradient norm" in job.reason
    assert "lower the learning rate" in job.reason
    with database.read() as connection:
        assert models.current_champion(connection, "plant").sequence == 0
        assert models.query(connection) == []


# ------------------------------------------------------------------------------------------- a cluster of the user's


class DaskCluster:
    """A scheduler and workers as a user starts them."""

    def __init__(self, folder: Path, tls: dict[str, str] | None = None) -> None:
        self._folder, self._tls, self._processes = folder, tls, []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"{'tls' if tls else 'tcp'}://127.0.0.1:{self.port}"

    def _start(self, *command: str) -> subprocess.Popen:
        output = (self._folder / f"process-{len(self._processes)}").open("wb")
        self._processes.append(subprocess.Popen(command, stdout=output, stderr=output))
        return self._processes[-1]

    def scheduler(self) -> subprocess.Popen:
        names = {"ca": "ca-file", "cert": "cert", "key": "key"}
        options = [f"--tls-{names[name]}={path}" for name, path in (self._tls or {}).items()]
        where = (
            "--host",
            self.address.rpartition(":")[0],
            "--port",
            str(self.port),
            "--dashboard-address",
            "127.0.0.1:0",
        )
        return self._start(sys.executable, "-m", "distributed.cli.dask_scheduler", *where, *options)

    def worker(self, gpu: bool = False) -> subprocess.Popen:
        options = [f"--tls-{name}={path}" for name, path in (self._tls or {}).items()]
        return self._start(
            *FOREWATCH, "worker", "--scheduler", self.address, *(["--gpu"] if gpu else []), *options
        )

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("encrypted", [False, True], ids=["tcp", "tls"])
def test_a_cluster_of_the_users_whose_scheduler_is_killed(database, schema_url, tmp_path: Path, encrypted):
    """A job that wants a GPU waits for a worker that offers one, loses its scheduler, and is finished by the
    next.
    """
    tls = None
    if encrypted:
        authority = Authority(tmp_path)
        authority.server("127.0.0.1")
        own = str(tmp_path / "127.0.0.1-False.pem")
        tls = {"ca": str(authority.file), "cert": own, "key": own}
    cluster = DaskCluster(tmp_path, tls)
    config = config_of(schema_url, tmp_path, epochs=12, lease="2s", device="gpu", cpu_after="1h")
    tree = json.loads(config.model_dump_json(by_alias=True, exclude_unset=True))
    tree["cluster"] = {"scheduler": cluster.address} | ({"tls": tls} if tls else {})
    config = type(config).model_validate(tree)
    write_history(config, {f"press-{i}": tide(1200, i) for i in range(3)})
    number = queue(config, database)
    runner = RunnerProcess()
    with ExitStack() as stack:
        stack.callback(cluster.close)
        stack.callback(runner.stop)
        runner.ensure(config)
        wait_for(
            lambda: "no Dask scheduler" in stored(database, number).reason,
            "it says that there is no scheduler",
        )
        scheduler = cluster.scheduler()
        cluster.worker()
        wait_for(lambda: "no worker offers a GPU" in stored(database, number).reason, "it waits for a GPU")
        cluster.worker(gpu=True)
        wait_for(lambda: stored(database, number).progress.get("epoch", 0) >= 1, "an epoch")
        scheduler.kill()
        wait_for(lambda: stored(database, number).attempt == 2, "a second attempt")
        cluster.scheduler()
        cluster.worker(gpu=True)
        wait_for(lambda: stored(database, number).state in jobs.ENDED_STATES, "the end")
    check_one_version(database, number)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_daemon_is_killed_in_the_middle(database, schema_url, tmp_path: Path):
    """The runner of a daemon that was killed finishes its job and ends; a daemon that starts again finds it
    done.
    """
    config = config_of(schema_url, tmp_path, epochs=8, lease="2s")
    write_history(config, {f"press-{i}": tide(1200, i) for i in range(3)})
    file = write_config(config, tmp_path / "f.yaml")
    command = [*FOREWATCH, "run", str(file)]
    with (tmp_path / "output").open("wb") as output:
        daemon = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            number = queue(config, database)
            wait_for(lambda: stored(database, number).progress.get("epoch", 0) >= 1, "an epoch")
            children = psutil.Process(daemon.pid).children(recursive=True)
            daemon.kill()
            daemon.wait()
            wait_for(lambda: stored(database, number).state in jobs.ENDED_STATES, "the end")
            job = check_one_version(database, number)
            assert job.attempt == 1
            wait_for(lambda: not [one for one in children if one.is_running()], "no process is left")
        finally:
            daemon.kill()
            daemon.wait()
