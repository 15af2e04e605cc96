"""Plan of a backfill on a cluster: parts that no series crosses.

A partition (a file, or a partition of a topic) is one part, or several small files are. A large file is
divided by series: by ranges of labels where the row groups of a Parquet file are sorted by them, so that each
part reads its row groups only, else by a hash of the labels, where each part reads the whole file. The plan
depends on the input and not on the number of workers, so that the same command continues on another cluster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

import numpy as np

from pipeline.core.durations import SECOND_NS
from pipeline.core.types import Partition
from pipeline.services.shard_source import SeriesGroup
from pipeline.sources.base import OffsetBounds

#: Time that one part should take: long beside its start, short beside the whole.
PART_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class CostModel:
    """Time of a backfill in seconds, from parts, rows and series.

    start   processes, imports and compiled code of a worker, once
    part    a part: model, first and last snapshot
    row     a row from the file to its committed verdict
    read    a row that is read and belongs to another part
    series  first record and snapshots of a series
    """

    start: float
    part: float
    row: float
    read: float
    series: float

    def seconds(self, shard: Shard) -> float:
        """Return the time of one part."""
        others = shard.rows_read - shard.rows
        return self.part + shard.rows * self.row + others * self.read + shard.series * self.series


#: By detector, on an idle core: rows and start of ``standard`` are CPU times of
#: ``python -m benchmarks.cluster_backfill`` (docs/lab-notes/deployment.md). The others are scaled by the
#: ratios of ``pipeline.services.sizing``, and parts and series are estimates.
COSTS = {
    "light": CostModel(start=4.0, part=0.3, row=1.2e-6, read=0.08e-6, series=20e-6),
    "standard": CostModel(start=4.0, part=0.3, row=5.0e-6, read=0.08e-6, series=60e-6),
    "strong": CostModel(start=4.0, part=0.3, row=10e-6, read=0.08e-6, series=120e-6),
}


@dataclass(frozen=True, slots=True)
class ShardPart:
    """Offsets of one partition. ``end`` −1 is the end of the file."""

    topic: str
    number: int
    identity: str
    first: int
    end: int

    @property
    def partition(self) -> Partition:
        """The partition."""
        return Partition(self.topic, self.number)


@dataclass(frozen=True, slots=True)
class Shard:
    """A part of a backfill.

    ``rows`` and ``series`` of a group are estimates; 0 series: unknown.
    """

    number: int
    parts: tuple[ShardPart, ...]
    rows: int
    rows_read: int
    series: int = 0
    group: SeriesGroup | None = None

    @property
    def ranges(self) -> dict[Partition, OffsetBounds]:
        """First offset and end of each partition."""
        return {part.partition: OffsetBounds(part.first, part.end) for part in self.parts}

    @property
    def whole(self) -> bool:
        """True if all rows of its files belong to it."""
        return self.group is None and all(part.first == 0 and part.end < 0 for part in self.parts)


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """Parts of a backfill.

    run       id of this backfill: of the input, the model and the parts
    rows      rows of the input
    begin_ns, end_ns  event times of the first and the last row, where statistics tell them
    notes     reasons why a part is large
    """

    run: str
    stream: str
    shards: tuple[Shard, ...]
    rows: int
    cost: CostModel
    begin_ns: int | None = None
    end_ns: int | None = None
    notes: tuple[str, ...] = ()

    def seconds(self, workers: int) -> float:
        """Return the estimated time on so many workers, the longest part first."""
        ends = [self.cost.start] * workers
        heapify(ends)
        for seconds in sorted(map(self.cost.seconds, self.shards), reverse=True):
            heappush(ends, heappop(ends) + seconds)
        return max(ends)


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group of a Parquet file, with the limits of its labels."""

    rows: int
    low: bytes
    high: bytes


@dataclass(frozen=True, slots=True)
class InputPart:
    """Facts of a partition from which a plan is made.

    row_groups  row groups of a Parquet file in order, () where statistics do not tell the labels
    shares      shares of rows by the number of groups of a hash; {} where it cannot be divided
    """

    topic: str
    number: int
    identity: str
    first: int
    rows: int
    is_file: bool = True
    row_groups: tuple[RowGroup, ...] = ()
    shares: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    series: int = 0
    begin_ns: int | None = None
    end_ns: int | None = None


def plan_shards(
    inputs: Sequence[InputPart], cost: CostModel, labels: Sequence[str], *, together: bool = False
) -> list[Shard]:
    """Return the parts of some partitions.

    Args:
        inputs: The partitions, in the order in which one process reads them.
        cost: Cost of a row.
        labels: Columns of the labels.
        together: All partitions are one part.
    """
    most = rows_per_part(cost)
    shards: list[Shard] = []
    small: list[InputPart] = []
    for one in inputs:
        if not together and (parts := _divided(one, cost, tuple(labels))):
            shards += parts
            continue
        if not together and small and sum(part.rows for part in small) + one.rows > most:
            shards.append(_bundle(small))
            small = []
        small.append(one)
    if small:
        shards.append(_bundle(small))
    return [
        Shard(number, one.parts, one.rows, one.rows_read, one.series, one.group)
        for number, one in enumerate(shards)
    ]


def rows_per_part(cost: CostModel) -> int:
    """Return the number of rows that take ``PART_SECONDS``."""
    return int(PART_SECONDS / cost.row)


def is_too_large(one: InputPart, cost: CostModel) -> bool:
    """Return whether a partition takes much longer than a part should."""
    return one.rows > 1.5 * rows_per_part(cost)


def large_parts(shards: Sequence[Shard], cost: CostModel) -> list[str]:
    """Return a note about parts that limit how many workers have work, [] without one."""
    limit = 4 * rows_per_part(cost)
    large = [one for one in shards if one.rows > limit]
    if not large:
        return []
    example = max(large, key=lambda one: one.rows)
    return [
        f"{len(large)} parts have more than {limit:,} rows, the largest {example.rows:,} "
        f"of {example.parts[0].topic}: more files, or Parquet files sorted by series, can be divided further"
    ]


def _bundle(inputs: Sequence[InputPart]) -> Shard:
    rows = sum(one.rows for one in inputs)
    parts = tuple(
        ShardPart(one.topic, one.number, one.identity, one.first, -1 if one.is_file else one.first + one.rows)
        for one in inputs
    )
    return Shard(0, parts, rows, rows, sum(one.series for one in inputs))


def _divided(one: InputPart, cost: CostModel, labels: tuple[str, ...]) -> list[Shard]:
    """Return the parts of a large file, [] if it stays whole."""
    if not is_too_large(one, cost):
        return []
    if one.row_groups:
        parts = _by_ranges(one, rows_per_part(cost), labels)
        if len(parts) > 1:
            return parts
    # Each group reads all rows: not more groups than cost a fifth of the work.
    wanted = min(-(-one.rows // rows_per_part(cost)), int(0.2 * cost.row / cost.read) + 1)
    fitting = [count for count in one.shares if 1 < count <= max(wanted, 2)]
    if not fitting:
        return []
    count = max(fitting)
    part = (ShardPart(one.topic, one.number, one.identity, one.first, -1),)
    return [
        Shard(
            0, part, round(one.rows * share), one.rows, one.series // count, SeriesGroup(labels, index, count)
        )
        for index, share in enumerate(one.shares[count])
    ]


def _by_ranges(one: InputPart, most: int, labels: tuple[str, ...]) -> list[Shard]:
    """Divide a file of row groups that are sorted by the label, at their first labels."""
    groups = one.row_groups
    starts = np.concatenate([[0], np.cumsum([group.rows for group in groups])])
    cuts, rows = [0], 0
    for i, group in enumerate(groups):
        if i and rows >= most and group.low > groups[cuts[-1]].low:
            cuts.append(i)
            rows = 0
        rows += group.rows
    lows = [None, *(groups[i].low for i in cuts[1:])]
    parts = []
    for k, low in enumerate(lows):
        high = lows[k + 1] if k + 1 < len(lows) else None
        # A series may begin in the row group before the one that it is the first of.
        begin = next(i for i, group in enumerate(groups) if low is None or group.high >= low)
        end = next(
            (i for i in range(begin, len(groups)) if high is not None and groups[i].low >= high), len(groups)
        )
        first, last = int(starts[begin]), int(starts[end])
        part = (ShardPart(one.topic, one.number, one.identity, first, last),)
        own = int(starts[cuts[k + 1]] if k + 1 < len(cuts) else starts[-1]) - int(starts[cuts[k]])
        parts.append(Shard(0, part, own, last - first, 0, SeriesGroup(labels, k, 1, low, high)))
    return parts


def time_range(plan: BackfillPlan) -> str:
    """Return the event times of a plan as text, "" if statistics do not tell them."""
    if plan.begin_ns is None or plan.end_ns is None:
        return ""
    first, last = (np.datetime64(ns // SECOND_NS, "s") for ns in (plan.begin_ns, plan.end_ns))
    return f"{first}Z to {last}Z"
