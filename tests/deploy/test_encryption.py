"""TLS on a real broker: SASL SCRAM and client certificates, with both Kafka clients.

The configs of the page run against it and against a PostgreSQL with TLS.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.config.schema import Config
from pipeline.core.errors import SourceUnavailable
from pipeline.sources import make_source
from tests.support.certificates import Authority
from tests.support.kafka_server import Topics
from tests.support.secure_kafka import PASSWORD, USER, SecureBroker, secure_broker
from tests.support.secure_postgres import HOST, secure_postgres, server_programs

pytestmark = pytest.mark.kafka
CLIENTS = ["kafka-python", "confluent"]
RECORDS = 20
PAGE = Path(__file__).resolve().parents[2] / "docs/how-to/encrypt.md"
LAYOUT = {"csv": {"series": "s", "time": "t", "values": ["v"], "header": ["t", "s", "v"]}}
FOREWATCH = [sys.executable, "-c", "from pipeline.cli import main; main()"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[SecureBroker]:
    with secure_broker(tmp_path_factory.mktemp("kafka") / "data", authority) as running:
        yield running


@pytest.fixture(scope="module")
def topic(broker: SecureBroker) -> Iterator[str]:
    topics = Topics(broker.address)
    name = topics.create()
    topics.produce(name, [b"1,a,%d" % row for row in range(RECORDS)])
    yield name
    topics.close()


def scram(authority: Authority) -> dict:
    return {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": USER,
        "ssl_cafile": str(authority.file),
    }


def mutual(authority: Authority) -> dict:
    certificate, key = authority.issue("client")
    return {
        "security_protocol": "SSL",
        "ssl_cafile": str(authority.file),
        "ssl_certfile": str(certificate),
        "ssl_keyfile": str(key),
    }


def read(address: str, topic: str, client: str, security: dict, password: Path | None = None) -> int:
    """Return the number of records that a source reads from the topic."""
    kafka = {"brokers": [address], "topics": [topic], "client": client, "security": security}
    if password is not None:
        kafka["password"] = {"file": str(password)}
    config = Config.model_validate({"streams": {"plant": {"source": {"kafka": kafka}, "format": LAYOUT}}})
    stream = config.streams["plant"]
    source = make_source("plant", stream.source, stream.format)
    count = 0
    try:
        deadline = time.monotonic() + 30
        while count < RECORDS and time.monotonic() < deadline:
            polled = source.poll(1000, 0.2)
            for partition in polled.assigned:
                source.seek(partition, 0)
                source.resume([partition])
            count += sum(len(batch.offsets) for batch in polled.records)
    finally:
        source.close()
    return count


@pytest.mark.parametrize("client", CLIENTS)
def test_scram_over_tls(client, broker, topic, authority, tmp_path):
    (tmp_path / "password").write_text(PASSWORD + "\n")
    assert read(broker.scram, topic, client, scram(authority), tmp_path / "password") == RECORDS


@pytest.mark.parametrize("client", CLIENTS)
def test_client_certificates(client, broker, topic, authority):
    assert read(broker.mutual, topic, client, mutual(authority)) == RECORDS


@pytest.mark.parametrize("client", CLIENTS)
def test_a_wrong_password_is_refused(client, broker, topic, authority, tmp_path):
    (tmp_path / "password").write_text("wrong")
    with pytest.raises(SourceUnavailable, match=r"(?i)authentication|user or password"):
        read(broker.scram, topic, client, scram(authority), tmp_path / "password")


def test_an_unknown_authority_is_refused_with_the_reason(broker, topic, tmp_path):
    with pytest.raises(SourceUnavailable, match=r"TLS is refused: .*self.signed|TLS is refused: .*issuer"):
        read(broker.mutual, topic, "kafka-python", mutual(Authority(tmp_path)))


def test_an_unknown_authority_is_refused_by_confluent(broker, topic, tmp_path):
    with pytest.raises(SourceUnavailable):
        read(broker.mutual, topic, "confluent", mutual(Authority(tmp_path)))


def page_configs() -> list[dict]:
    """Return the two configs of the page: with passwords, and with certificates of the client."""
    blocks = re.findall(r"```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    configs = [YAML(typ="safe").load(textwrap.dedent(block)) for block in blocks]
    source, certificates, *databases = [config for config in configs if "cluster" not in config]
    kafka = source["source"]["kafka"]
    by_certificate = {name: value for name, value in kafka.items() if name != "password"} | certificates
    assert by_certificate["security"] != kafka["security"]
    return [
        database | {"http": None, "streams": {"plant": {"source": {"kafka": one}, "format": LAYOUT}}}
        for database, one in zip(databases, (kafka, by_certificate), strict=True)
    ]


def test_the_configs_of_the_page_connect(broker, authority, tmp_path):
    """Each config is tried by the commands that the page names."""
    programs = server_programs()
    if programs is None:
        pytest.skip("needs root and Debian's server with TLS (apt-get install postgresql)")
    certificate, key = authority.issue("machine")
    key.chmod(0o600)
    (tmp_path / "password").write_text(PASSWORD + "\n")
    topics = Topics(broker.address)
    topic = topics.create()
    topics.produce(topic, [b"%d,a,1" % (1_767_225_600 + row) for row in range(RECORDS)])
    topics.close()
    with secure_postgres(programs, authority) as server:
        places = {
            "/etc/forewatch/ca.pem": authority.file,
            "/etc/forewatch/client.crt": certificate,
            "/etc/forewatch/client.key": key,
            "/run/secrets/kafka": tmp_path / "password",
            "/run/secrets/postgres": tmp_path / "password",
            "postgres.example.org": f"{HOST}:{server.port}",
            '"readings"': json.dumps(topic),
        }
        for config, address, role in zip(
            page_configs(), (broker.scram, broker.mutual), ("forewatch", "machine"), strict=True
        ):
            text = json.dumps(config)
            found = {name for name in places if name in text}
            for name, place in (places | {"broker:9093": address, "forewatch@": f"{role}@"}).items():
                text = text.replace(name, str(place))
            assert len(found) >= 4
            (tmp_path / "forewatch.yaml").write_text(text)
            for arguments in (("db", "upgrade"), ("check", "--connect"), ("db", "current")):
                done = subprocess.run(
                    [*FOREWATCH, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, (arguments, done.stdout + done.stderr)
