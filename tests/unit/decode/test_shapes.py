"""Records as people have them: shapes of JSON, the envelope, conditions, spellings of numbers."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decode import Decoded, make_decoder
from pipeline.sources.base import Records
from tests.support.decoding import records, stream, table

T = 1_764_028_800
SAMPLE = {"series": "k", "time": "t", "values": ["v"]}
TWO = f'{{"k":"a","t":{T},"v":1}}', f'{{"k":"b","t":{T},"v":2}}'


def decode(form: dict[str, Any], *values: bytes | str, **keys: Any) -> Decoded:
    raw = [value.encode() if isinstance(value, str) else value for value in values]
    return make_decoder("s", stream({"json": form}, **keys)).decode(records(raw))


def points(found: Decoded) -> list[tuple[str, float]]:
    return list(zip(found.columns.keys.flat(), found.columns.values[:, 0].tolist(), strict=True))


@pytest.mark.parametrize(
    "record",
    [
        f"[{TWO[0]}, {TWO[1]}]",
        f"[[{TWO[0]}], [[{TWO[1]}]]]",
        f"{TWO[0]}\n{TWO[1]}\n",
        f"{TWO[0]}{TWO[1]}",
        json.dumps(f"[{TWO[0]},{TWO[1]}]"),
        gzip.compress(f"[{TWO[0]},{TWO[1]}]".encode(), mtime=0),
        pa.compress(f"{TWO[0]}\n{TWO[1]}".encode(), "zstd", asbytes=True),
        b"\0\0\0\0\x07" + f"[{TWO[0]},{TWO[1]}]".encode(),
        b"\xef\xbb\xbf" + f"{TWO[0]}\n{TWO[1]}".encode(),
        f"\ufeff[{TWO[0]},{TWO[1]}]".encode("utf-16-le"),
        f'[{{"k":"a","t":{T},"v":"1"}},{{"k":"b","t":"{T}","v":" 2.0 "}}]',
    ],
)
def test_two_samples_in_any_shape(record):
    found = decode(SAMPLE, TWO[0], record, TWO[1])
    assert points(found) == [("a", 1), ("a", 1), ("b", 2), ("b", 2)]
    assert found.dead == []
    assert found.columns.offsets.tolist() == [0, 1, 1, 2]
    assert found.columns.records == 3


def test_a_bad_sample_is_a_dead_letter_of_its_own_that_can_be_replayed():
    form = {"series": ["dev", "n"], "time": "t", "values": ["v"], "samples": "m"}
    good = [{"n": n, "t": T + i, "v": i} for i, n in enumerate("ab")]
    bad = {"n": "c", "t": T, "v": "RUN"}, {"n": "d", "t": "soon", "v": 1}
    record = json.dumps({"dev": "p", "m": [good[0], *bad, good[1]]})
    found = decode(form, record)
    assert points(found) == [("p\0a", 0), ("p\0b", 1)]
    (letter,) = found.dead
    assert letter.partial
    assert [json.loads(line)["m"] for line in (letter.value or b"").splitlines()] == [[bad[0]], [bad[1]]]
    fixed = (letter.value or b"").replace(b'"RUN"', b"7").replace(b'"soon"', str(T).encode())
    assert points(decode(form, fixed)) == [("p\0c", 7), ("p\0d", 1)]


IN_ARRAYS = {"series": "dev", "time": "m.t", "values": {"v": "m.v"}}
BY_NAME = {"series": "$name", "time": "t", "values": ["v"], "samples": "*"}
BY_TIME = {"series": "dev", "time": "$name", "values": ["v"], "samples": "days.*"}
IN_MEMBERS = {"series": ["dev", "$name"], "time": "t", "values": ["v"], "samples": "m.*"}


@pytest.mark.parametrize(
    ("form", "record", "series", "bad"),
    [
        (IN_ARRAYS, {"dev": "a", "m": {"t": [T, T + 1, T + 2], "v": [0, "RUN", 2]}}, ["a", "a"], 1),
        (IN_MEMBERS, {"dev": "a", "m": {"x": [{"t": T, "v": 0}, {"t": T + 1, "v": "RUN"}]}}, ["a\0x"], 0),
        (BY_NAME, {"x": {"t": T, "v": 0}, "y": {"t": T, "v": "RUN"}, "note": "z"}, ["x"], 0),
        (BY_TIME, {"dev": "a", "days": {"2026-03-02": {"v": 0}, "soon": {"v": 1}}}, ["a"], 0),
    ],
)
def test_arrays_beside_each_other_and_members_of_objects(form, record, series, bad):
    """The good samples are points. The bad one is a dead letter that holds it alone, and can be replayed."""
    found = decode(form, json.dumps(record))
    assert found.columns.keys.flat() == series
    assert (np.diff(found.columns.time) >= 0).all()
    (letter,) = found.dead
    assert letter.partial
    again = decode(form, letter.value or b"")
    assert points(again) == []
    assert [one.reason for one in again.dead] == [letter.reason]
    repaired = decode(form, (letter.value or b"").replace(b'"RUN"', b"7").replace(b"soon", b"2026-03-03"))
    assert len(repaired.columns) == 1
    assert repaired.dead == []


def test_arrays_of_other_lengths_are_refused():
    found = decode(IN_ARRAYS, json.dumps({"dev": "a", "m": {"t": [T, T + 1], "v": [1]}}))
    assert len(found.columns) == 0
    assert "m.v has 1 elements, m.t has 2" in found.dead[0].detail


def test_arrays_that_stand_in_another_array():
    form = {"series": "id", "time": "at", "values": ["v"], "samples": "sensors"}
    record = {"at": [T, T + 60], "sensors": [{"id": "a", "v": [1, 2]}, {"id": "b", "v": [3, None]}]}
    found = decode(form, json.dumps(record))
    assert sorted(found.columns.keys.flat()) == ["a", "a", "b", "b"]
    assert np.nansum(found.columns.values) == 6
    assert found.dead == []


def test_json_in_base64_and_a_null_parent_of_the_value():
    inner = base64.b64encode(gzip.compress(TWO[0].encode(), mtime=0)).decode()
    form = {"series": "data.k", "time": "data.t", "values": {"v": "data.v"}}
    assert points(decode(form, json.dumps({"data": inner}))) == [("a", 1.0)]
    form = {"series": "k", "time": "t", "values": {"v": "r.v"}}
    found = decode(form, json.dumps({"k": "a", "t": T, "r": None}))
    assert np.isnan(found.columns.values).all()
    assert (len(found.columns), found.dead) == (1, [])


def test_a_line_that_is_not_json_among_others():
    found = decode(SAMPLE, f"{TWO[0]}\nhello\n{TWO[1]}")
    assert points(found) == [("a", 1), ("b", 2)]
    assert [(letter.value, letter.partial) for letter in found.dead] == [(b"hello", True)]


def test_positions_and_scopes():
    matrix = {"series": "metric.job", "time": "0", "values": {"v": "1"}, "samples": "data.result.values"}
    record = {
        "data": {
            "result": [
                {"metric": {"job": "x"}, "values": [[T, "0.5"], [T + 1, "NaN"]]},
                {"metric": {"job": "y"}, "values": [[T, "3"]]},
            ]
        }
    }
    found = decode(matrix, json.dumps(record))
    assert found.columns.keys.flat() == ["x", "x", "y"]
    np.testing.assert_array_equal(found.columns.values[:, 0], [0.5, np.nan, 3])
    first = {"series": "k", "time": "t", "values": {"v": "v.-1"}}
    assert points(decode(first, json.dumps({"k": "a", "t": T, "v": [1, 2, 9]}))) == [("a", 9)]


def test_null_parents_hold_no_point():
    form = {"series": "after.id", "time": "after.t", "values": {"v": "after.v"}}
    found = decode(form, '{"after": null}', f'{{"after": {{"id": 1, "t": {T}, "v": 2}}}}')
    assert (points(found), found.dead, found.columns.filtered) == ([("1", 2)], [], 1)


def test_labels_that_are_optional_long_or_bad():
    form = {"series": ["k", "ns"], "time": "t", "values": ["v"], "optional": ["ns"]}
    values = [
        {"k": "a", "t": T, "v": 1},
        {"k": "a", "ns": None, "t": T, "v": 2},
        {"k": "x" * 900, "t": T, "v": 3},
    ]
    found = decode(form, *map(json.dumps, values), json.dumps({"k": "x" * 901, "ns": "n", "t": T, "v": 4}))
    names = found.columns.keys.flat()
    assert names[:2] == ["a\0", "a\0"]
    assert len({*names}) == 3
    assert {len(name.split("\0")[0]) for name in names[2:]} == {256}


def test_the_envelope():
    form = {"series": ["$key.id", "$headers.site", "$topic"], "time": "$timestamp", "values": {"v": "$value"}}
    batch = records([b"20.5", b"null", b'{"x": 1}'], timestamps=[T * 10**9 + 5] * 3)
    batch = Records(
        **{
            name: getattr(batch, name)
            for name in ("partition", "first_offset", "next_offset", "offsets", "timestamps")
        },
        values=batch.values,
        keys=[b'{"id": 7}'] * 3,
        headers=[[("site", b"n")]] * 3,
    )
    found = make_decoder("s", stream({"json": form})).decode(batch)
    assert found.columns.keys.flat() == ["7\0n\0t"] * 2
    assert found.columns.time.tolist() == [T * 10**9 + 5] * 2
    np.testing.assert_array_equal(found.columns.values[:, 0], [20.5, np.nan])
    assert [letter.reason for letter in found.dead] == ["wrong_type"]
    without = make_decoder("s", stream({"json": {"time": "t", "values": ["v"]}}))
    assert without.decode(records([TWO[0].encode()])).columns.keys.flat() == ["t"]


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ({"name": "cpu"}, "ab"),
        ({"name": ["cpu", "mem"]}, "abc"),
        ({"name": "c*", "n": 1}, "a"),
        ({"name": {"not": "cpu"}}, "cd"),
        ({"n": {"exists": False}}, "cd"),
        ("name == 'cpu'", "ab"),
        ("name != cpu and not exists(gone)", "cd"),
        ("n in [1, 3] or name == 'net'", "ad"),
        ("n not in (1)", "bcd"),
        ("(n >= 2 or n < 1) and name like 'c*'", "b"),
        (["exists(n)", "n = '2'"], "b"),
    ],
)
def test_records_that_belong_to_the_stream(where, kept):
    rows = [("a", "cpu", 1), ("b", "cpu", 2), ("c", "mem", None), ("d", "net", None)]
    form = {**SAMPLE, "where": where}
    values = [json.dumps({"k": k, "name": name, "n": n, "t": T, "v": 1}) for k, name, n in rows]
    foreign = (
        json.dumps({"name": "other", "n": 1.5})
        if "not" not in str(where) and "exists" not in str(where)
        else ""
    )
    found = decode(form, *values, *([foreign] if foreign and "or" not in str(where) else []))
    assert "".join(found.columns.keys.flat()) == kept
    assert found.dead == []
    assert found.columns.filtered == len(values) + bool(foreign and "or" not in str(where)) - len(kept)
    names = ("k", "name", "n")
    cells = {name: [row[i] for row in rows] for i, name in enumerate(names)} | {"t": [T] * 4, "v": [1.0] * 4}
    columns, dead = make_decoder("s", stream({"csv": form})).decode(table(cells))
    assert ("".join(columns.keys.flat()), dead, columns.filtered) == (kept, [], 4 - len(kept))


@pytest.mark.parametrize(
    ("keys", "text", "number"),
    [
        ({"decimal": ","}, "20,3", 20.3),
        ({"decimal": ",", "thousands": "."}, "-1.234.567,5", -1234567.5),
        ({"thousands": ","}, "1,234", 1234),
        ({"thousands": " "}, "12\u202f345.5", 12345.5),
        ({"units": ["°C", "%"]}, "21.5 °C", 21.5),
        ({"units": {"ms": 0.001, "s": 1}}, "250ms", 0.25),
        ({"missing": [-9999, "Bad"]}, "-9999.0", np.nan),
        ({"missing": [-9999, "Bad"]}, "BAD", np.nan),
        ({}, "NaN", np.nan),
        ({}, "1e3", 1000),
        ({}, "20,3", None),
        ({"thousands": "."}, "1.5", None),
        ({}, "21 °C", None),
    ],
)
def test_numbers_written_as_text(keys, text, number):
    if keys.get("thousands") == ".":
        keys = {"decimal": ",", **keys}
    form = {**SAMPLE, **keys}
    from_json = decode(form, json.dumps({"k": "a", "t": T, "v": text}))
    from_table = make_decoder("s", stream({"csv": form})).decode(table({"k": ["a"], "t": [T], "v": [text]}))
    for found in (from_json, from_table):
        if number is None:
            assert [letter.reason for letter in found.dead] == ["wrong_type"]
            assert any(word in found.dead[0].detail for word in ("decimal", "units", "missing"))
        else:
            assert found.dead == []
            np.testing.assert_allclose(found.columns.values[0, 0], number)


@given(st.lists(st.floats(-1e6, 1e6).map(lambda x: round(x, 3)), min_size=1, max_size=8), st.data())
def test_any_shape_gives_the_same_points(numbers, data):
    rows = [{"k": "a", "t": T + i, "v": number} for i, number in enumerate(numbers)]
    texts = [
        json.dumps(row | {"v": str(row["v"])}) if data.draw(st.booleans()) else json.dumps(row)
        for row in rows
    ]
    plain = decode(SAMPLE, *map(json.dumps, rows))
    for record in ("[" + ",".join(texts) + "]", "\n".join(texts), "".join(texts), f"[[{','.join(texts)}]]"):
        found = decode(SAMPLE, record)
        assert points(found) == points(plain)
        assert found.columns.time.tolist() == plain.columns.time.tolist()


@given(st.binary(max_size=60))
def test_any_bytes_around_a_record_are_survived(noise):
    for value in (
        noise,
        b"\x1f\x8b" + noise,
        b"\0\0\0\0\1" + noise,
        b"[" + noise,
        TWO[0].encode() + b"\n" + noise,
    ):
        columns, dead = decode(SAMPLE, value)
        assert columns.records + sum(not letter.partial for letter in dead) + columns.filtered == 1
