"""Decoding: every record becomes points or a dead letter or is filtered, whatever its bytes; fast and slow
ways agree.
"""

from __future__ import annotations

import codecs
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.core.errors import ConfigError
from pipeline.decode import REASONS, make_decoder, series_key, series_name, series_names
from pipeline.decode.decoder import Decoder
from tests.support.decoding import PARTITION, records, same_columns, stream, table

T = 1_700_000_000
FLAT = {"json": {"series": "id", "time": "ts", "values": ["a", "b"], "optional": ["b"]}}
NESTED = {
    "json": {
        "series": {"site": "meta.site", "sensor": "meta.sensor"},
        "time": "at.ts",
        "values": {"t": "v.temp", "x": r"dotted\.key"},
    }
}
SAMPLES = {
    "json": {
        "series": ["id", "ch"],
        "time": "ts",
        "values": ["a", "b"],
        "optional": ["b"],
        "samples": "data.points",
    }
}
CSV = {
    "csv": {
        "series": ["id", "ch"],
        "time": "ts",
        "values": ["a", "b"],
        "header": ["id", "ts", "ch", "unused", "a", "b"],
    }
}
FORMATS = {"flat": FLAT, "nested": NESTED, "samples": SAMPLES, "csv": CSV}


def good(form: str, i: int) -> bytes:
    match form:
        case "flat":
            return b'{"id": "s%d", "ts": %d, "a": %d.5, "b": null}' % (i % 3, T + i, i)
        case "nested":
            return (
                b'{"meta": {"site": "b%d", "sensor": 7}, "at": {"ts": %d}, "v": {"temp": %d}, "dotted.key": 1}'
                % (i % 3, T + i, i)
            )
        case "samples":
            return (
                b'{"id": "s%d", "ch": true, "data": {"points": [{"ts": %d, "a": 1}, {"ts": %d, "a": null, "b": 2}]}}'
                % (
                    i,
                    T + i,
                    T + i + 1,
                )
            )
    return b"s%d,%d,x,,%d.5," % (i % 3, T + i, i)


def decode_all(form: dict, values, **settings_):
    return make_decoder("plant", stream(form, **settings_)).decode(records(values, 100))


def reasons(form: dict, *values: bytes | None) -> list[tuple[str, str]]:
    return [(letter.reason, letter.detail) for letter in decode_all(form, list(values)).dead]


# ------------------------------------------------------------------------------------------------ what is read


def test_a_flat_record():
    columns, dead = decode_all(
        FLAT,
        [
            good("flat", 0),
            b'{"id": 12, "ts": "2023-11-14T22:13:20Z", "a": 3}',
            b'{"id": true, "ts": 1.7e12, "a": null}',
        ],
    )
    assert dead == []
    assert columns.keys.flat() == ["s0", "12", "true"]
    assert columns.time.tolist() == [T * 10**9] * 3
    np.testing.assert_array_equal(columns.values, [[0.5, np.nan], [3, np.nan], [np.nan, np.nan]])
    assert columns.offsets.tolist() == [100, 101, 102]
    assert columns.partition == PARTITION
    assert columns.head is None
    assert columns.records == 3


def test_nested_fields_and_keys_with_a_dot():
    columns, dead = decode_all(NESTED, [good("nested", 4)])
    assert dead == []
    assert columns.keys.flat() == ["b1\0007"]
    assert columns.values.tolist() == [[4, 1]]
    assert series_name(stream(NESTED), "b1\0007") == ("site=b1,sensor=7", {"site": "b1", "sensor": "7"})
    assert series_name(stream(FLAT), "s0") == ("s0", {"id": "s0"})
    assert series_names(stream(NESTED), ["b1\0007", None, "b,1\0007"]) == [
        "site=b1,sensor=7",
        None,
        "site=b\\,1,sensor=7",
    ]
    assert series_names(stream(FLAT), ["s0", None]) == ["s0", None]


def test_samples_look_in_themselves_then_in_the_record():
    value = {
        "id": "s",
        "ts": T,
        "ch": "out",
        "data": {"points": [{"a": 1}, {"a": 2, "ch": "in", "ts": T + 9}, {"a": None, "b": 3}]},
    }
    columns, dead = decode_all(
        SAMPLES,
        [json.dumps(value).encode(), b'{"id": "s", "ch": 1, "data": {"points": []}}', good("samples", 1)],
    )
    assert dead == []
    assert columns.keys.flat() == ["s\0out", "s\0in", "s\0out", "s1\0true", "s1\0true"]
    assert (columns.time // 10**9 - T).tolist() == [0, 9, 0, 1, 2]
    np.testing.assert_array_equal(
        columns.values, [[1, np.nan], [2, np.nan], [np.nan, 3], [1, np.nan], [np.nan, 2]]
    )
    assert columns.offsets.tolist() == [100, 100, 100, 102, 102]
    assert columns.head.tolist() == [True, False, False, True, False]
    assert (columns.records, columns.filtered) == (2, 1)


def test_lines_of_csv():
    for extra in ([], [b'"a ""quoted"", name",%d,y,,7,8' % T]):  # the second way is line by line
        columns, dead = decode_all(CSV, [good("csv", 0), b"s,%d,y,, NaN ,null" % T, *extra])
        assert dead == []
        assert columns.keys.flat()[:2] == ["s0\0x", "s\0y"]
        np.testing.assert_array_equal(columns.values[:2], [[0.5, np.nan], [np.nan, np.nan]])
    assert columns.keys.flat()[2] == 'a "quoted", name\0y'


def test_tombstones_and_offsets_without_a_record_are_filtered():
    batch = records([good("flat", 0), None, good("flat", 1)])
    batch.next_offset, batch.offsets = 9, np.array([0, 4, 5])
    columns, dead = make_decoder("plant", stream(FLAT)).decode(batch)
    assert (columns.records, len(dead), columns.filtered) == (2, 0, 7)


def test_the_clock_of_a_point_is_never_ahead_of_the_log():
    ms = np.array([T, T, -1]) * 10**9
    batch = records([good("flat", 0), good("flat", 60), good("flat", 60)], 0, ms.clip(-1).tolist())
    columns, dead = make_decoder("plant", stream(FLAT)).decode(batch)
    assert dead == []
    assert (columns.clock // 10**9 - T).tolist() == [0, 0, 60]


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("value", "reason", "said"),
    [
        (b"\xff\xfe", "bad_bytes", "not UTF-8"),
        (b'{"id": "\xff", "ts": 1700000000, "a": 1}', "bad_bytes", "not UTF-8"),
        (b"", "malformed", "truncated"),
        (b"hello", "malformed", "hello"),
        (b'{"id": "s", "ts": 1700000000, "a": 1} x', "malformed", "trailing"),
        (b'{"q": ' + b"[" * 5000, "malformed", "nested too deeply"),
        (b"[1, 2]", "not_an_object", "not an object: 1"),
        (b"null", "not_an_object", "null"),
        (b'{"ts": 1700000000, "a": 1}', "missing_field", "no field id"),
        (b'{"id": "s", "a": 1}', "missing_field", "no field ts"),
        (b'{"id": "s", "ts": 1700000000, "b": 1}', "missing_field", "no field a"),
        (b'{"id": null, "ts": 1700000000, "a": 1}', "wrong_type", "id: Expected"),
        (b'{"id": "s", "ts": 1700000000, "a": "21,5"}', "wrong_type", "decimal: ','"),
        (b'{"id": "s", "ts": 5, "a": 1}', "implausible_time", "time_unit"),
        (b'{"id": "s", "ts": "03/04/2026", "a": 1}', "bad_time", "day or month first: set time_format"),
        (b'{"id": "s", "ts": 1700000000, "a": [true]}', "wrong_type", "a: Expected"),
        (b'{"id": 1.5, "ts": 1700000000, "a": 1}', "wrong_type", "1.5"),
        (b'{"id": "s", "ts": [], "a": 1}', "wrong_type", "ts: Expected"),
        (b'{"id": "s", "ts": null, "a": Infinity}', "wrong_type", "ts: Expected"),
        (b'{"id": "s", "ts": 1700000000, "a": -Infinity}', "not_finite", "-inf"),
        (b'{"id": "s", "ts": 1700000000, "a": 1e999}', "not_finite", "a is inf"),
        (b'{"id": "s", "ts": "soon", "a": 1}', "bad_time", "ts is 'soon'"),
        (b'{"id": "s", "ts": -5, "a": 1}', "absurd_time", "ts is -5"),
        (b'{"id": "s", "ts": 99999999999999999999999, "a": 1}', "absurd_time", "ts is 9999"),
        (b'{"id": "a\\u0000b", "ts": 1700000000, "a": 1}', "bad_label", "id is 'a\\x00b'"),
        (
            b'{"id": "s", "ts": 1700000000, "a": {"a": {}}, "a": "' + b"y" * 900 + b'"}',
            "wrong_type",
            "a is not a number",
        ),
    ],
)
def test_what_is_wrong_is_said(value, reason, said):
    ((got, detail),) = reasons(FLAT, value)
    assert got == reason
    assert said in detail
    assert reason in REASONS
    assert len(detail) < 300
    assert detail.isprintable()
    # Beside good records it is the only one that is refused.
    columns, dead = decode_all(FLAT, [good("flat", 0), value, good("flat", 1)])
    assert [(letter.offset, letter.value, letter.reason) for letter in dead] == [(101, value, reason)]
    assert columns.offsets.tolist() == [100, 102]


def test_nested_and_sampled_fields_are_named():
    assert (
        reasons(
            NESTED, b'{"meta": {"site": "b"}, "at": {"ts": 1700000000}, "v": {"temp": 1}, "dotted.key": 1}'
        )[0][1]
        == "no field sensor in $.meta"
    )
    reason, detail = reasons(NESTED, good("nested", 0).replace(b'"temp": 0', b'"temp": "hot"'))[0]
    assert (reason, "v.temp" in detail, "hot" in detail) == ("wrong_type", True, True)
    sample = b'{"id": "s", "ch": 1, "data": {"points": [{"ts": 1700000000, "a": 1}, {"ts": 1700000002}]}}'
    assert reasons(SAMPLES, sample) == [("missing_field", "no field a")]
    columns, dead = decode_all(SAMPLES, [good("samples", 0), sample])
    assert (columns.records, len(columns), len(dead)) == (2, 3, 1)  # the good sample of the record is a point
    assert dead[0].partial
    assert dead[0].value == b'{"id":"s","ch":1,"data":{"points":[{"ts":1700000002}]}}'


def test_csv_lines_that_do_not_fit():
    line = good("csv", 0)
    assert reasons(
        CSV,
        line,
        b"s,1",
        b"\xff" + line,
        line.replace(b"0.5", b"inf"),
        line.replace(b"0.5", b"warm"),
        b'"' + line,
    ) == [
        ("malformed", "2 columns, the header has 6: b's,1'"),
        ("bad_bytes", "not UTF-8: invalid start byte at byte 0: b'\\xffs0,1700000000,x,,0.5,'"),
        ("not_finite", "a, it is 'inf'"),
        (
            "wrong_type",
            "a is not a number, it is 'warm'; if it means that there is no value, name it under `missing`",
        ),
        ("malformed", "unexpected end of data: b'\"s0,1700000000,x,,0.5,'"),
    ]


def test_the_future_is_refused_by_the_logs_own_clock():
    decoder = make_decoder("plant", stream(FLAT, future="1m"))
    values = [good("flat", 0), good("flat", 61), good("flat", 10**6)]
    columns, dead = decoder.decode(records(values, 0, [T * 10**9, T * 10**9, -1]))
    assert columns.offsets.tolist() == [0, 2]
    assert dead[0].reason == "future"
    assert dead[0].detail.startswith(
        "ts is 2023-11-14T22:14:21+00:00: 1m1s ahead of the record's own timestamp"
    )
    assert (
        len(
            make_decoder("plant", stream(FLAT, future=None))
            .decode(records(values, 0, [T * 10**9] * 3))
            .columns
        )
        == 3
    )


def test_an_event_lies_in_the_future_whatever_the_clock_of_its_record_says():
    now = T * 10**9
    decoder = Decoder("plant", stream(FLAT, future="1h"), clock=lambda: now)
    year = 365 * 86_400
    values = [good("flat", 0), good("flat", 10 * year), good("flat", 60)]
    columns, dead = decoder.decode(records(values, 0, [now, now + 10 * year * 10**9, now]))
    assert columns.offsets.tolist() == [0, 2]
    assert "ahead of the present" in dead[0].detail
    assert columns.clock.max() < now + 10**12


@pytest.mark.parametrize("rows", [1, 3])
def test_a_clock_that_leaps_and_comes_back_is_seen_by_the_points_that_follow(rows):
    decoder = make_decoder("plant", stream(FLAT))
    leap = [good("flat", 20 * 86_400 + 3 * i) for i in range(rows)]
    values = [good("flat", 0), good("flat", 60), *leap, good("flat", 120), good("flat", 180)]
    columns, dead = decoder.decode(records(values))
    assert len(columns) == 4
    assert [one.reason for one in dead] == ["future"] * rows
    assert "its series goes on at" in dead[0].detail
    # A gap, old points that come late and a point near its log's own time are no leap.
    assert not decoder.decode(records([*values[:2], *leap])).dead
    late = [good("flat", 20 * 86_400), good("flat", 0), good("flat", 60)]
    assert not decoder.decode(records(late)).dead
    assert not decoder.decode(records(values, 0, [(T + 20 * 86_400) * 10**9] * len(values))).dead


HOUR = 3600


@pytest.mark.parametrize(
    ("times", "leaping"),
    [
        ("a0 b0 a60 b60 a3H b120 a120 a180", [4]),  # one record
        ("a0 b0 a3H b60 a4H b120 a120", [2, 4]),  # a clock that is ahead for two records
        ("a3H b0 b60 a60 a120", [0]),  # the first record of the partition
        ("a0 b0 a3H b3H a60 b60", []),  # all series together: nothing tells which is right
        ("a0 a60 a3H a120 a180", []),  # nothing to compare with
        ("a3H b0 a4H b60 a5H b120", []),  # a series that is hours ahead, in its own order
        ("a0 b0 a3H b3H a3H60 a120", []),  # a gap of both, and a point from before it that comes late
        ("a5H b5H a0 a60 b5H60", []),  # a clock that jumps back, or a series that begins again
    ],
)
def test_a_leap_of_hours_is_one_if_the_other_series_have_not_come_that_far(times, leaping):
    def second(text: str) -> int:
        hours, _, rest = text.rpartition("H")
        return int(hours or 0) * HOUR + int(rest or 0)

    points = [(one[0], second(one[1:])) for one in times.split()]
    values = [json.dumps({"s": name, "t": T + at, "v": 1.0}).encode() for name, at in points]
    form = {"json": {"series": "s", "time": "t", "values": ["v"]}}
    _, dead = make_decoder("plant", stream(form)).decode(records(values))
    assert [letter.offset for letter in dead] == leaping


def test_a_dead_letter_keeps_everything():
    batch = records([b"{"], 7, [T])
    batch.headers = [[("trace", b"\x00"), ("none", None)]]
    ((letter),) = make_decoder("plant", stream(FLAT)).decode(batch).dead
    assert (letter.stream, letter.partition, letter.offset, letter.timestamp_ns) == ("plant", PARTITION, 7, T)
    assert (letter.key, letter.value, letter.headers) == (b"k", b"{", [("trace", b"\x00"), ("none", None)])


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"json": {"series": "a", "time": "ts", "values": "a"}}, "named as series and as value"),
        ({"json": {"series": "id", "time": "a", "values": "a"}}, "named as time and as value"),
        ({"json": {"series": "m", "time": "ts", "values": "m.a"}}, "another one descends into it"),
        ({"json": {"series": "m.b", "time": "ts", "values": "m"}}, "which is a field of its own"),
        ({"json": {"series": "id", "time": "ts", "values": "a", "samples": "a"}}, "holds the samples"),
        ({"csv": {"series": "id", "time": "ts", "values": "a", "header": ["id", "ts"]}}, "has no column a"),
    ],
)
def test_a_format_that_contradicts_itself(form, said):
    with pytest.raises(ConfigError, match=said):
        make_decoder("plant", stream(form))


def test_csv_bytes_need_a_header():
    with pytest.raises(ConfigError, match="name their columns"):
        decode_all({"csv": {"series": "id", "time": "ts", "values": "a"}}, [b"x"])


# ------------------------------------------------------------------------------------------------ properties

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from([T, T * 1000, "2024-01-01"])
)
OBJECTS = st.dictionaries(
    st.sampled_from(["id", "ch", "ts", "a", "b", "meta", "at", "v", "data"]), SCALARS, max_size=9
)
NEARLY = st.fixed_dictionaries(
    {"id": st.sampled_from(["s", 1, True, None, "x" * 300]), "ch": st.just("c"), "ts": SCALARS, "a": SCALARS},
    optional={"b": SCALARS},
)
POINTS = st.fixed_dictionaries(
    {
        "id": st.just("s"),
        "data": st.fixed_dictionaries({"points": st.lists(NEARLY | OBJECTS | SCALARS, max_size=3)}),
    }
)
VALUES = st.one_of(
    st.none(),
    st.binary(max_size=20),
    st.one_of(OBJECTS, NEARLY, POINTS, SCALARS).map(
        lambda o: json.dumps(o, ensure_ascii=False).encode("utf-8", "surrogatepass")
    ),
    st.lists(st.text(max_size=8) | st.just(str(T)), min_size=5, max_size=7).map(
        lambda c: ",".join(c).encode()
    ),
    st.just(b""),
)


def test_a_csv_record_with_a_byte_order_mark_is_the_record_without_it():
    decoder, marked = make_decoder("plant", stream(FORMATS["csv"])), codecs.BOM_UTF8 + good("csv", 1)
    for values in ([marked], [good("csv", 0), marked], [marked, good("csv", 2)], [None, marked]):
        columns, dead = decoder.decode(records(values))
        assert not dead
        assert columns.records == len(values) - (None in values)
    for values in ([codecs.BOM_UTF8], [None, codecs.BOM_UTF8], [codecs.BOM_UTF8, good("csv", 0)]):
        (letter,) = decoder.decode(records(values)).dead
        assert letter.reason == "malformed"


@pytest.mark.parametrize("form", FORMATS)
@given(data=st.data())
@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_the_bytes_every_record_is_accounted_for(form, data):
    wild = data.draw(st.lists(VALUES | st.integers(0, 5).map(lambda i: good(form, i)), max_size=8))
    decoder = make_decoder("plant", stream(FORMATS[form]))
    columns, dead = decoder.decode(records(wild, 100))
    whole = [letter for letter in dead if not letter.partial]  # the record of a partial one is scored
    assert columns.records + len(whole) + columns.filtered == len(wild)
    assert columns.filtered >= sum(v is None for v in wild)
    assert {letter.reason for letter in dead} <= REASONS.keys()
    assert all(letter.detail.isprintable() for letter in dead)
    assert not np.isinf(columns.values).any()
    assert (columns.time >= 0).all()

    # One record alone, or among others, is the same.
    single = [decoder.decode(records([value], 100 + i)) for i, value in enumerate(wild)]
    assert [letter for one in single for letter in one.dead] == dead
    parts = [one.columns for one in single if len(one.columns)]
    if not parts:
        assert len(columns) == 0
        return
    together = parts[0]
    for part in parts[1:]:
        together = together.append(part)
    same_columns(columns, together)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "id": st.text(min_size=1, max_size=8).filter(lambda t: "\0" not in t)
                | st.integers(-(10**20), 10**20)
                | st.booleans(),
                "ts": st.integers(10**9, 7 * 10**9),
                "a": st.none()
                | st.floats(allow_nan=False, allow_infinity=False)
                | st.integers(-(10**15), 10**15),
            },
            optional={"b": st.none() | st.floats(-1e6, 1e6)},
        ),
        min_size=1,
        max_size=10,
    )
)
def test_json_is_read_as_pythons_own_reader_reads_it(rows):
    columns, dead = decode_all(
        FLAT, [json.dumps(row, ensure_ascii=row["ts"] % 2 == 0).encode() for row in rows], future=None
    )
    assert dead == []
    texts = [json.dumps(row["id"]) if not isinstance(row["id"], str) else row["id"] for row in rows]
    assert columns.keys.flat() == texts
    assert columns.time.tolist() == [row["ts"] * 10**9 for row in rows]
    for row, (a, b) in zip(rows, columns.values.tolist(), strict=True):
        assert math.isnan(a) if row["a"] is None else a == float(row["a"])
        assert math.isnan(b) if row.get("b") is None else b == row["b"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["s", "é", ""]),
            st.sampled_from(["x", "y"]),
            st.integers(T, T + 99),
            st.none() | st.integers(-5, 5),
            st.none() | st.floats(-5, 5),
        ),
        min_size=1,
        max_size=8,
    )
)
@settings(deadline=None)
def test_json_csv_and_tables_say_the_same(rows):
    names = ["id", "ch", "ts", "a", "b"]
    form = {"series": ["id", "ch"], "time": "ts", "values": ["a", "b"]}
    as_json = decode_all(
        {"json": form}, [json.dumps(dict(zip(names, row, strict=True))).encode() for row in rows]
    )
    lines = [
        ",".join(
            "" if cell is None else repr(cell) if isinstance(cell, float) else str(cell) for cell in row
        ).encode()
        for row in rows
    ]
    as_csv = decode_all({"csv": {**form, "header": names}}, lines)
    quoted = decode_all(
        {"csv": {**form, "header": names}}, [b'"' + line.replace(b",", b'","') + b'"\r\n' for line in lines]
    )
    as_table = make_decoder("plant", stream({"csv": form})).decode(
        table({n: [row[i] for row in rows] for i, n in enumerate(names)}, 100)
    )
    for other in (as_csv, quoted, as_table):
        assert other.dead == []
        same_columns(as_json.columns, other.columns)


LABELS = st.text(max_size=3).filter(lambda text: "\0" not in text)


@given(st.lists(st.tuples(LABELS, LABELS), min_size=2, max_size=30, unique=True))
def test_no_two_series_share_a_name(keys):
    assert len({series_name(stream(NESTED), "\0".join(key))[0] for key in keys}) == len(keys)
    for key in keys:
        assert series_key(stream(NESTED), series_name(stream(NESTED), "\0".join(key))[0]) == "\0".join(key)
