"""Topics of an Apache Kafka cluster as a Source, by kafka-python.

The database holds the truth about positions; Kafka's own offsets are only shown to operators (``publish_offsets``).
Therefore every partition that the group assigns comes paused, the engine says where it is read, and nothing
is ever reset by the client on its own.

Rebalance callbacks run on the client's one IO thread, where any call that waits would deadlock: they record
and pause, no more.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
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
from pipeline.core.errors import OffsetOutOfRange, SourceError, SourceUnavailable
from pipeline.core.types import Partition
from pipeline.sources.base import OffsetBounds, Poll, Records
from pipeline.sources.kafka.client import connect
from pipeline.sources.kafka.consumer_group import LOOKUP, METADATA_AGE, SLICE, AssignedPartitions, GroupSource
from pipeline.sources.kafka.record_batches import NS_PER_MS, Chunk, ColumnRecords, CorruptBatchError, merge

CONNECT = 3.0  # seconds that connecting may take, however short the poll
DOWN_AFTER = 3.0  # seconds without a connection to any broker until polls say so

log = logging.getLogger(__name__)


class KafkaSource(GroupSource):
    """One member of a consumer group.

    Connects at the first poll, and again whenever the client itself broke.
    """

    def __init__(self, config: KafkaSourceConfig, group: str, *, metadata_age: float = METADATA_AGE) -> None:
        super().__init__(config, group, metadata_age=metadata_age)
        self._consumer: Any = None
        self._net: Any = None  # the consumer's network client: connections and cluster metadata
        self._topic_ids: dict[str, Any] = {}
        self._damaged: tuple[TopicPartition, int] | None = None
        self._heard = time.monotonic()

    def poll(self, max_records: int, timeout: float) -> Poll:
        deadline = time.monotonic() + timeout
        consumer = self._connected(timeout)
        while True:
            fetched = self._fetch(consumer, max_records, min(max(deadline - time.monotonic(), 0.0), SLICE))
            poll = self._settle()
            poll.records.extend(self._records(fetched))
            if poll.records or poll.assigned or poll.revoked or time.monotonic() >= deadline:
                break
        self._publisher.flush()
        self._check_alive(poll)
        poll.waits_for = self._waits_for()
        return poll

    def bounds(self, partitions: Sequence[Partition]) -> Mapping[Partition, OffsetBounds]:
        asked = [TopicPartition(*p) for p in partitions]
        with self._asking("the bounds of its partitions") as consumer:
            first = consumer.beginning_offsets(asked, timeout_ms=LOOKUP * 1000)
            last = consumer.end_offsets(asked, timeout_ms=LOOKUP * 1000)
        return {p: OffsetBounds(first[tp], last[tp]) for p, tp in zip(partitions, asked, strict=True)}

    def offset_at(self, partition: Partition, time_ns: int) -> int:
        asked = TopicPartition(*partition)
        with self._asking("offsets by time") as consumer:
            found = consumer.offsets_for_times({asked: -(-time_ns // NS_PER_MS)}, timeout_ms=LOOKUP * 1000)[
                asked
            ]
        return int(found.offset) if found is not None else self.bounds([partition])[partition].end

    def identity(self, partition: Partition) -> str:
        topic_id = self._topic_id(partition.topic)
        return str(topic_id) if topic_id is not None else ""

    def seek(self, partition: Partition, offset: int) -> None:
        self._must_hold(partition)
        if self._consumer is not None:
            self._consumer.seek(TopicPartition(*partition), offset)
            self._owned.next[partition] = offset

    def pause(self, partitions: Sequence[Partition]) -> None:
        if self._consumer is not None:
            self._consumer.pause(*(TopicPartition(*p) for p in self._held(partitions)))

    def resume(self, partitions: Sequence[Partition]) -> None:
        if self._consumer is not None:  # else the next poll makes a new client, and hands everything out anew
            for topic_partition in (TopicPartition(*p) for p in self._held(partitions)):
                # What was fetched ahead when the pause came is fetched again: kafka-python 3.0.12 keeps it,
                # and may never give it out.
                self._consumer._fetcher._paused_partition_records.pop(topic_partition, None)
                self._consumer.resume(topic_partition)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with suppress(Exception):  # the last offsets are for operators only
                self._publisher.flush(now=True)
            self._drop_client()

    # ------------------------------------------------------------------------------------------------------ connecting

    def _connected(self, timeout: float) -> Any:
        self._must_be_open()
        if self._consumer is None:
            consumer: Any = connect(
                KafkaConsumer, self._config.brokers, max(timeout, CONNECT), **self._settings()
            )
            net = consumer._client
            consumer._fetcher.PartitionRecords = ColumnRecords
            # the consumer's own option of that name does not arrive there
            net.cluster.config["allow_auto_create_topics"] = False
            _say_what_is_lost(consumer._coordinator)
            self._consumer, self._net = consumer, net
            self._heard = time.monotonic()
            self._join()
        return self._consumer

    def _settings(self) -> dict[str, Any]:
        config = self._config
        password = (
            {"sasl_plain_password": config.password.reveal().get_secret_value()} if config.password else {}
        )
        return {
            **config.security,
            **password,
            "group_id": self._group,
            "partition_assignment_strategy": [CooperativeStickyAssignor],
            "session_timeout_ms": _ms(config.session_timeout),
            "heartbeat_interval_ms": min(1000, _ms(config.session_timeout) // 3),
            "max_poll_interval_ms": _ms(config.max_poll_interval),
            "metadata_max_age_ms": int(self._metadata_age * 1000),
            "reconnect_backoff_max_ms": 1000,
            "request_timeout_ms": 10_000,
            "fetch_max_wait_ms": 100,  # a partition that is resumed waits for the fetch under way
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "isolation_level": "read_committed",
            "metrics_enabled": False,
        }

    def _join(self) -> None:
        # unknown topics would make the first assignment an empty one
        missing = self._await_metadata(self._config.topics, 1.0)
        if missing:
            log.warning("%s; waiting for it", self._lacks(missing))
        self._consumer.subscribe(list(self._config.topics), listener=_Listener(self._consumer, self._owned))

    def _drop_client(self) -> None:
        """Close the client and forget what it owned; the next poll makes a new one."""
        consumer, net, self._consumer, self._net = self._consumer, self._net, None, None
        self._owned.lost(self._owned.next)
        if consumer is not None:
            # the cluster may be away, and the client may be broken: that is why it goes
            with suppress(Exception):
                consumer.close(autocommit=False, timeout_ms=2000)
            net.close()

    # --------------------------------------------------------------------------------------------------------- polling

    def _fetch(self, consumer: Any, max_records: int, timeout: float) -> Mapping[TopicPartition, list[Chunk]]:
        if consumer._coordinator.rejoining:
            # kafka-python 3.0.12 forgets a rejoin that outlasts a poll if it was new partitions that called
            # for it, and never gets any again.
            consumer._coordinator.request_rejoin()
        try:
            return consumer.poll(timeout_ms=int(timeout * 1000), max_records=max_records)
        except CorruptBatchError as error:
            self._corrupt(error)
        except OffsetOutOfRangeError as error:
            raise self._out_of_range(error.args[0]) from error
        except LogTruncationError as error:
            raise self._out_of_range(
                {tp: self._owned.next[Partition(*tp)] for tp in error.divergent_offsets}
            ) from error
        except InconsistentGroupProtocolError as error:
            raise SourceError(
                f"group {self._group} is in use by another program with another way to share partitions; set kafka.group"
            ) from error
        except AuthorizationError as error:
            raise SourceError(
                f"Kafka at {self._where} does not allow it: {error}; check the ACLs of topic and group"
            ) from error
        except RetriableError as error:
            log.debug("poll: %r", error)
        except KafkaError as error:
            raise SourceError(f"Kafka at {self._where}: {error!r}") from error
        except RuntimeError as error:  # the client's IO loop is gone; nothing but a new client helps
            self._drop_client()
            raise SourceUnavailable(f"the Kafka client stopped ({error}); connecting anew") from error
        return {}

    def _settle(self) -> Poll:
        self._notice_recreated()
        poll = self._owned.settle()
        self._publisher.drop(poll.revoked)
        for partition in poll.assigned:
            known = self._net.cluster.partitions_for_topic(partition.topic) or {partition.number}
            self._first_seen.setdefault(partition.topic, set(known))
            self._topic_ids[partition.topic] = self._net.cluster.topic_id(partition.topic)
        return poll

    def _waits_for(self) -> str:
        """A group gives out what there is: that a topic is missing, or that we are no member yet, looks like
        an idle topic otherwise.
        """
        if missing := [
            topic for topic in self._config.topics if self._net.cluster.partitions_for_topic(topic) is None
        ]:
            return self._lacks(missing)
        return (
            "" if self._owned.next or self._consumer._coordinator.state == MemberState.STABLE else self._joins
        )

    def _notice_recreated(self) -> None:
        """A topic that was deleted and made again keeps its assignment; hand its partitions out anew, so that
        the engine asks for the identity.
        """
        for topic, known in self._topic_ids.items():
            now = self._net.cluster.topic_id(topic)
            if now is not None and now != known:
                self._topic_ids[topic] = now
                again = [
                    p for p in self._owned.next if p.topic == topic and known is not None and self._pause(p)
                ]
                self._owned.lost(again)
                self._owned.gained(again)

    def _pause(self, partition: Partition) -> bool:
        """Pause it; False where the group has just taken it back: then the group hands it out anew itself."""
        try:
            self._consumer.pause(TopicPartition(*partition))
        except KeyError:
            return False
        return True

    def _records(self, fetched: Mapping[TopicPartition, list[Chunk]]) -> Iterator[Records]:
        for topic_partition, chunks in fetched.items():
            partition = Partition(*topic_partition)
            if partition in self._owned.next:
                records = merge(partition, self._owned.next[partition], chunks)
                self._owned.next[partition] = records.next_offset
                yield records

    def _check_alive(self, poll: Poll) -> None:
        """An idle topic and a cluster that is away look alike to the client's poll: tell them apart by the
        connections.
        """
        if poll.records or any(self._net.connected(broker.node_id) for broker in self._net.cluster.brokers()):
            self._heard = time.monotonic()
        elif time.monotonic() - self._heard > DOWN_AFTER and not (poll.assigned or poll.revoked):
            raise SourceUnavailable(
                f"Kafka at {self._where} is away; reading goes on where it stopped once it is back"
            )

    def _corrupt(self, error: CorruptBatchError) -> None:
        """Fetch once more, for the damage may be the network's; the second time it is the log's."""
        place = (error.topic_partition, error.offset)
        if self._damaged != place:
            self._damaged = place
            log.warning(
                "%s: unreadable batch at offset %d (%s); fetching it again",
                Partition(*place[0]),
                place[1],
                error,
            )
            return
        self._damaged = None
        self._consumer.pause(error.topic_partition)
        partition = Partition(*error.topic_partition)
        message = f"{partition}: the batch at offset {error.offset} is unreadable ({error}); repair or delete it in the topic, or seek past it"
        raise SourceError(message, partition, error.offset) from error

    def _out_of_range(self, offsets: Mapping[TopicPartition, int]) -> OffsetOutOfRange:
        topic_partition, offset = next(iter(offsets.items()))
        self._consumer.pause(topic_partition)
        partition = Partition(*topic_partition)
        return OffsetOutOfRange(
            f"{partition}: the topic does not hold offset {offset} (retention, or it was made again)",
            partition,
            offset,
        )

    # ------------------------------------------------------------------------------------------------------- questions

    @contextmanager
    def _asking(self, what: str) -> Iterator[Any]:
        try:
            yield self._connected(LOOKUP)
        except (RetriableError, KeyError) as error:
            # KeyError: the client's answer lacks a partition that is unknown
            raise SourceUnavailable(
                f"Kafka at {self._where} did not tell {what} within {LOOKUP:g} s ({error!r})"
            ) from error
        except KafkaError as error:
            raise SourceError(f"Kafka at {self._where} does not tell {what}: {error!r}") from error

    def _topic_id(self, topic: str) -> Any:
        """The topic's id, from the metadata that the client keeps fresh.

        None: a broker before 2.8 has none.
        """
        self._connected(LOOKUP)
        if self._await_metadata([topic], LOOKUP):
            raise SourceUnavailable(f"Kafka at {self._where} has no topic {topic}")
        return self._net.cluster.topic_id(topic)

    def _await_metadata(self, topics: Sequence[str], timeout: float) -> list[str]:
        """Wait until the partitions of ``topics`` are known; returns the topics that are not after
        ``timeout`` seconds.
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


def _say_what_is_lost(coordinator: Any) -> None:
    """Prepare the join anew where its answer is that the group has forgotten this member.

    kafka-python 3.0.12 prepares once an attempt: what was ours, was another's meanwhile, and came back, it
    took for never lost.
    """
    reset = coordinator.reset_generation

    def forgotten(*args: Any, **kwargs: Any) -> None:
        reset(*args, **kwargs)
        coordinator.rejoining = False

    coordinator.reset_generation = forgotten


class _Listener(ConsumerRebalanceListener):
    """Runs on the client's IO thread.

    A position is set at once, or the client would look for one and fail; paused, nothing is read from it.
    """

    def __init__(self, consumer: Any, owned: AssignedPartitions) -> None:
        self._consumer = consumer
        self._owned = owned

    def on_partitions_assigned(self, assigned: Any) -> None:
        for topic_partition in assigned:
            self._consumer.seek(topic_partition, 0)
        self._consumer.pause(*assigned)
        self._owned.gained(assigned)

    def on_partitions_revoked(self, revoked: Any) -> None:
        self._owned.lost(revoked)

    def on_partitions_lost(self, lost: Any) -> None:
        self._owned.lost(lost)


def _ms(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))


def from_config(stream_name: str, config: KafkaSourceConfig, form: FormatConfig | None) -> Any:
    """What ``make_source`` calls."""
    group = config.group or f"forewatch-{stream_name}"
    if config.client == "confluent":
        from pipeline.sources.kafka.confluent import ConfluentSource

        return ConfluentSource(config, group)
    return KafkaSource(config, group)
