"""A real Apache Kafka for tests: in a container where a Docker engine answers, else the local broker of
``pipeline.local_kafka.broker``.

``running_broker`` is for the tests that only talk to it; tests that stop, kill or freeze it start a
``FaultyBroker`` of their own.
"""

from __future__ import annotations

import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewPartitions, NewTopic

from pipeline.local_kafka.broker import LocalBroker
from pipeline.sources.kafka.client import connect

# Tests wait for compaction and for the end of deleted topics; the defaults take minutes. Every 200 ms, the
# cleaner took a fifth of the CPU time of a broker that rests.
QUICK = {
    "log.cleaner.backoff.ms": "2000",
    "log.retention.check.interval.ms": "5000",
    "log.segment.delete.delay.ms": "100",
}


class FaultyBroker(LocalBroker):
    """A local broker that a test may also kill, freeze and thaw.

    ``up`` and ``down`` keep the port and the data.
    """

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if process := self.process():
            process.kill()
            process.wait(10)

    def freeze(self) -> None:
        """Stop the process (SIGSTOP): connections stay open without an answer."""
        if process := self.process():
            process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        if process := self.process():
            process.send_signal(signal.SIGCONT)


@contextmanager
def faulty_broker(folder: Path) -> Iterator[FaultyBroker]:
    """A broker of one's own, up; at the end its process and its data are gone."""
    broker = FaultyBroker(folder, settings=QUICK, heap="256m")
    try:
        broker.up(240)  # loaded cores
        yield broker
    finally:
        broker.kill()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_broker(folder: Path) -> Iterator[str]:
    """``host:port`` of a broker that stays up for as long as the block runs."""
    if docker_answers():
        from testcontainers.community.kafka import KafkaContainer

        container = KafkaContainer().with_kraft().with_env("KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS", "1000")
        for name, value in QUICK.items():
            container.with_env("KAFKA_" + name.replace(".", "_").upper(), value)
        with container as kafka:
            yield kafka.get_bootstrap_server()
    else:
        with faulty_broker(folder) as broker:
            yield broker.address


def docker_answers() -> bool:
    """Is there a Docker engine that we may use?"""
    import docker

    with suppress(docker.errors.DockerException):
        client = docker.from_env(timeout=3)
        try:
            return bool(client.ping())
        finally:
            client.close()
    return False


class Topics:
    """Makes topics with names of their own, and writes to them. ``broker`` is ``host:port``."""

    def __init__(self, broker: str) -> None:
        self.broker = broker
        self._admin: KafkaAdminClient | None = None
        self._producers: dict[str | None, KafkaProducer] = {}

    @property
    def admin(self) -> KafkaAdminClient:
        if self._admin is None:
            self._admin = connect(KafkaAdminClient, [self.broker], 20)
        return self._admin

    def create(
        self, partitions: int = 1, name: str | None = None, config: Mapping[str, str] | None = None
    ) -> str:
        """Make a topic and return its name.

        Its records stay, however old their timestamps are, unless ``config`` says otherwise.
        """
        name = name or f"t-{uuid.uuid4().hex[:12]}"
        self.admin.create_topics(
            [NewTopic(name, partitions, 1, topic_configs={"retention.ms": "-1", **(config or {})})]
        )
        return name

    def produce(
        self,
        topic: str,
        values: Sequence[bytes | None],
        partition: int | None = 0,
        *,
        key: Callable[[int], bytes | None] = lambda i: None,
        timestamp_ms: Callable[[int], int | None] = lambda i: None,
        headers: Callable[[int], list[tuple[str, bytes]] | None] = lambda i: None,
        compression: str | None = None,
    ) -> None:
        """Write the values in order and wait until the broker has them all; functions get the index of a
        value."""
        producer = self._producer(compression)
        sent = [
            producer.send(topic, value, key(i), headers(i), partition, timestamp_ms(i))
            for i, value in enumerate(values)
        ]  # fmt: skip
        producer.flush(30)
        for future in sent:
            future.get(30)

    def abort(self, topic: str, partition: int = 0) -> None:
        """Write one record in a transaction and take it back: two offsets that readers do not see."""
        producer = connect(KafkaProducer, [self.broker], 20, transactional_id=uuid.uuid4().hex)
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(topic, b"aborted", partition=partition).get(30)
        producer.abort_transaction()
        producer.close(timeout=5)

    def grow(self, topic: str, partitions: int) -> None:
        self.admin.create_partitions({topic: NewPartitions(partitions)})
        for producer in self._producers.values():  # they would learn of it minutes later
            producer.close(timeout=5)
        self._producers.clear()

    def trim(self, topic: str, partition: int, before: int) -> None:
        """Delete the records below the offset ``before``, as retention does."""
        self.admin.delete_records({TopicPartition(topic, partition): before})

    def delete(self, topic: str) -> None:
        """Delete a topic and wait until it is gone."""
        self.admin.delete_topics([topic])
        deadline = time.monotonic() + 120
        while topic in self.admin.list_topics():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def recreate(self, topic: str, partitions: int = 1) -> None:
        """Delete a topic and create it again."""
        self.delete(topic)
        self.create(partitions, topic)

    def _producer(self, compression: str | None) -> KafkaProducer:
        if compression not in self._producers:
            settings: dict[str, Any] = {"acks": "all", "linger_ms": 5, "compression_type": compression}
            self._producers[compression] = connect(KafkaProducer, [self.broker], 20, **settings)
        return self._producers[compression]

    def close(self) -> None:
        for producer in self._producers.values():
            producer.close(timeout=5)
        if self._admin is not None:
            self._admin.close()
