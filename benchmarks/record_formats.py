"""Points per second of each record format on one core."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fastavro
import numpy as np

from pipeline.config.schema import Stream
from pipeline.core.types import Partition
from pipeline.decode import make_decoder
from pipeline.sources.base import Records
from tests.support.remote_write import write_request

T = 1_764_028_800
RECORDS, PASSES = 20_000, 10
SCHEMA = {
    "type": "record",
    "name": "Reading",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "t", "type": "long"},
        {"name": "v", "type": "double"},
    ],
}


def measure(form: dict[str, Any], values: list[bytes]) -> float:
    """Return points per second of CPU time, the best of some passes."""
    n = len(values)
    batch = Records(Partition("t", 0), 0, n, np.arange(n), np.full(n, -1, np.int64), list(values), [None] * n)
    decoder = make_decoder("s", Stream.model_validate({"source": {"memory": {}}, "format": form}))
    best = float("inf")
    for _ in range(PASSES):
        started = time.process_time()
        points = len(decoder.decode(batch).columns)
        best = min(best, time.process_time() - started)
    return points / best


def avro(i: int, schema: Any) -> bytes:
    """Return a record of ``SCHEMA``."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, {"id": f"s{i % 500}", "t": T + i // 500, "v": i + 0.5})
    return out.getvalue()


def remote_write(scrape: int, first: int, count: int) -> bytes:
    """Return a request of remote write with one sample of each of some series."""
    series = []
    for number in range(first, first + count):
        labels = {
            "__name__": "node_cpu_seconds_total",
            "cpu": str(number % 64),
            "instance": f"host{number // 64}:9100",
            "job": "node",
            "mode": "idle",
            "zone": "eu-west-1a",
        }
        series.append((labels, [(number + 0.5, 1000 * T + 15_000 * scrape)]))
    return write_request(series)


def main() -> None:
    """Measure and print."""
    fields = {"series": "id", "time": "t", "values": ["v"]}
    lines = {"series": "tags.id", "values": {"v": "fields.v"}}
    parsed = fastavro.parse_schema(SCHEMA)
    rows = range(RECORDS)
    one_line = [b"m,id=s%d v=%d.5 %d000000000" % (i % 500, i, T + i // 500) for i in rows]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.avsc"
        path.write_text(json.dumps(SCHEMA))
        found = {
            "json": measure(
                {"json": fields},
                [b'{"id":"s%d","t":%d,"v":%d.5}' % (i % 500, T + i // 500, i) for i in rows],
            ),
            "avro": measure({"avro": {**fields, "schema_file": str(path)}}, [avro(i, parsed) for i in rows]),
            "line protocol, a line a record": measure({"line_protocol": lines}, one_line),
            "remote write, 500 series a request": measure(
                {"remote_write": {}},
                [remote_write(at // 5000, at % 5000, 500) for at in range(0, RECORDS, 500)],
            ),
            "line protocol, 100 lines a record": measure(
                {"line_protocol": lines},
                [b"\n".join(one_line[at : at + 100]) for at in range(0, RECORDS, 100)],
            ),
        }
    for name, rate in found.items():
        print(f"{name:<36}{rate:>14,.0f} points/s")
    print(json.dumps({"benchmark": "record_formats", **{name: round(rate) for name, rate in found.items()}}))


if __name__ == "__main__":
    main()
