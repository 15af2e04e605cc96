"""Common parts of the two Kafka clients as members of a consumer group."""

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

#: A poll waits in slices of this length: neither client returns early for a rebalance.
POLL_SLICE_SECONDS = 0.1
#: Time that a request to the cluster (bounds, times, topic ids) may take.
LOOKUP_SECONDS = 5.0
#: Time until new partitions and recreated topics are noticed.
METADATA_AGE_SECONDS = 10.0
#: Time between two commits of new offsets to Kafka, which only show operators the lag.
PUBLISH_SECONDS = 1.0
#: Time between two commits of all offsets.
PUBLISH_ALL_SECONDS = 10.0


class AssignedPartitions:
    """Assigned partitions that the engine knows of, with the next offset of each in ``next``.

    Rebalance callbacks only record changes, on any thread. ``take_changes`` reports them to the next poll.
    """

    def __init__(self) -> None:
        self.next: dict[Partition, int] = {}
        self._events: deque[tuple[bool, list[Partition]]] = deque()

    def record_assigned(self, partitions: Iterable[tuple[str, int]]) -> None:
        self._events.append((True, [Partition(*p) for p in partitions]))

    def record_lost(self, partitions: Iterable[tuple[str, int]]) -> None:
        self._events.append((False, [Partition(*p) for p in partitions]))

    def take_changes(self) -> Poll:
        """Return the changes since the last call.

        A partition that was lost and assigned again is both revoked and assigned: its state is stale.
        """
        assigned: dict[Partition, None] = {}
        revoked: list[Partition] = []
        while self._events:
            is_assigned, partitions = self._events.popleft()
            for partition in partitions:
                if is_assigned:
                    assigned[partition] = None
                elif partition in assigned:
                    del assigned[partition]
                elif self.next.pop(partition, None) is not None:
                    revoked.append(partition)
        self.next.update(dict.fromkeys(assigned, 0))
        return Poll(assigned=list(assigned), revoked=revoked)


class OffsetPublisher:
    """Publishes committed positions as the group's offsets in Kafka, for operators.

    New ones are sent at most every PUBLISH_SECONDS, all of them every PUBLISH_ALL_SECONDS and at the end.
    Sending does not wait for an answer and may fail, as it does during a rebalance, so all are sent again.
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
    """Member of a consumer group; subclasses call the client."""

    def __init__(
        self, config: KafkaSourceConfig, group: str, *, metadata_age: float = METADATA_AGE_SECONDS
    ) -> None:
        self._config = config
        self._group = group
        self._metadata_age = metadata_age
        self._start = parse_start(config.start)
        self._assigned = AssignedPartitions()
        self._publisher = OffsetPublisher(self._commit)
        self._first_seen: dict[str, set[int]] = {}  # partitions of each topic at the first assignment
        self._closed = False

    def start_offset(self, partition: Partition) -> int:
        grown = partition.number not in self._first_seen.get(partition.topic, {partition.number})
        # Records that a new partition held before it was assigned count as new.
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
        """Return the first offset with a timestamp at or after ``time_ns``, the end if there is none."""

    @abstractmethod
    def _commit(self, positions: Mapping[Partition, int]) -> None:
        """Send positions to Kafka without waiting. Never raises."""

    @property
    def _broker_list(self) -> str:
        return ", ".join(self._config.brokers)

    @property
    def _joining_text(self) -> str:
        return f"joining group {self._group}"

    def _missing_text(self, topics: Sequence[str]) -> str:
        return f"Kafka at {self._broker_list} has no topic {', '.join(topics)} yet"

    def _only_assigned(self, partitions: Sequence[Partition]) -> list[Partition]:
        """Return those that are still assigned: a rebalance may have been faster than the engine."""
        return [p for p in partitions if p in self._assigned.next]

    def _require_assigned(self, partition: Partition) -> None:
        if partition not in self._assigned.next:
            raise SourceError(f"{partition} is not assigned to this member", partition)

    def _require_open(self) -> None:
        if self._closed:
            raise SourceError("this source is closed")
