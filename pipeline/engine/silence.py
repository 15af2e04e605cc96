"""Silence of partitions, which ends sessions that no further record ends.

A partition is silent while it is read to its end and its log does not grow. The time counts from the last
check that found it otherwise, so an outage of the source, or reading that waits, is no silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pipeline.core.types import Partition

#: Offsets behind the last record of a log that was read: the mark of the end of a transaction.
MAX_UNREAD_OFFSETS: Final = 1


@dataclass(frozen=True, slots=True)
class _Seen:
    """Next offset and end of a log, and since when they are the same."""

    offsets: tuple[int, int]
    since: float


@dataclass(slots=True)
class Silence:
    """Silence of the partitions of one stream.

    After ``seconds`` the sessions have ended; None: they do not end so.
    """

    seconds: float | None
    _seen: dict[Partition, _Seen] = field(default_factory=dict)

    def observe(self, offsets: Mapping[Partition, tuple[int, int]], now: float) -> None:
        """Take a check of the partitions that are read.

        The silence of all others ends.

        Args:
            offsets: Next offset to read and end of the log of each.
            now: Monotonic time, seconds.
        """
        if self.seconds is None:
            return
        before, self._seen = self._seen, {}
        for partition, pair in offsets.items():
            if pair[1] - pair[0] > MAX_UNREAD_OFFSETS:
                continue
            seen = before.get(partition)
            if seen is None or seen.offsets != pair:
                seen = _Seen(pair, now)
            self._seen[partition] = seen

    def clear(self) -> None:
        """End the silence of all partitions: their logs cannot be seen."""
        self._seen.clear()

    def over(self, now: float) -> list[Partition]:
        """Return the partitions that are silent for ``seconds``."""
        if self.seconds is None:
            return []
        return sorted(p for p, seen in self._seen.items() if now - seen.since >= self.seconds)
