"""What each tier costs: bytes a series, points a second of one core, and false alarms where nothing happens. Prints a table and a JSON line.

    python -m benchmarks.tiers [--quick]

Speed is CPU time of one thread of ``Detector.step`` alone, in two shapes: a backfill (few series, many points of each in a batch) and a live stream
(many series, a few points of each). The undisturbed series are noise, walks, seasons with noise and autoregressions, so that every alarm is false.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from detectors import Detector, DetectorSpec, build, checks

SEED = 2026
#: Tier → bytes a series at most, points a second of one core at least (the issue's limits).
LIMITS = {"light": (1024, 1_000_000), "standard": (8192, 150_000), "strong": (65536, 20_000)}
KINDS = ("noise", "walk", "season", "autoregression")


def waves(rng: np.random.Generator, series: int, rows: int) -> NDArray[np.float64]:
    """(rows · series, 1), the series in turn: seasons of 20 to 200 rows with noise."""
    period = rng.integers(20, 200, series)
    return (10 * np.sin(2 * np.pi * np.arange(rows)[:, None] / period) + rng.normal(size=(rows, series))).reshape(-1, 1)


def speed(detector: Detector, series: int, rows: int, batch: int, warm: int) -> float:
    """Points a second over batches of ``batch`` rows of each of ``series`` series, after ``warm`` rows of each."""
    values = waves(np.random.default_rng(SEED), series, rows)
    slot, row = np.tile(np.arange(series, dtype=np.int32), rows), np.repeat(np.arange(rows), series)
    given = checks.points(slot, values, row)
    state = detector.initial(series)
    used = scored = 0.0
    for start in range(0, len(given), batch * series):
        part = checks.select(given, slice(start, start + batch * series))
        began = time.process_time()
        state, _ = detector.step(state, part)
        if start >= warm * series:
            used += time.process_time() - began
            scored += len(part)
    return scored / used


def undisturbed(rng: np.random.Generator, kind: str, series: int, rows: int) -> NDArray[np.float64]:
    """(rows · series, 1) values of one kind, the series in turn."""
    noise = rng.normal(size=(rows, series))
    if kind == "walk":
        return noise.cumsum(0).reshape(-1, 1)
    if kind == "season":
        return waves(rng, series, rows)
    if kind == "autoregression":
        for t in range(1, rows):
            noise[t] += 0.9 * noise[t - 1]
    return noise.reshape(-1, 1)


def false_alarms(detector: Detector, series: int, rows: int) -> dict[str, float]:
    """Alarms in 10,000 points of each kind of undisturbed series; a flag within three rows of the last belongs to the same alarm."""
    found = {}
    for kind in KINDS:
        values = undisturbed(np.random.default_rng(SEED), kind, series, rows)
        slot, row = np.tile(np.arange(series, dtype=np.int32), rows), np.repeat(np.arange(rows), series)
        flag = checks.run(detector, checks.points(slot, values, row)).flag.reshape(rows, series)
        fresh = flag & ~np.any([np.roll(flag, k, 0) for k in (1, 2, 3)], axis=0)
        found[kind] = round(1e4 * float(fresh.mean()), 2)
    return found


def measure(tier: str, quick: bool) -> dict[str, object]:
    """All figures of one tier."""
    detector = build(DetectorSpec(tier=tier))
    size = sum(array.nbytes for array in detector.initial(1).values())
    speed(detector, 4, 64, 32, 0)  # compiles
    fewer = 4 if quick else 1
    many = {"light": 20_000, "standard": 4_000, "strong": 800}[tier] // fewer
    return {
        "tier": tier,
        "bytes": size,
        "backfill": round(speed(detector, 16, 4_000 // fewer, 1_000, 1_000)),
        "live": round(speed(detector, many, 80, 4, 60)),
        "false": false_alarms(detector, 4 if quick else 10, 10_000 // fewer),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rows: does it run, not what it is worth")
    rows = [measure(tier, parser.parse_args().quick) for tier in LIMITS]
    table = Table("tier", "bytes a series", "limit", "points/s, backfill", "limit", "points/s, live", *KINDS)
    for row in rows:
        most, least = LIMITS[str(row["tier"])]
        false = row["false"]
        assert isinstance(false, dict)
        cells = (row["tier"], f"{row['bytes']:,}", f"{most:,}", f"{row['backfill']:,}", f"{least:,}", f"{row['live']:,}", *false.values())
        table.add_row(*map(str, cells))
    Console(width=150).print(table)
    print(json.dumps({"benchmark": "tiers", "seed": SEED, "tiers": rows}))


if __name__ == "__main__":
    main()
