"""Connection of kafka-python clients, in bounded time.

No thread is left behind when the cluster is unreachable.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from kafka.errors import KafkaConfigurationError, KafkaError
from kafka.net.compat import KafkaNetClient

from pipeline.config.kafka_security import PROTOCOLS
from pipeline.core.errors import ConfigError, SourceUnavailable

Client = TypeVar("Client")

# The client logs every failed attempt to connect as an error; ``connect`` raises one error instead.
_log = logging.getLogger("kafka")
if _log.level == logging.NOTSET:
    _log.setLevel(logging.CRITICAL)


def connect(make: Callable[..., Client], brokers: Sequence[str], timeout: float, **settings: Any) -> Client:
    """Return ``make(bootstrap_servers=…, **settings)``.

    Raises SourceUnavailable when the cluster does not answer within ``timeout`` seconds, with the reason if
    it refused the credentials, and ConfigError for settings that the client does not know.

    Args:
        make: KafkaConsumer, KafkaAdminClient or KafkaProducer.
        brokers: Bootstrap servers, host:port.
        timeout: Seconds.
        settings: Passed on to ``make``.
    """
    protocol = settings.get("security_protocol", PROTOCOLS[0])
    if protocol not in PROTOCOLS:  # the client would use plain text instead
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
        tls_problem = _tls_problem(brokers[0], timeout, settings) if protocol.endswith("SSL") else None
        why = (
            refused[0]
            if refused
            else f"TLS is refused: {tls_problem}; check ssl_cafile, ssl_certfile and the name of the broker"
            if tls_problem
            else f"no answer within {timeout:g} s; is it running, and are address and security settings correct?"
        )
        # The client also loses an error message that comes with the end of the connection.
        if not refused and not tls_problem and protocol.startswith("SASL"):
            why += " A broker may close the connection on a wrong user or password without a message"
        raise SourceUnavailable(f"Kafka at {', '.join(brokers)}: {why}") from error


def _tls_problem(broker: str, timeout: float, settings: dict[str, Any]) -> str | None:
    """Return why a TLS handshake with ``broker`` fails, None if it does not."""
    host, _, port = broker.rpartition(":")
    try:
        context = ssl.create_default_context(cafile=settings.get("ssl_cafile"))
        context.check_hostname = settings.get("ssl_check_hostname", True)
        with (
            socket.create_connection((host.strip("[]"), int(port)), timeout) as plain,
            context.wrap_socket(plain, server_hostname=host.strip("[]")),
        ):
            return None
    except ssl.SSLError as error:
        return getattr(error, "verify_message", None) or error.reason or str(error)
    except (OSError, ValueError):
        return None


def _refusals(client: Any) -> list[Exception]:
    """Return the authentication errors of the brokers; the client itself only reports a timeout."""
    manager = client._manager
    found = (manager.auth_failure(broker.node_id) for broker in client.cluster.bootstrap_brokers())
    return [failure for failure in found if failure is not None]


def _close(nets: list[Any]) -> None:
    for client in nets:
        client.close()
