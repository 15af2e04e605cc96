"""Members with a wrong password of the broker or the database beside a healthy one: real processes.

In the short run, ``test_wrong_broker`` has a broken member beside a healthy one, and the refusals of
passwords are in ``tests/integration/kafka/test_source`` and ``tests/deploy/test_postgres_tls``.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import make_url

from storage.alerting import deliveries
from storage.alerting.states import DeliveryState
from storage.sql.database import Database
from tests.faults.feed import make_log
from tests.faults.ledger import check_alerts, unfinished
from tests.faults.member import wait_for
from tests.faults.stage import Stage
from tests.faults.test_wrong_broker import (
    UNLIMITED_ALERTS,
    found_of,
    open_down_faults,
    receiver,
    run,
    until_all_told,
)
from tests.support.certificates import Authority
from tests.support.kafka_server import Topics
from tests.support.postgres_server import (
    PostgresServer,
    create_database,
    require_password,
    running_postgres,
)
from tests.support.receiver import Receiver
from tests.support.secure_kafka import PASSWORD, USER, secure_broker

__all__ = ["receiver", "run"]
pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.long]


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        require_password(server, "operator")
        yield server


@pytest.fixture
def stage(tmp_path: Path, own_postgres: PostgresServer, monkeypatch) -> Iterator[Stage]:
    """Broker and database ask for passwords; the variables of both are right."""
    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    monkeypatch.setenv("WRONG_PASSWORD", "wrong")
    url = create_database(own_postgres)
    database = Database(url)
    database.upgrade()
    database.close()
    (tmp_path / "certificates").mkdir()
    authority = Authority(tmp_path / "certificates")
    with secure_broker(tmp_path / "kafka", authority) as broker:
        security = {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": USER,
            "ssl_cafile": str(authority.file),
        }
        topics = Topics(broker.address)
        made = Stage(
            tmp_path / "stage",
            topics,
            url,
            [make_log(n, 250, seed=6) for n in range(2)],
            alerts=UNLIMITED_ALERTS,
        )
        tree = json.loads(made.config.read_text())
        tree["streams"]["plant"]["source"]["kafka"] |= {
            "brokers": [broker.scram],
            "security": security,
            "password": {"env": "KAFKA_PASSWORD"},
        }
        made.config.write_text(json.dumps(tree))
        yield made
        made.close()
        topics.close()


@pytest.mark.timeout(400)
def test_they_mute_no_other_member_and_their_faults_end_with_them(
    stage: Stage, receiver: Receiver, run, tmp_path
):
    tree = json.loads(stage.config.read_text())
    tree["endpoints"] = {"hook": {"type": "json", "url": receiver.url, "allow": ["loopback"]}}
    stage.config.write_text(json.dumps(tree))
    source = tree["streams"]["plant"]["source"]["kafka"]
    source["password"] = {"env": "WRONG_PASSWORD"}
    (tmp_path / "broker.yaml").write_text(json.dumps(tree))
    source["password"] = {"env": "KAFKA_PASSWORD"}
    tree["database"] = make_url(tree["database"]).set(username="operator").render_as_string()
    tree["database_password"] = {"env": "WRONG_PASSWORD"}
    (tmp_path / "database.yaml").write_text(json.dumps(tree))

    healthy = run("healthy", stage.config)
    until_all_told(stage, receiver, 0.2)
    wrong = run("broker", tmp_path / "broker.yaml")
    refused = run("database", tmp_path / "database.yaml")
    assert refused.wait(150) == 4
    assert "password authentication failed" in (tmp_path / "database.log").read_text()
    wait_for(lambda: open_down_faults(stage), "the fault of the refused member", 120)
    assert all("uthenticat" in f.message or "password" in f.message for f in open_down_faults(stage))
    assert all(fault.partitions == [] for fault in open_down_faults(stage)), "they own no partition"
    until_all_told(stage, receiver, 0.6)

    wrong.send_signal(signal.SIGTERM)
    assert wrong.wait(60) == 0
    assert open_down_faults(stage) == []
    until_all_told(stage, receiver, 1.0)
    wait_for(lambda: not unfinished(stage.database), "no event waits", 20)
    assert check_alerts(stage.database, receiver.received).problems == []
    with stage.database.read() as connection:
        assert not deliveries.query(connection, state=DeliveryState.DEAD)
    healthy.send_signal(signal.SIGTERM)
    assert healthy.wait(60) == 0
    owners = {int(fault.owner.split(":")[1]) for fault in found_of(stage)}
    assert owners == {wrong.pid}, "no other member had a fault"
    for name in ("healthy", "broker", "database"):
        assert "Traceback" not in (tmp_path / f"{name}.log").read_text()
