"""Faults of several members of one stream: owners, leases, and the partitions that they silence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from pipeline.config.schema import Config
from pipeline.core.types import Fault, FaultKind, Partition
from pipeline.engine.engine import CHECK_SECONDS
from pipeline.engine.factory import build_engine
from pipeline.engine.fault_log import FaultLog
from pipeline.observability.metrics import Metrics, StreamMetrics
from pipeline.sources import make_source
from storage.results import faults
from storage.results.fault_leases import FAULT_LEASE_SECONDS
from storage.sql.database import Database
from tests.faults.feed import config_tree
from tests.support.alerting import NOON, RouterBench, anomaly

P0, P1 = Partition("plant", 0), Partition("plant", 1)
DOWN = FaultKind.SOURCE_DOWN


class Clock:
    """Monotonic clock that a test advances."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(postgres_url: str) -> Iterator[Database]:
    """A real PostgreSQL, the database of several members."""
    made = Database(postgres_url)
    made.upgrade()
    yield made
    made.close()


def member(database: Database, name: str, clock: Callable[[], float] = lambda: 0.0) -> FaultLog:
    return FaultLog("plant", database, StreamMetrics(Metrics(), "plant"), owner=name, monotonic=clock)


def stored(database: Database) -> list[tuple[str, bool]]:
    with database.read() as connection:
        return sorted((f.owner, f.ended_ns is None) for f in faults.query(connection, stream="plant"))


@pytest.mark.postgres
def test_a_stop_ends_the_faults_of_its_member_only(server: Database):
    broken, unlucky = member(server, "broken"), member(server, "unlucky")
    for one in (broken, unlucky):
        one.open(DOWN, "the brokers do not answer")
    assert stored(server) == [("broken", True), ("unlucky", True)]
    broken.end_all()
    assert stored(server) == [("broken", False), ("unlucky", True)]
    unlucky.close(DOWN)
    assert stored(server) == [("broken", False), ("unlucky", False)]


@pytest.mark.postgres
def test_a_fault_ends_with_the_lease_of_its_dead_member(server: Database, clock: Clock):
    dead, alive, healthy = (member(server, n, clock) for n in ("dead", "alive", "healthy"))
    for one in (dead, alive):
        one.open(DOWN, "the brokers do not answer")
    healthy.synchronise()
    clock.now = FAULT_LEASE_SECONDS - 1
    alive.synchronise()
    healthy.synchronise()
    assert stored(server) == [("alive", True), ("dead", True)]
    clock.now = FAULT_LEASE_SECONDS
    healthy.synchronise()
    assert stored(server) == [("alive", True), ("dead", False)]
    # It was frozen, not dead: the fault that it still has is opened again.
    dead.synchronise()
    assert stored(server) == [("alive", True), ("dead", False), ("dead", True)]


@pytest.mark.postgres
def test_rows_without_an_owner_end_when_a_member_knows_that_they_are_over(server: Database):
    healthy = member(server, "healthy")
    healthy.close(DOWN)
    healthy.resolve(P0)
    old = Fault("plant", DOWN, "of an earlier version", 1)
    with server.begin() as connection:
        faults.save(connection, old)
        faults.save(connection, Fault("plant", FaultKind.SCHEMA_BREAK, "mine", 1, P0))
        faults.save(connection, Fault("plant", FaultKind.SCHEMA_BREAK, "not mine", 1, P1))
    healthy.synchronise()
    with server.read() as connection:
        assert [f.message for f in faults.query(connection, stream="plant", open_only=True)] == ["not mine"]


def test_a_member_silences_only_the_partitions_that_it_owns(database: Database):
    bench = RouterBench(database, {"max_age": None})
    broken, other = member(database, "broken"), member(database, "other")
    broken.open(DOWN, "the brokers do not answer")
    bench.now_ns = NOON + 10**9 * 10**9  # after the fault, whose beginning is the real clock's
    bench.happen(anomaly(series="a"))
    bench.settle()
    assert bench.kinds() == ["opened"], "a member that owns nothing silences nothing"
    broken.resolve(anomaly().partition)
    broken.synchronise()
    bench.happen(anomaly(series="b"))
    bench.settle()
    assert bench.kinds() == ["opened"]
    other.resolve(anomaly().partition)
    other.write()
    bench.later(11)
    assert bench.kinds() == ["opened", "opened"], "the partition has another owner"


def test_a_partition_that_is_given_up_takes_its_faults_along(database: Database):
    one = member(database, "one")
    one.resolve(P0)
    one.open(FaultKind.SCHEMA_BREAK, "cannot be decoded", P0)
    one.release(P0)
    one.synchronise()
    assert stored(database) == [("one", False)]
    assert one.current == []


@pytest.mark.postgres
def test_a_member_with_a_wrong_broker_address_leaves_no_fault_behind(server: Database, postgres_url: str):
    config = Config.model_validate(
        config_tree(postgres_url, {"kafka": {"brokers": ["127.0.0.1:1"], "topics": ["plant"]}})
    )
    stream = config.streams["plant"]
    source = make_source("plant", stream.source, stream.format)
    engine = build_engine("plant", config, server, source, StreamMetrics(Metrics(), "plant"))
    end = time.monotonic() + 60
    while not stored(server) and time.monotonic() < end:
        engine.turn(0.1)
    end = time.monotonic() + CHECK_SECONDS + 2
    while time.monotonic() < end:  # neither a retry nor a check ends the fault and begins it again
        engine.turn(0.1)
    assert len(stored(server)) == 1
    with server.read() as connection:
        (fault,) = faults.query(connection, stream="plant", open_only=True)
    assert (fault.kind, fault.partitions) == (DOWN, []), "it owns no partition, so it silences none"
    engine.close()
    with server.read() as connection:
        assert faults.query(connection, stream="plant", open_only=True) == []
