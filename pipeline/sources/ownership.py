"""Which partitions of a consumer group are ours, and where each is read next. Shared by the Kafka clients."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from pipeline.records import Partition
from pipeline.sources.base import Poll

MIRROR_EVERY = 1.0  # seconds between two commits to Kafka: they only show operators the lag


class Ownership:
    """``next`` holds what the engine was told that it owns. Rebalance callbacks only record (``gained``, ``lost``), from whatever thread;
    ``settle`` turns the record into what one poll tells."""

    def __init__(self) -> None:
        self.next: dict[Partition, int] = {}
        self._events: deque[tuple[bool, list[Partition]]] = deque()

    def gained(self, partitions: Iterable[tuple[str, int]]) -> None:
        self._events.append((True, [Partition(*p) for p in partitions]))

    def lost(self, partitions: Iterable[tuple[str, int]]) -> None:
        self._events.append((False, [Partition(*p) for p in partitions]))

    def settle(self) -> Poll:
        """What changed since the last time. A partition that went and came back is both revoked and assigned: its state is stale."""
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


class Mirror:
    """Committed positions on their way to the group's offsets in Kafka; sent at most every second, forgotten when sending fails."""

    def __init__(self, send: Callable[[Mapping[Partition, int]], object]) -> None:
        self._send = send
        self._pending: dict[Partition, int] = {}
        self._sent = 0.0

    def show(self, positions: Mapping[Partition, int]) -> None:
        self._pending.update(positions)
        self.flush()

    def drop(self, partitions: Iterable[Partition]) -> None:
        """These are another member's now: what it mirrored must not be overwritten."""
        for partition in partitions:
            self._pending.pop(partition, None)

    def flush(self, *, now: bool = False) -> None:
        if self._pending and (now or time.monotonic() - self._sent >= MIRROR_EVERY):
            self._sent, pending, self._pending = time.monotonic(), self._pending, {}
            self._send(pending)
