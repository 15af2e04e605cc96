"""Difference of scores between two cuts of the same points into batches.

    python -m benchmarks.batch_rounding [--tier standard] [--cuts 3]

34 series of 1,500 rows (waves, random walks, rounded, constant, with a shift and spikes) are scored in one batch,
and again in 201 batches of random length. A takeover has the same effect: it scores the records after the
snapshot again, in other batches.
"""

from __future__ import annotations

import argparse
import json
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from benchmarks.takeover import points
from detectors import build
from detectors.base import DetectorSpec

SERIES, ROWS, BATCHES = 34, 1500, 200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tier", default="standard")
    parser.add_argument("--cuts", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(3)
    values = series(rng)
    whole, flags = scores(options.tier, values, [0, ROWS])
    for _ in range(options.cuts):
        cuts = sorted({0, ROWS, *rng.integers(1, ROWS, BATCHES).tolist()})
        found, other = scores(options.tier, values, cuts)
        off = np.abs(found - whole)
        figures = {
            "max": float(off.max()),
            "p99.9": float(np.quantile(off, 0.999)),
            "max_where_score_above_0.99": float(off[whole > 0.99].max()),
            "flags_that_differ": int((other != flags).sum()),
        }
        print(json.dumps({"benchmark": "batch_rounding", "tier": options.tier, **figures}), flush=True)


def series(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the values (SERIES, ROWS)."""
    phase = np.arange(SERIES)[:, None]
    v = 5 * np.sin(2 * np.pi * np.arange(ROWS) / 150 + phase) + rng.normal(0, 0.5, (SERIES, ROWS))
    v[:, 900:904] += 6
    v[2, 1000:1300] = 1.0
    v[4] = np.round(v[4])
    v[5] = np.cumsum(v[5])
    v[6:20] = np.cumsum(v[6:20], 1) * 0.1
    v[20:26] = np.round(v[20:26], 1)
    v[30] = 5.0
    v[31:34] = rng.exponential(1, (3, ROWS))
    return v


def scores(
    tier: str, values: NDArray[np.float64], cuts: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return scores and flags (rows × series) of the points in the batches between ``cuts``."""
    detector = build(DetectorSpec(tier=tier))
    state, found, flags = detector.initial(len(values)), [], []
    for start, end in pairwise(cuts):
        state, verdicts = detector.step(state, points(values, start, end))
        found.append(verdicts.score.astype(np.float64))
        flags.append(verdicts.flag)
    return np.concatenate(found), np.concatenate(flags)


if __name__ == "__main__":
    main()
