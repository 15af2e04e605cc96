"""Transactions by confluent-kafka (the extra ``forewatch[confluent]``)."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from pipeline.core.errors import OutputUnavailable
from pipeline.outputs.kafka_transactions import (
    CLOSE_TIMEOUT_SECONDS,
    CONNECT_TIMEOUT_SECONDS,
    REQUEST_TIMEOUT_MS,
    TRANSACTION_TIMEOUT_MS,
    TransactionalWriter,
    WrittenPosition,
    metadata_of,
    position_of,
)
from pipeline.outputs.verdict import Message
from pipeline.sources.kafka.client_settings import client_log, librdkafka_connection

log = structlog.get_logger(__name__)

MAX_QUEUED_MESSAGES = 200_000
_TIMEOUT_SECONDS = REQUEST_TIMEOUT_MS / 1000
_ROOM_WAIT_SECONDS = 0.05


class ConfluentWriter(TransactionalWriter):
    """Writer for one partition of a stream's source. One thread uses it at a time."""

    errors = (*TransactionalWriter.errors, KafkaException, BufferError)
    _group: Any = None

    def close(self) -> None:
        """Release the producer. What is not committed is aborted by the broker."""
        if self._producer is not None:
            with suppress(KafkaException):  # it is fenced
                self._producer.purge()
                self._producer.flush(CLOSE_TIMEOUT_SECONDS)
            self._producer = None

    def _open(self) -> WrittenPosition | None:
        settings = librdkafka_connection(self._config, lambda error: None)
        self._producer = Producer(
            {
                **settings,
                "transactional.id": self._name,
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "compression.type": self._config.compression,
                "linger.ms": 5,
                "queue.buffering.max.messages": MAX_QUEUED_MESSAGES,
            },
            logger=client_log,
        )
        topics = self._producer.list_topics(timeout=CONNECT_TIMEOUT_SECONDS).topics
        self._producer.init_transactions(_TIMEOUT_SECONDS)
        if self._config.topic not in topics:
            raise OutputUnavailable(self.no_topic)
        consumer = Consumer(
            {**settings, "group.id": self._name, "enable.auto.commit": False}, logger=client_log
        )
        try:
            place = TopicPartition(self._config.topic, self._place.partition)
            (found,) = consumer.committed([place], timeout=_TIMEOUT_SECONDS)
            self._group = consumer.consumer_group_metadata()
        finally:
            consumer.close()
        return None if found.offset < 0 else position_of(found.offset, found.metadata)

    def _write(self, messages: Iterable[Message], position: WrittenPosition) -> int:
        self._producer.begin_transaction()
        refused = sum(not self._produced(one) for one in messages)
        place = TopicPartition(
            self._config.topic, self._place.partition, position.offset, metadata_of(position)
        )
        self._producer.send_offsets_to_transaction([place], self._group, _TIMEOUT_SECONDS)
        self._producer.commit_transaction(2 * _TIMEOUT_SECONDS)
        return refused

    def _produced(self, one: Message) -> bool:
        """Hand a message to the client; return False if it is too large."""
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while True:
            try:
                self._producer.produce(
                    self._config.topic,
                    one.value,
                    one.key,
                    timestamp=max(one.time_ms, 0),
                    headers=self.headers(one),
                )
                return True
            except BufferError:
                if time.monotonic() > deadline:
                    raise
                self._producer.poll(_ROOM_WAIT_SECONDS)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                    raise
                log.warning("verdict is too large for the output", topic=self._config.topic, error=str(error))
                return False
