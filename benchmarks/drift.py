"""Cost of drift monitoring relative to the scoring of the same points.

Scoring is decode, windows, detector and intervals; then the drift sink takes the result.

    python -m benchmarks.drift [--series 2000] [--points 100] [--rounds 3]

CPU seconds of one thread, median over the rounds; without a database, whose time would only make the share
smaller.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator

import numpy as np

from detectors import build
from detectors.composite.warmup import compile_kernels
from pipeline.config.schema import Stream
from pipeline.core.types import Partition
from pipeline.models.champion import detector_spec, provenance
from pipeline.monitoring.drift_sink import DriftSink
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.sources.base import Records

BATCH_POINTS = 20_000
PARTITION = Partition("bench", 0)


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, usual in (("series", 2000), ("points", 100), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    options = parser.parse_args()
    for detector in ("light", "standard"):
        rounds = [measure(detector, options.series, options.points) for _ in range(options.rounds)]
        scorer, drift = (statistics.median(one[i] for one in rounds) for i in range(2))
        row = {
            "detector": detector,
            "scoring_us_a_point": round(scorer, 3),
            "drift_us_a_point": round(drift, 3),
        }
        print(json.dumps({"benchmark": "drift", **row, "share": round(drift / scorer, 4)}), flush=True)


def measure(detector: str, series: int, points: int) -> tuple[float, float]:
    """Return microseconds a point of scoring and of drift monitoring.

    The first fifth of the points does not count.
    """
    shape = {
        "source": {"memory": {}},
        "format": {"json": {"series": "s", "time": "t", "values": "v"}},
        "every": "1m",
        "detector": detector,
    }
    stream = Stream.model_validate(shape)
    made = build(detector_spec(stream))
    compile_kernels(made)
    scorer = StreamScorer(provenance("bench", stream, made), stream, made)
    sink = DriftSink(scorer, 0, lambda evidence: None)
    spent, count = [0.0, 0.0], 0
    for number, records in enumerate(batches(series, points)):
        start = time.process_time()
        result = scorer.process([records])
        middle = time.process_time()
        sink.append(result)
        end = time.process_time()
        if number >= series * points // BATCH_POINTS // 5:
            spent[0] += middle - start
            spent[1] += end - middle
            count += len(records)
    return 1e6 * spent[0] / count, 1e6 * spent[1] / count


def batches(series: int, points: int) -> Iterator[Records]:
    rng = np.random.default_rng(0)
    for first in range(0, series * points, BATCH_POINTS):
        at = np.arange(first, min(first + BATCH_POINTS, series * points))
        values = 20 + 5 * np.sin(at // series / 30) + rng.normal(0, 0.3, len(at))
        lines = [
            b'{"s":"s%06d","t":%d,"v":%.3f}' % (i % series, 1_700_000_000 + 60 * (i // series), v)
            for i, v in zip(at.tolist(), values, strict=True)
        ]
        yield Records(PARTITION, first, first + len(at), at, np.full(len(at), -1), lines, [None] * len(at))


if __name__ == "__main__":
    main()
