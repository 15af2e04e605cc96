"""The ways out on real servers: HTTP and TLS with everything a receiver can do wrong, mail with STARTTLS, a
real Kafka.
"""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pipeline.alerts.delivery.senders import sender_of
from pipeline.alerts.messages.payload import Payload
from pipeline.alerts.transport.base import MAX_ANSWER_CHARACTERS_KEPT, DeliveryResult
from pipeline.alerts.transport.email import ChartAllowance
from pipeline.alerts.transport.http import tls
from pipeline.alerts.transport.signing import message_id
from pipeline.config.endpoints import EndpointConfig
from tests.contract.test_alerts_formats import HOSTILE, _now, payload
from tests.support.alerting import endpoint, json_endpoint
from tests.support.certificates import Authority
from tests.support.kafka_server import Topics
from tests.support.mail_server import MailServer
from tests.support.receiver import Received, Receiver, answer

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 100


def send(config: EndpointConfig, *payloads: Payload, picture: bytes | None = None) -> list[DeliveryResult]:
    """Each payload in turn, through one sender."""

    async def scenario() -> list[DeliveryResult]:
        sender = sender_of(config, lambda _: picture)
        outcomes = [await sender.send(_now(one)) for one in payloads]
        await sender.close()
        return outcomes

    return asyncio.run(scenario())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    tls.cache_clear()
    return Authority(tmp_path_factory.mktemp("tls"))


# --------------------------------------------------------------------------------------------------------------- HTTP


def test_a_connection_is_kept_for_the_next_call():
    with Receiver() as receiver:
        outcomes = send(json_endpoint(receiver.url), *[payload("opened")] * 5)
        assert all(o.delivered for o in outcomes)
        assert len({r.peer for r in receiver.received}) == 1


@pytest.mark.parametrize(
    ("status", "delivered"),
    [(200, True), (201, True), (204, True), (301, False), (400, False), (404, False), (500, False)],
)
def test_only_2xx_is_success(status: int, delivered: bool):
    with Receiver(
        answer(status, b"" if status == 204 else b"said so", location="http://127.0.0.1:1/")
    ) as receiver:
        (outcome,) = send(json_endpoint(receiver.url), payload("opened"))
        assert (outcome.delivered, outcome.status, len(receiver.received)) == (delivered, status, 1)


def test_a_slow_drip_ends_after_the_timeout():
    async def drip(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        for _ in range(1000):
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.05)

    with Receiver(drip) as receiver:
        began = time.monotonic()
        (outcome,) = send(json_endpoint(receiver.url, timeout="1s"), payload("opened"))
        assert time.monotonic() - began < 30, "the whole answer takes 50 s"
    assert (outcome.delivered, outcome.unanswered) == (False, True)
    assert "1 s" in outcome.answer


def test_a_giant_answer_is_not_read_to_its_end():
    sent = 0

    async def flood(request: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 500 No\r\ncontent-length: 1000000000\r\n\r\n")
        chunk = b"x" * 65536
        while sent < 300_000_000:
            writer.write(chunk)
            sent += len(chunk)
            await writer.drain()

    with Receiver(flood) as receiver:
        tracemalloc.start()
        (outcome,) = send(json_endpoint(receiver.url), payload("opened"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (outcome.status, len(outcome.answer)) == (500, MAX_ANSWER_CHARACTERS_KEPT)
    assert sent < 100_000_000
    assert peak < 20_000_000


def test_giant_headers_are_an_error_and_not_memory():
    with Receiver(b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 1_000_000 + b"\r\n\r\n") as receiver:
        (outcome,) = send(json_endpoint(receiver.url), payload("opened"))
    assert not outcome.delivered


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort",
    ],
)
def test_malformed_answers_are_failures_with_a_reason(reply: bytes):
    async def behave(request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(reply)
        await writer.drain()

    with Receiver(behave) as receiver:
        (outcome,) = send(json_endpoint(receiver.url), payload("opened"))
    assert not outcome.delivered
    assert outcome.unanswered
    assert outcome.answer


def test_no_listener_and_no_such_name():
    refused, unknown = json_endpoint("http://127.0.0.1:1/x"), json_endpoint("https://no-such-host.invalid/x")
    (first,), (second,) = send(refused, payload("opened")), send(unknown, payload("opened"))
    assert "ConnectError" in first.answer
    assert "does not resolve" in second.answer
    assert not first.unanswered


def test_addresses_inside_are_refused_without_an_allow_list():
    with Receiver() as receiver:
        url = receiver.url.replace("http://", "https://")
        (outcome,) = send(endpoint(type="json", url=url), payload("opened"))
        assert "refused: 127.0.0.1: 127.0.0.1 is not a public address" in outcome.answer
        assert receiver.received == []


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch):
    with Receiver() as proxy, Receiver() as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        (outcome,) = send(json_endpoint(receiver.url), payload("opened"))
        assert (outcome.delivered, len(proxy.received), len(receiver.received)) == (True, 0, 1)


def test_tls_is_verified(authority: Authority):
    good = authority.server("localhost")
    with Receiver(tls=good) as receiver:
        (trusted,) = send(json_endpoint(receiver.url, ca=authority.file), payload("opened"))
        (unknown,) = send(json_endpoint(receiver.url), payload("opened"))
        (other_name,) = send(
            json_endpoint(receiver.url.replace("localhost", "127.0.0.1"), ca=authority.file),
            payload("opened"),
        )
        assert len(receiver.received) == 1
    with Receiver(tls=authority.server("localhost", expired=True)) as receiver:
        (expired,) = send(json_endpoint(receiver.url, ca=authority.file), payload("opened"))
        assert receiver.received == []
    assert trusted.delivered
    assert "CERTIFICATE_VERIFY_FAILED" in unknown.answer
    assert "mismatch" in other_name.answer
    assert "expired" in expired.answer


def test_plain_http_where_tls_is_expected_is_a_failure():
    with Receiver() as receiver:
        (outcome,) = send(
            json_endpoint(receiver.url.replace("http:", "https:"), timeout="1s"), payload("opened")
        )
    assert not outcome.delivered


def test_a_missing_secret_is_a_failure_that_names_the_variable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_SUCH_SECRET", raising=False)
    (outcome,) = send(endpoint(type="slack", url={"env": "NO_SUCH_SECRET"}), payload("opened"))
    assert "NO_SUCH_SECRET" in outcome.answer


# --------------------------------------------------------------------------------------------------------------- mail


def mail_endpoint(port: int, **keys: Any) -> EndpointConfig:
    given = {
        "host": "localhost",
        "port": port,
        "sender": "watch@plant.example",
        "to": ["oncall@plant.example"],
        "allow": ["loopback"],
    } | keys
    return endpoint(type="email", **given)


def test_mail_with_starttls_a_login_and_a_picture(authority: Authority, tmp_path: Path):
    (tmp_path / "password").write_text("s3cret")
    with MailServer(authority.server("localhost"), password="s3cret") as server:
        config = mail_endpoint(
            server.port, ca=authority.file, user="watch", password={"file": tmp_path / "password"}
        )
        opened, resolved = send(config, payload("opened"), payload("resolved"), picture=PNG)
    assert (opened.delivered, resolved.delivered) == (True, True)
    first, second = (letter.message for letter in server.letters)
    assert server.letters[0].secure
    assert server.letters[0].user == "watch"
    assert "temperature is 93.1" in first["Subject"]
    assert first["References"] == second["References"]
    kinds = [part.get_content_type() for part in first.walk()]
    assert kinds == ["multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png"]
    image = next(part for part in first.walk() if part.get_content_type() == "image/png")
    assert image["Content-ID"] == "<series@forewatch>"
    assert "cid:series@forewatch" in first.get_body(("html",)).get_content()  # type: ignore[union-attr]
    assert "forewatch alerts ack" in first.get_body(("plain",)).get_content()  # type: ignore[union-attr]


@pytest.mark.parametrize(("hang_up_after", "connections"), [(None, 1), (2, 3)])
def test_mails_share_a_connection_that_the_server_keeps(hang_up_after: int | None, connections: int):
    with MailServer() as server:
        server.hang_up_after = hang_up_after
        config = mail_endpoint(server.port, security="none", in_flight=1)
        outcomes = send(config, *(payload("opened") for _ in range(6)))
        assert [o.delivered for o in outcomes] == [True] * 6
        assert (len(server.letters), server.connections) == (6, connections)


def test_charts_take_a_limited_share_of_the_time():
    now = 0.0
    allowance = ChartAllowance(lambda: now)
    drawn = 0
    for _ in range(1000):
        if allowance.take():
            allowance.spend(1.0)
            now += 1.0
            drawn += 1
        now += 0.1
    assert ChartAllowance.MAX_SECONDS <= drawn <= ChartAllowance.MAX_SECONDS + ChartAllowance.SHARE * now + 1


def test_mail_is_not_sent_in_clear_if_starttls_is_not_offered():
    with MailServer() as server:
        (outcome,) = send(mail_endpoint(server.port), payload("opened"))
    assert "does not offer STARTTLS" in outcome.answer
    assert server.letters == []


def test_a_mail_server_with_an_untrusted_certificate_is_refused(authority: Authority):
    with MailServer(authority.server("localhost")) as server:
        (outcome,) = send(mail_endpoint(server.port), payload("opened"))
    assert "CERTIFICATE_VERIFY_FAILED" in outcome.answer
    assert server.letters == []


def test_what_a_mail_server_refuses_is_tried_again_later():
    with MailServer(refuse="452 4.2.2 mailbox full") as server:
        (outcome,) = send(mail_endpoint(server.port, security="none"), payload("opened"))
    assert (outcome.delivered, outcome.status) == (False, 452)
    assert "full" in outcome.answer


def test_no_header_can_be_smuggled_into_a_mail():
    with MailServer() as server:
        (outcome,) = send(mail_endpoint(server.port, security="none"), payload("opened", text=HOSTILE))
    assert outcome.delivered
    letter = server.letters[0].message
    assert letter["Bcc"] is None
    assert server.letters[0].to == ["oncall@plant.example"]
    page = letter.get_body(("html",)).get_content()  # type: ignore[union-attr]
    assert "<script" not in page
    assert "</script" not in page
    assert "&lt;/script&gt;" in page


def test_a_mail_server_inside_is_refused_without_an_allow_list():
    (outcome,) = send(
        endpoint(type="email", host="localhost", sender="a@b.example", to=["c@d.example"]), payload("opened")
    )
    assert "not a public address" in outcome.answer


# -------------------------------------------------------------------------------------------------------------- Kafka


@pytest.mark.kafka
def test_a_kafka_topic_gets_payloads_keyed_by_series(topics: Topics):
    from kafka import KafkaConsumer, TopicPartition

    topic = topics.create(partitions=2)
    config = endpoint(type="kafka", brokers=[topics.broker], topic=topic)
    notified = [payload("opened"), payload("updated"), payload("resolved")]
    assert all(o.delivered for o in send(config, *notified))
    consumer = KafkaConsumer(
        bootstrap_servers=topics.broker, auto_offset_reset="earliest", consumer_timeout_ms=120_000
    )
    consumer.assign([TopicPartition(topic, 0), TopicPartition(topic, 1)])
    records = list(islice(consumer, len(notified)))
    ends = consumer.end_offsets(consumer.assignment())
    consumer.close()
    assert sum(ends.values()) == len(notified)
    assert len({r.partition for r in records}) == 1
    assert [json.loads(r.value)["type"] for r in records] == [p.type for p in notified]
    assert {r.key for r in records} == {b"plant/b2/t1"}
    assert dict(records[0].headers)["webhook-id"] == message_id(_now(notified[0]).delivery).encode()


@pytest.mark.kafka
def test_brokers_that_are_away_are_a_failure_and_not_an_exception():
    config = endpoint(type="kafka", brokers=["127.0.0.1:1"], topic="t", timeout="2s")
    (outcome,) = send(config, payload("opened"))
    assert not outcome.delivered
    assert outcome.answer
