"""Damaged rows and hostile answers: they cost one message at most, and never the alerts of others."""

from __future__ import annotations

import asyncio
import json
from uuid import UUID

import pytest
from sqlalchemy import update

from pipeline.alerts.delivery.loop import DeliveryLoop
from pipeline.alerts.metrics import AlertMetrics
from pipeline.alerts.outbox import OutboxWriter, encode_anomaly
from pipeline.alerts.routing.router import Router
from pipeline.config.alerts import AlertsConfig
from pipeline.observability.metrics import Metrics
from storage.alerting import deliveries, outbox
from storage.alerting.states import DeliveryState, EventKind
from storage.sql.database import Database
from storage.tables.alerting import AlertMemberRow, NotificationRow
from tests.integration.test_alerts_delivery import Driven
from tests.support.alerting import RouterBench, anomaly, closed, json_endpoint
from tests.support.receiver import Receiver, answer

GOOD = json.loads(encode_anomaly(anomaly("b2/other")))
DAMAGED_BODIES = (
    "",
    "not json",
    "[]",
    "{}",
    '{"schema": 99}',
    json.dumps(GOOD | {"state": "floating"}),
    json.dumps(GOOD | {"id": 7}),
    json.dumps(GOOD | {"partition": "sensors"}),
    json.dumps(GOOD | {"points": "three"}),
    json.dumps(GOOD | {"channels": []}),
    json.dumps(GOOD | {"observed": [1.0]}),
    json.dumps(GOOD | {"labels": {"site": None}}),
)


def test_an_event_that_cannot_be_read_delays_no_other(database: Database) -> None:
    bench = RouterBench(database)
    kinds = (EventKind.ANOMALY, EventKind.FAULT)
    with database.begin() as connection:
        outbox.add_events(
            connection,
            [
                outbox.OutboxEvent(UUID(int=i), "plant", kinds[i % 2], UUID(int=900 + i), body, bench.now_ns)
                for i, body in enumerate([*DAMAGED_BODIES, *DAMAGED_BODIES[1:]])
            ],
        )
    bench.happen(anomaly("b2/t1"))
    bench.settle()
    assert [p.kind for p in bench.sent()] == ["opened"]
    assert bench.ledger() == {"sent": 1, "unreadable": 2 * len(DAMAGED_BODIES) - 1}


def test_a_stream_that_cannot_be_routed_delays_no_other(database: Database) -> None:
    """A member of an alert is damaged: its alert cannot be composed any more."""

    async def scenario() -> None:
        with Receiver() as receiver:
            ends = {"hook": json_endpoint(receiver.url)}
            bench = RouterBench(database, endpoints=ends)
            config = AlertsConfig.model_validate({"max_age": None})
            router = Router({"plant": config, "mill": config}, ends)
            driven = Driven(bench, ends)
            driven.loop = DeliveryLoop(
                database, router, ends, AlertMetrics(Metrics()), clock=lambda: bench.now_ns
            )
            with database.begin() as connection:
                outbox.ensure_streams(connection, router.streams)
            bad = anomaly("b2/a")
            bench.happen(bad)
            await driven.work(1)
            assert len(receiver.received) == 1
            with database.begin() as connection:
                connection.execute(update(AlertMemberRow).values(body="{}"))
            bench.happen(closed(bad))
            with database.begin() as connection:
                opened = [anomaly(f"b2/{i}", stream="mill") for i in range(3)]
                OutboxWriter("mill", enabled=True).on_changes(connection, opened, bench.now_ns)
            await driven.work(600)
            names = [json.loads(r.body)["data"]["stream"] for r in receiver.received[1:]]
            assert names.count("mill") == 3
            await driven.loop.close()

    asyncio.run(scenario())


ANSWERS = {
    "a date beyond the year 9999": answer(429, retry_after="Wed, 21 Oct 99999999999999999999 07:28:00 GMT"),
    "a zone beyond a day": answer(503, retry_after="Wed, 21 Oct 2015 07:28:00 +99999999999999999999"),
    "NUL": answer(500, b"\x00\xff\xfe\x00"),
    "another protocol": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "a status of two digits": b"HTTP/1.1 99 X\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 X\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    "a switch of protocols": b"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    "a chunk without a length": b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\nabc",
}


@pytest.mark.parametrize("name", ANSWERS)
def test_after_any_answer_a_delivery_is_tried_again(database: Database, name: str) -> None:
    async def scenario() -> None:
        with Receiver(ANSWERS[name]) as receiver:
            ends = {"hook": json_endpoint(receiver.url, in_flight=1, timeout="2s")}
            driven = Driven(RouterBench(database, endpoints=ends), ends)
            driven.bench.happen(anomaly("b2/a"), anomaly("b2/b"))
            await driven.work(0)
            receiver.behave = answer()
            await driven.work(660)
            with database.read() as connection:
                delivered = deliveries.query(connection, state=DeliveryState.DELIVERED)
            assert len(delivered) == 2
            await driven.loop.close()

    asyncio.run(scenario())


def test_a_message_that_cannot_be_read_delays_no_other_queue(database: Database) -> None:
    async def scenario() -> None:
        with Receiver() as receiver:
            ends = {"hook": json_endpoint(receiver.url, in_flight=1)}
            bench = RouterBench(database, endpoints=ends)
            driven = Driven(bench, ends)
            bench.happen(anomaly("b2/a"))
            bench.settle()
            with database.begin() as connection:
                connection.execute(update(NotificationRow).values(body='{"type": "of a later version"}'))
            bench.happen(anomaly("b2/b"))
            await driven.work(60)
            assert len(receiver.received) == 1
            with database.read() as connection:
                states = {d.state for d in deliveries.query(connection)}
            assert states == {DeliveryState.DELIVERED, DeliveryState.PENDING}
            await driven.loop.close()

    asyncio.run(scenario())
