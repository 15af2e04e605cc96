"""Source of Apache Kafka topics, by confluent-kafka (the extra ``forewatch[confluent]``, a C client).

The rules are those of ``consumer``: the positions are in the database, assigned partitions start paused, and
the client never resets an offset. Callbacks of this client run inside ``consume``, on the polling thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

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

from pipeline.config.schema import KafkaSourceConfig
from pipeline.core.errors import ConfigError, OffsetOutOfRange, SourceError, SourceUnavailable
from pipeline.core.types import Partition
from pipeline.sources.base import OffsetBounds, Poll, Records
from pipeline.sources.kafka.client_settings import (
    client_log,
    librdkafka_connection,
    librdkafka_settings,
)
from pipeline.sources.kafka.confluent_records import NS_PER_MS, messages_by_partition, to_records
from pipeline.sources.kafka.consumer_group import (
    LOOKUP_SECONDS,
    METADATA_AGE_SECONDS,
    POLL_SLICE_SECONDS,
    GroupSource,
)

log = logging.getLogger(__name__)


class ConfluentSource(GroupSource):
    """Member of a consumer group; it connects at the first poll."""

    def __init__(
        self, config: KafkaSourceConfig, group: str, *, metadata_age: float = METADATA_AGE_SECONDS
    ) -> None:
        super().__init__(config, group, metadata_age=metadata_age)
        self._consumer: Any = None
        self._admin: Any = None
        self._paused: set[Partition] = set()
        self._flowing: set[Partition] = set()  # a record has come since the last seek
        # Partitions whose errors are ignored: without a seek yet, or failed and not resumed since.
        self._silenced: set[Partition] = set()
        self._failures: list[SourceError] = []  # raised one at a time, after the records of the same poll
        self._topic_ids: dict[str, str] = {}
        self._asked: dict[str, Any] = {}  # pending topic descriptions
        self._asked_at = 0.0
        self._down = False
        self._joined = False  # the group has made an assignment, maybe an empty one
        self._missing: set[str] = set()  # topics that do not exist
        self._missing_at = 0.0
        self._only_topic = config.topics[0] if len(config.topics) == 1 else None

    def poll(self, max_records: int, timeout: float) -> Poll:
        deadline = time.monotonic() + timeout
        consumer = self._connected()
        while True:
            messages = self._consume(
                consumer, max_records, min(max(deadline - time.monotonic(), 0.0), POLL_SLICE_SECONDS)
            )
            poll = self._apply_changes()
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
        with self._requesting("the bounds of its partitions") as consumer:
            found = {
                p: consumer.get_watermark_offsets(TopicPartition(*p), timeout=LOOKUP_SECONDS)
                for p in partitions
            }
        if missing := [str(p) for p, pair in found.items() if pair is None]:
            raise SourceUnavailable(
                f"Kafka at {self._broker_list} did not return the bounds of {', '.join(missing)} within {LOOKUP_SECONDS:g} s"
            )
        return {p: OffsetBounds(*pair) for p, pair in found.items()}

    def offset_at(self, partition: Partition, time_ns: int) -> int:
        with self._requesting("offsets by time") as consumer:
            (found,) = consumer.offsets_for_times(
                [TopicPartition(*partition, -(-time_ns // NS_PER_MS))], timeout=LOOKUP_SECONDS
            )
        return int(found.offset) if found.offset >= 0 else self.bounds([partition])[partition].end

    def identity(self, partition: Partition) -> str:
        with self._requesting("the topic's id"):
            described = self._describe([partition.topic])[partition.topic].result(LOOKUP_SECONDS)
        self._topic_ids[partition.topic] = str(described.topic_id)
        return str(described.topic_id)

    def seek(self, partition: Partition, offset: int) -> None:
        self._require_assigned(partition)
        place = TopicPartition(*partition, offset)
        try:
            self._consumer.seek(place)
        except KafkaException:
            # After an error, and right after an assignment, the client cannot seek.
            self._consumer.incremental_unassign([TopicPartition(*partition)])
            self._consumer.incremental_assign([place])
            if partition in self._paused:
                self._consumer.pause([place])
        self._flowing.discard(partition)
        self._silenced.discard(partition)
        self._assigned.next[partition] = offset

    def pause(self, partitions: Sequence[Partition]) -> None:
        if held := self._only_assigned(partitions):
            self._paused.update(held)
            self._consumer.pause([TopicPartition(*p) for p in held])

    def resume(self, partitions: Sequence[Partition]) -> None:
        if held := self._only_assigned(partitions):
            self._paused.difference_update(held)
            self._silenced.difference_update(held)
            self._consumer.resume([TopicPartition(*p) for p in held])

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._publisher.flush(now=True)
            if self._consumer is not None:
                # The client waits for pending commits, without a limit if the cluster is unreachable. The
                # group then removes this member after its session timeout.
                leaving = Thread(target=self._leave, daemon=True)
                leaving.start()
                leaving.join(LOOKUP_SECONDS)

    def _leave(self) -> None:
        with suppress(KafkaException, RuntimeError):
            self._consumer.close()

    # ------------------------------------------------------------------------------------------------------ connecting

    def _connected(self) -> Any:
        self._require_open()
        if self._consumer is None:
            try:
                settings = librdkafka_settings(self._config, self._group, self._metadata_age, self._on_error)
                self._consumer = Consumer(settings, logger=client_log)
                self._admin = AdminClient(
                    librdkafka_connection(self._config, self._on_error), logger=client_log
                )
            except (KafkaException, TypeError, ValueError) as error:
                raise ConfigError(f"kafka client settings: {error}") from error
            self._consumer.subscribe(
                list(self._config.topics),
                on_assign=self._on_assign,
                on_revoke=self._on_lost,
                on_lost=self._on_lost,
            )
        return self._consumer

    def _on_assign(self, consumer: Any, partitions: Any) -> None:
        # At a plain offset: an offset that the client requests from the broker (the end, a stored one) may
        # arrive after the seek and undo it.
        consumer.incremental_assign([TopicPartition(p.topic, p.partition, 0) for p in partitions])
        consumer.pause(partitions)
        partitions_assigned = [Partition(p.topic, p.partition) for p in partitions]
        self._paused.update(partitions_assigned)
        self._silenced.update(partitions_assigned)
        self._assigned.record_assigned(partitions_assigned)
        self._joined = True

    def _on_lost(self, consumer: Any, partitions: Any) -> None:
        self._assigned.record_lost([(p.topic, p.partition) for p in partitions])

    def _on_error(self, error: Any) -> None:
        """Note whether all brokers are down; runs inside ``consume``.

        The client recovers from most other errors by itself.
        """
        log.debug("client: %s", error)
        self._down = self._down or error.code() == KafkaError._ALL_BROKERS_DOWN
        if error.code() == KafkaError._AUTHENTICATION:
            self._failures.append(SourceUnavailable(f"Kafka at {self._broker_list}: {error.str()}"))

    # --------------------------------------------------------------------------------------------------------- polling

    def _consume(self, consumer: Any, max_records: int, timeout: float) -> list[Any]:
        """Return the available messages, or wait for the first one and those that came with it.

        ``consume(n, timeout)`` alone would wait for all n.
        """
        messages: list[Any] = consumer.consume(max_records, 0)
        if not messages and timeout > 0:
            messages = consumer.consume(1, timeout)
            if messages and max_records > 1:
                messages += consumer.consume(max_records - 1, 0)
        return messages

    def _apply_changes(self) -> Poll:
        self._notice_recreated()
        poll = self._assigned.take_changes()
        self._publisher.drop(poll.revoked)
        for partition in poll.assigned:
            if partition.topic not in self._first_seen:
                with suppress(KafkaException):
                    known = (
                        self._consumer.list_topics(partition.topic, timeout=LOOKUP_SECONDS)
                        .topics[partition.topic]
                        .partitions
                    )
                    self._first_seen[partition.topic] = set(known)
        return poll

    def _waits_for(self) -> str:
        """Return the reason why the source is not complete, empty if it is.

        The client reports a missing topic only once, so missing topics are looked up again from time to time.
        """
        if self._missing and time.monotonic() - self._missing_at > self._metadata_age:
            self._missing_at = time.monotonic()
            with suppress(KafkaException):
                self._missing.difference_update(self._consumer.list_topics(timeout=1.0).topics)
        if self._missing:
            return self._missing_text(sorted(self._missing))
        return "" if self._joined else self._joining_text

    def _notice_recreated(self) -> None:
        """Reassign the partitions of topics that were deleted and created again.

        The ids of the topics are requested from time to time, without waiting for the answer.
        """
        for topic in [t for t, answer in self._asked.items() if answer.done()]:
            with suppress(KafkaException):
                now = str(self._asked.pop(topic).result().topic_id)
                again = [p for p in self._assigned.next if p.topic == topic]
                if self._topic_ids.get(topic, now) != now:
                    self.pause(again)
                    self._assigned.record_lost(again)
                    self._assigned.record_assigned(again)
                self._topic_ids[topic] = now
        if not self._asked and self._topic_ids and time.monotonic() - self._asked_at > self._metadata_age:
            self._asked, self._asked_at = self._describe(list(self._topic_ids)), time.monotonic()

    def _describe(self, topics: list[str]) -> dict[str, Any]:
        return dict(self._admin.describe_topics(TopicCollection(topics), request_timeout=LOOKUP_SECONDS))

    def _records(self, messages: list[Any]) -> Iterator[Records]:
        for partition, batch in messages_by_partition(messages, self._only_topic).items():
            errors = []
            if any(map(Message.error, batch)):
                errors = [m for m in batch if m.error() is not None]
                batch = [m for m in batch if m.error() is None]
            first = self._assigned.next.get(partition)
            if first is not None and partition not in self._paused:
                if batch and batch[0].offset() < first:  # fetched before the seek
                    batch = [m for m in batch if m.offset() >= first]
                if batch:
                    self._flowing.add(partition)
                after = max([first, *self._ends(partition, errors), batch[-1].offset() + 1 if batch else 0])
                if after > first:
                    self._assigned.next[partition] = after
                    yield to_records(partition, first, after, batch)
            for message in errors:
                self._handle_message_error(partition, message)

    def _ends(self, partition: Partition, errors: list[Any]) -> list[int]:
        """Return the offsets at which the client reached the end, transaction markers included.

        An end that was reached before a seek may be reported after it, when the records before it were not
        read. So ends count only once a record has come.
        """
        return [
            m.offset()
            for m in errors
            if m.error().code() == KafkaError._PARTITION_EOF and partition in self._flowing
        ]

    def _handle_message_error(self, partition: Partition, message: Any) -> None:
        error = message.error()
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            self._note_missing_topic(partition.topic)
        if error.code() in (
            KafkaError._PARTITION_EOF,
            KafkaError._MAX_POLL_EXCEEDED,
            KafkaError.UNKNOWN_TOPIC_OR_PART,
        ):
            return
        offset = self._assigned.next.get(partition)
        if offset is None:
            self._failures.append(SourceError(f"Kafka at {self._broker_list}: {error.str()}"))
            return
        # The error is about a fetch before the last seek.
        if partition in self._silenced or message.offset() not in (offset, OFFSET_INVALID):
            return
        # The client fetches again before the pause takes effect, and repeats what it cannot read.
        self._silenced.add(partition)
        self.pause([partition])
        if error.code() in (
            KafkaError._AUTO_OFFSET_RESET,
            KafkaError.OFFSET_OUT_OF_RANGE,
            KafkaError._LOG_TRUNCATION,
        ):
            text = f"{partition}: the topic does not hold offset {offset} (deleted by retention, or the topic was created again)"
            self._failures.append(OffsetOutOfRange(text, partition, offset))
        else:
            text = f"{partition}: the batch at offset {offset} is unreadable ({error.str()}); repair or delete it in the topic, or seek past it"
            self._failures.append(SourceError(text, partition, offset))

    def _note_missing_topic(self, topic: str) -> None:
        if topic not in self._missing:
            self._missing.add(topic)
            self._missing_at = time.monotonic()
            log.warning("%s; waiting for it", self._missing_text([topic]))

    def _check_alive(self) -> None:
        """Send a request while all brokers are reported down; raises SourceUnavailable without an answer."""
        if self._down:
            with self._requesting("its topics"):
                self._consumer.list_topics(self._config.topics[0], timeout=1.0)
            self._down = False

    # ------------------------------------------------------------------------------------------------------- questions

    @contextmanager
    def _requesting(self, what: str) -> Iterator[Any]:
        try:
            yield self._connected()
        except (KafkaException, TimeoutError) as error:
            raise SourceUnavailable(
                f"Kafka at {self._broker_list} does not return {what}: {error}"
            ) from error

    def _commit(self, positions: Mapping[Partition, int]) -> None:
        if self._consumer is None:
            return
        try:
            self._consumer.commit(
                offsets=[TopicPartition(*p, offset) for p, offset in positions.items()], asynchronous=True
            )
        except (KafkaException, RuntimeError) as error:
            log.debug("committed offsets not published: %s", error)
