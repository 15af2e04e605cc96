"""Delivery to real local receivers, on both databases: the whole way from an anomaly to a verified webhook,
and everything that goes wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from standardwebhooks import Webhook

from pipeline.alerts.delivery.loop import DeliveryLoop
from pipeline.alerts.delivery.retry import RETRY_DELAYS_SECONDS
from pipeline.alerts.metrics import AlertMetrics
from pipeline.alerts.routing.router import Router
from pipeline.alerts.transport.signing import new_secret
from pipeline.config.alerts import AlertsConfig
from pipeline.config.endpoints import EndpointConfig
from pipeline.config.stream_names import OPERATIONS_STREAM
from pipeline.observability.metrics import Metrics
from storage.alerting import alerts, deliveries, delivery_queue, endpoint_queues, endpoints
from storage.sql.database import Database
from storage.tables.alerting import DeliveryQueueRow
from tests.support.alerting import SECOND, RouterBench, anomaly, closed, endpoint, json_endpoint
from tests.support.receiver import Received, Receiver, answer


@contextlib.contextmanager
def running(bench: RouterBench, ends: dict[str, EndpointConfig]) -> Iterator[DeliveryLoop]:
    """A delivery loop in a thread, as in the daemon."""
    stop = threading.Event()
    loop = DeliveryLoop(bench.database, router_of(ends), ends, AlertMetrics(Metrics()))
    thread = threading.Thread(target=loop.run, args=(stop,))
    thread.start()
    try:
        yield loop
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()


def router_of(ends: dict[str, EndpointConfig], config: dict[str, Any] | None = None) -> Router:
    return Router(
        {
            "plant": AlertsConfig.model_validate({"max_age": None} | (config or {})),
            OPERATIONS_STREAM: AlertsConfig(),
        },
        ends,
    )


class Driven:
    """A delivery loop that is turned by hand, on the bench's clock."""

    def __init__(
        self, bench: RouterBench, ends: dict[str, EndpointConfig], config: dict[str, Any] | None = None
    ) -> None:
        self.bench, self.metrics = bench, Metrics()
        self.loop = DeliveryLoop(
            bench.database,
            router_of(ends, config),
            ends,
            AlertMetrics(self.metrics),
            clock=lambda: bench.now_ns,
        )

    async def work(self, seconds: float = 0) -> None:
        """Let time pass, from one timer to the next; at each do what is due."""
        end = self.bench.now_ns + round(seconds * SECOND)
        await self._now()
        while (due := self._next()) is not None and due <= end:
            self.bench.now_ns = due
            await self._now()
        self.bench.now_ns = end
        await self._now()

    async def _now(self) -> None:
        while await self.loop.run_cycle():
            await self.loop.finish_calls()

    def _next(self) -> int | None:
        """The first timer that lies ahead: of a lane, of an alert, of an endpoint that wants quiet or has a
        rate.
        """
        health = self.loop._health
        pauses = [h.state.quiet_until_ns or 0 for h in health.values()] + [
            h.next_send_ns for h in health.values()
        ]
        with self.bench.database.read() as connection:
            free = (
                select(func.min(DeliveryQueueRow.due_ns))
                .where(DeliveryQueueRow.owner.is_(None))
                .group_by(DeliveryQueueRow.endpoint)
            )
            queues = [due or 0 for due in connection.scalars(free)]
            alerts_due = [a.flush_ns or 0 for a in alerts.query(connection)]
        return min((t for t in [*pauses, *queues, *alerts_due] if t > self.bench.now_ns), default=None)


def series_of(request: Received) -> str:
    return str(json.loads(request.body)["data"]["anomalies"][0]["series"])


def states(database: Database) -> dict[str, int]:
    with database.read() as connection:
        found: dict[str, int] = {}
        for (_, state, reason), count in deliveries.count_by_state(connection).items():
            found[reason or state] = found.get(reason or state, 0) + count
        return found


def test_a_signed_webhook_arrives_and_verifies_with_the_library_alone(database: Database, tmp_path: Path):
    secret = new_secret()
    (tmp_path / "secret").write_text(secret + "\n")
    with Receiver() as receiver:
        ends = {
            "hook": endpoint(
                type="webhook", url=receiver.url, secret={"file": tmp_path / "secret"}, allow=["loopback"]
            )
        }
        bench = RouterBench(database, endpoints=ends)
        with running(bench, ends):
            bench.happen(anomaly())
            receiver.wait(1)
            bench.happen(closed(anomaly()))
            received = receiver.wait(2)
    bodies = [Webhook(secret).verify(r.body, r.headers) for r in received]
    assert [b["type"] for b in bodies] == ["alert.opened.v1", "alert.resolved.v1"]
    assert received[0].headers["webhook-id"] != received[1].headers["webhook-id"]
    assert states(database) == {"delivered": 2}


def test_two_signatures_while_the_secret_is_exchanged_and_a_new_file_is_used_at_once(
    database: Database, tmp_path: Path
):
    old, new = new_secret(), new_secret()
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(new)
    second.write_text(old)
    with Receiver() as receiver:
        ends = {
            "hook": endpoint(
                type="webhook",
                url=receiver.url,
                secret=[{"file": first}, {"file": second}],
                allow=["loopback"],
            )
        }
        bench = RouterBench(database, endpoints=ends)
        with running(bench, ends):
            bench.happen(anomaly())
            (request,) = receiver.wait(1)
            Webhook(old).verify(request.body, request.headers)
            Webhook(new).verify(request.body, request.headers)
            newest = new_secret()
            first.write_text(newest)
            bench.happen(closed(anomaly()))
            Webhook(newest).verify(receiver.wait(2)[1].body, receiver.received[1].headers)


def test_a_failed_delivery_is_retried_with_the_same_id_and_a_new_time_and_signature(
    database: Database, tmp_path: Path
):
    secret = new_secret()
    (tmp_path / "secret").write_text(secret)

    async def scenario() -> None:
        with Receiver(answer(500, b"no")) as receiver:
            ends = {
                "hook": endpoint(
                    type="webhook", url=receiver.url, secret={"file": tmp_path / "secret"}, allow=["loopback"]
                )
            }
            driven = Driven(RouterBench(database, endpoints=ends), ends)
            driven.bench.happen(anomaly())
            await driven.work()
            await driven.work(4)
            assert len(receiver.received) == 1
            await driven.work(2)
            assert len(receiver.received) == 2
            receiver.behave = answer()
            await driven.work(400)
            one, two, three = receiver.received
            assert one.headers["webhook-id"] == two.headers["webhook-id"] == three.headers["webhook-id"]
            assert one.headers["webhook-signature"] != two.headers["webhook-signature"]
            assert int(two.headers["webhook-timestamp"]) - int(one.headers["webhook-timestamp"]) in (4, 5, 6)
            assert one.body == three.body
            await driven.loop.close()

    asyncio.run(scenario())
    with database.read() as connection:
        (delivery,) = deliveries.query(connection)
        attempts = deliveries.attempts_of(connection, delivery.id)
    assert (delivery.state, delivery.attempts) == ("delivered", 3)
    assert [(a["outcome"], a["status"], a["answer"]) for a in attempts] == [
        ("failed", 500, "no"),
        ("failed", 500, "no"),
        ("delivered", 200, "ok"),
    ]


def test_after_the_whole_schedule_a_delivery_is_dead_and_can_be_redelivered(database: Database):
    async def scenario() -> None:
        with Receiver(answer(500)) as receiver:
            ends = {"hook": json_endpoint(receiver.url, disable_after="30d")}
            driven = Driven(RouterBench(database, endpoints=ends), ends, {"group": {"repeat": None}})
            driven.bench.happen(anomaly())
            await driven.work()
            await driven.work(sum(RETRY_DELAYS_SECONDS) * 1.12)
            assert len(receiver.received) == len(RETRY_DELAYS_SECONDS) + 1
            assert states(database) == {"attempts": 1}
            await driven.work(3600 * 24)
            assert len(receiver.received) == len(RETRY_DELAYS_SECONDS) + 1
            receiver.behave = answer()
            with database.begin() as connection:
                (delivery,) = deliveries.query(connection)
                assert delivery_queue.redeliver(connection, [delivery.id], driven.bench.now_ns) == [
                    delivery.id
                ]
            await driven.work()
            assert states(database) == {"delivered": 1}
            assert receiver.received[0].headers["webhook-id"] == receiver.received[-1].headers["webhook-id"]
            await driven.loop.close()

    asyncio.run(scenario())


def test_an_older_event_is_not_redelivered_after_a_newer_one(database: Database):
    async def scenario() -> None:
        with Receiver(answer(500)) as receiver:
            ends = {"hook": json_endpoint(receiver.url, disable_after="30d")}
            driven = Driven(RouterBench(database, endpoints=ends), ends)
            driven.bench.happen(anomaly())
            await driven.work()
            with database.begin() as connection:
                (first,) = deliveries.query(connection)
                endpoint_queues.finish_pending(connection, "hook", "dead", "attempts", driven.bench.now_ns)
            receiver.behave = answer()
            driven.bench.happen(closed(anomaly()))
            await driven.work(10)
            with database.begin() as connection:
                assert delivery_queue.redeliver(connection, [first.id], driven.bench.now_ns) == []
                assert delivery_queue.redeliver(connection, [first.id], driven.bench.now_ns, force=True) == [
                    first.id
                ]
            await driven.loop.close()

    asyncio.run(scenario())


def test_order_holds_within_a_series_and_a_stuck_series_does_not_hold_up_others(database: Database):
    def behave(request: Received) -> bytes:
        stuck = [r for r in receiver.received if series_of(r) == "b2/stuck"]
        return answer(500) if series_of(request) == "b2/stuck" and len(stuck) < 4 else answer()

    async def scenario() -> None:
        ends = {"hook": json_endpoint(receiver.url)}
        driven = Driven(RouterBench(database, endpoints=ends), ends, {"storm": None})
        driven.bench.happen(
            anomaly("b2/stuck"), closed(anomaly("b2/stuck")), *(anomaly(f"b2/{i}") for i in range(20))
        )
        await driven.work()
        await driven.work(60 * 60)
        await driven.loop.close()

    with Receiver(behave) as receiver:
        asyncio.run(scenario())
        stuck = [(json.loads(r.body)["type"], r.at) for r in receiver.received if series_of(r) == "b2/stuck"]
        others = [r.at for r in receiver.received if series_of(r) != "b2/stuck"]
    assert [kind for kind, _ in stuck] == ["alert.opened.v1"] * 4 + ["alert.resolved.v1"]
    assert max(others) < stuck[1][1]
    assert states(database) == {"delivered": 22}


def test_redirects_are_failures_and_not_followed(database: Database):
    async def scenario() -> None:
        with Receiver() as target, Receiver(answer(302, location=target.url)) as receiver:
            ends = {"hook": json_endpoint(receiver.url)}
            driven = Driven(RouterBench(database, endpoints=ends), ends)
            driven.bench.happen(anomaly())
            await driven.work()
            assert (len(receiver.received), len(target.received)) == (1, 0)
            assert states(database) == {"pending": 1}
            await driven.loop.close()

    asyncio.run(scenario())


def test_410_disables_the_endpoint_and_says_so_elsewhere(database: Database):
    async def scenario() -> None:
        with Receiver(answer(410)) as gone, Receiver() as other:
            ends = {"gone": json_endpoint(gone.url), "other": json_endpoint(other.url)}
            driven = Driven(RouterBench(database, endpoints=ends), ends)
            driven.bench.happen(anomaly("b2/a"), anomaly("b2/b"))
            await driven.work()
            await driven.work(3)
            assert len(gone.received) <= 2
            operational = [
                json.loads(r.body) for r in other.received if json.loads(r.body)["data"]["class"] == "fault"
            ]
            assert operational[0]["data"]["fault"]["kind"] == "endpoint_failing"
            assert "gone" in operational[0]["data"]["fault"]["message"]
            before = len(gone.received)
            driven.bench.happen(anomaly("b2/c"))
            await driven.work(10)
            assert len(gone.received) == before
            with database.begin() as connection:
                assert endpoints.enable(connection, "gone")
            gone.behave = answer()
            driven.bench.happen(anomaly("b2/d"))
            await asyncio.sleep(1.1)  # the loop learns of it within a second
            await driven.work(10)
            assert len(gone.received) == before + 1
            await driven.loop.close()
            counted = driven.metrics.registry.get_sample_value(
                "forewatch_deliveries_total", {"endpoint": "gone", "state": "dead"}
            )
            assert counted is not None
            assert counted >= 1

    asyncio.run(scenario())
    with database.read() as connection:
        ledger = deliveries.count_by_state(connection)
        dead = deliveries.query(connection, endpoint="gone", state="dead")
    assert ledger["gone", "dead", "endpoint disabled"] == len(dead) >= 3
    assert {key for key in ledger if key[0] == "gone"} == {
        ("gone", "dead", "endpoint disabled"),
        ("gone", "delivered", None),
    }


def test_what_was_queued_for_a_disabled_endpoint_is_redelivered(database: Database):
    async def scenario() -> None:
        with Receiver(answer(410)) as gone:
            ends = {"gone": json_endpoint(gone.url)}
            driven = Driven(RouterBench(database, endpoints=ends), ends)
            driven.bench.happen(anomaly("b2/a"))
            await driven.work(3)
            driven.bench.happen(anomaly("b2/b"))
            await driven.work(3)
            gone.behave = answer()
            with database.begin() as connection:
                assert endpoints.enable(connection, "gone")
                dead = [d.id for d in deliveries.query(connection, endpoint="gone", state="dead")]
                queued = delivery_queue.redeliver(connection, dead, driven.bench.now_ns)
            assert len(queued) == len(dead) >= 2
            before = len(gone.received)
            await asyncio.sleep(1.1)  # the loop reads the state of the endpoint within a second
            await driven.work(10)
            opened = [r for r in gone.received[before:] if b"alert.opened.v1" in r.body]
            assert len(opened) == len(dead)
            with database.read() as connection:
                assert deliveries.query(connection, endpoint="gone", state="dead") == []
            await driven.loop.close()

    asyncio.run(scenario())


def test_a_huge_retry_after_is_capped_and_reported_to_the_others(database: Database):
    async def scenario() -> None:
        with Receiver(answer(429, retry_after="999999999")) as busy, Receiver() as other:
            ends = {"busy": json_endpoint(busy.url, in_flight=1), "other": json_endpoint(other.url)}
            driven = Driven(RouterBench(database, endpoints=ends), ends)
            driven.bench.happen(anomaly("b2/a"))
            await driven.work(5)
            faults_of_busy = [json.loads(r.body)["data"]["fault"] for r in other.received[1:]]
            assert [f["kind"] for f in faults_of_busy] == ["endpoint_failing"]
            assert "endpoint busy asks for a pause" in faults_of_busy[0]["message"]
            busy.behave = answer()
            await driven.work(590)
            assert len(busy.received) == 1
            await driven.work(120)
            assert len(busy.received) >= 2
            resolved = [
                json.loads(r.body)["data"] for r in other.received if b'"status":"resolved"' in r.body
            ]
            assert [d["class"] for d in resolved] == ["fault"]
            await driven.loop.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured_for_the_whole_endpoint(database: Database, status: int):
    async def scenario() -> None:
        with Receiver(answer(status, retry_after="120")) as receiver:
            ends = {"hook": json_endpoint(receiver.url, in_flight=1)}
            driven = Driven(RouterBench(database, endpoints=ends), ends)
            driven.bench.happen(anomaly("b2/a"), anomaly("b2/b"))
            await driven.work()
            receiver.behave = answer()
            await driven.work(115)
            assert len(receiver.received) == 1
            await driven.work(20)
            assert len(receiver.received) == 3
            await driven.loop.close()

    asyncio.run(scenario())


def test_a_rate_is_kept(database: Database):
    async def scenario() -> None:
        with Receiver() as receiver:
            ends = {"hook": json_endpoint(receiver.url, rate="30 per minute")}
            driven = Driven(RouterBench(database, endpoints=ends), ends)
            driven.bench.happen(*(anomaly(f"b2/{i}") for i in range(20)))
            await driven.work(20)
            assert 9 <= len(receiver.received) <= 11
            await driven.loop.close()

    asyncio.run(scenario())


def test_an_endpoint_that_hangs_delays_no_other(database: Database):
    async def hang(request: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    with Receiver(hang) as hanging, Receiver() as quick:
        ends = {"hanging": json_endpoint(hanging.url, timeout="2s"), "quick": json_endpoint(quick.url)}
        bench = RouterBench(database, {"storm": None}, ends)
        with running(bench, ends):
            began = datetime.now(UTC)
            bench.happen(*(anomaly(f"b2/{i}") for i in range(40)))
            quick.wait(40, timeout=70)  # behind those that hang, 2 s each, it would be 80
            assert len(hanging.received) <= 8 + (datetime.now(UTC) - began).total_seconds()


def test_removing_an_endpoint_suppresses_what_waits_for_it(database: Database):
    async def scenario() -> None:
        with Receiver() as kept, Receiver(answer(500)) as removed:
            ends = {"kept": json_endpoint(kept.url), "removed": json_endpoint(removed.url)}
            driven = Driven(RouterBench(database, endpoints=ends), ends)
            driven.bench.happen(anomaly("b2/a"), anomaly("b2/b"))
            await driven.work()
            left = {"kept": ends["kept"]}
            driven.loop.configure(router_of(left), left, lambda _: None)
            driven.bench.happen(anomaly("b2/c"))
            await driven.work(3)
            assert len(kept.received) == 3
            await driven.loop.close()

    asyncio.run(scenario())
    assert states(database) == {"delivered": 3, "endpoint removed": 2}


def test_secrets_appear_nowhere(database: Database, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    token, secret = "tok-5ecret-value-xyz", new_secret()
    (tmp_path / "token").write_text(token)
    (tmp_path / "secret").write_text(secret)

    async def scenario() -> None:
        with Receiver(
            lambda r: answer(400, f"bad {r.headers.get('authorization')} {secret}".encode())
        ) as receiver:
            headers = {"Authorization": {"file": tmp_path / "token"}}
            ends = {
                "hook": endpoint(
                    type="webhook",
                    url=receiver.url,
                    secret={"file": tmp_path / "secret"},
                    headers=headers,
                    allow=["loopback"],
                )
            }
            driven = Driven(RouterBench(database, endpoints=ends), ends)
            driven.bench.happen(anomaly())
            await driven.work()
            assert receiver.received[0].headers["authorization"] == token
            await driven.loop.close()

    asyncio.run(scenario())
    with database.read() as connection:
        (delivery,) = deliveries.query(connection)
        kept = json.dumps(deliveries.attempts_of(connection, delivery.id), default=str)
    assert "***" in kept
    shown = kept + "".join(capfd.readouterr())
    assert token not in shown
    assert secret.removeprefix("whsec_") not in shown
