"""Warnings of ``forewatch check`` about settings that are valid but not safe."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.config.endpoints import KafkaEndpoint
from pipeline.config.kafka_rules import sends_password_in_clear
from pipeline.config.schema import Config


def safety_warnings(config: Config) -> list[str]:
    """Return one line for each setting that leaves a door open."""
    return [*_kafka(config), *_scheduler(config)]


def _scheduler(config: Config) -> Iterator[str]:
    if (config.cluster.scheduler or "").startswith("tcp://"):
        yield (
            "cluster.scheduler: everyone who reaches a tcp:// scheduler can run code on its workers and in "
            "trainings; use tls:// with certificates"
        )


def _kafka(config: Config) -> Iterator[str]:
    clients = {
        f"streams.{name}.source.kafka": stream.source.kafka
        for name, stream in config.streams.items()
        if stream.source.kafka is not None
    } | {
        f"endpoints.{name}": endpoint
        for name, endpoint in config.endpoints.items()
        if isinstance(endpoint, KafkaEndpoint)
    }
    for key, client in clients.items():
        if sends_password_in_clear(client):
            yield f"{key}.security: SASL_PLAINTEXT sends the password and all records unencrypted; use SASL_SSL"
