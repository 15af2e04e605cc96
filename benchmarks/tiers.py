"""Cost and false alarms of each tier.

Costs are bytes a series and points a second of one core.
Prints a table and a JSON line.

    python -m benchmarks.tiers [--quick] [--decision surprise|usual_range]

Speed is CPU time of one thread of ``Detector.step`` alone, in two shapes: a backfill (few series, many points
of each in a batch) and a live stream (many series, a few points of each). The undisturbed series are noise,
walks, seasons with noise, autoregressions and heavy-tailed noise, so that every alarm is false; they are
counted in the first 10,000 rows and in 20,000 rows after 60,000.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from detectors import Detector, DetectorSpec, build, contract

SEED = 2026
#: Tier → bytes a series at most, points a second of one core at least (the issue's limits).
LIMITS = {"light": (1024, 1_000_000), "standard": (8192, 150_000), "strong": (65536, 20_000)}
KINDS = ("noise", "walk", "season", "autoregression", "heavy tails")
BATCH_POINTS = 50_000
#: Rows in which false alarms are counted. In the later ones a single point may alarm alone.
STRETCHES = {
    "first": (0, 10_000),
    "later": (60_000, 80_000),
}


def waves(rng: np.random.Generator, series: int, rows: int) -> NDArray[np.float64]:
    """Return seasons of 20 to 200 rows with noise.

    Shape: (rows · series, 1), the series in turn.
    """
    period = rng.integers(20, 200, series)
    return (
        10 * np.sin(2 * np.pi * np.arange(rows)[:, None] / period) + rng.normal(size=(rows, series))
    ).reshape(-1, 1)


def speed(detector: Detector, series: int, rows: int, batch: int, warm: int) -> float:
    """Return points a second of CPU time.

    Args:
        detector: The detector.
        series: Number of series.
        rows: Rows of each series.
        batch: Rows of each series in one batch.
        warm: First rows of each series that do not count.
    """
    values = waves(np.random.default_rng(SEED), series, rows)
    slot, row = np.tile(np.arange(series, dtype=np.int32), rows), np.repeat(np.arange(rows), series)
    given = contract.make_points(slot, values, row)
    state = detector.initial(series)
    used = scored = 0.0
    for start in range(0, len(given), batch * series):
        part = contract.select_rows(given, slice(start, start + batch * series))
        began = time.process_time()
        state, _ = detector.step(state, part)
        if start >= warm * series:
            used += time.process_time() - began
            scored += len(part)
    return scored / used


def undisturbed(rng: np.random.Generator, kind: str, series: int, rows: int) -> NDArray[np.float64]:
    """Return values of one kind, (rows · series, 1), the series in turn.

    Args:
        rng: Source of the noise.
        kind: One of ``KINDS``.
        series: Number of series.
        rows: Rows of each series.
    """
    noise = rng.normal(size=(rows, series))
    if kind == "walk":
        return noise.cumsum(0).reshape(-1, 1)
    if kind == "season":
        return waves(rng, series, rows)
    if kind == "heavy tails":
        return rng.standard_t(3, size=(rows, series)).reshape(-1, 1)
    if kind == "autoregression":
        for t in range(1, rows):
            noise[t] += 0.9 * noise[t - 1]
    return noise.reshape(-1, 1)


def false_alarms(detector: Detector, series: int, quick: bool) -> dict[str, list[float]]:
    """Return alarms in 10,000 points of each kind of undisturbed series, by stretch.

    A flag within three rows of the last one belongs to the same alarm.
    """
    found, rows = {}, max(end for _, end in STRETCHES.values()) // (20 if quick else 1)
    for kind in KINDS:
        values = undisturbed(np.random.default_rng(SEED), kind, series, rows)
        slot, row = np.tile(np.arange(series, dtype=np.int32), rows), np.repeat(np.arange(rows), series)
        given = contract.make_points(slot, values, row)
        flag = contract.run_batches(
            detector, given, tuple(range(BATCH_POINTS, len(given), BATCH_POINTS))
        ).flag.reshape(rows, series)
        fresh = flag & ~np.any([np.roll(flag, k, 0) for k in (1, 2, 3)], axis=0)
        found[kind] = [
            round(1e4 * float(fresh[start:end].mean()), 2)
            for start, end in STRETCHES.values()
            if start < rows
        ]
    return found


def measure(tier: str, quick: bool, decision: str) -> dict[str, object]:
    """Return all figures of one tier."""
    detector = build(DetectorSpec(tier=tier, decision=decision))
    size = sum(array.nbytes for array in detector.initial(1).values())
    speed(detector, 4, 64, 32, 0)  # compiles
    fewer = 4 if quick else 1
    many = {"light": 20_000, "standard": 4_000, "strong": 800}[tier] // fewer
    return {
        "tier": tier,
        "bytes": size,
        "backfill": round(speed(detector, 16, 4_000 // fewer, 1_000, 1_000)),
        "live": round(speed(detector, many, 80, 4, 60)),
        "false": false_alarms(detector, 8, quick),
    }


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="few rows: a check that it runs, without meaningful figures"
    )
    parser.add_argument("--decision", choices=("surprise", "usual_range"), default="surprise")
    given = parser.parse_args()
    rows = [measure(tier, given.quick, given.decision) for tier in LIMITS]
    table = Table("tier", "bytes a series", "limit", "points/s, backfill", "limit", "points/s, live", *KINDS)
    for row in rows:
        most, least = LIMITS[str(row["tier"])]
        false = row["false"]
        assert isinstance(false, dict)
        cells = [
            row["tier"],
            f"{row['bytes']:,}",
            f"{most:,}",
            f"{row['backfill']:,}",
            f"{least:,}",
            f"{row['live']:,}",
        ]
        table.add_row(
            *map(str, cells + [" / ".join(f"{rate:g}" for rate in rates) for rates in false.values()])
        )
    Console(width=150).print(table)
    print(json.dumps({"benchmark": "tiers", "decision": given.decision, "seed": SEED, "tiers": rows}))


if __name__ == "__main__":
    main()
