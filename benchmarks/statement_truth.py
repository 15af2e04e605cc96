"""Truth of what anomalies state, on simulated worlds and open data sets.

The stated value must lie outside the stated usual range, the direction must be that of the difference, and
the text must show both numbers apart.

    python -m benchmarks.statement_truth [--tiers light standard strong] [--limit 3] [--data ../shared]

Prints a Markdown table of anomalies and of those that state something untrue, then each of these.
"""

from __future__ import annotations

import argparse
import importlib
import math
import re
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from benchmarks.accuracy import SETS
from benchmarks.worlds import WORLDS
from pipeline.core.types import Anomaly
from pipeline.core.usual_range_text import usual_range_text
from pipeline.evaluate import layouts
from pipeline.services.dataframe import PARTITION, build_scorer, make_table
from pipeline.sources.base import TableRecords

WITHOUT_DIRECTION = {"flatline", "unusual_noise"}
TIERS = ("light", "standard", "strong")
BATCH_ROWS = 50_000


class Case(NamedTuple):
    """A frame to run, with the keys of its stream."""

    name: str
    frame: pd.DataFrame
    values: list[str]
    keys: dict[str, Any]


def untrue(anomaly: Anomaly) -> str:
    """Return what an anomaly states that is not true in itself, "" for nothing."""
    at = int(np.argmax(anomaly.contribution))
    observed, low, high = anomaly.observed[at], anomaly.lower[at], anomaly.upper[at]
    text = f"{usual_range_text(anomaly)} ({anomaly.cause}, {anomaly.direction})"
    if anomaly.cause == "impossible_value":
        return "" if math.isfinite(observed) else f"no number: {text}"
    if not (observed < low or observed > high):
        return f"inside: {observed!r} in {low!r} to {high!r}: {text}"
    if anomaly.cause in WITHOUT_DIRECTION:
        return "" if anomaly.direction in ("mixed", "up") else f"direction: {text}"
    if anomaly.direction != ("up" if observed > high else "down"):
        return f"direction: {text}"
    if np.sign(observed - anomaly.expected[at]) != (1 if anomaly.direction == "up" else -1):
        return f"direction of the expected value: {text}"
    numbers = re.findall(r"−?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?", text)
    return "" if len(set(numbers)) > 1 or anomaly.cause == "static_limit" else f"equal numbers: {text}"


def anomalies_of(case: Case, tier: str) -> list[Anomaly]:
    """Return the anomalies of a case, each in its last revision."""
    columns = [case.values, "time", "series"]
    table, fields, _ = make_table(case.frame, *columns)
    scorer = build_scorer({"format": {"csv": fields}, "detector": tier} | case.keys)
    found: dict[Any, Anomaly] = {}
    for start in range(0, len(table), BATCH_ROWS):
        offsets = np.arange(start, min(start + BATCH_ROWS, len(table)), dtype=np.int64)
        part = table.slice(start, len(offsets))
        unstamped = np.full(len(offsets), -1, np.int64)
        records = TableRecords(PARTITION, start, start + len(offsets), offsets, unstamped, part)
        found |= {one.id: one for one in scorer.process([records]).anomalies}
    found |= {one.id: one for one in scorer.flush({PARTITION: len(table)}).anomalies}
    return list(found.values())


def cases(data: Path, limit: int) -> Iterator[Case]:
    """Yield all worlds, and ``limit`` series of each data set."""
    for make in WORLDS:
        world = make(1)
        yield Case(
            world.name, world.frame(), list(world.channels), {"preset": world.preset, "every": world.every}
        )
    scenarios = data / "scenarios"
    if scenarios.is_dir():
        sys.path.insert(0, str(scenarios))
        for name, build in importlib.import_module("worlds").WORLDS.items():
            one = build(1)
            every = one.every.replace("min", "m").replace("D", "d")
            yield Case(name, one.frame, one.values, {"preset": one.preset, "every": every} | one.options)
    for name, chosen in SETS.items():
        folder = data / "data" / chosen.folder
        if chosen.maker or not folder.is_dir():
            continue
        frames = [entry.read() for entry in layouts.find(folder, chosen.layout, limit)]
        for one in frames:
            columns = {channel: one.values[:, c] for c, channel in enumerate(one.channels)}
            frame = pd.DataFrame({"series": one.name, "time": pd.to_datetime(one.time), **columns})
            yield Case(f"{name}/{one.name}", frame, list(one.channels), {"preset": chosen.preset})


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiers", nargs="+", choices=TIERS, default=list(TIERS))
    parser.add_argument("--limit", type=int, default=3, help="series of each data set")
    parser.add_argument("--data", type=Path, default=Path("../shared"))
    given = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    wrong: list[str] = []
    print("| source | tier | anomalies | untrue | seconds |\n| --- | --- | --- | --- | --- |", flush=True)
    for case in cases(given.data, given.limit):
        for tier in given.tiers:
            began = time.monotonic()
            found = anomalies_of(case, tier)
            said = [text for text in map(untrue, found) if text]
            wrong += [f"{case.name}, {tier}: {text}" for text in said]
            seconds = time.monotonic() - began
            print(f"| {case.name} | {tier} | {len(found)} | {len(said)} | {seconds:.0f} |", flush=True)
    print("\n".join(wrong))


if __name__ == "__main__":
    main()
