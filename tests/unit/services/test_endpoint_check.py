"""Endpoints that ``check --connect`` tries: real servers, nothing is sent."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.schema import Config
from pipeline.services.endpoint_check import EndpointProbe, probe_endpoints
from tests.support.mail_server import MailServer
from tests.support.receiver import Receiver

STREAM = {"source": {"memory": {}}, "format": {"json": {"series": "k", "time": "t", "values": ["v"]}}}
SECRET = "whsec_" + base64.b64encode(b"nothing else but a test secret").decode()


def probe(**endpoint: Any) -> EndpointProbe:
    (found,) = probe_endpoints(
        Config.model_validate(
            {"streams": {"s": STREAM}, "endpoints": {"e": {"allow": ["loopback"], **endpoint}}}
        )
    )
    return found


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", SECRET)
    monkeypatch.setenv("PASSWORD", "geheim-genug")


def test_a_webhook_is_reached_and_gets_nothing() -> None:
    with Receiver() as receiver:
        found = probe(type="webhook", url=f"http://127.0.0.1:{receiver.port}/x", secret={"env": "HOOK"})
        assert (found.usable, found.message) == (True, f"127.0.0.1:{receiver.port} answers")
        assert receiver.received == []


def test_what_does_not_answer() -> None:
    found = probe(type="webhook", url="http://127.0.0.1:9/x", secret={"env": "HOOK"})
    assert not found.usable
    assert "refused" in found.message


def test_secrets_that_are_missing_or_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = probe(type="webhook", url="http://127.0.0.1:9/x", secret={"env": "NOWHERE"})
    assert "environment variable NOWHERE is not set" in missing.message
    (tmp_path / "empty").write_text(" \n")
    empty = probe(type="webhook", url="http://127.0.0.1:9/x", secret={"file": str(tmp_path / "empty")})
    assert "secret is empty" in empty.message
    monkeypatch.setenv("HOOK", "whsec_this is no base64 !!")
    wrong = probe(type="webhook", url="http://127.0.0.1:9/x", secret={"env": "HOOK"})
    assert not wrong.usable
    assert "no base64" not in wrong.message


def test_an_address_that_is_not_allowed() -> None:
    found = probe(type="json", url="http://169.254.169.254/latest", allow=["private"])
    assert "never allowed" in found.message


def mail(port: int, **more: Any) -> dict[str, Any]:
    base = {"type": "email", "host": "127.0.0.1", "port": port, "security": "none"}
    return {**base, "sender": "a@example.org", "to": ["b@example.org"], **more}


def test_a_mail_server_is_reached() -> None:
    with MailServer() as server:
        found = probe(**mail(server.port))
        assert found.usable, found.message
    assert not probe(**mail(9)).usable


@pytest.mark.kafka
def test_a_topic_is_found(topics: Any) -> None:
    topic = topics.create(2)
    kafka = {"type": "kafka", "brokers": [topics.broker]}
    assert probe(**kafka, topic=topic).message == f"topic {topic} has 2 partitions"
    assert "no topic nothing-here" in probe(**kafka, topic="nothing-here").message
