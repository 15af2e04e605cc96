"""What can happen to deliveries: processes killed and frozen at every point, receivers that are dead for a
day, a million events.

Each ends with the ledger: every event and every delivery is accounted for, nothing is lost, order holds
within a series, and the only repetitions are those of an id whose answer was lost. What takes longer than a
few seconds (PostgreSQL's frozen and killed processes, which others bury after fifteen seconds; a million
events) is `long`: pytest tests/faults/test_delivery_faults.py -m "long or not long"
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from pipeline.alerts.delivery.loop import DeliveryLoop
from pipeline.alerts.delivery.retry import RETRY_DELAYS_SECONDS
from pipeline.alerts.metrics import AlertMetrics
from pipeline.alerts.routing.router import Router
from pipeline.config.alerts import AlertsConfig
from pipeline.config.stream_names import OPERATIONS_STREAM
from pipeline.observability.metrics import Metrics
from storage.alerting import deliveries, delivery_queue, outbox
from storage.sql.database import Database
from tests.integration.test_alerts_delivery import Driven, running
from tests.support.alerting import NOON, SECOND, RouterBench, anomaly, closed, json_endpoint
from tests.support.receiver import Received, Receiver, answer

on_sqlite_and_long_on_postgres = pytest.mark.parametrize(
    "database_url",
    ["sqlite", pytest.param("postgresql", marks=[pytest.mark.long, pytest.mark.postgres])],
    indirect=True,
)
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def worker(database: Database, receiver: Receiver, die: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A delivery process of its own."""
    url = database.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "tests.faults.alert_worker", url, receiver.url, die]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        process.wait(60)


def until(condition, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def delivered(database: Database) -> int:
    with database.read() as connection:
        return sum(
            n for (_, state, _), n in deliveries.count_by_state(connection).items() if state == "delivered"
        )


def accounted(database: Database) -> None:
    """The ledger adds up: events on one side, notices that stand for them on the other; nothing waits."""
    with database.read() as connection:
        events, sent = outbox.count_by_state(connection), deliveries.count_by_state(connection)
        created = connection.scalar(text("SELECT count(*) FROM alert_events"))
        queued = connection.scalar(text("SELECT count(*) FROM deliveries"))
        assert sum(events.values()) == created
        assert sum(sent.values()) == queued
        assert sum(
            n for (state, _), n in events.items() if state == "sent"
        ) == deliveries.count_notified_events(connection)
        assert {state for _, state, _ in sent} <= {"delivered", "pending", "dead", "suppressed"}


def ids(received: list[Received]) -> Counter[str]:
    return Counter(r.headers["webhook-id"] for r in received)


def in_order(received: list[Received]) -> None:
    """Within a series no message comes after a newer one."""
    last: dict[str, int] = {}
    for request in received:
        data = json.loads(request.body)["data"]
        key, sequence = data["dedup_key"], data["sequence"]
        assert sequence >= last.get(key, 0), f"{key}: {sequence} after {last[key]}"
        last[key] = sequence


def data_messages(received: list[Received]) -> list[Received]:
    """Return the messages about anomalies: a failing endpoint is also reported to the other endpoints."""
    return [one for one in received if json.loads(one.body)["data"]["class"] == "data"]


@on_sqlite_and_long_on_postgres
@pytest.mark.parametrize("die", ["before", "during", "after"])
def test_kill_9_of_the_delivery_process(database: Database, die: str):
    """The next process sends what the killed one had in hand; repeated are at most those whose answer was
    lost, with the same id.
    """
    bench = RouterBench(database, {"storm": None}, {"hook": json_endpoint()})
    for i in range(30):
        bench.happen(anomaly(f"b2/{i}"), closed(anomaly(f"b2/{i}")))
    slow = die == "during"

    async def linger(request: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30 if slow and len(receiver.received) >= 3 else 0)
        writer.write(answer())
        await writer.drain()

    with Receiver(linger) as receiver:
        with worker(database, receiver, die) as first:
            if die == "during":
                receiver.wait(3)
                first.kill()
            first.wait(120)
            assert first.returncode == -signal.SIGKILL
        before = list(receiver.received)
        slow = False
        receiver.behave = answer()
        with worker(database, receiver):
            until(lambda: delivered(database) == 60)
        received = receiver.received
    accounted(database)
    counts = ids(received)
    assert len(counts) == 60
    repeated = {identity for identity, n in counts.items() if n > 1}
    assert all(n <= 2 for n in counts.values())
    assert repeated <= set(ids(before))
    with database.read() as connection:
        repeats = connection.scalar(text("SELECT sum(repeats) FROM deliveries"))
    assert repeats >= len(repeated)
    in_order([r for r in received if r not in before])


@pytest.mark.long
@pytest.mark.postgres
def test_a_frozen_process_loses_its_lanes_and_does_no_harm_when_it_wakes(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    database = Database(postgres_url)
    database.upgrade()
    bench = RouterBench(database, {"storm": None}, {"hook": json_endpoint()})
    hold = True

    async def linger(request: Received, writer: asyncio.StreamWriter) -> None:
        while hold and len(receiver.received) <= 8:
            await asyncio.sleep(0.05)
        writer.write(answer())
        await writer.drain()

    with Receiver(linger) as receiver:
        with worker(database, receiver) as frozen:
            bench.happen(*(anomaly(f"b2/{i}") for i in range(20)))
            receiver.wait(8)
            frozen.send_signal(signal.SIGSTOP)
            receiver.behave = answer()
            with worker(database, receiver):
                until(lambda: delivered(database) == 20)
                hold = False
                frozen.send_signal(signal.SIGCONT)
                time.sleep(2.0)
                bench.happen(*(closed(anomaly(f"b2/{i}")) for i in range(20)))
                until(lambda: delivered(database) == 40)
        counts = ids(receiver.received)
    accounted(database)
    assert len(counts) == 40
    assert all(n <= 2 for n in counts.values())
    database.close()


@pytest.mark.postgres
@pytest.mark.parametrize("workers", [2, pytest.param(4, marks=pytest.mark.long)])
def test_several_processes_share_the_work_and_nothing_is_sent_twice(postgres_url: str, workers: int):
    database = Database(postgres_url)
    database.upgrade()
    bench = RouterBench(database, {"storm": None}, {"hook": json_endpoint()})
    rounds = 10 * workers
    with Receiver() as receiver:
        with ExitStack() as processes:
            for _ in range(workers):
                processes.enter_context(worker(database, receiver))
            for i in range(rounds):
                bench.happen(*(anomaly(f"b{i}/{j}") for j in range(5)))
                bench.happen(*(closed(anomaly(f"b{i}/{j}")) for j in range(5)))
            until(lambda: delivered(database) == 10 * rounds)
        counts = ids(receiver.received)
        in_order(receiver.received)
    accounted(database)
    assert len(counts) == 10 * rounds
    assert set(counts.values()) == {1}
    database.close()


@on_sqlite_and_long_on_postgres
@pytest.mark.parametrize("hours", [3, pytest.param(24, marks=pytest.mark.long)])
def test_an_endpoint_that_is_down_for_hours(database: Database, hours: int):
    """Simulated time: calls stay few, and afterwards everything comes, in order, at once."""

    async def scenario() -> None:
        ends = {"hook": json_endpoint(receiver.url), "other": json_endpoint(other.url)}
        driven = Driven(
            RouterBench(database, {"storm": None}, ends), ends, {"storm": None, "group": {"repeat": None}}
        )
        for hour in range(hours):
            one = anomaly(f"b2/{hour % 6}", start_ns=driven.bench.now_ns)
            driven.bench.happen(one)
            await driven.work(1800)
            driven.bench.happen(closed(one, end_ns=driven.bench.now_ns))
            await driven.work(1800)
        assert len(data_messages(other.received)) == 2 * hours
        assert len(receiver.received) < 6 * len(RETRY_DELAYS_SECONDS) + 48
        down = len(receiver.received)
        receiver.behave = answer()
        await driven.work(24 * 3600)
        came = data_messages(receiver.received[down:])
        assert len(ids(came)) == 2 * hours
        in_order(came)
        assert set(ids(came).values()) == {1}
        await driven.loop.close()

    with Receiver(answer(503)) as receiver, Receiver() as other:
        asyncio.run(scenario())
    accounted(database)


@on_sqlite_and_long_on_postgres
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("hours", [1, pytest.param(72, marks=pytest.mark.long)])
def test_an_endpoint_that_only_fails_is_disabled(database: Database, hours: int):
    async def scenario() -> None:
        ends = {
            "hook": json_endpoint(receiver.url, disable_after=f"{hours}h"),
            "other": json_endpoint(other.url),
        }
        driven = Driven(
            RouterBench(database, {"storm": None}, ends), ends, {"storm": None, "group": {"repeat": None}}
        )
        for i in range(5):
            driven.bench.happen(*(anomaly(f"b2/{i}-{j}", start_ns=driven.bench.now_ns) for j in range(8)))
            await driven.work(hours * 1200)
        calls = len(receiver.received)
        driven.bench.happen(anomaly("b2/last", start_ns=driven.bench.now_ns))
        await driven.work(hours * 1200)
        assert len(receiver.received) == calls
        faults = [
            json.loads(r.body)["data"]
            for r in other.received
            if json.loads(r.body)["data"]["class"] == "fault"
        ]
        failed_for = "1h" if hours == 1 else "3d"
        messages = [fault["fault"]["message"] for fault in faults]
        assert "endpoint hook has failed every attempt for" in messages[0]
        assert any(f"is disabled: every attempt failed for {failed_for}" in message for message in messages)
        await driven.loop.close()

    with Receiver(answer(500)) as receiver, Receiver() as other:
        asyncio.run(scenario())
    accounted(database)


@on_sqlite_and_long_on_postgres
@pytest.mark.parametrize("jump", [-3600, 3600], ids=["back", "ahead"])
def test_a_clock_that_jumps_loses_and_repeats_nothing(database: Database, jump: int):
    async def scenario() -> None:
        ends = {"hook": json_endpoint(receiver.url)}
        driven = Driven(RouterBench(database, {"storm": None}, ends), ends)
        driven.bench.happen(*(anomaly(f"b2/{i}") for i in range(5)))
        await driven.work(1)
        driven.bench.now_ns += jump * SECOND
        driven.bench.happen(*(closed(anomaly(f"b2/{i}")) for i in range(5)))
        await driven.work(7200)
        assert set(ids(receiver.received).values()) == {1}
        assert len(ids(receiver.received)) == 10
        in_order(receiver.received)
        await driven.loop.close()

    with Receiver() as receiver:
        asyncio.run(scenario())
    accounted(database)


@pytest.mark.postgres
def test_the_database_goes_away_and_comes_back(faulty_postgres):
    from tests.support.postgres_server import create_database

    database = Database(create_database(faulty_postgres))
    database.upgrade()
    bench = RouterBench(database, {"storm": None}, {"hook": json_endpoint()})
    with Receiver() as receiver, worker(database, receiver):
        bench.happen(*(anomaly(f"b2/{i}") for i in range(5)))
        receiver.wait(5)
        faulty_postgres.stop()
        time.sleep(2)
        faulty_postgres.start()
        until(lambda: _happens(bench, *(closed(anomaly(f"b2/{i}")) for i in range(5))))
        receiver.wait(10)
        until(lambda: delivered(database) == 10)
        assert all(n <= 2 for n in ids(receiver.received).values())
    accounted(database)
    database.close()


def _happens(bench: RouterBench, *changes) -> bool:
    from pipeline.core.errors import StorageUnavailable

    try:
        bench.happen(*changes)
    except StorageUnavailable:
        return False
    return True


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("backlog", [5_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_events_against_a_dead_endpoint_need_no_memory_and_delay_no_other(tmp_path: Path, backlog: int):
    database = Database(f"sqlite:///{tmp_path}/backlog.db")
    database.upgrade()
    fill_backlog(database, backlog)

    async def scenario() -> tuple[int, float]:
        ends = {"dead": json_endpoint("http://127.0.0.1:1/x"), "well": json_endpoint(well.url)}
        router = Router(
            {"plant": AlertsConfig(storm=None, max_age=None), OPERATIONS_STREAM: AlertsConfig()}, ends
        )
        loop = DeliveryLoop(database, router, ends, AlertMetrics(Metrics()))
        bench = RouterBench(database, {"storm": None}, ends)
        await loop.run_cycle()
        before, slowest = resident(), 0.0
        for i in range(20):
            bench.happen(anomaly(f"new/{i}"))
            began = time.monotonic()
            while len(well.received) <= i:
                await loop.run_cycle()
                await asyncio.sleep(0.005)
                assert time.monotonic() - began < 30
            slowest = max(slowest, time.monotonic() - began)
        grown = resident() - before
        await loop.close()
        return grown, slowest

    with Receiver() as well:
        grown, slowest = asyncio.run(scenario())
        assert len(well.received) == 20
    print(
        f"{backlog:,} deliveries wait for a dead endpoint: {grown / 1e6:.1f} MB more memory, slowest other delivery {slowest:.3f} s"
    )
    assert grown < 40_000_000
    accounted(database)
    database.close()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("burst", [1_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_burst_neither_blocks_the_engine_nor_floods_a_receiver(database: Database, burst: int):
    """The engine commits all of them in batches while the loop delivers; each commit stays short, and the
    receiver hears of a storm.
    """
    longest = 0.0
    with Receiver() as receiver:
        ends = {"hook": json_endpoint(receiver.url)}
        bench = RouterBench(database, {}, ends)
        with running(bench, ends):
            for start in range(0, burst, 500):
                changes = [anomaly(f"b{i % 20}/{i}") for i in range(start, min(start + 500, burst))]
                began = time.monotonic()
                bench.happen_at_once(changes)
                longest = max(longest, time.monotonic() - began)
            until(lambda: bench.ledger().get("pending", 0) == 0, 1800)
        print(
            f"{burst:,} anomalies: longest commit of 500 {longest:.3f} s, {len(receiver.received)} messages"
        )
        assert longest < 10
        assert len(receiver.received) < 100
        in_order(receiver.received)
    accounted(database)


def resident() -> int:
    """Bytes of this process in memory."""
    return psutil.Process().memory_info().rss


def fill_backlog(database: Database, count: int) -> None:
    """Deliveries to the endpoint ``dead``, over a tenth as many series."""
    from uuid import UUID, uuid5

    from pipeline.core.types import NAMESPACE
    from tests.contract.test_alerts_formats import encode, payload

    body = encode(payload("opened")).decode()
    for start in range(0, count, 10_000):
        notifications, queued = [], []
        for i in range(start, min(start + 10_000, count)):
            notice, queue = uuid5(NAMESPACE, f"backlog {i}"), f"plant/old-{i % max(count // 10, 1)}"
            notifications.append(
                deliveries.Notification(notice, notice, "plant", queue, i + 1, "opened", 0, body, NOON)
            )
            common = (
                UUID(int=notice.int ^ 1),
                notice,
                notice,
                "dead",
                queue,
                i + 1,
                "opened",
                "pending",
                None,
                0,
                0,
                NOON,
                None,
            )
            queued.append(deliveries.Delivery(*common))
        with database.begin() as connection:
            delivery_queue.add(connection, notifications, queued, NOON)
