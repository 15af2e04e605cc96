"""Requests of Prometheus remote write 1.0: compressed protocol buffers.

    WriteRequest { repeated TimeSeries timeseries = 1 }
    TimeSeries   { repeated Label labels = 1; repeated Sample samples = 2 }
    Label        { string name = 1; string value = 2 }
    Sample       { double value = 1; int64 timestamp = 2 }   (ms)

Source: prometheus.io/docs/specs/prw/remote_write_spec. The four messages are encoded here, so that an output
needs no further package. The block format of snappy is that of Arrow.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping

import pyarrow as pa

HEADERS = [
    ("content-type", "application/x-protobuf"),
    ("content-encoding", "snappy"),
    ("x-prometheus-remote-write-version", "0.1.0"),
]
#: Sorted pairs of name and value; one of them is ``__name__``.
Labels = tuple[tuple[str, str], ...]
_FORBIDDEN = re.compile(r"[^a-zA-Z0-9_]")
_SAMPLE = struct.Struct("<BdB")


def metric_labels(metric: str, own: Mapping[str, str], labels: Mapping[str, str]) -> Labels:
    """Return the labels of a metric, sorted; empty ones are left out.

    Args:
        metric: Name of the metric.
        own: Labels that forewatch gives, whose names win.
        labels: Labels of the series; a name that Prometheus forbids is changed.
    """
    found = {"__name__": metric, **own}
    for name, value in labels.items():
        clean = _FORBIDDEN.sub("_", name)
        if not clean or clean[0].isdigit() or clean.startswith("__") or clean in found:
            clean = f"label_{clean}"
        found[clean] = value
    return tuple(sorted((name, value) for name, value in found.items() if value))


def encode_request(series: Mapping[Labels, Iterable[tuple[float, int]]]) -> bytes:
    """Return the compressed body of a request.

    Each series has samples (value, time in ms), oldest first.
    """
    body = b"".join(
        _field(1, b"".join([_labels(labels), *(_sample(value, time_ms) for value, time_ms in samples)]))
        for labels, samples in series.items()
    )
    return pa.compress(body, codec="snappy", asbytes=True)  # type: ignore[no-any-return]


def _labels(labels: Labels) -> bytes:
    return b"".join(_field(1, _field(1, _utf8(name)) + _field(2, _utf8(value))) for name, value in labels)


def _sample(value: float, time_ms: int) -> bytes:
    return _field(2, _SAMPLE.pack(0x09, value, 0x10) + _varint(time_ms & (2**64 - 1)))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
