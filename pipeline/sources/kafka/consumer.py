"""Source of Apache Kafka topics, by kafka-python.

The positions are in the database; Kafka's own offsets are published for operators only
(``publish_offsets``). Therefore every assigned partition starts paused, the engine seeks and resumes it, and
the client never resets an offset by itself.

Rebalance callbacks run on the only IO thread of the client, so that they must not wait: they record and pause.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.errors import (
    AuthorizationError,
    InconsistentGroupProtocolError,
    KafkaError,
    LogTruncationError,
    OffsetOutOfRangeError,
    RetriableError,
)
from kafka.structs import MemberState, OffsetAndMetadata

from pipeline.config.schema import FormatConfig, KafkaSourceConfig
from pipeline.config.stream_names import default_group
from pipeline.core.errors import OffsetOutOfRange, SourceError, SourceUnavailable
from pipeline.core.types import Partition
from pipeline.sources.base import OffsetBounds, Poll, Records
from pipeline.sources.kafka.client import connect
from pipeline.sources.kafka.client_settings import kafka_python_settings
from pipeline.sources.kafka.consumer_group import (
    LOOKUP_SECONDS,
    METADATA_AGE_SECONDS,
    POLL_SLICE_SECONDS,
    AssignedPartitions,
    GroupSource,
)
from pipeline.sources.kafka.group_assignor import (
    GroupAssignor,
    patch_finished_join,
    patch_reset_generation,
)
from pipeline.sources.kafka.record_batches import NS_PER_MS, Chunk, ColumnRecords, CorruptBatchError, merge

CONNECT_SECONDS = 3.0  # for connecting, however short the poll
#: Time without a connection to any broker until polls raise SourceUnavailable.
DOWN_SECONDS = 3.0

log = logging.getLogger(__name__)


class KafkaSource(GroupSource):
    """Member of a consumer group.

    It connects at the first poll, and again after the client has failed.
    """

    def __init__(
        self, config: KafkaSourceConfig, group: str, *, metadata_age: float = METADATA_AGE_SECONDS
    ) -> None:
        super().__init__(config, group, metadata_age=metadata_age)
        self._consumer: Any = None
        self._net: Any = None  # the consumer's network client: connections and cluster metadata
        self._topic_ids: dict[str, Any] = {}
        self._corrupt_place: tuple[TopicPartition, int] | None = None
        self._last_contact = time.monotonic()

    def poll(self, max_records: int, timeout: float) -> Poll:
        deadline = time.monotonic() + timeout
        consumer = self._connected(timeout)
        while True:
            fetched = self._fetch(
                consumer, max_records, min(max(deadline - time.monotonic(), 0.0), POLL_SLICE_SECONDS)
            )
            poll = self._apply_changes()
            poll.records.extend(self._records(fetched))
            if poll.records or poll.assigned or poll.revoked or time.monotonic() >= deadline:
                break
        self._publisher.flush()
        self._check_alive(poll)
        poll.waits_for = self._waits_for()
        return poll

    def bounds(self, partitions: Sequence[Partition]) -> Mapping[Partition, OffsetBounds]:
        asked = [TopicPartition(*p) for p in partitions]
        with self._requesting("the bounds of its partitions") as consumer:
            first = consumer.beginning_offsets(asked, timeout_ms=LOOKUP_SECONDS * 1000)
            last = consumer.end_offsets(asked, timeout_ms=LOOKUP_SECONDS * 1000)
        return {p: OffsetBounds(first[tp], last[tp]) for p, tp in zip(partitions, asked, strict=True)}

    def offset_at(self, partition: Partition, time_ns: int) -> int:
        asked = TopicPartition(*partition)
        with self._requesting("offsets by time") as consumer:
            found = consumer.offsets_for_times(
                {asked: -(-time_ns // NS_PER_MS)}, timeout_ms=LOOKUP_SECONDS * 1000
            )[asked]
        return int(found.offset) if found is not None else self.bounds([partition])[partition].end

    def identity(self, partition: Partition) -> str:
        topic_id = self._topic_id(partition.topic)
        return str(topic_id) if topic_id is not None else ""

    def seek(self, partition: Partition, offset: int) -> None:
        self._require_assigned(partition)
        if self._consumer is not None:
            try:
                self._consumer.seek(TopicPartition(*partition), offset)
            except ValueError as error:  # the group has just revoked it; the next poll says so
                raise SourceError(f"{partition} is not assigned to this member", partition) from error
            self._assigned.next[partition] = offset

    def pause(self, partitions: Sequence[Partition]) -> None:
        if self._consumer is not None:
            for partition in self._only_assigned(partitions):
                self._pause(partition)

    def resume(self, partitions: Sequence[Partition]) -> None:
        if self._consumer is not None:  # else the next poll makes a new client and assigns all partitions
            for topic_partition in (TopicPartition(*p) for p in self._only_assigned(partitions)):
                # Drop what was fetched before the pause, so that it is fetched again: kafka-python 3.0.12
                # keeps it and may never return it.
                self._consumer._fetcher._paused_partition_records.pop(topic_partition, None)
                with suppress(KeyError):  # the group has just revoked it
                    self._consumer.resume(topic_partition)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with suppress(Exception):  # the last offsets are for operators only
                self._publisher.flush(now=True)
            self._drop_client()

    # ------------------------------------------------------------------------------------------------------ connecting

    def _connected(self, timeout: float) -> Any:
        self._require_open()
        if self._consumer is None:
            consumer: Any = connect(
                KafkaConsumer,
                self._config.brokers,
                max(timeout, CONNECT_SECONDS),
                partition_assignment_strategy=[GroupAssignor],
                **kafka_python_settings(self._config, self._group, self._metadata_age),
            )
            net = consumer._client
            consumer._fetcher.PartitionRecords = ColumnRecords
            # The consumer does not pass its own option of that name on.
            net.cluster.config["allow_auto_create_topics"] = False
            patch_reset_generation(consumer._coordinator)
            patch_finished_join(consumer._coordinator)
            self._consumer, self._net = consumer, net
            self._last_contact = time.monotonic()
            self._join()
        return self._consumer

    def _join(self) -> None:
        # With unknown topics the first assignment would be empty.
        missing = self._await_metadata(self._config.topics, 1.0)
        if missing:
            log.warning("%s; waiting for it", self._missing_text(missing))
        self._consumer.subscribe(
            list(self._config.topics), listener=_Listener(self._consumer, self._assigned)
        )

    def _drop_client(self) -> None:
        """Close the client and drop its partitions; the next poll makes a new client."""
        consumer, net, self._consumer, self._net = self._consumer, self._net, None, None
        self._assigned.record_lost(self._assigned.next)
        if consumer is not None:
            # The cluster may be unreachable, and the client may have failed.
            with suppress(Exception):
                consumer.close(autocommit=False, timeout_ms=2000)
            net.close()

    # --------------------------------------------------------------------------------------------------------- polling

    def _fetch(self, consumer: Any, max_records: int, timeout: float) -> Mapping[TopicPartition, list[Chunk]]:
        if consumer._coordinator.rejoining:
            # kafka-python 3.0.12 forgets a rejoin that lasts longer than one poll if new partitions caused
            # it, and is never assigned any again.
            consumer._coordinator.request_rejoin()
        try:
            return consumer.poll(timeout_ms=int(timeout * 1000), max_records=max_records)
        except CorruptBatchError as error:
            self._corrupt(error)
        except OffsetOutOfRangeError as error:
            raise self._out_of_range(error.args[0]) from error
        except LogTruncationError as error:
            raise self._out_of_range(
                {tp: self._assigned.next[Partition(*tp)] for tp in error.divergent_offsets}
            ) from error
        except InconsistentGroupProtocolError as error:
            raise SourceError(
                f"group {self._group} is used by another program with a different partition assignor; set kafka.group"
            ) from error
        except AuthorizationError as error:
            raise SourceError(
                f"Kafka at {self._broker_list} denies access: {error}; check the ACLs of topic and group"
            ) from error
        except RetriableError as error:
            log.debug("poll: %r", error)
        except KafkaError as error:
            raise SourceError(f"Kafka at {self._broker_list}: {error!r}") from error
        except RuntimeError as error:  # the client's IO loop has stopped; only a new client helps
            self._drop_client()
            raise SourceUnavailable(f"the Kafka client stopped ({error}); reconnecting") from error
        return {}

    def _apply_changes(self) -> Poll:
        self._notice_recreated()
        poll = self._assigned.take_changes()
        self._publisher.drop(poll.revoked)
        for partition in poll.assigned:
            known = self._net.cluster.partitions_for_topic(partition.topic) or {partition.number}
            self._first_seen.setdefault(partition.topic, set(known))
            self._topic_ids[partition.topic] = self._net.cluster.topic_id(partition.topic)
        return poll

    def _waits_for(self) -> str:
        """Return the reason why the source is not complete, empty if it is.

        A missing topic and a group that is not joined yet look like an idle topic otherwise.
        """
        if missing := [
            topic for topic in self._config.topics if self._net.cluster.partitions_for_topic(topic) is None
        ]:
            return self._missing_text(missing)
        return (
            ""
            if self._assigned.next or self._consumer._coordinator.state == MemberState.STABLE
            else self._joining_text
        )

    def _notice_recreated(self) -> None:
        """Reassign the partitions of topics that were deleted and created again.

        The group keeps their assignment. The engine checks the identity of what is assigned.
        """
        for topic, known in self._topic_ids.items():
            now = self._net.cluster.topic_id(topic)
            if now is not None and now != known:
                self._topic_ids[topic] = now
                again = [
                    p
                    for p in self._assigned.next
                    if p.topic == topic and known is not None and self._pause(p)
                ]
                self._assigned.record_lost(again)
                self._assigned.record_assigned(again)

    def _pause(self, partition: Partition) -> bool:
        """Pause a partition. Return False if the group has just revoked it; the next poll says so."""
        try:
            self._consumer.pause(TopicPartition(*partition))
        except KeyError:
            return False
        return True

    def _records(self, fetched: Mapping[TopicPartition, list[Chunk]]) -> Iterator[Records]:
        for topic_partition, chunks in fetched.items():
            partition = Partition(*topic_partition)
            if partition in self._assigned.next:
                records = merge(partition, self._assigned.next[partition], chunks)
                self._assigned.next[partition] = records.next_offset
                yield records

    def _check_alive(self, poll: Poll) -> None:
        """Raise SourceUnavailable after DOWN_SECONDS without a connection.

        The client's poll returns nothing both for an idle topic and for an unreachable cluster.
        """
        if poll.records or any(self._net.connected(broker.node_id) for broker in self._net.cluster.brokers()):
            self._last_contact = time.monotonic()
        elif time.monotonic() - self._last_contact > DOWN_SECONDS and not (poll.assigned or poll.revoked):
            raise SourceUnavailable(
                f"Kafka at {self._broker_list} is unreachable; reading continues once it answers"
            )

    def _corrupt(self, error: CorruptBatchError) -> None:
        """Fetch a corrupt batch once more, then raise SourceError.

        The first time the network may have damaged it, the second time it is damaged in the log.
        """
        place = (error.topic_partition, error.offset)
        if self._corrupt_place != place:
            self._corrupt_place = place
            log.warning(
                "%s: unreadable batch at offset %d (%s); fetching it again",
                Partition(*place[0]),
                place[1],
                error,
            )
            return
        self._corrupt_place = None
        partition = Partition(*error.topic_partition)
        self._pause(partition)
        message = f"{partition}: the batch at offset {error.offset} is unreadable ({error}); repair or delete it in the topic, or seek past it"
        raise SourceError(message, partition, error.offset) from error

    def _out_of_range(self, offsets: Mapping[TopicPartition, int]) -> OffsetOutOfRange:
        topic_partition, offset = next(iter(offsets.items()))
        partition = Partition(*topic_partition)
        self._pause(partition)
        return OffsetOutOfRange(
            f"{partition}: the topic does not hold offset {offset} (deleted by retention, or the topic was created again)",
            partition,
            offset,
        )

    # ------------------------------------------------------------------------------------------------------- questions

    @contextmanager
    def _requesting(self, what: str) -> Iterator[Any]:
        try:
            yield self._connected(LOOKUP_SECONDS)
        except (RetriableError, KeyError) as error:
            # KeyError: the answer lacks a partition that the cluster does not know.
            raise SourceUnavailable(
                f"Kafka at {self._broker_list} did not return {what} within {LOOKUP_SECONDS:g} s ({error!r})"
            ) from error
        except KafkaError as error:
            raise SourceError(f"Kafka at {self._broker_list} does not return {what}: {error!r}") from error

    def _topic_id(self, topic: str) -> Any:
        """Return the topic's id from the client's metadata, None for a broker before 2.8."""
        self._connected(LOOKUP_SECONDS)
        if self._await_metadata([topic], LOOKUP_SECONDS):
            raise SourceUnavailable(f"Kafka at {self._broker_list} has no topic {topic}")
        return self._net.cluster.topic_id(topic)

    def _await_metadata(self, topics: Sequence[str], timeout: float) -> list[str]:
        """Wait up to ``timeout`` seconds for the partitions of ``topics``.

        Return the topics that are still unknown.
        """
        deadline = time.monotonic() + timeout
        cluster = self._net.cluster
        cluster.set_topics(topics)
        while missing := [topic for topic in topics if cluster.partitions_for_topic(topic) is None]:
            if time.monotonic() > deadline:
                break
            cluster.request_update()
            time.sleep(0.02)
        return missing

    def _commit(self, positions: Mapping[Partition, int]) -> None:
        if self._consumer is None:
            return
        offsets = {TopicPartition(*p): OffsetAndMetadata(offset, "", -1) for p, offset in positions.items()}
        try:
            if self._closed:
                self._consumer.commit(offsets, timeout_ms=1000)
            else:
                self._consumer.commit_async(offsets)
        except (KafkaError, RuntimeError) as error:
            log.debug("committed offsets not published: %r", error)


class _Listener(ConsumerRebalanceListener):
    """Rebalance listener; it runs on the client's IO thread.

    It sets a position at once, because the client would look for a committed one and fail. Paused, nothing is
    read from it.
    """

    def __init__(self, consumer: Any, owned: AssignedPartitions) -> None:
        self._consumer = consumer
        self._assigned = owned

    def on_partitions_assigned(self, assigned: Any) -> None:
        for topic_partition in assigned:
            self._consumer.seek(topic_partition, 0)
        self._consumer.pause(*assigned)
        self._assigned.record_assigned(assigned)

    def on_partitions_revoked(self, revoked: Any) -> None:
        self._assigned.record_lost(revoked)

    def on_partitions_lost(self, lost: Any) -> None:
        self._assigned.record_lost(lost)


def from_config(stream_name: str, config: KafkaSourceConfig, form: FormatConfig | None) -> Any:
    """Make the source of a stream, with the client that the config names; for ``make_source``."""
    group = config.group or default_group(stream_name)
    if config.client == "confluent":
        from pipeline.sources.kafka.confluent import ConfluentSource

        return ConfluentSource(config, group)
    return KafkaSource(config, group)
