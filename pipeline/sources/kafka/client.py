"""How every part of forewatch makes a kafka-python client: in bounded time, and without a thread left behind
when the cluster is away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from kafka.errors import KafkaConfigurationError, KafkaError
from kafka.net.compat import KafkaNetClient

from pipeline.core.errors import ConfigError, SourceUnavailable

Client = TypeVar("Client")
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")

# The client reports every failed attempt to connect as an error; we say once, in our own words, what is away.
_log = logging.getLogger("kafka")
if _log.level == logging.NOTSET:
    _log.setLevel(logging.CRITICAL)


def connect(make: Callable[..., Client], brokers: Sequence[str], timeout: float, **settings: Any) -> Client:
    """``make(bootstrap_servers=…, **settings)``, where ``make`` is KafkaConsumer, KafkaAdminClient or
    KafkaProducer.

    Raises SourceUnavailable when the cluster does not answer within ``timeout`` seconds (with the reason,
    where it is known to be the credentials) and ConfigError for settings that the client does not know.
    """
    protocol = settings.get("security_protocol", PROTOCOLS[0])
    if protocol not in PROTOCOLS:  # the client itself would take it for plain text
        raise ConfigError(
            f"kafka client settings: security_protocol is one of {', '.join(PROTOCOLS)}, not {protocol!r}"
        )
    nets: list[Any] = []

    def net(**config: Any) -> Any:
        nets.append(KafkaNetClient(**config))
        return nets[-1]

    try:
        return make(
            bootstrap_servers=list(brokers),
            bootstrap_timeout_ms=int(timeout * 1000),
            kafka_client=net,
            **settings,
        )
    except (KafkaConfigurationError, TypeError, ValueError) as error:
        _close(nets)
        raise ConfigError(f"kafka client settings: {error}") from error
    except (KafkaError, OSError) as error:
        refused = [str(reason) for client in nets for reason in _refusals(client)]
        _close(nets)
        why = (
            refused[0]
            if refused
            else f"no answer within {timeout:g} s; is it running, and do address and security settings fit?"
        )
        # and the client loses a last word that comes with the end of the connection
        if not refused and protocol.startswith("SASL"):
            why += " A broker may hang up on a wrong user or password without a word"
        raise SourceUnavailable(f"Kafka at {', '.join(brokers)}: {why}") from error


def _refusals(client: Any) -> list[Exception]:
    """What the brokers said against our credentials (the client itself only says that it timed out)."""
    manager = client._manager
    found = (manager.auth_failure(broker.node_id) for broker in client.cluster.bootstrap_brokers())
    return [failure for failure in found if failure is not None]


def _close(nets: list[Any]) -> None:
    for client in nets:
        client.close()
