"""The worker on this machine: who can connect to it, and which variables it sees."""

from __future__ import annotations

import os
import subprocess
import sys

import httpx
import psutil
import pytest
from distributed import Client

from pipeline.config.retraining import Cluster
from pipeline.config.schema import Config
from pipeline.jobs.dask_workers import STOP_SECONDS, DaskWorkers
from pipeline.jobs.runner_process import RunnerProcess
from pipeline.jobs.worker_environment import runner_environment, worker_environment
from storage.sql.database import Database
from tests.support.verdict_topics import wait_until

STREAM = {
    "source": {"memory": {}},
    "format": {"json": {"series": "s", "time": "t", "values": ["v"]}},
    "retraining": {"schedule": None},
}


def listening(process: psutil.Process) -> list[tuple[str, int]]:
    return [
        (address.laddr.ip, address.laddr.port)
        for one in (process, *process.children(recursive=True))
        for address in one.net_connections(kind="tcp")
        if address.status == psutil.CONN_LISTEN
    ]


@pytest.fixture
def workers():
    before = set(listening(psutil.Process()))
    workers = DaskWorkers(Cluster())
    client = workers.client()
    client.wait_for_workers(1, timeout=120)
    yield client, [address for address in listening(psutil.Process()) if address not in before]
    workers.close()


def test_only_this_process_can_use_the_local_scheduler(workers):
    client, addresses = workers
    assert client.submit(os.getpid).result(timeout=120) != os.getpid()
    scheduler = client.scheduler.address
    assert scheduler.startswith("tls://127.0.0.1:")
    assert {ip for ip, _ in addresses} == {"127.0.0.1"}
    for address in (scheduler, scheduler.replace("tls://", "tcp://")):
        with pytest.raises((OSError, TimeoutError, ValueError, RuntimeError, TypeError)):
            Client(address, timeout="2s", set_as_default=False)


def test_local_workers_are_gone_at_once(monkeypatch):
    """Dask waits four seconds for each, at the end of a backfill."""
    from distributed.nanny import WorkerProcess

    kill, given = WorkerProcess.kill, []

    async def noted(process, *, timeout, **named):
        given.append(timeout)
        await kill(process, timeout=timeout, **named)

    monkeypatch.setattr(WorkerProcess, "kill", noted)
    workers = DaskWorkers(Cluster(), 2)
    workers.client().wait_for_workers(2, timeout=120)
    processes = [
        one for one in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(one.cmdline())
    ]
    workers.close()
    assert given == [STOP_SECONDS] * 2
    assert len(processes) == 2
    assert psutil.wait_procs(processes, timeout=120)[1] == []


def test_another_certificate_is_refused(workers):
    from distributed.security import Security

    with pytest.raises((OSError, TimeoutError)):
        Client(
            workers[0].scheduler.address, timeout="2s", security=Security.temporary(), set_as_default=False
        )


def test_there_is_no_dashboard(workers):
    _, addresses = workers
    answers = 0
    for _, port in addresses:
        for path in ("/", "/status", "/health", "/metrics", "/json/identity.json", "/info/main/workers.html"):
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False, timeout=60)
            except httpx.TransportError:
                continue
            answers += 1
            assert answer.status_code == 404, (port, path)
    assert answers


def test_the_processes_of_trainings_lack_the_secrets_of_the_daemon(tmp_path, monkeypatch):
    secrets = {
        "SLACK_URL": "hunter2",
        "KAFKA_PASSWORD": "hunter2",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "NUMBA_TOKEN": "hunter2",
    }
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STORE_PROFILE", "wanted")
    path = tmp_path / "forewatch.db"
    config = Config.model_validate(
        {
            "database": f"sqlite:///{path}",
            "cluster": {"environment": ["STORE_PROFILE"]},
            "streams": {"plant": STREAM},
        }
    )
    database = Database(config.database)
    database.upgrade()
    runner = RunnerProcess()
    runner.ensure(config)
    try:
        process = psutil.Process(runner.pid)
        wait_until(lambda: bool(process.environ()), "the kernel to show the new program's environment")
        assert "hunter2" not in process.environ().values()
        assert process.environ()["STORE_PROFILE"] == "wanted"
        assert process.environ()["PATH"] == os.environ["PATH"]
    finally:
        runner.stop()
        database.close()


def test_a_worker_inherits_nothing_that_opens_the_database():
    harmless = {"PATH": "/bin", "OMP_NUM_THREADS": "1", "PGHOST": "db", "PGPASSFILE": "/run/pgpass"}
    environment = harmless | {"PGPASSWORD": "hunter2", "DB": "hunter2"}
    config = Config.model_validate({"database_password": {"env": "DB"}, "streams": {"plant": STREAM}})
    assert worker_environment(config, environment) == harmless
    assert runner_environment(config, environment) == environment


IN_A_RUNNER = """
import os
from pipeline.config.schema import Config
from pipeline.jobs.dask_workers import STOP_SECONDS, DaskWorkers
from pipeline.jobs.worker_environment import forget_database_variables
import psutil


def environments():
    return [*os.environ, *psutil.Process().environ()]


if __name__ == "__main__":
    config = Config.model_validate(
        {"database_password": {"env": "DB"}, "streams": {"p": {"source": {"memory": {}}, "format": {"json":
        {"series": "s", "time": "t", "values": ["v"]}}}}}
    )
    forget_database_variables(config)
    workers = DaskWorkers(config.cluster)
    print(sorted(set(workers.client().submit(environments).result(timeout=120))))
    workers.close()
"""


def test_the_worker_process_itself_has_no_secret_variable(tmp_path):
    script = tmp_path / "in_a_runner.py"
    script.write_text(IN_A_RUNNER)
    done = subprocess.run(
        [sys.executable, script],
        env=os.environ
        | {"PYTHONPATH": os.getcwd(), "DB": "hunter2", "PGPASSWORD": "hunter2", "HOOK_URL": "hunter2"},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    names = done.stdout.strip().splitlines()[-1]
    assert "PATH" in names
    assert not {"DB", "PGPASSWORD", "HOOK_URL"} & set(eval(names))
