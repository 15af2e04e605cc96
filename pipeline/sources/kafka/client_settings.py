"""Settings of the two Kafka clients, from the configuration of a source.

Neither client commits or resets offsets by itself: the positions are in the database.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from pipeline.config.kafka_security import client_security
from pipeline.config.outputs import KafkaOutputConfig
from pipeline.config.schema import KafkaSourceConfig

#: Logger of librdkafka. It logs every failed attempt to connect; its users raise one error instead.
client_log = logging.getLogger("confluent_kafka")
if client_log.level == logging.NOTSET:
    client_log.setLevel(logging.CRITICAL)

#: Names of kafka-python, which the configuration uses → names of librdkafka.
LIBRDKAFKA_SECURITY_NAMES = {
    "sasl_plain_username": "sasl.username",
    "sasl_plain_password": "sasl.password",
    "ssl_cafile": "ssl.ca.location",
    "ssl_certfile": "ssl.certificate.location",
    "ssl_keyfile": "ssl.key.location",
    "ssl_password": "ssl.key.password",
    "ssl_crlfile": "ssl.crl.location",
    "ssl_ciphers": "ssl.cipher.suites",
}


def kafka_python_settings(config: KafkaSourceConfig, group: str, metadata_age: float) -> dict[str, Any]:
    """Return the settings of a ``kafka.KafkaConsumer``; ``metadata_age`` is in seconds."""
    return {
        **client_security(config.security, config.password),
        "group_id": group,
        "session_timeout_ms": _milliseconds(config.session_timeout),
        "heartbeat_interval_ms": min(1000, _milliseconds(config.session_timeout) // 3),
        "max_poll_interval_ms": _milliseconds(config.max_poll_interval),
        "metadata_max_age_ms": int(metadata_age * 1000),
        "reconnect_backoff_max_ms": 1000,
        "request_timeout_ms": 10_000,
        "fetch_max_wait_ms": 100,  # a resumed partition waits for the fetch that is under way
        "enable_auto_commit": False,
        "auto_offset_reset": "none",
        "isolation_level": "read_committed",
        "metrics_enabled": False,
    }


def librdkafka_connection(
    config: KafkaSourceConfig | KafkaOutputConfig, on_error: Callable[[Any], None]
) -> dict[str, Any]:
    """Return the settings that any client of confluent-kafka needs to connect."""
    security = {
        LIBRDKAFKA_SECURITY_NAMES.get(k, k.replace("_", ".")): v
        for k, v in client_security(config.security, config.password).items()
        if k != "ssl_check_hostname"
    }
    if config.security.get("ssl_check_hostname") is False:
        security["ssl.endpoint.identification.algorithm"] = "none"
    return {
        **security,
        "bootstrap.servers": ",".join(config.brokers),
        "error_cb": on_error,
        "reconnect.backoff.max.ms": 1000,
    }


def librdkafka_settings(
    config: KafkaSourceConfig, group: str, metadata_age: float, on_error: Callable[[Any], None]
) -> dict[str, Any]:
    """Return the settings of a ``confluent_kafka.Consumer``.

    Args:
        config: The configuration of the source.
        group: The consumer group.
        metadata_age: Age in seconds after which metadata are requested again.
        on_error: Receives the errors that the client reports.
    """
    session_timeout = _milliseconds(config.session_timeout)
    return {
        **librdkafka_connection(config, on_error),
        "group.id": group,
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": session_timeout,
        "heartbeat.interval.ms": min(1000, session_timeout // 3),
        "max.poll.interval.ms": max(_milliseconds(config.max_poll_interval), session_timeout),
        "topic.metadata.refresh.interval.ms": int(metadata_age * 1000),
        "fetch.wait.max.ms": 100,
        # By default nothing is fetched for a whole second after a queue was full, which leaves a quarter of
        # the rate.
        "fetch.queue.backoff.ms": 10,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,  # reports the offset after transaction markers
        "isolation.level": "read_committed",
        "check.crcs": True,
        # Per partition. The default of 64 MB is too much for many partitions.
        "queued.max.messages.kbytes": 16_384,
    }


def _milliseconds(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))
