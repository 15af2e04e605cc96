"""Streams and batches for the tests of decoding and event time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config.schema import Stream
from pipeline.core.types import Partition
from pipeline.decode import Columns, SeriesKeys
from pipeline.sources.base import Records, TableRecords

PARTITION = Partition("t", 3)


def stream(form: dict[str, Any], **settings: Any) -> Stream:
    return Stream.model_validate({"source": {"memory": {}}, "format": form, **settings})


def records(
    values: Sequence[bytes | None], first: int = 0, timestamps: Sequence[int] | None = None
) -> Records:
    n = len(values)
    stamps = np.full(n, -1, np.int64) if timestamps is None else np.array(timestamps, np.int64)
    return Records(PARTITION, first, first + n, np.arange(first, first + n), stamps, values, [b"k"] * n)


def table(columns: dict[str, Any], first: int = 0) -> TableRecords:
    rows = columns if isinstance(columns, pa.Table) else pa.table(columns)
    n = len(rows)
    return TableRecords(
        PARTITION, first, first + n, np.arange(first, first + n), np.full(n, -1, np.int64), rows
    )


def columns(series: Sequence[str], times: Sequence[int], values: Any = None, first: int = 0) -> Columns:
    """Points with one channel (their number, unless ``values`` says else), one record each."""
    n = len(series)
    offsets = np.arange(first, first + n)
    matrix = offsets.astype(float)[:, None] if values is None else np.array(values, float).reshape(n, 1)
    time = np.array(times, np.int64)
    return Columns(PARTITION, offsets, None, SeriesKeys(list(series)), time, time, matrix)


def same_columns(one: Columns, other: Columns) -> None:
    """Assert that two sets of columns hold the same points."""
    assert one.offsets.tolist() == other.offsets.tolist()
    assert one.keys.flat() == other.keys.flat()
    assert one.time.tolist() == other.time.tolist()
    assert one.clock.tolist() == other.clock.tolist()
    np.testing.assert_array_equal(one.values, other.values)
    heads = [np.ones(len(c), bool) if c.head is None else c.head for c in (one, other)]
    assert heads[0].tolist() == heads[1].tolist()
    assert one.extra.keys() == other.extra.keys()
    for name, column in one.extra.items():
        np.testing.assert_array_equal(column, other.extra[name])
