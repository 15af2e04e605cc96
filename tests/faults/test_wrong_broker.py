"""A member with a wrong broker address beside a healthy one: real processes, one broker, one PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.core.types import Fault, FaultKind
from storage.results import faults
from tests.faults.feed import make_log
from tests.faults.ledger import check_alerts, unfinished
from tests.faults.member import wait_for
from tests.faults.stage import Stage
from tests.support.forked_commands import ForkedCommand
from tests.support.kafka_server import Topics
from tests.support.receiver import Receiver

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

UNLIMITED_ALERTS = {"max_age": None, "storm": None, "budget": None}


@pytest.fixture
def stage(tmp_path: Path, topics: Topics, schema_url: str) -> Iterator[Stage]:
    logs = [make_log(n, 250, seed=6) for n in range(2)]
    made = Stage(tmp_path / "stage", topics, schema_url, logs, alerts=UNLIMITED_ALERTS)
    yield made
    made.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as one:
        yield one


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[str, Path], ForkedCommand]]:
    """Start ``forewatch run`` with a config."""
    started: list[ForkedCommand] = []

    def start(name: str, config: Path) -> ForkedCommand:
        started.append(ForkedCommand(["run", config], tmp_path, os.environ, tmp_path / f"{name}.log"))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def write_configs(stage: Stage, url: str, folder: Path) -> tuple[Path, Path]:
    """Write the config of the healthy member and that of the one with a wrong address."""
    tree = json.loads(stage.config.read_text())
    tree["endpoints"] = {"hook": {"type": "json", "url": url, "allow": ["loopback"]}}
    stage.config.write_text(json.dumps(tree))
    tree["streams"]["plant"]["source"]["kafka"]["brokers"] = ["127.0.0.1:1"]
    (folder / "wrong.yaml").write_text(json.dumps(tree))
    return stage.config, folder / "wrong.yaml"


def open_down_faults(stage: Stage) -> list[Fault]:
    with stage.database.read() as connection:
        found = faults.query(connection, stream="plant", open_only=True)
    return [fault for fault in found if fault.kind is FaultKind.SOURCE_DOWN]


def until_all_told(stage: Stage, receiver: Receiver, share: float) -> None:
    """Let records in, and wait until each anomaly that they contain is in a message."""
    stage.allow(share)
    stage.until_read(sum(round(len(log.values) * share) for log in stage.logs))
    wait_for(
        lambda: not check_alerts(stage.database, receiver.received).untold,
        "a message about each anomaly",
        20,
        lambda: str(check_alerts(stage.database, receiver.received).untold),
    )


@pytest.mark.timeout(200)
def test_it_mutes_nobody_and_its_fault_ends_with_it(stage: Stage, receiver: Receiver, run, tmp_path: Path):
    healthy_config, wrong_config = write_configs(stage, receiver.url, tmp_path)
    healthy = run("healthy", healthy_config)
    wrong = [run(f"wrong{n}", wrong_config) for n in range(2)]
    until_all_told(stage, receiver, 0.2)
    before = len(stage.anomalies())
    wait_for(lambda: len(open_down_faults(stage)) == 2, "the faults of the members with a wrong address", 60)
    owners = {fault.owner for fault in open_down_faults(stage)}
    assert {int(owner.split(":")[1]) for owner in owners} == {one.pid for one in wrong}
    assert all(fault.partitions == [] for fault in open_down_faults(stage)), "they own no partition"
    until_all_told(stage, receiver, 0.5)
    assert len(stage.anomalies()) > before

    wrong[0].send_signal(signal.SIGTERM)
    assert wrong[0].wait(120) == 0, (tmp_path / "wrong0.log").read_text()[-3000:]
    assert [int(fault.owner.split(":")[1]) for fault in open_down_faults(stage)] == [wrong[1].pid]
    wrong[1].kill()
    until_all_told(stage, receiver, 0.8)
    # its lease is over 30 s after its last beat
    wait_for(lambda: not open_down_faults(stage), "the fault of the dead member has ended", 45)
    until_all_told(stage, receiver, 1.0)
    wait_for(lambda: not unfinished(stage.database), "no event waits", 20)
    assert check_alerts(stage.database, receiver.received).problems == []
    assert healthy.poll() is None
    healthy.send_signal(signal.SIGTERM)
    assert healthy.wait(120) == 0, (tmp_path / "healthy.log").read_text()[-3000:]
    for name in ("healthy", "wrong0", "wrong1"):
        assert "Traceback" not in (tmp_path / f"{name}.log").read_text()
    assert all(fault.owner in owners for fault in found_of(stage)), "the healthy one never had the fault"


def found_of(stage: Stage) -> list[Fault]:
    with stage.database.read() as connection:
        return faults.query(connection, stream="plant")
