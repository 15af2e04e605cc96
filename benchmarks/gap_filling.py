"""Cut gaps into series, and measure what is filled in against straight lines.

    python -m benchmarks.gap_filling [--sets waves wsd kpi]

``waves`` are 8 synthetic series of 2,000 rows; ``wsd`` and ``kpi`` the newest 3,000 means of quarters of an
hour of the first 6 series of each set in ../shared/data. A tenth of the rows is cut, in gaps of one length.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from detectors.training.gap_filler import estimate_series
from detectors.training.gap_inputs import line_over_gaps

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
GAP_ROWS = (4, 12, 48)
SERIES, ROWS = 6, 3_000


def waves() -> list[np.ndarray]:
    """Return two waves and noise in each series."""
    rng, t = np.random.default_rng(0), np.arange(2_000)
    return [
        10
        + 3 * np.sin(2 * np.pi * t / (20 + 7 * i))
        + np.sin(2 * np.pi * t / (90 + i))
        + rng.normal(0, 0.2, len(t))
        for i in range(8)
    ]


def recorded(name: str) -> list[np.ndarray]:
    """Return the series of a set."""
    found = []
    for path in sorted((DATA / name).glob("*.csv.gz"))[:SERIES]:
        frame = pd.read_csv(path)
        found.append(frame["value"].groupby(frame["timestamp"] // 900).mean().to_numpy()[-ROWS:])
    return found


def cut(values: np.ndarray, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Return which known rows are cut."""
    out = np.zeros(len(values), np.bool_)
    while out.mean() < 0.1:
        start = int(rng.integers(1, len(values) - rows - 1))
        out[start : start + rows] = True
    return out & np.isfinite(values)


def line_error(holed: np.ndarray, values: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean error of straight lines over the gaps."""
    return float(np.abs(line_over_gaps(holed) - values)[mask].mean())


def main() -> None:
    """Print one row for each set and length of gaps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", nargs="+", default=["waves", "wsd", "kpi"])
    for name in parser.parse_args().sets:
        whole, rng = waves() if name == "waves" else recorded(name), np.random.default_rng(0)
        for rows in GAP_ROWS:
            masks = [cut(one, rows, rng) for one in whole]
            holed = [np.where(mask, np.nan, one) for one, mask in zip(whole, masks, strict=True)]
            started = time.process_time()
            found = estimate_series(holed, [np.ones(len(one), np.bool_) for one in whole])
            seconds = time.process_time() - started
            each = list(zip(found, whole, masks, holed, strict=True))
            ratios = [np.abs(e.value - x)[m].mean() / max(line_error(h, x, m), 1e-12) for e, x, m, h in each]
            inside = np.mean([((e.lower <= x) & (x <= e.upper))[m].mean() for e, x, m, _ in each])
            methods = dict(Counter(str(one.method) for one in found))
            print(
                f"{name:6} gaps of {rows:3}: error over lines {np.mean(ratios):.2f} "
                f"(worst {max(ratios):.2f}), {inside:.0%} in the range of 90 %, {methods}, "
                f"{seconds:.0f} s of CPU",
                flush=True,
            )


if __name__ == "__main__":
    main()
