"""Decoder of remote write by the library of protocol buffers, for tests."""

from __future__ import annotations

from typing import Any

import cramjam
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Kind = descriptor_pb2.FieldDescriptorProto
_MESSAGES = {
    "Label": [("name", 1, Kind.TYPE_STRING, ""), ("value", 2, Kind.TYPE_STRING, "")],
    "Sample": [("value", 1, Kind.TYPE_DOUBLE, ""), ("timestamp", 2, Kind.TYPE_INT64, "")],
    "TimeSeries": [("labels", 1, Kind.TYPE_MESSAGE, "Label"), ("samples", 2, Kind.TYPE_MESSAGE, "Sample")],
    "WriteRequest": [("timeseries", 1, Kind.TYPE_MESSAGE, "TimeSeries")],
}


def _request_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="remote.proto", package="prometheus", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, other in fields:
            label = Kind.LABEL_REPEATED if other else Kind.LABEL_OPTIONAL
            made = message.field.add(name=field, number=number, type=kind, label=label)
            if other:
                made.type_name = f".prometheus.{other}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("prometheus.WriteRequest"))


REQUEST = _request_class()


def decoded(body: bytes) -> list[tuple[dict[str, str], list[tuple[float, int]]]]:
    """Return labels and samples (value, ms) of each time series of a request."""
    request = REQUEST.FromString(bytes(cramjam.snappy.decompress_raw(body)))
    found = []
    for one in request.timeseries:
        names = [label.name for label in one.labels]
        assert names == sorted(set(names)), "labels must be sorted"
        labels = {label.name: label.value for label in one.labels}
        found.append((labels, [(sample.value, sample.timestamp) for sample in one.samples]))
    return found
