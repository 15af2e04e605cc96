"""``python -m pipeline.services.precompile``: compile everything that numba compiles, once, at set-up, so
that the first run of anything is not slow.
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd

from detectors import drift
from pipeline.services.dataframe import detect

_POINTS = 3000


def main() -> None:
    """Score made-up series with every tier, through windows, aggregates, gaps and counters."""
    print("compiling the detectors (once; two or three minutes)", file=sys.stderr, flush=True)
    rows = np.arange(_POINTS)
    frame = pd.DataFrame(
        {
            "ts": pd.Timestamp("2026-01-01", tz="UTC") + pd.to_timedelta(rows, unit="min"),
            "a": np.sin(rows / 20),
        }
    )
    frame["b"], frame["s"] = frame["a"].cumsum(), "x"
    for tier in ("light", "standard", "strong"):
        detect(frame, time="ts", values="a", detector=tier)
    detect(
        frame,
        time="ts",
        values=["a", "b"],
        series="s",
        detector="light",
        counters=["b"],
        gap={"policy": "linear"},
        lateness="5m",
    )
    detect(
        frame,
        time="ts",
        values="a",
        detector="light",
        aggregate={"every": "5m", "values": {"n": "count", "a": "mean", "u": {"nunique": "s"}}},
    )
    drift.compile_kernels()


if __name__ == "__main__":
    main()
