"""The broker, the database and the answer to a COMMIT go away and come back: the daemon waits, keeps its
place, and goes on by itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from pipeline.core.types import Fault, FaultKind
from storage.results import faults
from storage.sql.database import Database
from tests.faults.feed import Log, make_log
from tests.faults.member import wait_for
from tests.faults.stage import SESSION_S, Stage
from tests.support.commit_proxy import CommitProxy
from tests.support.kafka_server import FaultyBroker, Topics
from tests.support.postgres_server import PostgresServer, create_database

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    stages: list[Stage] = []

    def one(topics: Topics, database: str, logs: Sequence[Log], **changes) -> Stage:
        stages.append(Stage(tmp_path / f"stage{len(stages)}", topics, database, logs, **changes))
        return stages[-1]

    yield one
    for stage in stages:
        stage.close()


@pytest.fixture
def logs() -> list[Log]:
    return [make_log(n, 150, seed=3) for n in range(2)]


def found(stage: Stage, kind: FaultKind) -> list[Fault]:
    with stage.database.read() as connection:
        return [fault for fault in faults.query(connection, stream="plant") if fault.kind is kind]


def until_some_read(stage: Stage, share: float) -> None:
    """Let that share of the records in, and wait until it is committed and the sender idle."""
    stage.allow(share)
    stage.until_read(sum(round(len(log.values) * share) for log in stage.logs))
    wait_for(lambda: stage.sent == [round(len(log.values) * share) for log in stage.logs], "sent")


def check(stage: Stage) -> None:
    stage.until_drained()
    stage.leave()
    figures = stage.account()
    assert figures.problems == []
    assert (figures.lost, figures.twice) == (0, 0)


@pytest.mark.parametrize(
    "outages",
    [("kill", "freeze"), pytest.param(("down", "kill", "freeze"), marks=pytest.mark.long)],
    ids="-".join,
)
def test_the_broker_stops_dies_freezes_and_comes_back(
    make, faulty_broker: FaultyBroker, schema_url: str, logs, outages: tuple[str, ...]
):
    """For a daemon, a broker that stops is gone as one that dies: the short run leaves it out."""
    topics = Topics(faulty_broker.address)
    stage = make(topics, schema_url, logs)
    member = stage.member()
    for number, outage in enumerate(outages):
        until_some_read(stage, 0.2 * (number + 1))
        getattr(faulty_broker, outage)()
        if outage != "freeze":
            ended = len([f for f in found(stage, FaultKind.SOURCE_DOWN) if f.ended_ns])
            member.until(lambda n=ended: len(found(stage, FaultKind.SOURCE_DOWN)) > n, "the fault", 120)
        else:
            time.sleep(SESSION_S + 1)
            faulty_broker.thaw()
        faulty_broker.up()
        assert member.exitcode is None
    check(stage)
    assert all(fault.ended_ns for fault in found(stage, FaultKind.SOURCE_DOWN)), "it is over"
    topics.close()


def test_the_database_stops_and_starts(make, topics: Topics, faulty_postgres: PostgresServer, logs):
    url = create_database(faulty_postgres)
    database = Database(url)
    database.upgrade()
    stage = make(topics, url, logs)
    member = stage.member()
    until_some_read(stage, 0.3)
    for share in (0.5, 0.7):
        epochs = {n: p.epoch for n, p in stage.positions().items()}
        faulty_postgres.stop()
        stage.allow(share)  # records go on coming
        memory = psutil.Process(member._process.pid).memory_info().rss
        time.sleep(SESSION_S + 2)
        assert member.exitcode is None
        assert psutil.Process(member._process.pid).memory_info().rss < memory + 50e6
        assert stage.read() == -1
        faulty_postgres.start()
        until_some_read(stage, share)
        assert {n: p.epoch for n, p in stage.positions().items()} == epochs, (
            "it polled on: the group never took its partitions away"
        )
        member.until(
            lambda: (
                bool(found(stage, FaultKind.DATABASE_DOWN))
                and all(f.ended_ns for f in found(stage, FaultKind.DATABASE_DOWN))
            ),
            "over",
        )
    check(stage)
    database.close()


def test_a_commit_without_an_answer(make, topics: Topics, schema_url: str, logs):
    with CommitProxy(schema_url) as proxy:
        rare = {"snapshot_every": "1h"}  # the end of a revision would wait for a snapshot
        stage = make(topics, proxy.url, logs, storage=rare, engine={"max_batch": 60}, revise="0s")
        stage.member()
        for i in range(1, 13):
            proxy.lose = "reply" if i % 2 else "request"
            until_some_read(stage, i / 14)
            assert proxy.lost >= i, "the connection was cut"
        check(stage)
        assert {p.epoch for p in stage.positions().values()} == {1}, "no partition changed its owner"


@pytest.mark.timeout(200)
def test_members_join_and_leave_under_load(make, topics: Topics, schema_url: str):
    stage = make(topics, schema_url, [make_log(n, 150, seed=4) for n in range(6)])

    def owners() -> int:
        with stage.database.read() as connection:
            return len({str(row[0]) for row in connection.exec_driver_sql("SELECT owner FROM positions")})

    stage.allow(0.1)
    one = stage.member()
    stage.until_read(1)
    two = stage.member()
    wait_for(lambda: owners() == 2, "two members share", 60, stage.say)
    stage.allow(0.4)
    three = stage.member()
    wait_for(lambda: owners() == 3, "three members share", 60, stage.say)
    stage.allow(0.6)
    two.leave()
    wait_for(
        lambda: f"{os.uname().nodename}:{two._process.pid}" not in _owner_names(stage),
        "the others took over",
        60,
        stage.say,
    )
    stage.allow(0.8)
    stage.member()
    one.leave()
    check(stage)
    assert three.exitcode == 0
    assert stage.figures.fenced == 0, "who leaves properly is never fenced"


def _owner_names(stage: Stage) -> set[str]:
    with stage.database.read() as connection:
        return {str(row[0]) for row in connection.exec_driver_sql("SELECT owner FROM positions")}


def test_a_topic_made_again(make, topics: Topics, schema_url: str, logs):
    stage = make(topics, schema_url, logs[:1])
    member = stage.member()
    until_some_read(stage, 1.0)
    before = stage.positions()[0]
    again = make_log(0, 60, seed=9)
    topics.recreate(stage.topic)
    topics.produce(stage.topic, again.values)
    member.until(lambda: bool(found(stage, FaultKind.TOPIC_RECREATED)), "the fault", 60)
    # A rebalance between the deletion and the new log releases the partition and ends its fault.
    assert [fault.ended_ns for fault in found(stage, FaultKind.TOPIC_RECREATED)].count(None) == 1
    member.leave()
    assert stage.positions()[0].next_offset == before.next_offset, "on_gap: fail reads nothing of it"
    stage.kafka["on_gap"] = "resume-earliest"
    stage.config = stage.write_config("live", schema_url)
    stage.member()
    wait_for(
        lambda: stage.positions()[0].next_offset == len(again.values), "the new log is read", 60, stage.say
    )
    stage.leave()
    after = stage.positions()[0]
    assert after.counts.read() == len(again.values)
    assert after.identity != before.identity
    assert not [f for f in found(stage, FaultKind.TOPIC_RECREATED) if f.ended_ns is None]


def test_a_position_older_than_retention(make, topics: Topics, schema_url: str, logs):
    stage = make(topics, schema_url, logs[:1])
    stage.member()
    until_some_read(stage, 0.5)
    stage.leave()
    half, log = stage.positions()[0], logs[0]
    stage.allow(1.0)
    wait_for(lambda: stage.sent == [len(log.values)], "sent")
    beginning = half.next_offset + 70
    topics.trim(stage.topic, 0, beginning)
    member = stage.member()
    member.until(lambda: bool(found(stage, FaultKind.RETENTION_GAP)), "the fault", 60)
    member.leave()
    (fault,) = found(stage, FaultKind.RETENTION_GAP)
    assert f"{half.next_offset} … {beginning - 1}" in fault.message
    assert stage.positions()[0].next_offset == half.next_offset
    stage.kafka["on_gap"] = "resume-earliest"
    stage.config = stage.write_config("live", schema_url)
    stage.member()
    wait_for(lambda: stage.positions()[0].next_offset == len(log.values), "it goes on", 60, stage.say)
    stage.leave()
    counts = stage.positions()[0].counts
    assert counts.filtered == 70 + half.counts.buffered
    assert counts.read() == len(log.values)
    assert (
        counts.dead_lettered
        == log.counts()["dead_lettered"]
        - (log.counts(beginning) - log.counts(half.next_offset))["dead_lettered"]
    )
    assert not [f for f in found(stage, FaultKind.RETENTION_GAP) if f.ended_ns is None]
