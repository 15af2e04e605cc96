"""Facts of the input of a backfill, and the plan that they make."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.schema import Config, CsvFormat, Stream
from pipeline.core.errors import SourceError
from pipeline.core.types import Partition
from pipeline.services.backfill import read_files, read_range
from pipeline.services.backfill_plan import (
    COSTS,
    BackfillPlan,
    InputPart,
    RowGroup,
    is_too_large,
    large_parts,
    plan_shards,
)
from pipeline.services.shard_source import groups_of
from pipeline.sources.base import TableRecords
from pipeline.sources.kafka.offset_range import RangeSource

#: Most groups of one file that are divided by a hash: each reads the whole file.
MAX_HASH_GROUPS = 8
#: Least number of distinct labels of a group, so that groups have similar sizes.
MIN_SERIES_PER_GROUP = 4
#: Time to wait for the partitions of a topic.
ASSIGN_SECONDS = 60.0
#: Rows of a file in which the labels are counted.
SAMPLE_ROWS = 65_536


def plan_backfill(
    config: Config,
    name: str,
    files: Sequence[str] | None,
    start_ns: int | None,
    end_ns: int | None,
    identity: Sequence[str] = (),
) -> BackfillPlan:
    """Plan a backfill of files, or of a time range of the stream's topic.

    Raises InputError and SourceError for input that cannot be read.

    Args:
        config: The whole configuration.
        name: Name of the stream.
        files: The files, None for the stream's own source.
        start_ns: First timestamp of the range.
        end_ns: Timestamp at which the range ends.
        identity: What else makes this backfill another one, such as its model.
    """
    stream = config.streams[name]
    whole = why_undivided(stream)
    if files is None:
        inputs = _range_parts(read_range(config, name, start_ns, end_ns))
    else:
        inputs = [_file_part(config, name, part, divide=not whole) for part in _listed(config, name, files)]
    cost = COSTS.get(stream.detector, COSTS["standard"])
    follows = stream.source.files is not None and stream.source.files.follow
    notes = [whole] if whole and any(is_too_large(one, cost) for one in inputs) else []
    shards = plan_shards(inputs, cost, labels_of_format(stream), together=follows)
    notes += large_parts(shards, cost) if not whole else []
    about = json.dumps([name, *identity, [asdict(one) for one in shards]], default=str)
    begins = [one.begin_ns for one in inputs if one.begin_ns is not None]
    ends = [one.end_ns for one in inputs if one.end_ns is not None]
    return BackfillPlan(
        run=blake2b(about.encode(), digest_size=6).hexdigest(),
        stream=name,
        shards=tuple(shards),
        rows=sum(one.rows for one in inputs),
        cost=cost,
        begin_ns=min(begins) if len(begins) == len(inputs) else None,
        end_ns=max(ends) if len(ends) == len(inputs) else None,
        notes=tuple(notes),
    )


def why_undivided(stream: Stream) -> str:
    """Return the reason why a partition is never divided by series, "" if it can be."""
    for key, used in {
        "events": stream.of_events,
        "lateness": bool(stream.lateness),
        "aggregate": stream.aggregate is not None,
    }.items():
        if used:
            return f"{key}: all series of a partition share one watermark, so that a file is not divided"
    if stream.source.files is not None and stream.source.files.follow:
        return "follow: series go on from file to file, so that all files are one part"
    if not isinstance(stream.format.chosen, CsvFormat) or not stream.format.chosen.label_fields:
        return "only rows with columns of labels (CSV and Parquet) are divided by series"
    return ""


def labels_of_format(stream: Stream) -> tuple[str, ...]:
    """Return the columns of the labels."""
    return tuple(stream.format.chosen.label_fields.values())


def _listed(config: Config, name: str, files: Sequence[str]) -> list[InputPart]:
    """Return the files in the order of reading, with their numbers of rows."""
    source = read_files(config, name, files)
    try:
        found = source.poll(1, 0.0).assigned
        bounds = source.bounds(found)
        return [InputPart(*one, source.identity(one), 0, bounds[one].end) for one in found]
    finally:
        source.close()


def _range_parts(source: RangeSource) -> list[InputPart]:
    """Return the partitions of a range of a topic, with their offsets."""
    until = time.monotonic() + ASSIGN_SECONDS
    try:
        while not (found := source.poll(1, 0.2).assigned):
            if time.monotonic() > until:
                raise SourceError("no partition of the topic was assigned; check its name and the broker")
        parts = []
        for one in sorted(found):
            first, end = source.start_offset(one), source.range_end(one)
            parts.append(
                InputPart(one.topic, one.number, source.identity(one), first, max(end - first, 0), False)
            )
        return parts
    finally:
        source.close()


def _file_part(config: Config, name: str, one: InputPart, *, divide: bool) -> InputPart:
    """Add the statistics of a Parquet file, and the division of its series."""
    stream = config.streams[name]
    labels = labels_of_format(stream)
    row_groups: tuple[RowGroup, ...] = ()
    begin_ns, end_ns = None, None
    if one.topic.endswith(".parquet"):
        metadata = pq.read_metadata(one.topic)
        begin_ns, end_ns = _times(metadata, stream.format.chosen.time_fields)
        if divide and len(labels) == 1:
            row_groups = _row_groups(metadata, labels[0])
    shares: dict[int, tuple[float, ...]] = {}
    series = 0
    if divide and is_too_large(one, COSTS.get(stream.detector, COSTS["standard"])):
        series, shares = _shares(config, name, one, labels)
    return replace(one, row_groups=row_groups, shares=shares, series=series, begin_ns=begin_ns, end_ns=end_ns)


def _shares(
    config: Config, name: str, one: InputPart, labels: Sequence[str]
) -> tuple[int, dict[int, tuple[float, ...]]]:
    """Return the number of labels in the first rows of a file, and shares of groups.

    Args:
        config: The whole configuration.
        name: Name of the stream.
        one: The file.
        labels: Columns of the labels.
    """
    source = read_files(config, name, [one.topic])
    partition = Partition(one.topic, one.number)
    try:
        source.poll(1, 0.0)
        source.seek(partition, 0)
        source.resume([partition])
        records = source.poll(SAMPLE_ROWS, 1.0).records
    finally:
        source.close()
    if not records or not isinstance(records[0], TableRecords) or not len(records[0]):
        return 0, {}
    table = records[0].table
    distinct = len(np.unique(groups_of(table, labels, 1 << 20)))
    shares: dict[int, tuple[float, ...]] = {}
    for count in range(2, MAX_HASH_GROUPS + 1):
        share = np.bincount(groups_of(table, labels, count), minlength=count) / len(table)
        if distinct >= count * MIN_SERIES_PER_GROUP and share.max() <= 1.5 / count:
            shares[count] = tuple(share.tolist())
    return distinct, shares


def _row_groups(metadata: pq.FileMetaData, label: str) -> tuple[RowGroup, ...]:
    """Return the row groups if they are sorted by a label of text, else ()."""
    column = _column_of(metadata, label)
    if column is None or metadata.schema.column(column).physical_type != "BYTE_ARRAY":
        return ()
    groups = []
    for i in range(metadata.num_row_groups):
        group = metadata.row_group(i)
        limits = group.column(column).statistics
        if limits is None or not limits.has_min_max or limits.null_count != 0:
            return ()
        groups.append(RowGroup(group.num_rows, _bytes(limits.min), _bytes(limits.max)))
    ordered = all(a.high <= b.low for a, b in pairwise(groups))
    return tuple(groups) if ordered else ()


def _times(metadata: pq.FileMetaData, fields: Sequence[str]) -> tuple[int | None, int | None]:
    """Return the first and the last event time, None where statistics do not tell."""
    column = _column_of(metadata, fields[0]) if len(fields) == 1 else None
    if column is None:
        return None, None
    limits = [metadata.row_group(i).column(column).statistics for i in range(metadata.num_row_groups)]
    if not limits or any(one is None or not one.has_min_max for one in limits):
        return None, None
    times = [_nanoseconds(value) for one in limits for value in (one.min, one.max)]
    return (None, None) if None in times else (min(times), max(times))  # type: ignore[type-var]


def _nanoseconds(value: object) -> int | None:
    """Return a statistic of a column of timestamps in ns."""
    if not hasattr(value, "timestamp"):
        return None
    try:
        return int(pa.scalar(value, pa.timestamp("ns")).value)
    except (pa.ArrowException, TypeError, ValueError):
        return None


def _column_of(metadata: pq.FileMetaData, name: str) -> int | None:
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    return paths.index(name) if paths.count(name) == 1 else None


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
