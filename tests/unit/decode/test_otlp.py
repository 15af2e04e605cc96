"""OTLP metrics: kinds, temporality, attributes, JSON; any bytes are survived."""

from __future__ import annotations

import math

import numpy as np
import pytest
from google.protobuf.json_format import MessageToJson
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from pipeline.config.schema import Stream
from pipeline.core.types import Partition
from pipeline.decode import make_decoder
from pipeline.decode.metrics_formats import OtherContentError, content_check
from pipeline.sources.base import Records

T = 1_764_028_800_000_000_000
SECOND = 10**9
PROTOBUF, JSON = b"application/x-protobuf", b"application/json"
DELTA, CUMULATIVE = 1, 2


def request(**metric):
    out = ExportMetricsServiceRequest()
    resource = out.resource_metrics.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = resource.scope_metrics.add()
    scope.scope.name = "lib"
    scope.metrics.add(name="requests", unit="1", **metric)
    return out


def number(value=1.0, time=T, start=0, flags=0, **attributes):
    point = {"time_unix_nano": time, "start_time_unix_nano": start, "flags": flags}
    point["as_int" if isinstance(value, int) else "as_double"] = value
    return point | {"attributes": [{"key": k, "value": {"string_value": v}} for k, v in attributes.items()]}


def decode(contents, kind=PROTOBUF, more=None, **form):
    contents = [one if one is None or isinstance(one, bytes) else one.SerializeToString() for one in contents]
    keys = {"source": {"memory": {}}, "format": {"otlp": {"series": "__name__"} | form}}
    n = len(contents)
    stamps = np.full(n, T + 3600 * SECOND, np.int64)
    headers = [[("content-type", kind)] for _ in range(n)]
    batch = Records(Partition("push", 0), 0, n, np.arange(n), stamps, contents, [None] * n, headers)
    out = make_decoder("s", Stream.model_validate(keys | (more or {}))).decode(batch)
    assert out.columns.records + sum(not one.partial for one in out.dead) + out.columns.filtered == n
    return dict(zip(out.columns.keys.flat(), out.columns.values[:, 0].tolist(), strict=True)), out


def test_a_gauge_and_its_labels():
    gauge = request(gauge={"data_points": [number(2.5, zone="a"), number(7, T + 1, zone="b")]})
    found, out = decode([gauge], series="series")
    labels = 'resource.service.name="shop",scope.name="lib",unit="1",zone='
    assert found == {f'requests{{{labels}"a"}}': 2.5, f'requests{{{labels}"b"}}': 7.0}
    assert out.columns.time.tolist() == [T, T + 1]
    found, _ = decode([gauge], series={"service": "resource.service.name", "zone": "zone"})
    assert found == {"shop\0a": 2.5, "shop\0b": 7.0}


@pytest.mark.parametrize(("temporality", "name"), [(DELTA, "delta"), (CUMULATIVE, "cumulative")])
def test_sums_have_a_temporality(temporality, name):
    point = number(30.0, T, T - 10 * SECOND)
    total = request(
        sum={"aggregation_temporality": temporality, "is_monotonic": True, "data_points": [point]}
    )
    found, _ = decode([total], series=["__name__", "temporality"])
    assert found == {f"requests\0{name}": 3.0 if temporality == DELTA else 30.0}


def test_a_delta_is_no_total_for_counters():
    point = number(30.0, T, T - 10 * SECOND)
    deltas = request(sum={"aggregation_temporality": DELTA, "data_points": [point]})
    found, out = decode([deltas], more={"counters": ["value"]})
    assert found == {}
    assert out.dead[0].reason == "wrong_type"
    assert "remove `counters`" in out.dead[0].detail
    _, out = decode([deltas], more={"counters": ["value"]}, where={"temporality": {"not": "delta"}})
    assert (out.dead, out.columns.filtered) == ([], 1)
    totals = request(sum={"aggregation_temporality": CUMULATIVE, "data_points": [point]})
    found, out = decode([totals], more={"counters": ["value"]})
    assert (found, out.dead) == ({"requests": 30.0}, [])


def test_a_delta_without_a_beginning_is_missing():
    deltas = request(sum={"aggregation_temporality": DELTA, "data_points": [number(30.0)]})
    found, out = decode([deltas])
    assert math.isnan(found["requests"])
    assert out.dead == []


def test_histograms_are_those_of_prometheus():
    point = {
        "time_unix_nano": T,
        "count": 6,
        "sum": 12.5,
        "explicit_bounds": [0.5, 10],
        "bucket_counts": [1, 2, 3],
    }
    found, _ = decode(
        [request(histogram={"aggregation_temporality": CUMULATIVE, "data_points": [point]})],
        series=["__name__", "le"],
    )
    assert found == {
        "requests_count\0": 6.0,
        "requests_sum\0": 12.5,
        "requests_bucket\x000.5": 1.0,
        "requests_bucket\x0010": 3.0,
        "requests_bucket\0+Inf": 6.0,
    }


def test_exponential_histograms_and_summaries():
    exponential = {"data_points": [{"time_unix_nano": T, "count": 4, "sum": 2.0, "scale": 1}]}
    found, _ = decode([request(exponential_histogram=exponential)])
    assert found == {"requests_count": 4.0, "requests_sum": 2.0}
    quantiles = [{"quantile": 0.5, "value": 1.5}, {"quantile": 0.99, "value": 9.0}]
    summary = {"data_points": [{"time_unix_nano": T, "count": 4, "sum": 2.0, "quantile_values": quantiles}]}
    found, _ = decode([request(summary=summary)], series=["__name__", "quantile"])
    assert found["requests\x000.99"] == 9.0
    assert len(found) == 4


def test_json_is_the_same():
    gauge = request(gauge={"data_points": [number(2.5, zone="a"), number(7, zone="b")]})
    plain, _ = decode([gauge], series="zone")
    as_json, _ = decode([MessageToJson(gauge).encode()], JSON, series="zone")
    assert as_json == plain == {"a": 2.5, "b": 7.0}
    _, out = decode([b'{"resourceMetrics": [{"later": 1, "scopeMetrics": []}]}', b"{", b"[]"], JSON)
    assert (out.columns.filtered, [letter.reason for letter in out.dead]) == (1, ["malformed"] * 2)


def test_missing_values_bad_values_and_bad_times():
    points = [number(1.0), number(2.0, flags=1), number(math.inf, zone="x"), number(3.0, 0)]
    _, out = decode([request(gauge={"data_points": points})])
    assert out.columns.values[0, 0] == 1.0
    assert math.isnan(out.columns.values[1, 0])
    (letter,) = out.dead
    assert (letter.partial, letter.reason, letter.value.count(b"\n")) == (True, "not_finite", 1)
    again, out = decode([letter.value.replace(b'"inf"', b"5").splitlines()[0]], series="zone")
    assert (again, out.dead) == ({"x": 5.0}, [])


def test_another_type_is_told_apart():
    form = Stream.model_validate({"source": {"memory": {}}, "format": {"otlp": {}}}).format.chosen
    check = content_check(form)
    gauge = request(gauge={"data_points": [number(2.5), number(7)]})
    assert check(gauge.SerializeToString(), "application/x-protobuf") == 2
    with pytest.raises(OtherContentError, match="text/plain"):
        check(b"x", "text/plain")


@given(content=st.binary(max_size=200), kind=st.sampled_from([PROTOBUF, JSON, b""]))
def test_any_bytes_are_survived(content, kind):
    _, out = decode([content, None], kind)
    assert all(letter.reason for letter in out.dead)
