"""Messages and their position, written to Kafka in one transaction.

A transactional id belongs to one partition of a stream's source. Who opens it fences a former owner. The
position is an offset that the transaction commits for a consumer group of the same name, so that it moves
exactly when the messages become visible to readers of committed records.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

import structlog
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, MessageSizeTooLargeError
from kafka.structs import OffsetAndMetadata

from pipeline.config.kafka_security import client_security, secrets_of
from pipeline.config.outputs import KafkaOutputConfig
from pipeline.core.errors import ConfigError, ForewatchError, OutputUnavailable, SourceUnavailable
from pipeline.outputs.verdict import Message
from pipeline.sources.kafka.client import connect

log = structlog.get_logger(__name__)

CONNECT_TIMEOUT_SECONDS = 5.0
RETRY_SECONDS = 0.1
REQUEST_TIMEOUT_MS = 10_000
#: Time after which the broker aborts a transaction whose process is gone.
TRANSACTION_TIMEOUT_MS = 60_000
CLOSE_TIMEOUT_SECONDS = 5.0
#: Watermark behind all that can be written at an offset.
LAST_NS = (1 << 63) - 1

Answer = TypeVar("Answer")


class WrittenPosition(NamedTuple):
    """Offset below which all verdicts are written, of the log ``identity``.

    ``flushed``: points that no record released at that offset are written, too: those that waited when the
    input ended, and those of a silence up to the watermark ``until_ns``.
    """

    offset: int
    flushed: bool
    identity: str
    until_ns: int = 0

    @property
    def order(self) -> tuple[int, bool, int]:
        """Position among those of the same log."""
        return self.offset, self.flushed, self.until_ns


class TransactionalWriter:
    """Writer for one partition of a stream's source. One thread uses it at a time."""

    #: Errors that end an attempt and are worth another one.
    errors: tuple[type[Exception], ...] = (KafkaError, OSError, ValueError, ForewatchError)

    def __init__(self, config: KafkaOutputConfig, name: str) -> None:
        """Prepare the writer.

        Args:
            config: The output.
            name: Transactional id and consumer group, the same for every owner of the partition.
        """
        self._config = config
        self._name = name
        #: Text of the error if the topic does not exist.
        self.no_topic = f"there is no topic {config.topic}, or it is hidden from this user"
        self._place = TopicPartition(config.topic, 0)
        self._producer: Any = None

    def open(self) -> WrittenPosition | None:
        """Fence a former owner, and return its position, None if there is none.

        Raises OutputUnavailable.
        """
        self.close()
        return self._attempted(self._open)

    def write(self, messages: Iterable[Message], position: WrittenPosition) -> int:
        """Write messages and the position in one transaction; return those refused.

        After OutputUnavailable the outcome is unknown: call ``open`` and look at the position.
        """
        return self._attempted(lambda: self._write(messages, position))

    def close(self) -> None:
        """Release the producer. What is not committed is aborted by the broker."""
        if self._producer is not None:
            self._producer.close(timeout=CLOSE_TIMEOUT_SECONDS)
            self._producer = None

    def _open(self) -> WrittenPosition | None:
        settings = client_security(self._config.security, self._config.password)
        self._producer = connect(
            KafkaProducer,
            self._config.brokers,
            CONNECT_TIMEOUT_SECONDS,
            transactional_id=self._name,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            max_block_ms=REQUEST_TIMEOUT_MS,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            delivery_timeout_ms=2 * REQUEST_TIMEOUT_MS,
            linger_ms=5,
            compression_type=None if self._config.compression == "none" else self._config.compression,
            **settings,
        )
        self._producer.init_transactions()
        admin = connect(KafkaAdminClient, self._config.brokers, CONNECT_TIMEOUT_SECONDS, **settings)
        try:
            if self._config.topic not in admin.list_topics():
                raise OutputUnavailable(self.no_topic)
            found = self._committed(admin)
        finally:
            admin.close()
        return None if found is None or found.offset < 0 else position_of(found.offset, found.metadata)

    def _committed(self, admin: Any) -> OffsetAndMetadata | None:
        """Return the offset of the group.

        A cluster that never had a group makes a coordinator first.
        """
        deadline = time.monotonic() + CONNECT_TIMEOUT_SECONDS
        while True:
            try:
                return admin.list_group_offsets({self._name: [self._place]})[self._name].get(self._place)
            except KafkaError as error:
                if not error.retriable or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)

    def _write(self, messages: Iterable[Message], position: WrittenPosition) -> int:
        producer, topic, refused = self._producer, self._config.topic, 0
        producer.begin_transaction()
        sent = []
        for one in messages:
            stamp = max(one.time_ms, 0)
            try:
                sent.append(producer.send(topic, one.value, one.key, self.headers(one), timestamp_ms=stamp))
            except MessageSizeTooLargeError as error:
                refused += 1
                log.warning("verdict is too large for the output", topic=topic, error=str(error))
        producer.send_offsets_to_transaction(
            {self._place: OffsetAndMetadata(position.offset, metadata_of(position), -1)}, self._name
        )
        producer.commit_transaction()
        for future in sent:
            future.get(timeout=0)
        return refused

    @staticmethod
    def headers(one: Message) -> list[tuple[str, bytes]]:
        """Return the headers of a message."""
        return [("id", one.id), ("content-type", b"application/json")]

    def _attempted(self, action: Callable[[], Answer]) -> Answer:
        try:
            return action()
        except self.errors as error:
            raise OutputUnavailable(self._explained(error)) from error

    def _explained(self, error: Exception) -> str:
        text = str(error) or type(error).__name__
        if not isinstance(error, SourceUnavailable | ConfigError | OutputUnavailable):
            text = f"Kafka at {', '.join(self._config.brokers)}: {type(error).__name__}: {error}"
        try:
            secrets = list(secrets_of(self._config.security, self._config.password))
        except ValueError:
            secrets = []
        for secret in filter(None, secrets):
            text = text.replace(secret, "***")
        return text


def metadata_of(position: WrittenPosition) -> str:
    """Return the text that is stored beside the offset of a position."""
    until = {"until": position.until_ns} if position.flushed else {}
    return json.dumps({"flushed": position.flushed, "identity": position.identity} | until)


def position_of(offset: int, metadata: str | None) -> WrittenPosition:
    """Return the position of a stored offset and its text."""
    try:
        known = json.loads(metadata or "{}")
        flushed = bool(known.get("flushed"))
        # A former version wrote no watermark: there was one end at an offset.
        until = int(known.get("until", LAST_NS)) if flushed else 0
        return WrittenPosition(offset, flushed, str(known.get("identity", "")), until)
    except (ValueError, TypeError, AttributeError):  # somebody else's text
        return WrittenPosition(offset, False, "")


def transactional_prefix(stream: str, output: str) -> str:
    """Return the beginning of the transactional ids of an output of a stream."""
    return f"forewatch/{stream}/{output}"


def make_writer(config: KafkaOutputConfig, name: str) -> TransactionalWriter:
    """Return the writer of the configured client."""
    if config.client == "confluent":
        from pipeline.outputs.confluent_transactions import ConfluentWriter

        return ConfluentWriter(config, name)
    return TransactionalWriter(config, name)
