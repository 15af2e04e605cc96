"""Cost of detection power for a running stream.

Batches are scored in turn with the sink and without it.

    python -m benchmarks.power [--series 2000] [--points 400] [--detector standard]

CPU seconds of one thread. The share is what the sink took of the scoring's own time; it is bounded by
``pipeline.monitoring.detection_power.SHARE`` of the wall time.
"""

from __future__ import annotations

import argparse
import json
import time

from benchmarks.drift import batches
from detectors import build
from detectors.composite.warmup import compile_kernels
from pipeline.config.schema import Stream
from pipeline.models.champion import detector_spec, provenance
from pipeline.monitoring.detection_power import PowerSink
from pipeline.observability.metrics import Metrics, PowerMetrics
from pipeline.scoring.stream_scorer import StreamScorer


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=2000)
    parser.add_argument("--points", type=int, default=400)
    parser.add_argument("--detector", default="standard")
    options = parser.parse_args()
    shape = {
        "source": {"memory": {}},
        "format": {"json": {"series": "s", "time": "t", "values": "v"}},
        "every": "1m",
    }
    stream = Stream.model_validate(shape | {"detector": options.detector})
    detector = build(detector_spec(stream))
    compile_kernels(detector)
    scorer = StreamScorer(provenance("bench", stream, detector), stream, detector)
    sink = PowerSink(scorer, PowerMetrics(Metrics(), "bench"), time.process_time)
    scored = longest = 0.0
    for records in batches(options.series, options.points):
        start = time.process_time()
        result = scorer.process([records])
        middle = time.process_time()
        sink.append(result)
        scored += middle - start
        longest = max(longest, time.process_time() - middle)
    row = {
        "detector": options.detector,
        "scoring_s": round(scored, 2),
        "power_s": round(sink.spent, 3),
        "share": round(sink.spent / scored, 4),
    }
    row |= {"longest_ms": round(1e3 * longest, 1), "series_tried": len(sink.found)}
    print(json.dumps({"benchmark": "power", **row}))


if __name__ == "__main__":
    main()
