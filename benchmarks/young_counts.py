"""Outages of counted streams that are some days old.

A Poisson count a minute falls to 0 for 30 minutes on the last day. Printed is the minute of the first alarm
of each seed, ``-`` for none, and its cause.

    python -m benchmarks.young_counts [--rates 20 640] [--days 1 2 3 5 7] [--seeds 5] [--detector light]
"""

from __future__ import annotations

import argparse

import numpy as np

from detectors import build
from detectors.base import CAUSES, DetectorSpec, Points

MINUTE_NS = 60_000_000_000
DAY_ROWS, OUTAGE_ROWS = 1_440, 30
#: Rows of the last day before the outage.
ROWS_BEFORE = 840


def first_alarm(tier: str, preset: str, rate: float, days: int, seed: int) -> str:
    """Return minute and cause of the first alarm of an outage.

    Args:
        tier: Name of the detector.
        preset: Its preset.
        rate: Mean count of a minute.
        days: Age of the series in days, the last of which has the outage.
        seed: Seed of the counts.
    """
    begin = (days - 1) * DAY_ROWS + ROWS_BEFORE
    values = np.random.default_rng(seed).poisson(rate, begin + OUTAGE_ROWS).astype(float)
    values[begin:] = 0
    rows = np.arange(len(values))
    none, every = np.zeros(len(rows), np.int32), np.full(len(rows), MINUTE_NS)
    detector = build(DetectorSpec(tier=tier, preset=preset, channels=("n",), decision="usual_range"))
    points = Points(none, 1_767_225_600_000_000_000 + rows * MINUTE_NS, values[:, None], none, every)
    _, verdicts = detector.step(detector.initial(1), points)
    found = np.flatnonzero(verdicts.flag[begin:])
    return f"{found[0]} {CAUSES[verdicts.cause[begin + found[0]]]}" if len(found) else "-"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[20, 640])
    parser.add_argument("--days", type=int, nargs="+", default=[1, 2, 3, 5, 7])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--detector", nargs="+", default=["light", "standard"])
    given = parser.parse_args()
    for tier in given.detector:
        for preset in ("sensor", "network"):
            for rate in given.rates:
                for days in given.days:
                    found = [first_alarm(tier, preset, rate, days, seed) for seed in range(given.seeds)]
                    print(
                        f"{tier} {preset} {rate:g}/min, {days} d: {', '.join(found)}; "
                        f"{sum(one != '-' for one in found)} of {len(found)} found",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
