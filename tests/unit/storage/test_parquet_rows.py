"""Rows of a Parquet file of recorded history: the wanted ones, and no row group without any."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from storage.history import parquet

NAMES = ["a", "b", "ü" * 3000, "𝔘nicode", "z"]
ROWS, ROWS_PER_GROUP = 500, 100


def made(series: list[str]) -> pa.Table:
    """Return a hundred points of each of five series; a name of a channel looks like a path."""
    at = np.arange(ROWS)
    values = {"value": np.stack([at, -at], axis=1).astype(np.float32)}
    names = parquet.texts([*series, "without a row"])
    codes = np.repeat(np.arange(5, dtype=np.int32), ROWS_PER_GROUP)
    return parquet.ordered(parquet.rows(at, 10 * at, codes, names, ["v", "v.w"], {}, values))


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return made(NAMES)


@pytest.fixture(scope="module")
def file(table) -> bytes:
    return parquet.encode(table, ROWS_PER_GROUP)


def expected(table: pa.Table, series, since_ns, until_ns, columns) -> pa.Table:
    """Return the rows by conditions of Arrow."""
    condition = pc.scalar(True)
    if series is not None:
        condition &= pc.field("series").isin(parquet.texts(series))
    if since_ns is not None:
        condition &= pc.field("time") >= since_ns
    if until_ns is not None:
        condition &= pc.field("time") < until_ns
    found = table.filter(condition)
    return found if columns is None else found.select([one for one in columns if one in found.column_names])


@pytest.mark.parametrize("columns", [None, ["value:v"], ["series", "time", "value:v.w", "missing"]])
@pytest.mark.parametrize("bounds", [(None, None), (1230, None), (None, 1230), (990, 2010), (10_000, None)])
@pytest.mark.parametrize("series", [None, [], ["a"], ["z", "a"], NAMES[2:4], ["without a row"], ["\ud800"]])
def test_the_rows_are_those_of_a_filter(table, file, series, bounds, columns):
    wanted = {"series": series, "since_ns": bounds[0], "until_ns": bounds[1], "columns": columns}
    right = expected(table, **wanted).to_pydict()
    assert parquet.decode(io.BytesIO(file), **wanted).to_pydict() == right
    assert parquet.selected(table, **wanted).to_pydict() == right


@pytest.mark.parametrize(
    ("wanted", "groups"),
    [
        ({"series": ["b"]}, 1),
        ({"series": ["b"], "since_ns": 2000}, 0),
        ({"since_ns": 1990, "until_ns": 2010}, 2),
        ({"series": ["a", "z"]}, 2),
        ({}, 5),
    ],
)
def test_a_row_group_without_wanted_rows_is_not_read(wanted, groups, monkeypatch):
    file, read = parquet.encode(made(list("abcdz")), ROWS_PER_GROUP), []
    read_row_group = pq.ParquetFile.read_row_group

    def counted(self, number, **given):
        read.append(number)
        return read_row_group(self, number, **given)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    parquet.decode(io.BytesIO(file), **wanted)
    assert len(read) == groups


def test_the_bytes_of_a_row_are_those_of_its_arrays():
    count, numbers = 800, np.arange(800)
    table = parquet.rows(
        numbers,
        numbers,
        np.zeros(count, np.int32),
        parquet.texts(["a" * 1000]),
        ["x", "y"],
        {"score": np.zeros(count, np.float32), "flag": np.zeros(count, np.bool_)},
        {"value": np.zeros((count, 2), np.float64)},
    )
    arrays = [column.nbytes for column in table.columns if not pa.types.is_dictionary(column.type)]
    assert parquet.row_bytes(table.schema) * count == sum(arrays) + 4 * count
