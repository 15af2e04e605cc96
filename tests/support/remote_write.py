"""Requests of Prometheus remote write for tests, made by Google's protobuf, and the sending of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import httpx
import pyarrow as pa
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
_TYPES = {"string": 9, "double": 1, "int64": 3, "uint32": 13, "bytes": 12}
#: Message → (field, number, type, repeated).
_MESSAGES: dict[str, Sequence[tuple[str, int, str, bool]]] = {
    "Label": [("name", 1, "string", False), ("value", 2, "string", False)],
    "Sample": [("value", 1, "double", False), ("timestamp", 2, "int64", False)],
    "TimeSeries": [("labels", 1, "Label", True), ("samples", 2, "Sample", True)],
    "WriteRequest": [("timeseries", 1, "TimeSeries", True), ("metadata", 3, "bytes", True)],
    "TimeSeries2": [("labels_refs", 1, "uint32", True), ("samples", 2, "Sample", True)],
    "Request2": [("symbols", 4, "string", True), ("timeseries", 5, "TimeSeries2", True)],
}


@cache
def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="remote.proto", package="t", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            given = {"type": _TYPES[kind]} if kind in _TYPES else {"type": 11, "type_name": f".t.{kind}"}
            message.field.add(name=field, number=number, label=3 if repeated else 1, **given)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{name}")) for name in _MESSAGES
    }


#: Labels of a series, and its samples: (value, time in ms).
Series = tuple[Mapping[str, str], Sequence[tuple[float, int]]]


def write_request(series: Sequence[Series], *, metadata: bytes = b"") -> bytes:
    """Return a request of version 1, not compressed."""
    request = _classes()["WriteRequest"]()
    for labels, samples in series:
        one = request.timeseries.add()
        for name, value in labels.items():
            one.labels.add(name=name, value=value)
        for number, time in samples:
            one.samples.add(value=number, timestamp=time)
    if metadata:
        request.metadata.append(metadata)
    return bytes(request.SerializeToString())


def write_request_2(series: Sequence[Series]) -> bytes:
    """Return a request of version 2, not compressed."""
    request, symbols = _classes()["Request2"](), {"": 0}
    for labels, samples in series:
        one = request.timeseries.add()
        for text in (text for pair in labels.items() for text in pair):
            one.labels_refs.append(symbols.setdefault(text, len(symbols)))
        for number, time in samples:
            one.samples.add(value=number, timestamp=time)
    request.symbols.extend(symbols)
    return bytes(request.SerializeToString())


def snappy(content: bytes) -> bytes:
    """Return a block of Snappy."""
    return bytes(pa.Codec("snappy").compress(content))


def post(client: httpx.Client, url: str, series: Sequence[Series]) -> httpx.Response:
    """Send a request of version 1."""
    return client.post(url, content=snappy(write_request(series)), headers=HEADERS, timeout=30)
