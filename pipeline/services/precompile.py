"""Compile all numba functions in advance.

Use: ``python -m pipeline.services.precompile``. The machine code is kept beside the sources (or in
NUMBA_CACHE_DIR). A second run takes seconds and compiles changed sources only. The cache of a function does
not depend on the functions that it calls in other files: ``sh tools/dev.sh clean`` removes it. Compilation
runs in one process. Two processes would compile most kernels twice, because the detectors share them: a tenth
less time for a third more work.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pandas as pd

from detectors import drift
from pipeline.decode.metric_samples import SeriesTable
from pipeline.decode.remote_write import read_remote_write
from pipeline.services.dataframe import detect
from pipeline.sources.kafka import record_batches

_POINTS = 3000


def main() -> None:
    """Score synthetic series on every compiled path; print a line for each step.

    No time is foretold: it depends on the processor and on what else runs, by a factor of ten.
    """
    todo = list(steps())
    print(
        "compiling the detectors to machine code, once; the first two steps are most of the work",
        file=sys.stderr,
        flush=True,
    )
    for number, (what, run) in enumerate(todo, 1):
        print(f"compiling {what} ({number} of {len(todo)})", file=sys.stderr, flush=True)
        began = time.monotonic()
        run()
        print(f"  took {time.monotonic() - began:.1f} s", file=sys.stderr, flush=True)


def steps() -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield name and call of each step."""
    rows = np.arange(_POINTS)
    times = pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(rows, unit="min")
    frame = pd.DataFrame({"ts": times, "a": np.sin(rows / 20)})
    frame["b"], frame["s"] = frame["a"].cumsum(), "x"
    reduced = {"every": "5m", "values": {"n": "count", "a": "mean", "u": {"nunique": "s"}}}
    yield "detector light", lambda: detect(frame, time="ts", values="a", detector="light")
    yield "detector standard", lambda: detect(frame, time="ts", values="a", detector="standard")
    yield "detector strong", lambda: detect(frame, time="ts", values="a", detector="strong")
    yield (
        "gaps, counters and late points",
        lambda: detect(
            frame,
            time="ts",
            values=["a", "b"],
            series="s",
            detector="light",
            counters=["b"],
            gap={"policy": "linear"},
            lateness="5m",
        ),
    )
    yield (
        "aggregates",
        lambda: detect(frame, time="ts", values="a", series="s", detector="light", aggregate=reduced),
    )
    yield (
        "preset stock",
        lambda: detect(
            frame.assign(a=frame["a"] + 9), time="ts", values="a", detector="light", preset="stock"
        ),
    )
    for threshold in ("spot", "conformal"):
        yield (
            f"threshold {threshold}",
            partial(detect, frame, time="ts", values="a", detector="light", threshold=threshold),
        )
    yield "drift tests", drift.compile_kernels
    yield "record batches of Kafka", record_batches.warm
    yield "remote write", partial(read_remote_write, b"", "", SeriesTable())


if __name__ == "__main__":
    main()
