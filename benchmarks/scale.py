"""Cost of a point and of a series, without a broker: backfill rate from Parquet, time per point over the
number of series, memory, river beside it.

    python -m benchmarks.scale [--points 2000000] [--million]

Every row runs in a process of its own, one after the other. The path is the backfill's own: Parquet file →
windows → detector → commit in SQLite.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MINUTE_NS = 60_000_000_000
START_NS = 1_700_000_000_000_000_000


def write_parquet(path: Path, points: int, series: int) -> None:
    """``points`` rows of ``series`` seasonal series in time order, in row groups."""
    rng = np.random.default_rng(0)
    names = pa.array([f"sensor-{i:07d}" for i in range(series)])
    schema = pa.schema(
        [
            ("sensor", pa.dictionary(pa.int32(), pa.string())),
            ("ts", pa.timestamp("ns", tz="UTC")),
            ("value", pa.float64()),
        ]
    )
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, points, 500_000):
            row = np.arange(first, min(first + 500_000, points))
            code, step = (row % series).astype(np.int32), row // series
            value = 20 + 5 * np.sin(step / 30 + code) + rng.normal(0, 0.3, len(row))
            columns = [
                pa.DictionaryArray.from_arrays(code, names),
                pa.array(START_NS + step * MINUTE_NS).cast(schema.field("ts").type),
                value,
            ]
            writer.write_table(pa.table(dict(zip(schema.names, columns, strict=True)), schema))


def backfill(path: Path, detector: str, folder: Path) -> dict[str, float]:
    """Points per second of the second half of the run (compiled, series known), CPU seconds a point, peak
    memory.
    """
    from detectors.composite.warmup import compile_kernels
    from pipeline.config.schema import Config, FilesSourceConfig, SourceConfig
    from pipeline.database import open_database
    from pipeline.engine.factory import build_engine
    from pipeline.observability.metrics import Metrics, StreamMetrics
    from pipeline.sources import make_source

    stream = {
        "source": {"memory": {}},
        "format": {"csv": {"series": "sensor", "time": "ts", "values": "value"}},
        "detector": detector,
        "every": "1m",
    }
    config = Config.model_validate({"database": f"sqlite:///{folder}/scale.db", "streams": {"scale": stream}})
    total = pq.read_metadata(path).num_rows
    with open_database(config) as database:
        source = make_source(
            "scale", SourceConfig(files=FilesSourceConfig(paths=[str(path)])), config.streams["scale"].format
        )
        engine = build_engine("scale", config, database, source, StreamMetrics(Metrics(), "scale"))
        compile_kernels(engine.parts.scorer.detector)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        at, clock, cpu = 0, 0.0, 0.0
        while not engine.done:
            engine.turn(0.1)
            read = sum(p.counts.read() for p in engine.parts.ownership.positions.values())
            if not clock and read >= total // 2:
                at, clock, cpu = read, time.perf_counter(), time.process_time()
        seconds, busy = time.perf_counter() - clock, time.process_time() - cpu
        row_bytes = engine.parts.scorer.series.row_bytes
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "rate": (total - at) / seconds,
        "cpu_us": busy / (total - at) * 1e6,
        "state_bytes": row_bytes,
        "rss_mb": peak / 1024,
        "rss_before_mb": before / 1024,
    }


def river(points: int) -> dict[str, float]:
    """river's HalfSpaceTrees and GaussianScorer, one point at a time, as they are meant to be used."""
    from river import anomaly

    values = (20 + 5 * np.sin(np.arange(points) / 30)).tolist()
    trees, gaussian = anomaly.HalfSpaceTrees(seed=1), anomaly.GaussianScorer()
    started = time.perf_counter()
    for value in values[: points // 10]:
        x = {"x": value / 40}
        trees.score_one(x)
        trees.learn_one(x)
    middle = time.perf_counter()
    for value in values:
        gaussian.score_one(None, value)
        gaussian.learn_one(None, value)
    return {
        "HalfSpaceTrees": points // 10 / (middle - started),
        "GaussianScorer": points / (time.perf_counter() - middle),
    }


def measure(*arguments: str) -> dict[str, float]:
    """One row in a process of its own."""
    # as pipeline sets it, but for this module's own import of numpy
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.scale", "--measure", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=2_000_000)
    parser.add_argument(
        "--million", action="store_true", help="also a million series (3 points each; needs about 4 GB)"
    )
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        kind, *rest = options.measure
        print(
            json.dumps(
                river(int(rest[0])) if kind == "river" else backfill(Path(rest[0]), rest[1], Path(rest[2]))
            )
        )
        return
    rows: list[dict[str, Any]] = []
    cases = [("light", s, options.points) for s in (10, 1000, 10_000, 100_000)] + [
        ("standard", s, options.points // 4) for s in (10, 10_000)
    ]
    if options.million:
        cases.append(("light", 1_000_000, 3_000_000))
    for detector, series, points in cases:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "points.parquet"
            write_parquet(path, points, series)
            rows.append(
                {"detector": detector, "series": series, "points": points}
                | measure("backfill", str(path), detector, folder)
            )
        print(rows[-1], file=sys.stderr, flush=True)
    peer = measure("river", "200000")
    print(
        "| detector | series | points | points/s | CPU µs a point | state bytes a series | "
        "peak memory MB (before the first point) |\n|---|---|---|---|---|---|---|"
    )
    for row in rows:
        print(
            f"| {row['detector']} | {row['series']:,} | {row['points']:,} | {row['rate']:,.0f} "
            f"| {row['cpu_us']:.2f} | {row['state_bytes']:,.0f} "
            f"| {row['rss_mb']:,.0f} ({row['rss_before_mb']:,.0f}) |"
        )
    for name, rate in peer.items():
        print(f"| river {name} | 1 | | {rate:,.0f} | {1e6 / rate:.2f} | | |")
    print(json.dumps({"benchmark": "scale", "rows": rows, "river": peer}))


if __name__ == "__main__":
    main()
