"""Rows of recorded history as a table and as Parquet bytes.

A row is a point with its verdict: ``offset``, ``series``, ``time`` (ns), the ``model`` that gave the verdict,
one column per value that a point has
once (``score``, ``flag``, …; ``rarity`` under the decision "usual_range") and one column ``name:channel`` per value that it has per channel
(``value:temperature``, …; ``relation`` where channels imply each other, as in ``detectors.base.Verdicts``).
A file of an earlier version lacks columns that came later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

ROWS_PER_ROW_GROUP = 1 << 16
#: Recorded end of an interval that has none, as before the second point of a series; charts leave it out.
UNBOUNDED = float(np.finfo(np.float32).max)


@cache
def empty() -> pa.Table:
    """Return a table without rows."""
    nothing = np.empty(0, np.int64)
    return rows(nothing, nothing, nothing.astype(np.int32), pa.nulls(0, pa.string()), [], {}, {})


def rows(
    offset: NDArray[np.int64],
    time: NDArray[np.int64],
    series: NDArray[np.int32],
    names: pa.Array,
    channels: Sequence[str],
    per_point: Mapping[str, NDArray[Any]],
    per_channel: Mapping[str, NDArray[Any]],
) -> pa.Table:
    """Return a batch of N points as a table, copying as little as possible.

    offset, time (N,); series (N,) indices into ``names``, an Arrow string array that may hold many more; each
    array of ``per_point`` (N,), of ``per_channel`` (N, C). The arrays belong to the table afterwards and must
    not change.
    """
    columns: dict[str, Any] = {
        "offset": column(offset),
        "series": pa.DictionaryArray.from_arrays(column(series), names),
        "time": column(time),
    }
    columns |= {name: column(values) for name, values in per_point.items()}
    for name, values in per_channel.items():
        columns |= {f"{name}:{channel}": column(values[:, i]) for i, channel in enumerate(channels)}
    return pa.table(columns)


def row_bytes(schema: pa.Schema) -> float:
    """Return the bytes of a row in memory, without texts that many rows share."""
    fixed = [field.type.bit_width for field in schema if not pa.types.is_dictionary(field.type)]
    return 4 + sum(fixed) / 8


def column(values: NDArray[Any]) -> pa.Array:
    """Return the Arrow array of a NumPy vector, without a copy where possible; NaN stays NaN.

    (``pa.array`` would import pandas first.)
    """
    bits = (
        np.packbits(values, bitorder="little") if values.dtype == np.bool_ else np.ascontiguousarray(values)
    )
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(bits)])


def coarse(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return numbers rounded to 8 bits.

    Half of their bytes are then 0, and cost nothing when compressed.
    """
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + np.uint32(1 << 15)) & np.uint32(0xFFFF0000)).view(np.float32)


def constant(value: str, rows: int) -> pa.Array:
    """Return one text for all of N rows, in four bytes each."""
    return pa.DictionaryArray.from_arrays(column(np.zeros(rows, np.int32)), texts([value]))


def texts(values: Sequence[str | None]) -> pa.Array:
    """Return an Arrow string array.

    (``pa.array`` of a list would import pandas first, a second or more of a daemon's start.)
    """
    encoded = [b"" if value is None else value.encode("utf-8", "replace") for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    missing = (
        np.packbits([value is not None for value in values], bitorder="little") if None in values else None
    )
    return pa.StringArray.from_buffers(
        len(values),
        pa.py_buffer(ends),
        pa.py_buffer(b"".join(encoded)),
        None if missing is None else pa.py_buffer(missing),
    )


def compacted(table: pa.Table) -> pa.Table:
    """Return the rows with a dictionary of only the series that occur in them."""
    at = table.schema.get_field_index("series")
    series = table.column(at).unify_dictionaries().combine_chunks()
    used, index = np.unique(series.indices.to_numpy(), return_inverse=True)
    names = series.dictionary.take(column(used))
    return table.set_column(
        at, "series", pa.DictionaryArray.from_arrays(column(index.astype(np.int32)), names)
    )


def ordered(table: pa.Table) -> pa.Table:
    """Return the rows by series, then time, then arrival."""
    if table.num_rows == 0:
        return table
    series = table.column("series").unify_dictionaries().combine_chunks()
    rank = np.empty(len(series.dictionary), np.int64)
    rank[pc.sort_indices(series.dictionary).to_numpy()] = np.arange(len(rank))
    order = np.lexsort((table.column("time").to_numpy(), rank[series.indices.to_numpy()]))
    return table.take(column(order))


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Return one table of several, with nulls for a column that some lack (an added channel)."""
    return pa.concat_tables(tables, promote_options="permissive").unify_dictionaries()


def encode(table: pa.Table, rows_per_row_group: int = ROWS_PER_ROW_GROUP) -> bytes:
    """Return Parquet bytes with zstd.

    Times and offsets are delta-encoded, and floats are split by byte significance, so that they compress.
    """
    packed = {field.name: "DELTA_BINARY_PACKED" for field in table.schema if pa.types.is_int64(field.type)}
    split = {field.name: "BYTE_STREAM_SPLIT" for field in table.schema if pa.types.is_floating(field.type)}
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=rows_per_row_group,
        compression="zstd",
        compression_level=1,
        use_dictionary=["series", "model"],
        column_encoding=packed | split,
    )
    return bytes(sink.getvalue())


def counts(table: pa.Table) -> dict[str, int]:
    """Return the number of rows of each series."""
    series = table.column("series").unify_dictionaries().combine_chunks()
    number = np.bincount(series.indices.to_numpy(), minlength=len(series.dictionary))
    return dict(zip(series.dictionary.to_pylist(), number.tolist(), strict=True))


def without_oldest(table: pa.Table, surplus: dict[str, int]) -> pa.Table:
    """Remove the oldest rows of each series, up to its ``surplus``, which is reduced by them."""
    series = table.column("series").unify_dictionaries().combine_chunks()
    code, time, names = (
        series.indices.to_numpy(),
        table.column("time").to_numpy(),
        series.dictionary.to_pylist(),
    )
    order = np.lexsort((time, code))
    have = np.bincount(code, minlength=len(names))
    age = np.arange(len(order)) - (np.cumsum(have) - have)[code[order]]  # 0: the oldest of its series
    gone = np.minimum([surplus.get(name, 0) for name in names], have)
    surplus.update((name, surplus.get(name, 0) - int(less)) for name, less in zip(names, gone, strict=True))
    return table.take(column(np.sort(order[age >= gone[code[order]]])))


def decode(
    file: BinaryIO | pa.NativeFile,
    *,
    series: Sequence[str] | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Read rows with since_ns ≤ time < until_ns; row groups without any are not read.

    Args:
        file: The open file.
        series: Names of series; None for all.
        since_ns: Earliest time.
        until_ns: Latest time, exclusive.
        columns: Names of columns, of which some may be missing; None for all.
    """
    metadata = pq.read_metadata(file)
    there = metadata.schema.names
    texts_of_few = [name for name in ("series", "model") if name in there]
    found = pq.ParquetFile(file, metadata=metadata, read_dictionary=texts_of_few, pre_buffer=True)
    chosen = there if columns is None else [name for name in columns if name in there]
    wanted = Rows(series, since_ns, until_ns)
    groups = [n for n in range(found.num_row_groups) if wanted.may_be_in(found.metadata.row_group(n))]
    if not groups:
        return found.schema_arrow.empty_table().select(chosen)
    needed = [name for name in wanted.columns if name not in chosen]
    read = [found.read_row_group(n, columns=[*chosen, *needed], use_threads=False) for n in groups]
    return pa.concat_tables(wanted.of(table) for table in read).select(chosen)


def selected(
    table: pa.Table,
    *,
    series: Sequence[str] | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    columns: Sequence[str] | None = None,
) -> pa.Table:
    """Return rows in memory as ``decode`` returns those of a file.

    Args:
        table: The rows.
        series: Names of series; None for all.
        since_ns: Earliest time.
        until_ns: Latest time, exclusive.
        columns: Names of columns, of which some may be missing; None for all.
    """
    table = Rows(series, since_ns, until_ns).of(table)
    return table if columns is None else table.select([one for one in columns if one in table.column_names])


class Rows(NamedTuple):
    """Rows that are wanted: of some series and times; None: of all."""

    series: Sequence[str] | None
    since_ns: int | None
    until_ns: int | None

    @property
    def columns(self) -> list[str]:
        """Names of the columns that decide."""
        by_time = self.since_ns is not None or self.until_ns is not None
        return ["series"] * (self.series is not None) + ["time"] * by_time

    def may_be_in(self, group: pq.RowGroupMetaData) -> bool:
        """Return False if the statistics of a row group exclude every wanted row."""
        if not self.columns:
            return True
        statistics = {
            column.path_in_schema: column.statistics
            for column in map(group.column, range(group.num_columns))
            if column.path_in_schema in self.columns
        }
        known = {name: one for name, one in statistics.items() if one is not None and one.has_min_max}
        names, times = known.get("series"), known.get("time")
        if not (
            self.series is None or names is None or any(names.min <= s <= names.max for s in self.series)
        ):
            return False
        if times is None:
            return True
        begins_in_time = self.until_ns is None or times.min < self.until_ns
        return begins_in_time and (self.since_ns is None or times.max >= self.since_ns)

    def of(self, table: pa.Table) -> pa.Table:
        """Return the wanted rows of a table."""
        keep = np.ones(table.num_rows, bool)
        if self.series is not None:
            names = table.column("series").unify_dictionaries().combine_chunks()
            known = pc.is_in(names.dictionary, value_set=texts(self.series)).to_numpy(zero_copy_only=False)
            keep &= known[names.indices.to_numpy()]
        if self.since_ns is not None:
            keep &= table.column("time").to_numpy() >= self.since_ns
        if self.until_ns is not None:
            keep &= table.column("time").to_numpy() < self.until_ns
        return table if keep.all() else table.filter(column(keep))
