"""Bounded range of a live source, for a backfill over the log."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, cast

from pipeline.config.schema import FormatConfig, KafkaSourceConfig, SourceConfig
from pipeline.core.types import Partition
from pipeline.sources import make_source
from pipeline.sources.base import OffsetBounds, Poll, Source
from pipeline.sources.range_reading import take_before


class SeekableByTime(Source, Protocol):
    """Source whose log carries timestamps."""

    def offset_at(self, partition: Partition, time_ns: int) -> int:
        """Return the first offset with a timestamp at or after ``time_ns``, the end if there is none."""
        ...


@dataclass(slots=True)
class RangeSource:
    """Source that reads ``inner`` from ``start_ns`` to ``end_ns``, by the log's own timestamps.

    ``start_ns`` None is the beginning, ``end_ns`` None the end when the partition is assigned.
    """

    inner: SeekableByTime
    start_ns: int | None
    end_ns: int | None
    _ends: dict[Partition, int] = field(default_factory=dict)
    _next: dict[Partition, int] = field(default_factory=dict)
    _total: int = 0

    def poll(self, max_records: int, timeout: float) -> Poll:
        poll = self.inner.poll(max_records, timeout)
        for partition in poll.assigned:
            end = self.bounds([partition])[partition].end
            self._ends[partition] = (
                end if self.end_ns is None else min(end, self.inner.offset_at(partition, self.end_ns))
            )
            self._next[partition] = self.start_offset(partition)
            self._total += self._ends[partition] - self._next[partition]
        taken = (take_before(self.inner, r, self._ends[r.partition], self._next) for r in poll.records)
        records = [one for one in taken if one is not None]
        done = bool(self._ends) and all(self._next[p] >= end for p, end in self._ends.items())
        return Poll(records, poll.assigned, poll.revoked, finished=done)

    def start_offset(self, partition: Partition) -> int:
        if self.start_ns is None:
            return self.bounds([partition])[partition].beginning
        return min(self.inner.offset_at(partition, self.start_ns), self._ends[partition])

    def bounds(self, partitions: Sequence[Partition]) -> Mapping[Partition, OffsetBounds]:
        return self.inner.bounds(partitions)

    def range_end(self, partition: Partition) -> int:
        """Return the offset at which the range ends in an assigned partition."""
        return self._ends[partition]

    @property
    def total(self) -> int:
        """Number of offsets in the range, as far as its partitions are known."""
        return self._total

    def identity(self, partition: Partition) -> str:
        return self.inner.identity(partition)

    def seek(self, partition: Partition, offset: int) -> None:
        self._next[partition] = offset
        self.inner.seek(partition, offset)

    def pause(self, partitions: Sequence[Partition]) -> None:
        self.inner.pause(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        self.inner.resume([p for p in partitions if self._next[p] < self._ends[p]])

    def publish_offsets(self, positions: Mapping[Partition, int]) -> None:
        """Do nothing: a backfill must not change the lag that operators see."""

    def close(self) -> None:
        self.inner.close()


def range_source(
    stream: str, kafka: KafkaSourceConfig, start_ns: int | None, end_ns: int | None
) -> RangeSource:
    """Return a range of the stream's log as a source.

    It has a consumer group of its own: joining the live one would take partitions from the daemon.

    Args:
        stream: Name of the stream.
        kafka: The configuration of its source.
        start_ns: First timestamp, None for the beginning of the log.
        end_ns: Timestamp at which the range ends, None for the end of the log.
    """
    return RangeSource(
        cast(SeekableByTime, make_source(stream, SourceConfig(kafka=_with_own_group(kafka)))),
        start_ns,
        end_ns,
    )


def second_reader(stream: str, source: SourceConfig, form: FormatConfig | None) -> Source | None:
    """Return a second reader of a live source, from the same start.

    None for a source whose records can be read only once, or are made by reading.
    """
    if source.kafka is not None:
        return make_source(stream, SourceConfig(kafka=_with_own_group(source.kafka)), form)
    return make_source(stream, source, form) if source.files is not None else None


def _with_own_group(kafka: KafkaSourceConfig) -> KafkaSourceConfig:
    return kafka.model_copy(update={"group": f"forewatch-backfill-{uuid.uuid4().hex[:8]}"})
