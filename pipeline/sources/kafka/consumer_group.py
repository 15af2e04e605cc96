"""What the two Kafka clients have in common as members of a consumer group."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from pipeline.config.schema import KafkaSourceConfig
from pipeline.core.errors import SourceError
from pipeline.core.types import Partition
from pipeline.sources.base import OffsetBounds, Poll
from pipeline.sources.start_position import EARLIEST, LATEST, parse_start

SLICE = 0.1  # seconds: neither client comes back early for a rebalance, so a poll waits in slices
LOOKUP = 5.0  # seconds that a question to the cluster (bounds, times, topic ids) may take
METADATA_AGE = 10.0  # seconds until new partitions, and topics that were made again, are noticed
PUBLISH_SECONDS = 1.0  # seconds between two commits to Kafka: they only show operators the lag
PUBLISH_ALL_SECONDS = 10.0


class AssignedPartitions:
    """``next`` holds what the engine was told that it owns, and where each is read next.

    Rebalance callbacks only record (``gained``, ``lost``), on whatever thread; ``settle`` turns the record
    into what one poll tells.
    """

    def __init__(self) -> None:
        self.next: dict[Partition, int] = {}
        self._events: deque[tuple[bool, list[Partition]]] = deque()

    def gained(self, partitions: Iterable[tuple[str, int]]) -> None:
        self._events.append((True, [Partition(*p) for p in partitions]))

    def lost(self, partitions: Iterable[tuple[str, int]]) -> None:
        self._events.append((False, [Partition(*p) for p in partitions]))

    def settle(self) -> Poll:
        """What changed since the last time.

        A partition that went and came back is both revoked and assigned: its state is stale.
        """
        assigned: dict[Partition, None] = {}
        revoked: list[Partition] = []
        while self._events:
            gained, partitions = self._events.popleft()
            for partition in partitions:
                if gained:
                    assigned[partition] = None
                elif partition in assigned:
                    del assigned[partition]
                elif self.next.pop(partition, None) is not None:
                    revoked.append(partition)
        self.next.update(dict.fromkeys(assigned, 0))
        return Poll(assigned=list(assigned), revoked=revoked)


class OffsetPublisher:
    """Committed positions on their way to the group's offsets in Kafka: what is new at most every second, all
    of them now and then and at the end.

    Sending waits for no answer and may fail (in a rebalance it does); sent again, the offsets that operators
    see are right also where nothing new comes.
    """

    def __init__(self, send: Callable[[Mapping[Partition, int]], object]) -> None:
        self._send = send
        self._known: dict[Partition, int] = {}
        self._new: dict[Partition, int] = {}
        self._sent = self._sent_all = time.monotonic()

    def show(self, positions: Mapping[Partition, int]) -> None:
        self._known.update(positions)
        self._new.update(positions)
        self.flush()

    def drop(self, partitions: Iterable[Partition]) -> None:
        """Stop publishing for partitions that another member owns now."""
        for partition in partitions:
            self._known.pop(partition, None)
            self._new.pop(partition, None)

    def flush(self, *, now: bool = False) -> None:
        at = time.monotonic()
        if self._known and (now or at - self._sent_all >= PUBLISH_ALL_SECONDS):
            self._sent_all, due = at, dict(self._known)
        elif self._new and at - self._sent >= PUBLISH_SECONDS:
            due = self._new
        else:
            return
        self._sent, self._new = at, {}
        self._send(due)


class GroupSource(ABC):
    """One member of a consumer group; subclasses talk to the client."""

    def __init__(self, config: KafkaSourceConfig, group: str, *, metadata_age: float = METADATA_AGE) -> None:
        self._config = config
        self._group = group
        self._metadata_age = metadata_age
        self._start = parse_start(config.start)
        self._owned = AssignedPartitions()
        self._publisher = OffsetPublisher(self._commit)
        self._first_seen: dict[str, set[int]] = {}  # the partitions that a topic had when we joined
        self._closed = False

    def start_offset(self, partition: Partition) -> int:
        grown = partition.number not in self._first_seen.get(partition.topic, {partition.number})
        # what a new partition got before we knew it counts as new
        if self._start == EARLIEST or (self._start == LATEST and grown):
            return self.bounds([partition])[partition].beginning
        if self._start == LATEST:
            return self.bounds([partition])[partition].end
        return self.offset_at(partition, int(self._start))

    def publish_offsets(self, positions: Mapping[Partition, int]) -> None:
        self._publisher.show(positions)

    @abstractmethod
    def bounds(self, partitions: Sequence[Partition]) -> Mapping[Partition, OffsetBounds]: ...

    @abstractmethod
    def offset_at(self, partition: Partition, time_ns: int) -> int:
        """The first offset whose timestamp is at or after ``time_ns``; the end where there is none."""

    @abstractmethod
    def _commit(self, positions: Mapping[Partition, int]) -> None:
        """Send positions to Kafka without waiting. Never raises."""

    @property
    def _where(self) -> str:
        return ", ".join(self._config.brokers)

    @property
    def _joins(self) -> str:
        return f"joining group {self._group}"

    def _lacks(self, topics: Sequence[str]) -> str:
        return f"Kafka at {self._where} has no topic {', '.join(topics)} yet"

    def _held(self, partitions: Sequence[Partition]) -> list[Partition]:
        """Those that are ours: a rebalance may have been faster than the engine."""
        return [p for p in partitions if p in self._owned.next]

    def _must_hold(self, partition: Partition) -> None:
        if partition not in self._owned.next:
            raise SourceError(f"{partition} is not assigned to this member", partition)

    def _must_be_open(self) -> None:
        if self._closed:
            raise SourceError("this source is closed")
