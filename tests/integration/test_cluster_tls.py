"""A backfill on an encrypted Dask cluster: real scheduler, worker, certificates."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.config.retraining import Cluster, Tls
from pipeline.jobs import cluster_session, dask_workers
from pipeline.jobs.cluster_backfill import ClusterBackfill, ClusterChoice
from pipeline.jobs.dask_workers import ClusterUnavailable, DaskWorkers
from tests.faults.member import wait_for
from tests.faults.stage import Silent
from tests.integration.test_cluster_backfill import in_one_process, results, small_parts, two_databases
from tests.support.certificates import Authority
from tests.support.past_records import past_config, past_rows, write_csv
from tests.support.supervised_daemons import free_port

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(900)]
__all__ = ["small_parts", "two_databases"]  # fixtures

HOST = "127.0.0.1"
FOREWATCH = [sys.executable, "-c", "from pipeline.cli import main; main()"]


@contextmanager
def running(*command: str) -> Iterator[None]:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    authority = Authority(tmp_path)
    certificate, key = authority.issue(HOST)
    return Tls(ca=authority.file, cert=certificate, key=key)


@pytest.fixture
def scheduler(tls: Tls) -> Iterator[str]:
    """Run a scheduler by the command of the how-to page."""
    port = free_port()
    files = ["--tls-ca-file", str(tls.ca), "--tls-cert", str(tls.cert), "--tls-key", str(tls.key)]
    options = ["--protocol", "tls", "--host", HOST, "--port", str(port), "--no-dashboard", "--no-show"]
    with running(sys.executable, "-m", "distributed.cli.dask_scheduler", *options, *files):
        wait_for(lambda: listens(port), "the scheduler listens", timeout=300)
        yield f"tls://{HOST}:{port}"


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def test_a_backfill_on_an_encrypted_cluster(
    tmp_path, two_databases, small_parts, scheduler, tls, monkeypatch
):
    monkeypatch.setattr(dask_workers, "CONNECT_SECONDS", 300.0)
    monkeypatch.setattr(cluster_session, "WORKER_SECONDS", 300.0)
    files = [write_csv(tmp_path / f"c{n}.csv", past_rows(8, 120, n, 100 * n)) for n in range(3)]
    report = in_one_process(past_config(two_databases[0]), files, tmp_path / "one.parquet")
    config = past_config(two_databases[1])
    config = config.model_copy(update={"cluster": Cluster(scheduler=scheduler, tls=tls)})
    work = ClusterBackfill(config, "plant", tuple(map(str, files)))
    certificates = ["--tls-ca", str(tls.ca), "--tls-cert", str(tls.cert), "--tls-key", str(tls.key)]
    with running(*FOREWATCH, "worker", "--scheduler", scheduler, *certificates):
        done = work.run(ClusterChoice.of(scheduler), Silent())
    assert (done.workers, done.shards > 1) == (1, True)
    assert done.report.counts.scored == report["scored"]
    assert results(two_databases[1], "revision") == results(two_databases[0], "revision")


def test_strangers_are_refused(tmp_path, scheduler, tls, monkeypatch):
    """By the client, by the scheduler, and one that does not encrypt."""
    monkeypatch.setattr(dask_workers, "CONNECT_SECONDS", 2.0)
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    certificate, key = other.issue(HOST)
    for wrong in (
        Tls(ca=other.file, cert=certificate, key=key),
        Tls(ca=tls.ca, cert=certificate, key=key),
    ):
        with pytest.raises(ClusterUnavailable, match="no Dask scheduler answers at tls") as caught:
            DaskWorkers(Cluster(scheduler=scheduler, tls=wrong)).client()
        assert "start it, check the files of cluster.tls, or change cluster" in str(caught.value)
    with pytest.raises(ClusterUnavailable, match="no Dask scheduler answers at tcp"):
        DaskWorkers(Cluster(scheduler=scheduler.replace("tls://", "tcp://"))).client()
