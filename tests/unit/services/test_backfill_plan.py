"""Plan of a backfill on a cluster: each row in one part, and a time for each number of workers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config.schema import CsvFormat
from pipeline.core.types import Partition
from pipeline.services.backfill_plan import (
    PART_SECONDS,
    BackfillPlan,
    CostModel,
    InputPart,
    RowGroup,
    plan_shards,
    rows_per_part,
)
from pipeline.services.shard_source import SeriesGroup, ShardSource, groups_of
from pipeline.sources.base import OffsetBounds
from pipeline.sources.files.source import open_files

COST = CostModel(start=2.0, part=0.5, row=PART_SECONDS / 15_000, read=1e-6, series=0.0)
assert abs(rows_per_part(COST) - 15_000) <= 1


def part(name: str, rows: int, **facts) -> InputPart:
    return InputPart(name, 0, "id", 0, rows, **facts)


def test_small_files_are_one_part_and_large_ones_stay_alone():
    shards = plan_shards([part("a", 4000), part("b", 9000), part("c", 9000), part("d", 20_000)], COST, ["s"])
    assert [[one.topic for one in shard.parts] for shard in shards] == [["a", "b"], ["c"], ["d"]]
    assert [shard.number for shard in shards] == [0, 1, 2]
    assert all(shard.whole for shard in shards)


def test_a_file_is_divided_by_a_hash_where_its_labels_allow_it():
    shares = {count: (1 / count,) * count for count in (2, 3, 4)}
    shards = plan_shards([part("a", 100_000, shares=shares)], COST, ["s"])
    assert [shard.group for shard in shards] == [SeriesGroup(("s",), i, 4) for i in range(4)]
    assert sum(shard.rows for shard in shards) == 100_000
    assert all(shard.rows_read == 100_000 and not shard.whole for shard in shards)


def test_row_groups_sorted_by_series_are_read_once_but_at_the_borders():
    # A label goes on in the next row group at b and d.
    limits = [(b"a", b"b"), (b"b", b"c"), (b"d", b"d"), (b"d", b"f"), (b"g", b"h")]
    groups = tuple(RowGroup(10_000, low, high) for low, high in limits)
    shards = plan_shards([part("a", 50_000, row_groups=groups)], COST, ["s"])
    assert [(s.group.low, s.group.high) for s in shards] == [(None, b"d"), (b"d", b"g"), (b"g", None)]
    assert [(s.parts[0].first, s.parts[0].end) for s in shards] == [
        (0, 20_000),
        (20_000, 40_000),
        (40_000, 50_000),
    ]
    covered = [row for s in shards for row in range(s.parts[0].first, s.parts[0].end)]
    assert sorted(set(covered)) == list(range(50_000))


def test_a_series_that_begins_in_the_row_group_before_is_read_from_there():
    groups = tuple(RowGroup(20_000, low, high) for low, high in [(b"a", b"d"), (b"d", b"f")])
    first, second = plan_shards([part("a", 40_000, row_groups=groups)], COST, ["s"])
    assert (first.group.high, second.group.low) == (b"d", b"d")
    assert (second.parts[0].first, second.parts[0].end) == (0, 40_000)


def test_files_of_a_sequence_are_one_part():
    shards = plan_shards([part("a", 100_000), part("b", 100_000)], COST, ["s"], together=True)
    assert len(shards) == 1


def test_time_for_several_numbers_of_workers():
    shards = tuple(plan_shards([part(str(n), 15_000) for n in range(8)], COST, ["s"]))
    plan = BackfillPlan("run", "s", shards, 8 * 15_000, COST)
    assert plan.seconds(1) == pytest.approx(2 + 8 * (PART_SECONDS + 0.5))
    assert plan.seconds(2) == pytest.approx(2 + 4 * (PART_SECONDS + 0.5))
    assert plan.seconds(100) == pytest.approx(2 + PART_SECONDS + 0.5)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_each_row_is_in_one_group_whatever_the_type_of_its_label(kind):
    names = [f"sensor-{n % 200}" for n in range(2000)] + [None, "é" * 400]
    table = pa.table({"s": pa.array(names, pa.string()).cast(kind)})
    groups = [SeriesGroup(("s",), index, 4) for index in range(4)]
    masks = np.stack([group.selects(table) for group in groups])
    assert (masks.sum(axis=0) == 1).all()
    assert masks[:, :2000].mean(axis=1) == pytest.approx([0.25] * 4, abs=0.1)
    for name in names[:200]:
        owner = [group.has_labels([name]) for group in groups]
        assert owner == masks[:, names.index(name)].tolist()


def test_numbers_and_several_labels_have_the_group_of_their_texts():
    table = pa.table({"site": pa.array([1, 22, 1]), "unit": pa.array(["a", "b", "b"])})
    found = groups_of(table, ["site", "unit"], 8)
    for row, labels in enumerate((["1", "a"], ["22", "b"], ["1", "b"])):
        assert SeriesGroup(("site", "unit"), int(found[row]), 8).has_labels(labels)


def test_a_range_of_labels_has_its_first_and_not_its_last():
    table = pa.table({"s": ["a", "b", "c", "d"]})
    assert SeriesGroup(("s",), 1, 1, b"b", b"d").selects(table).tolist() == [False, True, True, False]
    assert SeriesGroup(("s",), 0, 1, None, b"b").has_labels(["a"])
    assert not SeriesGroup(("s",), 0, 1, None, b"b").has_labels(["b"])


def test_a_group_reads_several_times_for_a_batch(tmp_path):
    """A file is read in pieces of 65,536 rows, of which an eighth is the group's."""
    path = tmp_path / "points.parquet"
    names = [f"sensor-{n % 500:03}" for n in range(400_000)]
    table = pa.table({"s": pa.array(names), "v": np.arange(400_000.0)})
    pq.write_table(table, path, row_group_size=70_000)
    source = open_files([str(path)], CsvFormat(series="s", time="t", values=["v"]))
    partition = Partition(str(path), 0)
    one = ShardSource(source, {partition: OffsetBounds(0, -1)}, SeriesGroup(("s",), 3, 8))
    assert one.poll(1, 0.0).assigned == [partition]
    one.seek(partition, 0)
    one.resume([partition])
    polls = []
    while not polls or not polls[-1].finished:
        polls.append(one.poll(20_000, 0.0))
    rows = [len(records) for poll in polls for records in poll.records]
    assert all(10_000 <= count <= 20_000 for count in rows[:-1])
    offsets = np.concatenate([records.offsets for poll in polls for records in poll.records])
    mine = SeriesGroup(("s",), 3, 8).selects(table)
    np.testing.assert_array_equal(offsets, np.flatnonzero(mine))
    values = np.concatenate([r.table["v"].to_numpy() for poll in polls for r in poll.records])
    np.testing.assert_array_equal(values, offsets)
    labels = [label for poll in polls for r in poll.records for label in r.table["s"].to_pylist()]
    assert labels == [names[offset] for offset in offsets]
