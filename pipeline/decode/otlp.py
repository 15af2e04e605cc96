"""Requests of the OpenTelemetry protocol (OTLP) with metrics, as Protobuf or JSON.

Labels of a point: ``__name__``, its attributes under their own names, ``resource.NAME``, ``scope.name``,
``unit`` and ``temporality`` (delta or cumulative, empty for a gauge). A histogram becomes the series that
Prometheus has of it: ``NAME_count``, ``NAME_sum`` and, with explicit bounds, ``NAME_bucket`` with the label
``le``. The value of a delta is its increase per second, the same as that of a counter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from google.protobuf.json_format import Parse, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, DataPointFlags

from pipeline.core.timestamps import UNREADABLE, parse_epochs
from pipeline.decode.metric_samples import NAME, FoundSamples, OtherContentError, SeriesTable
from pipeline.decode.sample_json import is_sample_json, read_sample_json

_DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
_TEMPORALITY: dict[Any, str] = {
    _DELTA: "delta",
    AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE: "cumulative",
}
_NO_VALUE = DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK
_SECOND_NS = 10**9


class _Sample(NamedTuple):
    labels: dict[str, str]
    time_ns: int
    value: float
    delta: bool


def read_otlp(content: bytes, kind: str, table: SeriesTable) -> FoundSamples:
    """Return the samples of a request.

    Args:
        content: The request, unpacked.
        kind: The type of its content.
        table: Series that are known; new ones are added.

    Raises:
        OtherContentError: The type is neither Protobuf nor JSON.
        ValueError: It cannot be read.
    """
    if is_sample_json(content):
        return read_sample_json(content, table)
    request = _request(content, kind)
    ids, times, values, deltas = [], [], [], []
    for sample in _samples(request):
        ids.append(table.number(tuple(sorted(sample.labels.items())), dict))
        times.append(min(sample.time_ns, 1 << 62))
        values.append(sample.value)
        deltas.append(sample.delta)
    stamps = np.array(times, np.int64)
    time = np.where(stamps > 0, parse_epochs(stamps, "ns"), UNREADABLE)
    return FoundSamples(np.array(ids, np.int64), time, np.array(values, np.float64), np.array(deltas, bool))


def _request(content: bytes, kind: str) -> ExportMetricsServiceRequest:
    plain = kind.split(";")[0].strip().lower()
    request = ExportMetricsServiceRequest()
    if plain == "application/json" or (not plain and content[:1] == b"{"):
        if not content.lstrip().startswith(b"{"):
            raise ValueError("is no OTLP request of metrics as JSON: no object")
        try:
            return Parse(content, request, ignore_unknown_fields=True)
        except (ParseError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"is no OTLP request of metrics as JSON: {error}") from None
    if plain not in ("application/x-protobuf", ""):
        raise OtherContentError(f"the type {plain!r} is not application/x-protobuf or application/json")
    try:
        request.ParseFromString(content)
    except DecodeError as error:
        raise ValueError(f"is no OTLP request of metrics: {error}") from None
    return request


def _samples(request: ExportMetricsServiceRequest) -> Iterator[_Sample]:
    for resource in request.resource_metrics:
        of_resource = _attributes(resource.resource.attributes, "resource.")
        for scope in resource.scope_metrics:
            of_scope = of_resource | ({"scope.name": scope.scope.name} if scope.scope.name else {})
            for metric in scope.metrics:
                unit = {"unit": metric.unit} if metric.unit else {}
                yield from _of_metric(metric, of_scope | unit)


def _of_metric(metric: Any, common: Mapping[str, str]) -> Iterator[_Sample]:
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    data = getattr(metric, kind)
    temporality = _TEMPORALITY.get(getattr(data, "aggregation_temporality", None), "")
    if kind in ("sum", "histogram", "exponential_histogram") and temporality:
        common = {**common, "temporality": temporality}
    for point in data.data_points:
        labels = {**common, **_attributes(point.attributes, ""), NAME: metric.name}
        for suffix, more, value, counted in _values(kind, point):
            delta = counted and temporality == "delta"
            if point.flags & _NO_VALUE:
                value = math.nan
            elif delta:
                value = _rate(value, point)
            yield _Sample({**labels, **more, NAME: metric.name + suffix}, point.time_unix_nano, value, delta)


def _rate(value: float, point: Any) -> float:
    """Return the increase per second of a delta, NaN if its beginning is not known."""
    length = point.time_unix_nano - point.start_time_unix_nano
    return value * _SECOND_NS / length if point.start_time_unix_nano and length > 0 else math.nan


def _values(kind: str, point: Any) -> Iterator[tuple[str, dict[str, str], float, bool]]:
    """Yield suffix of the name, further labels, value, whether it is counted."""
    if kind in ("gauge", "sum"):
        number = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
        yield "", {}, float(number), kind == "sum"
        return
    counted = kind != "summary"
    yield "_count", {}, float(point.count), counted
    if kind == "summary" or point.HasField("sum"):
        yield "_sum", {}, point.sum, counted
    if kind == "summary":
        for one in point.quantile_values:
            yield "", {"quantile": f"{one.quantile:g}"}, one.value, False
    elif kind == "histogram":
        total = 0
        bounds = [*(f"{bound:g}" for bound in point.explicit_bounds), "+Inf"]
        for bound, count in zip(bounds, point.bucket_counts, strict=False):
            total += count
            yield "_bucket", {"le": bound}, float(total), counted


def _attributes(attributes: Iterable[Any], prefix: str) -> dict[str, str]:
    return {prefix + one.key: _text(one.value) for one in attributes}


def _text(value: Any) -> str:
    """Return the value of an attribute as text."""
    match value.WhichOneof("value"):
        case "string_value":
            return str(value.string_value)
        case "bool_value":
            return "true" if value.bool_value else "false"
        case "int_value":
            return str(value.int_value)
        case "double_value":
            return str(value.double_value)
        case "bytes_value":
            return bytes(value.bytes_value).hex()
        case "array_value":
            return "[" + ",".join(map(_text, value.array_value.values)) + "]"
        case "kvlist_value":
            return "{" + ",".join(f"{one.key}={_text(one.value)}" for one in value.kvlist_value.values) + "}"
    return ""
