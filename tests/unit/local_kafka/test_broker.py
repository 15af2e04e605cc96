"""The local broker: started, found again, stopped, and never mistaken for another process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import psutil
import pytest

from pipeline.local_kafka.broker import BrokerError, LocalBroker
from pipeline.local_kafka.distribution import DownloadError, ensure_jars
from tests.support.kafka_server import FaultyBroker, Topics


@pytest.fixture
def broker(tmp_path):
    broker = FaultyBroker(tmp_path / "kafka", heap="256m", announce=lambda line: None)
    yield broker
    broker.kill()


def test_a_broker_that_never_ran_is_down(tmp_path):
    broker = LocalBroker(tmp_path)
    status = broker.status()
    assert (status.running, status.answers, status.address, status.pid) == (False, False, None, None)
    assert broker.down() is False
    with pytest.raises(BrokerError, match="forewatch kafka up"):
        _ = broker.address


@pytest.mark.kafka
def test_up_is_idempotent_and_data_survives_down_and_up(broker):
    address = broker.up()
    first = broker.status()
    assert first.running
    assert first.answers
    assert broker.up() == address
    assert broker.status().pid == first.pid

    topics = Topics(address)
    topic = topics.create(partitions=3)
    topics.close()
    assert broker.down() is True
    assert not broker.status().running
    assert not psutil.pid_exists(first.pid)
    assert broker.up() == address, "the port is remembered"
    topics = Topics(address)
    assert topic in topics.admin.list_topics()
    topics.close()


@pytest.mark.kafka
def test_a_cluster_id_that_looks_like_an_option_is_taken(broker, monkeypatch):
    monkeypatch.setattr("uuid.uuid4", lambda: UUID(bytes=b"\xf8" + bytes(15)))
    broker.up()
    meta = (broker.data_dir / "data" / "meta.properties").read_text()
    assert "cluster.id=-AAAA" in meta
    assert broker.status().answers


@pytest.mark.kafka
def test_it_outlives_the_process_that_started_it_and_listens_on_this_machine_only(broker, tmp_path):
    code = f"from pathlib import Path; from pipeline.local_kafka.broker import LocalBroker; LocalBroker(Path({str(broker.data_dir)!r}), heap='256m').up()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    process = broker.process()
    assert process is not None
    assert broker.status().answers
    listening = {c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN}
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


@pytest.mark.kafka
def test_two_that_ask_at_once_get_one_broker(tmp_path):
    members = [FaultyBroker(tmp_path / "kafka", heap="256m", announce=lambda line: None) for _ in range(2)]
    try:
        with ThreadPoolExecutor(2) as pool:
            addresses = list(pool.map(lambda b: b.up(), members))
        assert addresses[0] == addresses[1]
        assert members[0].status().pid == members[1].status().pid
    finally:
        members[0].kill()


@pytest.mark.kafka
def test_after_a_crash_it_starts_again(broker):
    broker.up()
    broker.kill()
    assert not broker.status().running
    broker.up()
    assert broker.status().answers


def test_a_recycled_process_id_is_not_ours(broker):
    """The state file names a living process (this test), but one that started at another time."""
    broker.data_dir.mkdir(parents=True)
    state = {
        "cluster_id": "x",
        "port": 1,
        "controller_port": 2,
        "pid": os.getpid(),
        "started": psutil.Process().create_time() - 100,
    }
    (broker.data_dir / "broker.json").write_text(json.dumps(state))
    assert broker.process() is None
    assert broker.down() is False


def test_a_taken_port_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=f"port {port} is taken"):
            LocalBroker(tmp_path, port=port, announce=lambda line: None).up()


@pytest.mark.kafka
def test_a_server_that_does_not_start_shows_the_end_of_its_log(tmp_path):
    broker = LocalBroker(tmp_path, settings={"log.retention.bytes": "many"}, announce=lambda line: None)
    with pytest.raises(BrokerError, match="many"):
        broker.up()
    assert broker.process() is None


def test_an_unreachable_mirror_leaves_nothing_half_done(tmp_path, monkeypatch):
    """A proxy that refuses every connection: the message says what to do, and no folder is left that looks
    complete.
    """
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    said: list[str] = []
    with pytest.raises(DownloadError, match="check the network"):
        ensure_jars(said.append, cache=tmp_path)
    assert len(said) == 1
    assert "Apache Kafka" in said[0]
    assert [p.name for p in Path(tmp_path).iterdir()] == ["kafka.lock"]
