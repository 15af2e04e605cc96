"""Partitioned log in this process, for tests, ``forewatch demo --no-kafka`` and embedding programs.

It simulates what the engine can observe of Kafka: groups that share partitions, cooperative rebalances at the
next poll, retention, gaps in the offsets, a recreated log, and an unavailable broker.
"""

from __future__ import annotations

import time
import uuid
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Condition

import numpy as np

from pipeline.config.schema import FormatConfig, MemorySourceConfig
from pipeline.core.errors import OffsetOutOfRange, SourceError, SourceUnavailable
from pipeline.core.types import Partition
from pipeline.sources.base import Headers, OffsetBounds, Poll, Records
from pipeline.sources.start_position import EARLIEST, LATEST, parse_start


@dataclass(slots=True)
class _Log:
    """Records of one partition in parallel lists; ``offsets`` ascend and may have gaps."""

    offsets: list[int] = field(default_factory=list)
    timestamps: list[int] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)
    beginning: int = 0
    end: int = 0


@dataclass(slots=True)
class _Group:
    """Members in the order in which they joined, and the owner of each partition."""

    members: list[MemorySource] = field(default_factory=list)
    owners: dict[Partition, MemorySource] = field(default_factory=dict)


class MemoryLog:
    """Topic in this process. Any thread may append, and several threads may read it."""

    def __init__(self, topic: str = "memory", partitions: int = 1) -> None:
        self.topic = topic
        self.published_offsets: dict[Partition, int] = {}
        self.unavailable = False  # True: polls raise SourceUnavailable
        self._changed = Condition()
        self._identity = str(uuid.uuid4())
        self._finished = False
        self._groups: dict[str, _Group] = {}
        self._logs = [_Log() for _ in range(partitions)]

    @property
    def partitions(self) -> list[Partition]:
        return [Partition(self.topic, number) for number in range(len(self._logs))]

    def append(
        self,
        value: bytes | None,
        partition: int = 0,
        *,
        key: bytes | None = None,
        timestamp_ns: int | None = None,
        headers: Headers | None = None,
    ) -> int:
        """Add one record and return its offset. ``timestamp_ns`` None means now."""
        return self.extend(
            [value],
            partition,
            keys=[key],
            timestamps_ns=None if timestamp_ns is None else [timestamp_ns],
            headers=[headers or []],
        )

    def extend(
        self,
        values: Sequence[bytes | None],
        partition: int = 0,
        *,
        keys: Sequence[bytes | None] | None = None,
        timestamps_ns: Sequence[int] | None = None,
        headers: Sequence[Headers] | None = None,
    ) -> int:
        """Add records and return the offset of the first."""
        with self._changed:
            log = self._logs[partition]
            first, count = log.end, len(values)
            log.offsets.extend(range(first, first + count))
            log.values.extend(values)
            log.keys.extend(keys if keys is not None else [None] * count)
            log.timestamps.extend(timestamps_ns if timestamps_ns is not None else [time.time_ns()] * count)
            log.headers.extend(headers if headers is not None else [[] for _ in range(count)])
            log.end += count
            self._changed.notify_all()
            return first

    def skip(self, count: int, partition: int = 0) -> None:
        """Skip offsets without records, as compaction and transaction markers do."""
        with self._changed:
            self._logs[partition].end += count
            self._changed.notify_all()

    def add_partitions(self, count: int) -> None:
        """Add partitions; members see them at their next poll."""
        with self._changed:
            self._logs += [_Log() for _ in range(count)]
            self._changed.notify_all()

    def trim(self, before: int, partition: int = 0) -> None:
        """Drop the records below offset ``before``, as retention does."""
        with self._changed:
            log = self._logs[partition]
            cut = bisect_left(log.offsets, before)
            for column in (log.offsets, log.timestamps, log.values, log.keys, log.headers):
                del column[:cut]
            log.beginning = max(log.beginning, before)
            log.end = max(log.end, before)

    def recreate(self) -> None:
        """Recreate the topic: another identity, no records, offsets from 0.

        Every member loses its partitions.
        """
        with self._changed:
            self._identity = str(uuid.uuid4())
            self._logs = [_Log() for _ in self._logs]
            for group in self._groups.values():
                group.owners.clear()
            self._changed.notify_all()

    def finish(self) -> None:
        """Declare the end of the log: sources are ``finished`` once they are read to it."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def expel(self, member: MemorySource) -> None:
        """End the session of a silent member.

        Other members acquire its partitions at once; it sees the loss at its next poll.
        """
        with self._changed:
            group = self._groups[member.group]
            group.members.remove(member)
            group.owners = {p: m for p, m in group.owners.items() if m is not member}
            self._changed.notify_all()


class MemorySource:
    """Member of a group that reads a MemoryLog."""

    def __init__(self, log: MemoryLog, group: str = "forewatch", start: str = EARLIEST) -> None:
        self.group = group
        self._log = log
        self._start = parse_start(start)
        self._next: dict[Partition, int] = {}  # of what is ours
        self._paused: set[Partition] = set()
        self._closed = False
        with log._changed:
            self._first_seen = len(log._logs)
            log._groups.setdefault(group, _Group()).members.append(self)

    def poll(self, max_records: int, timeout: float) -> Poll:
        if self._closed:
            raise SourceError("this source is closed")
        deadline = time.monotonic() + timeout
        log = self._log
        with log._changed:
            while True:
                if log.unavailable:
                    raise SourceUnavailable(f"the in-memory log {log.topic} is set to be unavailable")
                poll = self._rebalance()
                poll.records.extend(self._take(max_records))
                poll.finished = log._finished and all(
                    offset >= log._logs[p.number].end for p, offset in self._next.items()
                )
                remaining = deadline - time.monotonic()
                if poll.records or poll.assigned or poll.revoked or poll.finished or remaining <= 0:
                    return poll
                log._changed.wait(remaining)

    def bounds(self, partitions: Sequence[Partition]) -> Mapping[Partition, OffsetBounds]:
        with self._log._changed:
            return {
                p: OffsetBounds(self._log._logs[p.number].beginning, self._log._logs[p.number].end)
                for p in partitions
            }

    def start_offset(self, partition: Partition) -> int:
        with self._log._changed:
            log = self._log._logs[partition.number]
            # Records that a new partition held before it was assigned count as new.
            grown = partition.number >= self._first_seen
            if self._start == EARLIEST or (self._start == LATEST and grown):
                return log.beginning
            if self._start == LATEST:
                return log.end
        return self.offset_at(partition, int(self._start))

    def offset_at(self, partition: Partition, time_ns: int) -> int:
        """Return the first offset with a timestamp at or after ``time_ns``, the end if there is none."""
        with self._log._changed:
            log = self._log._logs[partition.number]
            return next(
                (o for o, t in zip(log.offsets, log.timestamps, strict=True) if t >= time_ns), log.end
            )

    def identity(self, partition: Partition) -> str:
        return self._log._identity

    def seek(self, partition: Partition, offset: int) -> None:
        if partition not in self._next:
            raise SourceError(f"{partition} is not assigned to this member", partition)
        self._next[partition] = offset

    def pause(self, partitions: Sequence[Partition]) -> None:
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        self._paused.difference_update(partitions)

    def publish_offsets(self, positions: Mapping[Partition, int]) -> None:
        self._log.published_offsets.update(positions)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            with self._log._changed:
                group = self._log._groups[self.group]
                group.members = [m for m in group.members if m is not self]
                group.owners = {p: m for p, m in group.owners.items() if m is not self}
                self._log._changed.notify_all()

    def _rebalance(self) -> Poll:
        """Release partitions of other members, and acquire free ones that belong to this member.

        A partition moves only after its owner has released it.
        """
        group = self._log._groups[self.group]
        if self not in group.members:  # expelled: join again
            group.members.append(self)
        rank, size = group.members.index(self), len(group.members)
        target = {p for p in self._log.partitions if p.number % size == rank}
        kept = {p for p in self._next if group.owners.get(p) is self and p in target}
        revoked = [p for p in self._next if p not in kept]
        for partition in revoked:
            del self._next[partition]
            if group.owners.get(partition) is self:
                del group.owners[partition]
                self._log._changed.notify_all()
        assigned = [p for p in sorted(target - kept) if p not in group.owners]
        for partition in assigned:
            group.owners[partition] = self
            self._next[partition] = 0
        self._paused = (self._paused & kept) | set(assigned)
        return Poll(assigned=assigned, revoked=revoked)

    def _take(self, room: int) -> list[Records]:
        taken: list[Records] = []
        for partition in [p for p in self._next if p not in self._paused]:
            log, first = self._log._logs[partition.number], self._next[partition]
            if not log.beginning <= first <= log.end:
                if taken:  # return these first; the next poll raises
                    break
                self._paused.add(partition)
                message = f"{partition}: offset {first} is outside the log ({log.beginning} to {log.end})"
                raise OffsetOutOfRange(message, partition, first)
            if first < log.end and room > 0:
                taken.append(self._slice(partition, log, first, room))
                room -= len(taken[-1])
                # Move it to the end: the others come first next time.
                self._next[partition] = self._next.pop(partition)
        return taken

    def _slice(self, partition: Partition, log: _Log, first: int, room: int) -> Records:
        start = bisect_left(log.offsets, first)
        stop = min(start + room, len(log.offsets))
        after = log.offsets[stop] if stop < len(log.offsets) else log.end
        self._next[partition] = after
        return Records(
            partition=partition,
            first_offset=first,
            next_offset=after,
            offsets=np.array(log.offsets[start:stop], np.int64),
            timestamps=np.array(log.timestamps[start:stop], np.int64),
            values=log.values[start:stop],
            keys=log.keys[start:stop],
            headers=log.headers[start:stop] if any(log.headers[start:stop]) else None,
        )


_named: dict[str, MemoryLog] = {}


def memory_log(name: str = "memory") -> MemoryLog:
    """Return the log of that name in this process, for ``source: {memory: {name: …}}``."""
    return _named.setdefault(name, MemoryLog(name))


def from_config(stream_name: str, config: MemorySourceConfig, form: FormatConfig | None) -> MemorySource:
    """Make the source of a stream. Streams that name the same log read it as separate groups."""
    return MemorySource(memory_log(config.name), group=f"forewatch-{stream_name}")
