"""A real Kafka with TLS: SASL SCRAM on one port, client certificates on another."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kafka.admin import KafkaAdminClient, ScramMechanism, UserScramCredentialUpsertion

from pipeline.sources.kafka.client import connect
from tests.support.certificates import Authority
from tests.support.kafka_server import QUICK, FaultyBroker
from tests.support.postgres_server import free_port

USER, PASSWORD = "forewatch", "right"
_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
_PROTOCOLS = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SCRAM:SASL_SSL,MUTUAL:SSL"
_HOST = "127.0.0.1"


class SecureBroker(FaultyBroker):
    """Broker with the addresses ``scram`` and ``mutual`` beside the plain one."""

    def __init__(self, folder: Path, authority: Authority, further: dict[str, str] | None = None) -> None:
        self.scram, self.mutual = f"{_HOST}:{free_port()}", f"{_HOST}:{free_port()}"
        certificate, key = authority.issue(_HOST)
        store = certificate.with_suffix(".pem")
        store.write_bytes(key.read_bytes() + certificate.read_bytes())
        settings = {
            **QUICK,
            "listener.security.protocol.map": _PROTOCOLS,
            "inter.broker.listener.name": "PLAINTEXT",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(store),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(authority.file),
            "listener.name.mutual.ssl.client.auth": "required",
            "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.scram.scram-sha-512.sasl.jaas.config": _LOGIN,
            **(further or {}),
        }
        super().__init__(folder, settings=settings, heap="256m")

    def _write_settings(self, state) -> None:
        plain = f"PLAINTEXT://{_HOST}:{state.port},SCRAM://{self.scram},MUTUAL://{self.mutual}"
        self._settings["advertised.listeners"] = plain
        self._settings["listeners"] = f"{plain},CONTROLLER://{_HOST}:{state.controller_port}"
        super()._write_settings(state)


@contextmanager
def secure_broker(
    folder: Path, authority: Authority, further: dict[str, str] | None = None
) -> Iterator[SecureBroker]:
    """Run a broker with the SCRAM user ``USER``; it is gone with its data at the end of the block.

    ``further`` are more settings of it.
    """
    broker = SecureBroker(folder, authority, further)
    try:
        broker.up()
        with connect(KafkaAdminClient, [broker.address], 20) as admin:
            user = UserScramCredentialUpsertion(USER, ScramMechanism.SCRAM_SHA_512, PASSWORD)
            admin.alter_user_scram_credentials([user])
        yield broker
    finally:
        broker.kill()
        shutil.rmtree(folder, ignore_errors=True)
