"""Silence of partitions, which ends what no further record ends.

It ends sessions of events and intervals of counts.

A partition is silent while it is read to its end and its log does not grow. The time counts from the last
check that found it otherwise, so an outage of the source, or reading that waits, is no silence.

A file of a followed folder ends when the next one begins, so its folder is silent while all files are, and
only if the file that changed last has grown while it was followed: files that are moved into the folder say
nothing about the time until the next one.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.core.types import Partition


@dataclass(frozen=True, slots=True)
class _Seen:
    """Next offset and end of a log, and since when they are the same."""

    offsets: tuple[int, int]
    since: float


@dataclass(slots=True)
class Silence:
    """Silence of the partitions of one stream.

    ``is_used`` is False where nothing depends on it, ``together`` where the partitions are files of a folder.
    """

    is_used: bool
    together: bool = False
    _seen: dict[Partition, _Seen] = field(default_factory=dict)
    _grown: set[Partition] = field(default_factory=set)  # after they were read to their end

    def observe(self, offsets: Mapping[Partition, tuple[int, int]], now: float) -> None:
        """Take a check of the partitions that are read.

        The silence of all others ends.

        Args:
            offsets: Next offset to read and end of the log of each.
            now: Monotonic time, seconds.
        """
        if not self.is_used:
            return
        before, self._seen = self._seen, {}
        for partition, pair in offsets.items():
            seen = before.get(partition)
            if seen is not None and seen.offsets != pair:
                self._grown.add(partition)
            if pair[1] > pair[0]:  # the marks of transactions are read like records
                continue
            if seen is None or seen.offsets != pair:
                seen = _Seen(pair, now)
            self._seen[partition] = seen
        if self.together and len(self._seen) < len(offsets):
            self.clear()

    def clear(self) -> None:
        """End the silence of all partitions: their logs cannot be seen."""
        self._seen.clear()

    def end(self, partitions: Iterable[Partition]) -> dict[Partition, float]:
        """End the silence of partitions with new records; return its seconds."""
        now, lengths = time.monotonic(), {}
        for partition in partitions:
            if (seen := self._seen.pop(partition, None)) is not None:
                lengths[partition] = now - seen.since
                self._grown.add(partition)
        return lengths

    def forget(self, partition: Partition) -> None:
        """Forget a partition that is lost."""
        self._seen.pop(partition, None)
        self._grown.discard(partition)

    def seconds(self, now: float) -> dict[Partition, float]:
        """Return for how long each partition is silent."""
        if not self.together:
            return {partition: now - seen.since for partition, seen in sorted(self._seen.items())}
        last = max((seen.since for seen in self._seen.values()), default=None)
        # Several have one time after a check that found rows of one of them unread.
        if last is None or not any(
            seen.since == last and partition in self._grown for partition, seen in self._seen.items()
        ):
            return {}
        return dict.fromkeys(sorted(self._seen), now - last)
