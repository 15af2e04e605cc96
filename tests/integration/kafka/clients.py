"""Both clients behind the Kafka source: what is tested with one holds for the other."""

from __future__ import annotations

import pytest

from pipeline.sources.kafka.consumer import KafkaSource


def confluent(*args, **options):
    pytest.importorskip("confluent_kafka", reason="the extra forewatch[confluent] is not installed")
    from pipeline.sources.kafka.confluent import ConfluentSource

    return ConfluentSource(*args, **options)


CLIENTS = pytest.mark.parametrize("client", [KafkaSource, confluent], ids=["kafka-python", "confluent"])
