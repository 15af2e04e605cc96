"""Warnings of ``forewatch check`` about settings that are valid but not safe."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from sqlalchemy import make_url

from pipeline.config.endpoints import KafkaEndpoint
from pipeline.config.kafka_rules import KafkaClientConfig, sends_password_in_clear
from pipeline.config.schema import Config
from pipeline.core.private_files import readable_by_others


def safety_warnings(config: Config) -> list[str]:
    """Return one line for each setting that leaves a door open."""
    return [*_kafka(config), *_scheduler(config), *_http(config), *_push(config), *_files(config)]


def _scheduler(config: Config) -> Iterator[str]:
    if (config.cluster.scheduler or "").startswith("tcp://"):
        yield (
            "cluster.scheduler: everyone who reaches a tcp:// scheduler can run code on its workers and in "
            "trainings; use tls:// with certificates"
        )


def _kafka(config: Config) -> Iterator[str]:
    clients: dict[str, KafkaClientConfig | None] = {
        f"streams.{name}.source.kafka": stream.source.kafka for name, stream in config.streams.items()
    }
    for name, endpoint in config.endpoints.items():
        clients[f"endpoints.{name}"] = endpoint if isinstance(endpoint, KafkaEndpoint) else None
    for name, stream in config.streams.items():
        for output, chosen in stream.outputs.items():
            clients[f"streams.{name}.outputs.{output}.kafka"] = chosen.kafka
    for key, client in clients.items():
        if client is not None and sends_password_in_clear(client):
            yield f"{key}.security: SASL_PLAINTEXT sends the password and all records unencrypted; use SASL_SSL"


def _http(config: Config) -> Iterator[str]:
    if config.http is not None and not _is_loopback(config.http.host):
        yield (
            f"http.host: the server at {config.http.host} has no authentication and shows "
            f"metrics, health and "
            "alerts to everyone who reaches it; write 127.0.0.1, or put a proxy with a login in front"
        )


def _push(config: Config) -> Iterator[str]:
    for name, stream in config.streams.items():
        push = stream.source.push
        if push is not None and not _is_loopback(push.host):
            yield (
                f"streams.{name}.source.push.host: the key and the data travel unencrypted to {push.host}; "
                "put a proxy with a certificate in front, or use a private network"
            )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _files(config: Config) -> Iterator[str]:
    """Yield a line for each place of the config with files that other users can read."""
    url = make_url(config.database)
    places = {
        "storage.history_path": Path(config.history_path),
        "storage.models_path": Path(config.models_path),
    }
    if url.get_backend_name() == "sqlite" and url.database:
        places |= {f"database{end}": Path(url.database + end) for end in ("", "-wal", "-shm", ".lock")}
    for key, place in places.items():
        count = sum(1 for _ in readable_by_others(place))
        if count:
            yield f"{key}: other users can read {count} files or folders; run: chmod -R go= {shlex.quote(str(place))}"
