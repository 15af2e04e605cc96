"""A backfill on an encrypted Dask cluster: real scheduler, worker, certificates."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.retraining import Cluster, Tls
from pipeline.config.schema import Config
from pipeline.jobs import dask_workers
from pipeline.jobs.cluster_backfill import ClusterBackfill, ClusterChoice
from pipeline.jobs.dask_workers import ClusterUnavailable
from tests.faults.stage import Silent
from tests.integration.test_cluster_backfill import in_one_process, results, small_parts, two_databases
from tests.support.certificates import Authority
from tests.support.past_records import past_config, past_rows, write_csv
from tests.support.supervised_daemons import free_port

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(600)]
__all__ = ["small_parts", "two_databases"]  # fixtures

HOST = "127.0.0.1"
FOREWATCH = [sys.executable, "-c", "from pipeline.cli import main; main()"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def tls(authority: Authority) -> Tls:
    certificate, key = authority.issue(HOST)
    return Tls(ca=authority.file, cert=certificate, key=key)


@pytest.fixture
def scheduler(tls: Tls) -> Iterator[str]:
    """Run a scheduler and a worker by the commands of the how-to page."""
    port = free_port()
    address = f"tls://{HOST}:{port}"
    files = ["--tls-ca-file", str(tls.ca), "--tls-cert", str(tls.cert), "--tls-key", str(tls.key)]
    options = [
        "--protocol",
        "tls",
        "--host",
        HOST,
        "--port",
        str(port),
        "--no-dashboard",
        "--no-show",
        *files,
    ]
    worker = ["worker", "--scheduler", address]
    worker += ["--tls-ca", str(tls.ca), "--tls-cert", str(tls.cert), "--tls-key", str(tls.key)]
    commands = [[sys.executable, "-m", "distributed.cli.dask_scheduler", *options], [*FOREWATCH, *worker]]
    running = [
        subprocess.Popen(one, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) for one in commands
    ]
    try:
        yield address
    finally:
        for one in reversed(running):
            one.terminate()
        for one in running:
            one.wait(60)


def config_of(url: str, address: str, tls: Tls | None) -> Config:
    return past_config(url).model_copy(update={"cluster": Cluster(scheduler=address, tls=tls)})


def test_a_backfill_on_an_encrypted_cluster(
    tmp_path, two_databases, small_parts, scheduler, tls, monkeypatch
):
    files = [write_csv(tmp_path / f"c{n}.csv", past_rows(8, 120, n, 100 * n)) for n in range(3)]
    report = in_one_process(past_config(two_databases[0]), files, tmp_path / "one.parquet")
    config = config_of(two_databases[1], scheduler, tls)
    names = tuple(map(str, files))
    done = ClusterBackfill(config, "plant", names).run(ClusterChoice.of(scheduler), Silent())
    assert (done.workers, done.shards > 1) == (1, True)
    assert done.report.counts.scored == report["scored"]
    assert results(two_databases[1], "revision") == results(two_databases[0], "revision")

    monkeypatch.setattr(dask_workers, "CONNECT_SECONDS", 2.0)
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    certificate, key = other.issue(HOST)
    for wrong in (
        Tls(ca=other.file, cert=certificate, key=key),
        Tls(ca=tls.ca, cert=certificate, key=key),
    ):
        work = ClusterBackfill(config_of(two_databases[1], scheduler, wrong), "plant", names)
        with pytest.raises(ClusterUnavailable, match="no Dask scheduler answers at tls") as caught:
            work.run(ClusterChoice.of(scheduler), Silent())
        assert "start it, check the files of cluster.tls, or change --cluster" in str(caught.value)
    plain = scheduler.replace("tls://", "tcp://")
    with pytest.raises(ClusterUnavailable, match="no Dask scheduler answers at tcp"):
        ClusterBackfill(config, "plant", names).run(ClusterChoice.of(plain), Silent())
