"""A rolling upgrade: processes of version 0.1.0 and of this version in one group on one database.

The order is that of the documentation: ``forewatch db upgrade`` while the old processes run, and then one
process after the other is replaced. The new ones read a copy of the config with ``decision: surprise``, which
the old ones refuse. Afterwards they are replaced by processes whose config does not have the key. The config
can also stay as it is all the time, at the price of learned state and of late alerts.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import distinct, func, select

from pipeline.alerts.outbox import encode_anomaly, encode_fault
from pipeline.core.types import AnomalyState, Fault, FaultKind, Partition
from storage.alerting import deliveries, outbox
from storage.alerting.states import DeliveryState
from storage.results import faults
from storage.tables.stream import PositionRow
from tests.faults.feed import make_log
from tests.faults.member import Member, wait_for
from tests.faults.stage import Stage
from tests.support.alerting import anomaly
from tests.support.kafka_server import Topics
from tests.support.receiver import Receiver

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

ROOT = Path(__file__).resolve().parents[2]
OLD = "c0e9772ab30e95585e8921d67ccd96ace1cd5640"
FOREWATCH = [sys.executable, "-c", "from pipeline.cli import main; main()"]
PARTITIONS = 2


@pytest.fixture(scope="session")
def old_code() -> Path:
    """The code of 0.1.0, in a folder that the next run finds again, with its compiled kernels."""
    folder = Path(tempfile.gettempdir()) / f"forewatch-{OLD[:7]}-{os.getuid()}"
    if not (folder / "pyproject.toml").exists():
        found = subprocess.run(["git", "-C", ROOT, "archive", OLD], capture_output=True, check=False)
        if found.returncode:
            pytest.skip(f"the history of this checkout lacks {OLD[:7]} (a shallow clone?)")
        folder.mkdir(mode=0o700, exist_ok=True)
        subprocess.run(["tar", "-x", "-C", folder], input=found.stdout, check=True)
    return folder


class OldMember:
    """A daemon of version 0.1.0."""

    def __init__(self, code: Path, config: Path, log: Path) -> None:
        self.log = log
        env = os.environ | {"PYTHONPATH": str(code), "NUMBA_CACHE_DIR": str(code / ".numba")}
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [*FOREWATCH, "run", str(config)], cwd=code, env=env, stdout=out, stderr=out
            )

    def leave(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log.read_text()[-3000:]


@pytest.fixture(params=[80, pytest.param(600, marks=pytest.mark.long)])
def stage(request, tmp_path: Path, topics: Topics, postgres_url: str) -> Iterator[Stage]:
    logs = [make_log(n, request.param, seed=5) for n in range(PARTITIONS)]
    made = Stage(
        tmp_path / "stage",
        topics,
        postgres_url,
        logs,
        alerts={"max_age": None, "storm": None, "budget": None},
    )
    yield made
    made.close()


def read_by_now(stage: Stage, share: float) -> None:
    stage.allow(share)
    stage.until_read(round(0.95 * sum(round(len(log.values) * share) for log in stage.logs)), 120)


@pytest.mark.parametrize("own_config", [True, False], ids=["own-config", "same-config"])
@pytest.mark.timeout(400)
def test_two_members_are_replaced_one_after_the_other(
    stage: Stage, old_code: Path, postgres_url: str, tmp_path: Path, own_config: bool
):
    with Receiver() as receiver:
        tree = json.loads(stage.config.read_text())
        tree["endpoints"] = {"hook": {"type": "json", "url": receiver.url, "allow": ["loopback"]}}
        stage.config.write_text(json.dumps(tree))
        old = [OldMember(old_code, stage.config, tmp_path / "old0.log")]
        # it creates the schema of 0.1.0 and compiles its kernels
        wait_for(lambda: "stream started" in old[0].log.read_text() or old[0].process.poll(), "started", 150)
        old.append(OldMember(old_code, stage.config, tmp_path / "old1.log"))
        try:
            began = time.monotonic()
            wait_for(lambda: owners(stage) == 2, "both own partitions", 120)
            read_by_now(stage, 0.2)
            stage.database.upgrade()
            read_by_now(stage, 0.3)  # the old members go on with the new schema
            without_key = stage.config
            if own_config:
                tree["streams"]["plant"]["decision"] = "surprise"
                stage.config = stage.config.with_name("surprise.yaml")
                stage.config.write_text(json.dumps(tree))
            new = [replace_member(stage, old[n].leave, share) for n, share in ((0, 0.45), (1, 0.6))]
            if own_config:
                stage.config = without_key
                for member, share in zip(new, (0.7, 0.8), strict=True):
                    replace_member(stage, member.leave, share)
            read_by_now(stage, 1.0)
            stage.until_drained()
            wait_for(lambda: not unfinished(stage), "every event is routed and delivered", 60, stage.say)
            print(f"{time.monotonic() - began:.1f} s from the second member to the end")
            stage.leave()
        finally:
            for one in old:
                one.process.kill()
                one.process.wait()
    logs = [member.output() for member in stage.members]
    assert any("is converted: usual ranges start empty" in log for log in logs)
    assert not any("series state is reset" in log for log in logs)
    if own_config:  # the old state goes on, and processes of both versions read the events of each other
        assert any("is converted to the form of this version" in log for log in logs[:2])
        assert not any("usual ranges start empty" in log for log in logs[:2])
        assert not any("state begins anew" in one.log.read_text() for one in old), "none came back to them"
        assert not any("delivery loop failed" in one.log.read_text() for one in old)
    figures = stage.account()
    # The backfill decides by usual ranges from its first row on, the members only at the end.
    others = ("anomaly ", "flags that differ", "scores that differ")
    assert [p for p in figures.problems if not p.startswith(others)] == []
    check_scores_by_surprise(stage, 0.55 if own_config else 0.25)
    assert (figures.lost, figures.twice) == (0, 0)
    for log in [one.log.read_text() for one in old] + logs:
        assert "Traceback" not in log or not own_config
        assert '"level": "error"' not in log or not own_config
    with stage.database.read() as connection:
        sent = Counter((d.kind, d.state) for d in deliveries.query(connection))
        assert all(fault.ended_ns for fault in faults.query(connection))
    opened, resolved = sent["opened", "delivered"], sent["resolved", "delivered"]
    assert opened == resolved > PARTITIONS
    assert {state for _, state in sent} == {"delivered"}
    assert {kind for kind, _ in sent} <= {"opened", "updated", "resolved", "revised"}
    assert all(anomaly.state is AnomalyState.CLOSED for anomaly in stage.anomalies())
    assert len(receiver.received) >= sum(sent.values())


def check_scores_by_surprise(stage: Stage, share: float) -> None:
    """Compare the scores before the change of the decision with a backfill by surprise."""
    _, _, wanted = stage.backfill("surprise", decision="surprise")
    found = stage.history()
    both = wanted.merge(found, on=["series", "time"], suffixes=("", "_found"))
    both = both[both["offset"] < share * len(stage.logs[0].values)]
    assert len(both) > share * len(stage.logs[0].values)
    # 0.1.0 rounds with the composition of a batch.
    assert (both["score"] - both["score_found"]).abs().max() <= 1e-3


def replace_member(stage: Stage, leave: Callable[[], None], share: float) -> Member:
    """Start a member while records up to ``share`` of each log arrive, and let another one leave."""
    stage.allow(share)
    member = stage.member()
    member.until(lambda: "stream started" in member.output(), "it has started")
    leave()
    member.until(lambda: bool(member.events("takeover")), "it owns partitions")
    read_by_now(stage, share)
    return member


def test_what_the_reader_of_0_1_0_can_read(old_code: Path):
    """A body that it refuses rolls its routing back: the event stays pending."""
    plain = anomaly()
    usual_range = replace(plain, ratio=2.0, every_ns=10**9)
    bodies = [
        ("anomaly", encode_anomaly(plain)),
        ("anomaly", encode_anomaly(usual_range)),
        ("fault", encode_fault(Fault("plant", FaultKind.SOURCE_DOWN, "away", 1, owner="me", partitions=[]))),
        ("fault", encode_fault(Fault("plant", FaultKind.DAMAGED_STATE, "page 1", 1, Partition("t", 0)))),
    ]
    script = """
import json, sys
from pipeline.alerts.outbox import decode_anomaly, decode_fault
readers = {"anomaly": decode_anomaly, "fault": decode_fault}
for kind, body in json.load(sys.stdin):
    try:
        readers[kind](body)
        print("read")
    except (TypeError, ValueError) as error:
        print("refused")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(bodies),
        env=os.environ | {"PYTHONPATH": str(old_code)},
        cwd=old_code,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["read", "refused", "read", "refused"]


def owners(stage: Stage) -> int:
    with stage.database.read() as connection:
        return connection.execute(select(func.count(distinct(PositionRow.owner)))).scalar_one()


def unfinished(stage: Stage) -> int:
    """Return the number of events that are not routed and deliveries that are not made."""
    with stage.database.read() as connection:
        waiting = deliveries.query(connection, state=DeliveryState.PENDING)
        return len(waiting) + len(outbox.pending(connection, "plant", 1000))
