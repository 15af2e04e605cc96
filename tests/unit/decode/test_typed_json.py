"""Contents that name their own type: DynamoDB, MongoDB, Firestore and unions of Avro."""

from __future__ import annotations

import json

import pytest

from pipeline.decode.typed_json import plain_content
from tests.unit.decode.test_shapes import SAMPLE, T, decode, points


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ({"N": "20.5"}, "20.5"),
        ({"N": "20"}, 20),
        ({"S": "pump"}, "pump"),
        ({"BOOL": True}, True),
        ({"NULL": True}, None),
        ({"$numberDouble": "-1.5"}, "-1.5"),
        ({"$numberLong": "1764028800000"}, 1764028800000),
        ({"$date": {"$numberLong": "1764028800000"}}, 1764028800000),
        ({"$date": "2025-11-25T00:00:00Z"}, "2025-11-25T00:00:00Z"),
        ({"$timestamp": {"t": T, "i": 1}}, T),
        ({"$oid": "65f2"}, "65f2"),
        ({"double": 1.5}, 1.5),
        ({"integerValue": "7"}, 7),
    ],
)
def test_the_type_is_left_out(typed, plain):
    assert plain_content(typed) == plain


@pytest.mark.parametrize(
    "content",
    [
        {"N": 3},
        {"N": "north"},
        {"S": 4},
        {"int": "x"},
        {"N": "1", "E": "2"},
        {"$date": [1]},
        {"v": 1},
        [1],
        5,
    ],
)
def test_a_field_that_is_only_named_like_a_type_stays(content):
    assert plain_content(content) == content


def test_samples_of_several_types_have_one_path():
    texts = [
        {"k": {"S": "a"}, "t": {"N": str(T)}, "v": {"N": "1.5"}},
        {"k": "a", "t": {"$date": {"$numberLong": str(1000 * T + 1000)}}, "v": {"$numberInt": "2"}},
        {"k": "a", "t": {"long": T + 2}, "v": {"double": 2.5}},
        {"k": "a", "t": T + 3, "v": {"NULL": True}},
        {"k": "a", "t": T + 4, "v": 3},
    ]
    found = decode(SAMPLE, *map(json.dumps, texts))
    assert found.dead == []
    assert [name for name, _ in points(found)] == ["a"] * 5
    assert [value for _, value in points(found)] == pytest.approx([1.5, 2, 2.5, float("nan"), 3], nan_ok=True)
    assert (found.columns.time - found.columns.time[0]).tolist() == [i * 10**9 for i in range(5)]


def test_a_path_into_the_type_still_holds():
    found = decode(
        {"series": "k.S", "time": "t", "values": {"v": "v.N"}}, f'{{"k":{{"S":"a"}},"t":{T},"v":{{"N":"4"}}}}'
    )
    assert points(found) == [("a", 4)]
