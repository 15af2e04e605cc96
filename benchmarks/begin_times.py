"""Error of the stated begin of a deviation, in readings, by cause.

    python -m benchmarks.begin_times [--tiers light standard] [--seeds 16]

The faults are those of ``benchmarks.fault_shapes`` and ``benchmarks.worlds``, whose first rows are known. Of
each fault, the first anomaly that names one of its channels counts. A drift leaves the usual range some time
after its first row, so its error is never 0. ``uncertain`` is the share that may have begun earlier, as the
message says.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.fault_shapes import DAYS, EVERY_S, FAULT_ROW, PER_DAY, START_S, Source, edge, market, plant
from benchmarks.simulated import GRACE_ROWS
from benchmarks.statement_truth import Case, anomalies_of
from benchmarks.worlds import WORLDS
from pipeline.core.farthest_reading import begin_window_ns

KEYS = ("preset", "every", "timezone", "limits")
MAX_ROWS = 60  # a later alarm is not one of the begin


class Injected(NamedTuple):
    """First and last row of a fault, and its channels."""

    series: str
    channels: tuple[str, ...]
    first: int
    last: int


def shaped(source: Source) -> tuple[Case, list[Injected], pd.DatetimeIndex]:
    """Return a source as a case, its faults and its times."""
    times = pd.to_datetime(START_S + np.arange(DAYS * PER_DAY) * EVERY_S, unit="s", utc=True)
    parts = [
        pd.DataFrame({"series": name, "time": times, **{c: np.round(x, 4) for c, x in channels.items()}})
        for name, channels in source.rows.items()
    ]
    keys = {key: source.config[key] for key in KEYS if key in source.config}
    case = Case(source.name, pd.concat(parts, ignore_index=True), list(source.stream.channels), keys)
    last = len(times) - 1
    return case, [Injected(name, tuple(case.values), FAULT_ROW, last) for name in source.rows], times


def inputs(seed: int) -> Iterator[tuple[Case, list[Injected], pd.DatetimeIndex]]:
    """Yield the cases of a seed with their faults and times."""
    for make in (plant, edge, market):
        yield shaped(make(seed))
    for make_world in WORLDS:
        world = make_world(seed + 1)
        keys: dict[str, Any] = {"preset": world.preset, "every": world.every}
        faults = [Injected(one.series, one.channels, one.first, one.last) for one in world.faults]
        yield Case(world.name, world.frame(), list(world.channels), keys), faults, world.times


def errors(tier: str, seeds: int) -> Iterator[tuple[str, int, bool]]:
    """Yield cause, error of the begin, and if it is uncertain, of each fault."""
    for seed in range(seeds):
        for case, faults, times in inputs(seed):
            first_ns, every_ns = int(times.as_unit("ns").asi8[0]), int(times.as_unit("ns").asi8[1])
            every_ns -= first_ns
            found = sorted(anomalies_of(case, tier), key=lambda one: one.start_ns)
            for fault in faults:
                for one in found:
                    row = (one.start_ns - first_ns) // every_ns
                    latest = min(fault.last + GRACE_ROWS, fault.first + MAX_ROWS)
                    named = one.channels[one.leading_channel] in fault.channels
                    if one.series == fault.series and named and fault.first <= row <= latest:
                        began = round((one.began_ns - first_ns) / every_ns)
                        yield one.cause, began - fault.first, begin_window_ns(one) > 0
                        break


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiers", nargs="+", default=["light", "standard"])
    parser.add_argument("--seeds", type=int, default=16)
    given = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    print("| tier | cause | faults | median error | 90 % | within 1 | too early | uncertain |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for tier in given.tiers:
        found = list(errors(tier, given.seeds))
        for cause in sorted({one[0] for one in found}):
            off = np.array([error for known, error, _ in found if known == cause])
            unsure = np.mean([sure for known, _, sure in found if known == cause])
            numbers = (np.mean(np.abs(off) <= 1), np.mean(off < -1), unsure)
            shares = " | ".join(f"{100 * x:.0f} %" for x in numbers)
            far = np.quantile(np.abs(off), 0.9)
            print(
                f"| {tier} | {cause} | {len(off)} | {np.median(off):g} | {far:.0f} | {shares} |", flush=True
            )


if __name__ == "__main__":
    main()
