"""Remote write: any request of Google's protobuf is read, any bytes are survived."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import Stream
from pipeline.core.types import Partition
from pipeline.decode import make_decoder, series_name
from pipeline.decode.metrics_formats import content_check
from pipeline.sources.base import Records
from tests.support.remote_write import write_request, write_request_2

T = 1_764_028_800_000
V2 = b"application/x-protobuf;proto=io.prometheus.write.v2.Request"
UP = {"__name__": "up", "instance": "a:9100", "job": "node"}


def decode(contents, kind=b"application/x-protobuf", **form):
    stream = Stream.model_validate(
        {"source": {"memory": {}}, "format": {"remote_write": form}} | form.pop("more", {})
    )
    n = len(contents)
    stamps = np.full(n, (T + 3_600_000) * 1_000_000, np.int64)
    headers = [[("content-type", kind)] for _ in range(n)]
    batch = Records(Partition("push", 0), 0, n, np.arange(n), stamps, contents, [None] * n, headers)
    out = make_decoder("s", stream).decode(batch)
    assert out.columns.records + sum(not one.partial for one in out.dead) + out.columns.filtered == n
    points = zip(
        out.columns.keys.flat(), out.columns.time.tolist(), out.columns.values[:, 0].tolist(), strict=True
    )
    return list(points), out


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
samples = st.tuples(st.floats(allow_infinity=False), st.integers(T - 3_600_000, T))
requests = st.lists(
    st.tuples(st.dictionaries(texts, texts, max_size=5), st.lists(samples, max_size=4)), max_size=6
)


def same(one, other):
    return len(one) == len(other) and all(
        a[:2] == b[:2] and (a[2] == b[2] or (math.isnan(a[2]) and math.isnan(b[2])))
        for a, b in zip(one, other, strict=True)
    )


@given(batch=st.lists(requests, max_size=4))
@pytest.mark.parametrize("version", [1, 2])
def test_every_request_is_read(version, batch):
    make = write_request if version == 1 else write_request_2
    points, out = decode(
        [make(one) for one in batch], *([V2] if version == 2 else []), series=["__name__", "job"]
    )
    wanted = [
        (f"{labels.get('__name__', '')}\0{labels.get('job', '')}", time * 1_000_000, value)
        for one in batch
        for labels, found in one
        for value, time in found
    ]
    assert out.dead == []
    assert same(points, wanted)


@given(content=st.binary(max_size=200), kind=st.sampled_from([b"", V2]))
def test_any_bytes_are_survived(content, kind):
    _, out = decode([content, None, write_request([(UP, [(1.0, T)])])], kind)
    assert all(letter.reason for letter in out.dead)


@given(request=requests.filter(bool), data=st.data())
def test_a_request_with_a_changed_byte_is_survived_and_checked_alike(request, data):
    content = bytearray(write_request(request))
    if content:
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    form = Stream.model_validate({"source": {"memory": {}}, "format": {"remote_write": {}}}).format.chosen
    check = content_check(form)
    _, out = decode([bytes(content)])
    refused = any(letter.reason == "malformed" and not letter.partial for letter in out.dead)
    assert _refusal(check, bytes(content)) == (out.dead[0].detail if refused else None)


def _refusal(check, content):
    try:
        check(content, "application/x-protobuf")
    except ValueError as error:
        return str(error)
    return None


def test_the_series_is_the_name_with_all_labels():
    points, _ = decode(
        [
            write_request(
                [
                    ({"__name__": "x", "b": 'q"\\', "a": "1", "c": ""}, [(1.0, T)]),
                    ({"__name__": "y"}, [(2.0, T)]),
                ]
            )
        ]
    )
    assert points == [('x{a="1",b="q\\"\\\\"}', T * 1_000_000, 1.0), ("y", T * 1_000_000, 2.0)]


def test_labels_are_fields_and_an_absent_one_is_empty():
    content = write_request([(UP, [(1.0, T), (2.0, T + 1)]), ({"__name__": "down"}, [(3.0, T)])])
    points, _ = decode([content], series={"metric": "__name__", "host": "instance"}, values={"load": "value"})
    assert [key for key, _, _ in points] == ["up\0a:9100", "up\0a:9100", "down\0"]
    stream = Stream.model_validate(
        {
            "source": {"memory": {}},
            "format": {"remote_write": {"series": {"metric": "__name__", "host": "instance"}}},
        }
    )
    assert series_name(stream, points[0][0])[0] == "metric=up,host=a:9100"


def test_a_label_called_like_a_field_has_a_name_of_its_own():
    points, _ = decode(
        [write_request([({"__name__": "x", "series": "s7"}, [(1.0, T)])])], series="labels.series"
    )
    assert points[0][0] == "s7"


def test_where_chooses_series():
    content = write_request([(UP, [(1.0, T)]), (UP | {"__name__": "load"}, [(2.0, T), (3.0, T + 1)])])
    points, out = decode([content, write_request([(UP, [(1.0, T + 2)])])], where={"__name__": "load"})
    assert [value for _, _, value in points] == [2.0, 3.0]
    assert (out.columns.filtered, out.dead) == (1, [])


def test_a_bad_sample_is_a_dead_letter_of_its_own_that_can_be_replayed():
    content = write_request([(UP, [(1.0, T), (math.inf, T + 1), (2.0, -5)])])
    points, out = decode([content])
    assert [value for _, _, value in points] == [1.0]
    (letter,) = out.dead
    assert (letter.partial, letter.reason) == (True, "not_finite")
    lines = [json.loads(line) for line in letter.value.splitlines()]
    assert lines[0] == {"labels": UP, "timestamp": T + 1, "value": "inf"}
    repaired = json.dumps({"labels": UP, "timestamp": T + 1, "value": 7.5}).encode()
    again, out = decode([repaired])
    assert (again, out.dead) == ([('up{instance="a:9100",job="node"}', (T + 1) * 1_000_000, 7.5)], [])


def test_a_record_of_bad_samples_only_keeps_its_bytes():
    content = write_request([(UP, [(math.inf, T)])])
    _, out = decode([content])
    (letter,) = out.dead
    assert (letter.value, letter.partial, letter.reason) == (content, False, "not_finite")


def test_nul_in_a_label_and_times_of_no_year():
    content = write_request([({"__name__": "a\0b"}, [(1.0, T)]), (UP, [(1.0, T), (2.0, 2**62)])])
    points, out = decode([content])
    assert len(points) == 1
    assert [letter.reason for letter in out.dead] == ["bad_label"]


def test_requests_of_metadata_only_are_filtered():
    _, out = decode([write_request([], metadata=b"\x08\x01"), b""])
    assert (len(out.columns), out.columns.filtered, out.dead) == (0, 2, [])


def test_stale_markers_are_missing_values():
    stale = np.array([0x7FF0000000000002], np.uint64).view(np.float64)[0]
    points, out = decode([write_request([(UP, [(float(stale), T)])])])
    assert len(points) == 1
    assert math.isnan(points[0][2])
    assert out.dead == []


def test_labels_that_do_not_stand_together():
    """A sender may write the fields in any order."""
    whole = write_request([(UP, [(1.0, T)])])
    series = whole[2:]
    parts, at = [], 0
    while at < len(series):
        end = at + 2 + series[at + 1]
        parts.append(series[at:end])
        at = end
    body = parts[0] + parts[-1] + b"".join(parts[1:-1])
    points, _ = decode([bytes([0x0A, len(body)]) + body])
    assert points == [('up{instance="a:9100",job="node"}', T * 1_000_000, 1.0)]


def test_numbers_of_distinct_labels_and_counters():
    content = write_request([(UP | {"instance": f"h{n % 3}"}, [(float(n), T + n * 1000)]) for n in range(9)])
    _, out = decode(
        [content],
        series="job",
        more={"aggregate": {"every": "1m", "values": {"hosts": {"nunique": "instance"}, "value": "max"}}},
    )
    assert len(set(out.columns.extra["distinct instance"].tolist())) == 3


def histogram_field(number: int, time: int, count: bytes, total: float) -> bytes:
    """Return a histogram as a field of a series."""
    stamp = bytearray([0x78])
    while time >= 0x80:
        stamp.append(time & 0x7F | 0x80)
        time >>= 7
    stamp.append(time)
    content = count + b"\x19" + np.float64(total).tobytes() + b"\x2a\x03abc" + bytes(stamp)
    return bytes([number << 3 | 2, len(content)]) + content


def with_histograms(request: bytes, field: int, *histograms: bytes) -> bytes:
    """Return a request whose only series, of fewer than 128 bytes, has histograms instead of samples."""
    at = request.index(bytes([field << 3 | 2]))
    length = request[at + 1]
    series = request[at + 2 : at + 2 + length] + b"".join(histograms)
    return request[:at] + bytes([field << 3 | 2, len(series)]) + series + request[at + 2 + length :]


@pytest.mark.parametrize("version", [1, 2])
def test_native_histograms_give_their_count_and_sum(version):
    inner = 4 if version == 1 else 3
    whole = histogram_field(inner, T, b"\x08\x05", 1.5)
    real = histogram_field(inner, T + 1000, b"\x11" + np.float64(7.5).tobytes(), 2.5)
    if version == 1:
        named = with_histograms(write_request([({"__name__": "latency"}, [])]), 1, whole, real)
        points, out = decode([write_request([(UP, [(1.0, T)])]) + named], series="__name__")
    else:
        alone = write_request_2([({"__name__": "latency"}, [])])
        points, out = decode([with_histograms(alone, 5, whole, real)], series="__name__", kind=V2)
    expected = [
        ("latency_count", T, 5.0), ("latency_sum", T, 1.5),
        ("latency_count", T + 1000, 7.5), ("latency_sum", T + 1000, 2.5),
    ]  # fmt: skip
    up = [("up", T * 1_000_000, 1.0)] if version == 1 else []
    assert (points, out.dead) == (up + [(name, at * 1_000_000, v) for name, at, v in expected], [])


def test_stale_and_damaged_native_histograms():
    stale = float(np.array([0x7FF0000000000002], np.uint64).view(np.float64)[0])
    named = write_request([({"__name__": "latency"}, [])])
    points, out = decode([with_histograms(named, 1, histogram_field(4, T, b"\x08\x00", stale))])
    assert [math.isnan(value) for _, _, value in points] == [True, True]
    damaged = histogram_field(4, T, b"\x08\x05", 1.5)[2:-2]
    _, out = decode([with_histograms(named, 1, bytes([0x22, len(damaged)]) + damaged)])
    assert [letter.reason for letter in out.dead] == ["malformed"]
