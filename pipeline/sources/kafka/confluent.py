"""Topics of an Apache Kafka cluster as a Source, by confluent-kafka (the extra ``forewatch[confluent]``, a C
client).

The same rules as in ``kafka``: the database holds the positions, assigned partitions come paused, nothing is
reset on its own. Callbacks of this client run inside ``consume``, on the thread that polls.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import pairwise
from operator import itemgetter
from threading import Thread
from typing import Any

import numpy as np
from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from numpy.typing import NDArray

from pipeline.config.schema import KafkaSourceConfig
from pipeline.core.errors import ConfigError, OffsetOutOfRange, SourceError, SourceUnavailable
from pipeline.core.types import Partition
from pipeline.sources.base import OffsetBounds, Poll, Records
from pipeline.sources.kafka.consumer_group import LOOKUP, METADATA_AGE, SLICE, GroupSource

NS_PER_MS = 1_000_000
_TIME = itemgetter(1)  # of what ``Message.timestamp`` gives: (kind, ms)

#: kafka-python's names, which the configuration speaks → librdkafka's
SECURITY = {
    "sasl_plain_username": "sasl.username",
    "sasl_plain_password": "sasl.password",
    "ssl_cafile": "ssl.ca.location",
    "ssl_certfile": "ssl.certificate.location",
    "ssl_keyfile": "ssl.key.location",
    "ssl_password": "ssl.key.password",
    "ssl_crlfile": "ssl.crl.location",
    "ssl_ciphers": "ssl.cipher.suites",
}

log = logging.getLogger(__name__)
# The client reports every failed attempt to connect as an error; we say once, in our own words, what is away.
_client_log = logging.getLogger("confluent_kafka")
if _client_log.level == logging.NOTSET:
    _client_log.setLevel(logging.CRITICAL)


class ConfluentSource(GroupSource):
    """One member of a consumer group. Connects at the first poll."""

    def __init__(self, config: KafkaSourceConfig, group: str, *, metadata_age: float = METADATA_AGE) -> None:
        super().__init__(config, group, metadata_age=metadata_age)
        self._consumer: Any = None
        self._admin: Any = None
        self._paused: set[Partition] = set()
        self._flowing: set[Partition] = set()  # a record has come since the last seek
        # whose errors say nothing new: not told yet where to read, or failed and not resumed since
        self._silenced: set[Partition] = set()
        self._failures: list[SourceError] = []  # told one at a time, after the records that came with them
        self._topic_ids: dict[str, str] = {}
        self._asked: dict[str, Any] = {}  # topic descriptions under way
        self._asked_at = 0.0
        self._down = False
        self._joined = False  # the group has told what is ours, be it nothing
        self._missing: set[str] = set()  # topics that are not there
        self._missing_at = 0.0
        self._only_topic = config.topics[0] if len(config.topics) == 1 else None

    def poll(self, max_records: int, timeout: float) -> Poll:
        deadline = time.monotonic() + timeout
        consumer = self._connected()
        while True:
            messages = self._consume(consumer, max_records, min(max(deadline - time.monotonic(), 0.0), SLICE))
            poll = self._settle()
            poll.records.extend(self._records(messages))
            if poll.records or poll.assigned or poll.revoked:
                break
            if self._failures:
                raise self._failures.pop(0)
            if time.monotonic() >= deadline:
                self._check_alive()
                break
        self._publisher.flush()
        poll.waits_for = self._waits_for()
        return poll

    def bounds(self, partitions: Sequence[Partition]) -> Mapping[Partition, OffsetBounds]:
        with self._asking("the bounds of its partitions") as consumer:
            found = {
                p: consumer.get_watermark_offsets(TopicPartition(*p), timeout=LOOKUP) for p in partitions
            }
        if missing := [str(p) for p, pair in found.items() if pair is None]:
            raise SourceUnavailable(
                f"Kafka at {self._where} did not tell the bounds of {', '.join(missing)} within {LOOKUP:g} s"
            )
        return {p: OffsetBounds(*pair) for p, pair in found.items()}

    def offset_at(self, partition: Partition, time_ns: int) -> int:
        with self._asking("offsets by time") as consumer:
            (found,) = consumer.offsets_for_times(
                [TopicPartition(*partition, -(-time_ns // NS_PER_MS))], timeout=LOOKUP
            )
        return int(found.offset) if found.offset >= 0 else self.bounds([partition])[partition].end

    def identity(self, partition: Partition) -> str:
        with self._asking("the topic's id"):
            described = self._describe([partition.topic])[partition.topic].result(LOOKUP)
        self._topic_ids[partition.topic] = str(described.topic_id)
        return str(described.topic_id)

    def seek(self, partition: Partition, offset: int) -> None:
        self._must_hold(partition)
        place = TopicPartition(*partition, offset)
        try:
            self._consumer.seek(place)
        except KafkaException:
            # after an error, and right after an assignment, the client has nothing to seek in
            self._consumer.incremental_unassign([TopicPartition(*partition)])
            self._consumer.incremental_assign([place])
            if partition in self._paused:
                self._consumer.pause([place])
        self._flowing.discard(partition)
        self._silenced.discard(partition)
        self._owned.next[partition] = offset

    def pause(self, partitions: Sequence[Partition]) -> None:
        if held := self._held(partitions):
            self._paused.update(held)
            self._consumer.pause([TopicPartition(*p) for p in held])

    def resume(self, partitions: Sequence[Partition]) -> None:
        if held := self._held(partitions):
            self._paused.difference_update(held)
            self._silenced.difference_update(held)
            self._consumer.resume([TopicPartition(*p) for p in held])

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._publisher.flush(now=True)
            if self._consumer is not None:
                # The client waits for commits under way, for ever if the cluster is gone; then the group
                # notices by itself that we are.
                leaving = Thread(target=self._leave, daemon=True)
                leaving.start()
                leaving.join(LOOKUP)

    def _leave(self) -> None:
        with suppress(KafkaException, RuntimeError):
            self._consumer.close()

    # ------------------------------------------------------------------------------------------------------ connecting

    def _connected(self) -> Any:
        self._must_be_open()
        if self._consumer is None:
            try:
                self._consumer = Consumer(self._settings(), logger=_client_log)
                self._admin = AdminClient(self._connection(), logger=_client_log)
            except (KafkaException, TypeError, ValueError) as error:
                raise ConfigError(f"kafka client settings: {error}") from error
            self._consumer.subscribe(
                list(self._config.topics),
                on_assign=self._on_assign,
                on_revoke=self._on_lost,
                on_lost=self._on_lost,
            )
        return self._consumer

    def _connection(self) -> dict[str, Any]:
        config = self._config
        password = (
            {"sasl_plain_password": config.password.reveal().get_secret_value()} if config.password else {}
        )
        security = {
            SECURITY.get(k, k.replace("_", ".")): v
            for k, v in {**config.security, **password}.items()
            if k != "ssl_check_hostname"
        }
        if config.security.get("ssl_check_hostname") is False:
            security["ssl.endpoint.identification.algorithm"] = "none"
        return {
            **security,
            "bootstrap.servers": ",".join(config.brokers),
            "error_cb": self._on_error,
            "reconnect.backoff.max.ms": 1000,
        }

    def _settings(self) -> dict[str, Any]:
        config = self._config
        return {
            **self._connection(),
            "group.id": self._group,
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": _ms(config.session_timeout),
            "heartbeat.interval.ms": min(1000, _ms(config.session_timeout) // 3),
            "max.poll.interval.ms": max(_ms(config.max_poll_interval), _ms(config.session_timeout)),
            "topic.metadata.refresh.interval.ms": int(self._metadata_age * 1000),
            "fetch.wait.max.ms": 100,
            # by default nothing is fetched for a whole second after a queue was full: that is a quarter of
            # the rate
            "fetch.queue.backoff.ms": 10,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,  # tells the offset behind transaction markers
            "isolation.level": "read_committed",
            "check.crcs": True,
            # of one partition; the default of 64 MB is too much for many
            "queued.max.messages.kbytes": 16_384,
        }

    def _on_assign(self, consumer: Any, partitions: Any) -> None:
        # At a plain offset: what the client asks the broker for (an end, a stored offset) may arrive after
        # our seek, and undo it.
        consumer.incremental_assign([TopicPartition(p.topic, p.partition, 0) for p in partitions])
        consumer.pause(partitions)
        gained = [Partition(p.topic, p.partition) for p in partitions]
        self._paused.update(gained)
        self._silenced.update(gained)
        self._owned.gained(gained)
        self._joined = True

    def _on_lost(self, consumer: Any, partitions: Any) -> None:
        self._owned.lost([(p.topic, p.partition) for p in partitions])

    def _on_error(self, error: Any) -> None:
        """Runs inside ``consume``.

        Most of what is reported heals by itself; what matters is whether anybody is there.
        """
        log.debug("client: %s", error)
        self._down = self._down or error.code() == KafkaError._ALL_BROKERS_DOWN
        if error.code() == KafkaError._AUTHENTICATION:
            self._failures.append(SourceUnavailable(f"Kafka at {self._where}: {error.str()}"))

    # --------------------------------------------------------------------------------------------------------- polling

    def _consume(self, consumer: Any, max_records: int, timeout: float) -> list[Any]:
        """What is there, or else the first to come and what came with it: ``consume(n, timeout)`` itself
        would wait for all n.
        """
        messages: list[Any] = consumer.consume(max_records, 0)
        if not messages and timeout > 0:
            messages = consumer.consume(1, timeout)
            if messages and max_records > 1:
                messages += consumer.consume(max_records - 1, 0)
        return messages

    def _settle(self) -> Poll:
        self._notice_recreated()
        poll = self._owned.settle()
        self._publisher.drop(poll.revoked)
        for partition in poll.assigned:
            if partition.topic not in self._first_seen:
                with suppress(KafkaException):
                    known = (
                        self._consumer.list_topics(partition.topic, timeout=LOOKUP)
                        .topics[partition.topic]
                        .partitions
                    )
                    self._first_seen[partition.topic] = set(known)
        return poll

    def _waits_for(self) -> str:
        """The client tells once that a topic is not there; whether it still is not is asked now and then."""
        if self._missing and time.monotonic() - self._missing_at > self._metadata_age:
            self._missing_at = time.monotonic()
            with suppress(KafkaException):
                self._missing.difference_update(self._consumer.list_topics(timeout=1.0).topics)
        if self._missing:
            return self._lacks(sorted(self._missing))
        return "" if self._joined else self._joins

    def _notice_recreated(self) -> None:
        """Ask for the topics' ids now and then, without waiting for the answer; hand out anew what was made
        again.
        """
        for topic in [t for t, answer in self._asked.items() if answer.done()]:
            with suppress(KafkaException):
                now = str(self._asked.pop(topic).result().topic_id)
                again = [p for p in self._owned.next if p.topic == topic]
                if self._topic_ids.get(topic, now) != now:
                    self.pause(again)
                    self._owned.lost(again)
                    self._owned.gained(again)
                self._topic_ids[topic] = now
        if not self._asked and self._topic_ids and time.monotonic() - self._asked_at > self._metadata_age:
            self._asked, self._asked_at = self._describe(list(self._topic_ids)), time.monotonic()

    def _describe(self, topics: list[str]) -> dict[str, Any]:
        return dict(self._admin.describe_topics(TopicCollection(topics), request_timeout=LOOKUP))

    def _records(self, messages: list[Any]) -> Iterator[Records]:
        for partition, batch in _by_partition(messages, self._only_topic).items():
            errors = []
            if any(map(Message.error, batch)):
                errors = [m for m in batch if m.error() is not None]
                batch = [m for m in batch if m.error() is None]
            first = self._owned.next.get(partition)
            if first is not None and partition not in self._paused:
                if batch and batch[0].offset() < first:  # fetched before the seek
                    batch = [m for m in batch if m.offset() >= first]
                if batch:
                    self._flowing.add(partition)
                after = max([first, *self._ends(partition, errors), batch[-1].offset() + 1 if batch else 0])
                if after > first:
                    self._owned.next[partition] = after
                    yield _to_records(partition, first, after, batch)
            for message in errors:
                self._judge(partition, message)

    def _ends(self, partition: Partition, errors: list[Any]) -> list[int]:
        """Where the client reached the end, transaction markers included. An end that was reached before a
        seek may be told after it: such an offset is no sign that what lies before it was read, so ends count
        only once a record has come."""
        return [
            m.offset()
            for m in errors
            if m.error().code() == KafkaError._PARTITION_EOF and partition in self._flowing
        ]

    def _judge(self, partition: Partition, message: Any) -> None:
        error = message.error()
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            self._miss(partition.topic)
        if error.code() in (
            KafkaError._PARTITION_EOF,
            KafkaError._MAX_POLL_EXCEEDED,
            KafkaError.UNKNOWN_TOPIC_OR_PART,
        ):
            return
        offset = self._owned.next.get(partition)
        if offset is None:
            self._failures.append(SourceError(f"Kafka at {self._where}: {error.str()}"))
            return
        # about what was fetched before a seek
        if partition in self._silenced or message.offset() not in (offset, OFFSET_INVALID):
            return
        # the client asks again before it hears of the pause, and again for what it cannot read
        self._silenced.add(partition)
        self.pause([partition])
        if error.code() in (
            KafkaError._AUTO_OFFSET_RESET,
            KafkaError.OFFSET_OUT_OF_RANGE,
            KafkaError._LOG_TRUNCATION,
        ):
            text = f"{partition}: the topic does not hold offset {offset} (retention, or it was made again)"
            self._failures.append(OffsetOutOfRange(text, partition, offset))
        else:
            text = f"{partition}: the batch at offset {offset} is unreadable ({error.str()}); repair or delete it in the topic, or seek past it"
            self._failures.append(SourceError(text, partition, offset))

    def _miss(self, topic: str) -> None:
        if topic not in self._missing:
            self._missing.add(topic)
            self._missing_at = time.monotonic()
            log.warning("%s; waiting for it", self._lacks([topic]))

    def _check_alive(self) -> None:
        """After all brokers were reported away: ask, until one answers."""
        if self._down:
            with self._asking("anything"):
                self._consumer.list_topics(self._config.topics[0], timeout=1.0)
            self._down = False

    # ------------------------------------------------------------------------------------------------------- questions

    @contextmanager
    def _asking(self, what: str) -> Iterator[Any]:
        try:
            yield self._connected()
        except (KafkaException, TimeoutError) as error:
            raise SourceUnavailable(f"Kafka at {self._where} does not tell {what}: {error}") from error

    def _commit(self, positions: Mapping[Partition, int]) -> None:
        if self._consumer is None:
            return
        try:
            self._consumer.commit(
                offsets=[TopicPartition(*p, offset) for p, offset in positions.items()], asynchronous=True
            )
        except (KafkaException, RuntimeError) as error:
            log.debug("committed offsets not published: %s", error)


class _Keys(Sequence[bytes | None]):
    """The keys of messages, asked of them when wanted: only dead letters do, and asking a message costs more
    than most keys hold.
    """

    def __init__(self, messages: list[Any]) -> None:
        self._messages = messages

    def __len__(self) -> int:
        return len(self._messages)

    def __getitem__(self, at: Any) -> Any:
        return _Keys(self._messages[at]) if isinstance(at, slice) else self._messages[at].key()


def _by_partition(messages: list[Any], topic: str | None) -> dict[Partition, list[Any]]:
    """The messages of each partition in their order; ``topic`` is that of all (None: they are asked).

    (One ``map`` a field: a Python frame a message would cost more than the field.)
    """
    found: dict[Partition, list[Any]] = {}
    if messages:
        numbers = np.fromiter(map(Message.partition, messages), np.int64, len(messages))
        new = np.diff(numbers) != 0
        topics = [topic] * len(messages) if topic else list(map(Message.topic, messages))
        if len(set(topics)) > 1:
            new |= np.array([a != b for a, b in pairwise(topics)])
        for start, end in pairwise([0, *(np.flatnonzero(new) + 1).tolist(), len(messages)]):
            found.setdefault(Partition(topics[start] or "", int(numbers[start])), []).extend(
                messages[start:end]
            )
    return found


def _to_records(partition: Partition, first_offset: int, next_offset: int, messages: list[Any]) -> Records:
    headers: list[Any] = list(map(Message.headers, messages))
    stamps = np.fromiter(map(_TIME, map(Message.timestamp, messages)), np.int64, len(messages))
    return Records(
        partition=partition,
        first_offset=first_offset,
        next_offset=next_offset,
        offsets=_offsets(messages),
        timestamps=np.where(stamps < 0, -1, stamps * NS_PER_MS),
        values=list(map(Message.value, messages)),
        keys=_Keys(messages),
        headers=[h or [] for h in headers] if any(headers) else None,
    )


def _offsets(messages: list[Any]) -> NDArray[np.int64]:
    """(N,) int64.

    They rise, so that only where some are missing (compacted, transactions) each message has to be asked.
    """
    first, last = (messages[0].offset(), messages[-1].offset()) if messages else (0, -1)
    if last - first + 1 == len(messages):
        return np.arange(first, last + 1, dtype=np.int64)
    return np.fromiter(map(Message.offset, messages), np.int64, len(messages))


def _ms(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))
