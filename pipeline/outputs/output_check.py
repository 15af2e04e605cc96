"""Check of the outputs of streams without writing: ``forewatch check --connect``."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline.alerts.transport.base import Call, DeliveryResult
from pipeline.alerts.transport.http import HttpSender
from pipeline.config.field_types import Secret
from pipeline.config.kafka_security import client_security
from pipeline.config.outputs import KafkaOutputConfig, OutputConfig, RemoteWriteConfig
from pipeline.config.schema import Config
from pipeline.core.errors import ConfigError
from pipeline.outputs.kafka_transactions import transactional_prefix
from pipeline.outputs.remote_write_format import HEADERS
from pipeline.services.endpoint_check import TIMEOUT_SECONDS, EndpointProbe, probe_place

_NO_SAMPLES = bytes(pa.compress(b"", codec="snappy", asbytes=True))


def probe_outputs(config: Config) -> list[EndpointProbe]:
    """Check the outputs of all streams."""
    return [
        probe_place(f"{stream}.{name}", output, partial(_connect, stream, name))
        for stream, of_stream in config.streams.items()
        for name, output in of_stream.outputs.items()
    ]


def _connect(stream: str, name: str, output: OutputConfig) -> str:
    if output.kafka is not None:
        return _find_topic(output.kafka, transactional_prefix(stream, name))
    assert output.remote_write is not None
    return _send_nothing(output.remote_write)


def _find_topic(output: KafkaOutputConfig, prefix: str) -> str:
    """Look at the topic and the rights of the user.

    Raises:
        ConfigError: It cannot be written.
        SourceUnavailable: The brokers do not answer.
        KafkaError: A request fails.
    """
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError, TransactionalIdAuthorizationFailedError, for_code

    from pipeline.sources.kafka.client import connect

    settings = client_security(output.security, output.password)
    admin: Any = connect(KafkaAdminClient, output.brokers, TIMEOUT_SECONDS, **settings)
    try:
        (found,) = admin.describe_topics([output.topic])
        if found["error_code"]:
            raise ConfigError(
                f"the brokers have no topic {output.topic}, or hide it from this user "
                f"({for_code(found['error_code']).__name__}); create it, or allow the user to describe and "
                "write it"
            )
        allowed = found.get("authorized_operations")  # None or empty: the brokers do not tell
        if allowed and "WRITE" not in allowed:
            raise ConfigError(
                f"this user may not write topic {output.topic}; allow the operation WRITE on it"
            )
        try:
            admin.describe_transactions([f"{prefix}/check/0"])
        except TransactionalIdAuthorizationFailedError:
            raise ConfigError(
                "this user may not use transactions: allow WRITE and DESCRIBE on transactional ids that "
                f"begin with {prefix}/"
            ) from None
        except KafkaError:  # there is no such transaction
            pass
        return f"topic {output.topic} has {len(found['partitions'])} partitions and may be written"
    finally:
        admin.close()


def _send_nothing(output: RemoteWriteConfig) -> str:
    """Send a request without samples. Raises ConfigError."""
    url, headers = _text(output.url), [(name, _text(value)) for name, value in output.headers.items()]
    answer = asyncio.run(_answer(output, Call(url, _NO_SAMPLES, [*HEADERS, *headers])))
    if answer.delivered:
        return f"accepts remote write (status {answer.status})"
    if answer.status is None:
        raise ConfigError(_explained(answer.answer))
    said = f"status {answer.status}{': ' if answer.answer else ''}{' '.join(answer.answer.split())[:200]}"
    if answer.status in (401, 403):
        raise ConfigError(
            f"refuses the credentials, {said}; check `headers`, such as Authorization: {{env: TOKEN}}"
        )
    if answer.status in (404, 405):
        raise ConfigError(
            f"takes no remote write at this path, {said}; Prometheus needs the path /api/v1/write and "
            "--web.enable-remote-write-receiver"
        )
    if answer.status == 400:
        return f"answers, and refuses a request without samples ({said})"
    raise ConfigError(f"does not take samples now, {said}")


async def _answer(output: RemoteWriteConfig, call: Call) -> DeliveryResult:
    secrets = [_text(one) for one in (output.url, *output.headers.values()) if isinstance(one, Secret)]
    sender = HttpSender(lambda _: call, lambda: secrets, output.allow, output.ca, TIMEOUT_SECONDS)
    try:
        return await sender.call(call)
    finally:
        await sender.close()


def _explained(text: str) -> str:
    """Return an error of the connection with what to do."""
    small = text.lower()
    if "certificate" in small:
        return f"{text}; set `ca` to the certificate of its authority, or use the name of the certificate"
    if "wrong_version" in small or "wrong version" in small or "record layer" in small:
        return f"{text}; it answers without TLS: write http://"
    return f"{text}; check the address, and that it runs"


def _text(value: str | Secret) -> str:
    return value if isinstance(value, str) else value.reveal().get_secret_value()
