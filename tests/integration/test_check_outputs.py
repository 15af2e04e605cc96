"""``check --connect`` tries the outputs: a real Kafka with TLS and rights, receivers of remote write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
)

from pipeline.config.schema import Config
from pipeline.outputs import output_check
from pipeline.outputs.output_check import probe_outputs
from pipeline.services.endpoint_check import EndpointProbe
from pipeline.sources.kafka.client import connect
from tests.integration.test_remote_write import prometheus
from tests.support.certificates import Authority
from tests.support.kafka_server import Topics
from tests.support.receiver import Receiver, answer
from tests.support.remote_write_decoder import decoded
from tests.support.secure_kafka import PASSWORD, USER, SecureBroker, secure_broker
from tests.support.verdict_topics import wait_until

STREAM = {"source": {"memory": {}}, "format": {"json": {"series": "k", "time": "t", "values": ["v"]}}}
RIGHTS = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
    "allow.everyone.if.no.acl.found": "true",
}


@pytest.fixture(autouse=True)
def _long_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_check, "TIMEOUT_SECONDS", 60.0)


def probe(**output: Any) -> EndpointProbe:
    streams = {"s": {**STREAM, "outputs": {"o": output}}}
    (found,) = probe_outputs(Config.model_validate({"streams": streams}))
    assert found.endpoint == "s.o"
    assert "\n" not in found.message
    return found


def refused_at_last(**output: Any) -> str:
    """Wait until a new right is known to the broker."""
    wait_until(lambda: not probe(**output).usable, "the right is known")
    return refused(**output)


def refused(**output: Any) -> str:
    found = probe(**output)
    assert not found.usable, found.message
    return found.message


# ---------------------------------------------------------------------------------------------- Kafka


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[SecureBroker]:
    with secure_broker(tmp_path_factory.mktemp("kafka") / "data", authority, RIGHTS) as running:
        yield running


def deny(broker: SecureBroker, kind: ResourceType, name: str) -> None:
    """Allow the user to see it, and somebody else to write it."""
    rights = {"User:other": ACLOperation.WRITE}
    if kind is ResourceType.TOPIC:
        rights[f"User:{USER}"] = ACLOperation.DESCRIBE
    place = ResourcePattern(kind, name)
    with connect(KafkaAdminClient, [broker.address], 20) as admin:
        admin.create_acls([ACL(who, "*", one, ACLPermissionType.ALLOW, place) for who, one in rights.items()])


@pytest.mark.kafka
def test_a_topic_and_the_rights_of_a_user(
    broker: SecureBroker, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD", PASSWORD)
    topics = Topics(broker.address)
    topic, sealed = topics.create(2), topics.create(1)
    security = {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": USER,
        "ssl_cafile": str(authority.file),
    }
    good = {"brokers": [broker.scram], "topic": topic, "security": security, "password": {"env": "PASSWORD"}}
    found = probe(kafka=good)
    assert found.usable, found.message
    assert found.message == f"topic {topic} has 2 partitions and may be written"
    missing = refused(kafka={**good, "topic": "nothing-here"})
    assert "have no topic nothing-here" in missing
    assert "create it" in missing
    assert not topics_named(broker, "nothing-here")
    deny(broker, ResourceType.TOPIC, sealed)
    assert f"may not write topic {sealed}" in refused_at_last(kafka={**good, "topic": sealed})
    deny(broker, ResourceType.TRANSACTIONAL_ID, "forewatch/s/o/check/0")
    assert "begin with forewatch/s/o/" in refused_at_last(kafka=good)
    authorities = {name: value for name, value in security.items() if name != "ssl_cafile"}
    with monkeypatch.context() as patched:  # the client tries again until then
        patched.setattr(output_check, "TIMEOUT_SECONDS", 5.0)
        assert "ssl_cafile" in refused(kafka={**good, "security": authorities})
        patched.setenv("PASSWORD", "geheim-und-falsch")
        wrong = refused(kafka=good)
    # The client may lose the message of the broker that closes the connection.
    assert "uthentication" in wrong or "wrong user or password" in wrong
    assert "geheim" not in wrong
    topics.close()


def topics_named(broker: SecureBroker, name: str) -> bool:
    with connect(KafkaAdminClient, [broker.address], 20) as admin:
        return name in admin.list_topics()


# --------------------------------------------------------------------------------------- remote write


def test_a_receiver_gets_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "Bearer geheim-genug")
    with Receiver() as server:
        keys = {"url": server.url, "headers": {"Authorization": {"env": "TOKEN"}}}
        server.behave = answer(204, b"")
        assert probe(remote_write=keys) == EndpointProbe("s.o", True, "accepts remote write (status 204)")
        (one,) = server.received
        assert one.headers["authorization"] == "Bearer geheim-genug"
        assert decoded(one.body) == []
        server.behave = answer(401, b"no user\nBearer geheim-genug")
        wrong = refused(remote_write=keys)
        assert "refuses the credentials, status 401: no user" in wrong
        assert "geheim" not in wrong
        server.behave = answer(404, b"")
        assert "--web.enable-remote-write-receiver" in refused(remote_write=keys)
        server.behave = answer(503, b"later")
        assert "status 503: later" in refused(remote_write=keys)
        server.behave = answer(400, b"empty")
        assert probe(remote_write=keys).usable
    assert "check the address" in refused(remote_write=keys)
    monkeypatch.delenv("TOKEN")
    assert "environment variable TOKEN is not set" in refused(remote_write=keys)


def test_tls_of_a_receiver(authority: Authority, tmp_path: Path) -> None:
    with Receiver(answer(204, b""), authority.server("localhost")) as server:
        assert probe(remote_write={"url": server.url, "ca": str(authority.file)}).usable
        assert "set `ca`" in refused(remote_write={"url": server.url})
        plain = server.url.replace("https://", "http://")
        assert "check" in refused(remote_write={"url": plain})


def test_a_real_prometheus(tmp_path: Path) -> None:
    with prometheus(tmp_path) as url:
        assert probe(remote_write={"url": f"{url}/api/v1/write"}).usable
        assert "the path /api/v1/write" in refused(remote_write={"url": f"{url}/write"})
        encrypted = f"{url.replace('http://', 'https://')}/api/v1/write"
        assert "without TLS" in refused(remote_write={"url": encrypted})
