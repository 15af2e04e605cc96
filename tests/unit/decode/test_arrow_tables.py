"""Columnar records: the column types that occur, rows that are refused, and the limit of dead letters."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.schema import DeadLetterLimit
from pipeline.decode import DeadLetterGauge, SeriesKeys, make_decoder
from pipeline.decode.columns import Columns
from pipeline.decode.parsed_batch import Fingerprints
from tests.support.decoding import PARTITION, columns, same_columns, stream, table

T = 1_700_000_000
FORM = {"csv": {"series": "id", "time": "ts", "values": "a"}}


def decode(cells, form=FORM, **settings_):
    return make_decoder("plant", stream(form, **settings_)).decode(table(cells, 50))


@pytest.mark.parametrize(
    "ids",
    [
        pa.array(["x", "y", "x"]),
        pa.array(["x", "y", "x"], pa.large_string()),
        pa.array(["x", "y", "x"], pa.string_view()),
        pa.array(["unused", "x", "y", "x"]).dictionary_encode()[1:],
        pa.chunked_array([pa.array(["x"]).dictionary_encode(), pa.array(["y", "x"]).dictionary_encode()]),
        pa.array(["x", "y", "x"], pa.large_string()).dictionary_encode(),
    ],
)
def test_types_of_labels(ids):
    out, dead = decode({"id": ids, "ts": [T] * 3, "a": [1, 2, 3]})
    assert dead == []
    assert out.keys.flat() == ["x", "y", "x"]
    assert sorted(out.keys.names) == ["x", "y"]  # no name that no point has


def test_labels_that_are_numbers_or_flags():
    assert decode({"id": [7, 8], "ts": [T, T], "a": [1, 2]}).columns.keys.flat() == ["7", "8"]
    assert decode({"id": [True, False], "ts": [T, T], "a": [1, 2]}).columns.keys.flat() == ["true", "false"]


@pytest.mark.parametrize(
    "times",
    [
        pa.array([T, T + 1]),
        pa.array([T, T + 1], pa.int32()),
        pa.array([T, T + 1], pa.uint64()),
        pa.array([T * 1000.0, T * 1000.0 + 1000]),
        pa.array([T, T + 1]).cast(pa.timestamp("s")),
        pa.array([T, T + 1]).cast(pa.timestamp("s")).cast(pa.timestamp("ns", "America/New_York")),
        pa.array(["2023-11-14T22:13:20Z", "2023-11-14 23:13:21+01:00"]),
        pa.array([str(T), str(T + 1)]),
    ],
)
def test_types_of_times(times):
    out, dead = decode({"id": ["x", "x"], "ts": times, "a": [1, 2]})
    assert dead == []
    assert (out.time // 10**9).tolist() == [T, T + 1]


def test_dates_and_local_times_are_at_home_in_the_streams_zone():
    form = {"csv": {**FORM["csv"], "timezone": "America/New_York"}}
    for day in (
        pa.array([dt.date(2024, 1, 5)]),
        pa.array([dt.date(2024, 1, 5)], pa.date64()),
        pa.array([dt.datetime(2024, 1, 5)]),
    ):
        assert decode({"id": ["x"], "ts": day, "a": [1]}, form).columns.time.tolist() == [
            (1704412800 + 5 * 3600) * 10**9
        ]
    compact = {"csv": {**FORM["csv"], "time_unit": "iso"}}
    assert decode({"id": ["x"], "ts": [20240105], "a": [1]}, compact).columns.time.tolist() == [
        1704412800 * 10**9
    ]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (pa.array([1, None]), [1, np.nan]),
        (pa.array([1.5, np.nan]), [1.5, np.nan]),
        (pa.array([1.5, None], pa.float32()), [1.5, np.nan]),
        (pa.array([Decimal("1.5"), None]), [1.5, np.nan]),
        (pa.array([2**63 - 1, 2**60]), [2.0**63, 2.0**60]),
        (pa.array(["1.5", ""]), [1.5, np.nan]),
        (pa.array([" 1e3", "N/A"]).dictionary_encode(), [1000, np.nan]),
        (pa.nulls(2), [np.nan, np.nan]),
    ],
)
def test_types_of_values(cells, expected):
    out, dead = decode({"id": ["x", "x"], "ts": [T, T], "a": cells})
    assert dead == []
    np.testing.assert_array_equal(out.values[:, 0], expected)


def test_refused_rows():
    rows = {
        "id": ["ok", None, "ok", "ok", "ok", "z" * 300, "ok", "a\0"],
        "ts": [T, T, None, -5, T, T, T, T],
        "a": [1.0, 1.0, 1.0, 1.0, np.inf, 1.0, None, 1.0],
        "other": list("abcdefgh"),
    }
    out, dead = decode(rows)
    assert out.offsets.tolist() == [50, 55, 56]
    assert len(out.keys[1]) == 256
    assert [(d.offset, d.reason) for d in dead] == [
        (51, "missing_field"),
        (52, "missing_field"),
        (53, "absurd_time"),
        (54, "not_finite"),
        (57, "bad_label"),
    ]
    assert json.loads(dead[0].value) == {"id": None, "ts": T, "a": 1.0, "other": "b"}
    assert dead[2].detail == "ts is -5"
    assert out.records + len(dead) + out.filtered == len(rows["id"])


@pytest.mark.parametrize(
    ("name", "column", "reason"),
    [
        ("id", [1.5, 2.5], "wrong_type"),
        ("ts", [True, False], "bad_time"),
        ("a", [[1], [2]], "wrong_type"),
        ("a", ["warm", "cold"], "wrong_type"),
        ("a", None, "missing_field"),
        ("id", None, "missing_field"),
        ("ts", None, "missing_field"),
        ("id", pa.array([b"\xff", b"\xfe"]).view(pa.string()), "bad_bytes"),
        (
            "id",
            pa.DictionaryArray.from_arrays([0, 1], pa.array([b"\xff", b"\xfe"]).view(pa.string())),
            "bad_bytes",
        ),
    ],
)
def test_a_column_of_the_wrong_kind_refuses_every_row(name, column, reason):
    rows = {"id": ["x", "y"], "ts": [T, T], "a": [1, 2]}
    rows[name] = column
    if column is None:
        del rows[name]
    out, dead = decode(rows)
    assert len(out) == 0
    assert [d.reason for d in dead] == [reason] * 2
    assert all(name in d.detail and d.value for d in dead)


def test_two_columns_of_one_name():
    twice = pa.table(
        [pa.array(["x"]), pa.array([T]), pa.array([1]), pa.array([2])], names=["id", "ts", "a", "a"]
    )
    out, dead = decode(twice)
    assert (len(out), dead[0].reason, dead[0].detail) == (0, "missing_field", "2 columns are called a")


def test_an_empty_table_and_rows_the_reader_could_not_split():
    batch = table(
        {"id": pa.array([], pa.string()), "ts": pa.array([], pa.int64()), "a": pa.array([], pa.float64())}, 9
    )
    batch.next_offset = 10
    batch.rejected = [(9, b"a,b,c,d", "4 columns instead of 3")]
    for series in ("id", ["id", "ts2"]):
        form = {"csv": {**FORM["csv"], "series": series}}
        batch.table = (
            batch.table.append_column("ts2", pa.array([], pa.string()))
            if len(series) == 2 and isinstance(series, list)
            else batch.table
        )
        out, dead = make_decoder("plant", stream(form)).decode(batch)
        assert (len(out), out.filtered) == (0, 0)
        assert [(d.offset, d.value, d.reason, d.detail) for d in dead] == [
            (9, b"a,b,c,d", "malformed", "4 columns instead of 3")
        ]


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.sampled_from("12")), max_size=12)
)
@settings(deadline=None)
def test_several_labels_become_one_key(keys):
    cells = {f"l{i}": pa.array([k[i] for k in keys], pa.string()) for i in range(3)}
    form = {"csv": {**FORM["csv"], "series": ["l0", "l1", "l2"]}}
    out = decode(
        {**cells, "ts": pa.array([T] * len(keys), pa.int64()), "a": pa.array([1] * len(keys), pa.int64())},
        form,
    ).columns
    assert out.keys.flat() == ["\0".join(key) for key in keys]
    assert sorted(set(out.keys.names)) == sorted({"\0".join(key) for key in keys})


def test_fields_for_the_aggregate():
    values = {
        "bytes": "sum",
        "flows": "count",
        "peers": {"nunique": "dst"},
        "rtt": {"mean": "rtt"},
        "named": {"count": "user"},
    }
    form = {"csv": {"series": "id", "time": "ts", "values": {"bytes": "octets"}, "optional": ["user"]}}
    settings_ = {"aggregate": {"every": "10s", "values": values}}
    rows = {
        "id": ["x"] * 3,
        "ts": [T] * 3,
        "octets": [1, 2, 3],
        "dst": ["10.0.0.1", None, "10.0.0.2"],
        "rtt": [0.5, None, 1],
    }
    out = decode(rows, form, **settings_).columns
    assert set(out.extra) == {"rtt", "distinct dst", "distinct user"}
    np.testing.assert_array_equal(out.extra["rtt"], [0.5, np.nan, 1])
    assert out.extra["distinct dst"][1] == 0
    assert len(set(out.extra["distinct dst"].tolist())) == 3
    assert out.extra["distinct user"].tolist() == [0, 0, 0]


# ------------------------------------------------------------------------------------------------ columns


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 99)), max_size=20), st.data())
def test_taking_and_appending_columns(points, data):
    names, times = [p[0] for p in points], [p[1] for p in points]
    plain = columns(names, times)
    codes = {name: i for i, name in enumerate(dict.fromkeys(names))}
    coded = columns(names, times)
    coded.keys = SeriesKeys(list(codes), np.array([codes[n] for n in names], np.int32))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(points), max_size=len(points))), bool)
    same_columns(plain.take(mask), coded.take(mask))
    same_columns(plain.take(np.flatnonzero(mask)), coded.take(mask))
    taken = coded.take(mask).keys
    assert set(taken.names) == set(taken.flat())
    slots = np.array([ord(name) for name in taken.names])
    assert taken.spread(slots).tolist() == [ord(name) for name in taken.flat()]
    both = plain.take(mask).append(coded.take(~mask))
    assert sorted(both.offsets.tolist()) == plain.offsets.tolist()
    same_columns(both, Columns.from_arrays(PARTITION, *both.to_arrays()))


# ------------------------------------------------------------------------------------------------ the limit


@given(
    st.lists(st.booleans(), max_size=60),
    st.lists(st.integers(1, 20), max_size=12),
    st.integers(1, 20),
    st.integers(1, 12),
    st.sampled_from([0.2, 0.5, 1.0]),
)
def test_the_limit_of_dead_letters_does_not_depend_on_batches(bad, cuts, window, run, ratio):
    gauge = DeadLetterGauge(DeadLetterLimit(ratio=ratio, window=window, run=run))
    broken = False
    start = 0
    for size in [*cuts, len(bad)]:
        part = np.array(bad[start : start + size], bool)
        offsets = np.arange(start, start + len(part))
        broken = gauge.count(offsets[~part], offsets[part])
        start += len(part)
    share = any(sum(bad[i : i + window]) > ratio * window for i in range(len(bad) - window + 1))
    streak = any(all(bad[i : i + run]) for i in range(len(bad) - run + 1))
    assert broken == (share or streak)


def test_fingerprints_stand_in_snapshots_so_they_never_change():
    prints = Fingerprints().of(["10.0.0.1", None, 1, "1", True])
    assert prints.tolist() == [
        16574176683607101011,
        0,
        8518482412311870711,
        8518482412311870711,
        4608981236071098869,
    ]
    assert prints[2] == prints[3] != prints[4]  # 1 and "1" are one text, true is another
