"""Single samples of metrics as JSON, one a line, in dead letters.

{"labels": {"__name__": "up", "instance": "a"}, "timestamp": 1764028800000, "value": 1.0}
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from pipeline.core.timestamps import parse_epochs
from pipeline.decode.metric_samples import FoundSamples, SeriesTable

#: Beginning of a record of such lines; no request of remote write or OTLP begins so.
_BEGIN = b'{"labels":'


class _JsonSample(msgspec.Struct):
    labels: dict[str, str]
    timestamp: int
    value: float | str


_decode_sample = msgspec.json.Decoder(_JsonSample).decode
_decode_labels = msgspec.json.Decoder(dict[str, str]).decode


def is_sample_json(content: bytes) -> bool:
    """Return whether a record holds such lines."""
    return content.startswith(_BEGIN)


def read_sample_json(content: bytes, table: SeriesTable) -> FoundSamples:
    """Return the samples of lines of JSON. Raises ValueError."""
    ids, times, values = [], [], []
    for line in content.splitlines():
        try:
            sample = _decode_sample(line)
            value = float(sample.value)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
            raise ValueError(f"is no sample as JSON: {error}") from None
        block = msgspec.json.encode(sample.labels, order="sorted")
        ids.append(table.number(block, _decode_labels))
        times.append(sample.timestamp)
        values.append(value)
    stamps = np.array([min(max(time, -1), 1 << 62) for time in times], np.int64)
    return FoundSamples(np.array(ids, np.int64), parse_epochs(stamps, "ms"), np.array(values, np.float64))


def samples_as_json(series: list[Mapping[str, str]], found: FoundSamples, positions: list[int]) -> bytes:
    """Return some samples as lines of JSON."""
    lines = []
    for position in positions:
        value = float(found.values[position])
        lines.append(
            msgspec.json.encode(
                {
                    "labels": dict(series[found.series[position]]),
                    "timestamp": int(found.time[position]) // 1_000_000,
                    "value": value if np.isfinite(value) else str(value),
                }
            )
        )
    return b"\n".join(lines)
