"""Ordinary operation with known faults: simulated plants, networks and markets.

    python -m benchmarks.worlds --detector standard --seed 1 --events
    python -m benchmarks.worlds --further --json verdicts.json
    python -m benchmarks.worlds --held-out --detector light
    python -m benchmarks.worlds bakery solar --events

An event that begins in a fault finds it. It is right if it names a channel of the fault, does not contradict
its direction, and its value lies outside the stated range. It contradicts if it states the other direction
for a channel of the fault. Of the other events after the learning time, those on the way back from a fault
and on expected days are neither right nor wrong, and all others are false.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.further_worlds import FURTHER_WORLDS, HELD_OUT
from benchmarks.simulated import Fault, World, follow
from forewatch import detect


def workshop(seed: int) -> World:
    """Machines in two shifts on working days, with power and temperature."""
    rng, per_day = np.random.default_rng([seed, 1]), 288
    world = World("workshop", "sensor", "5m", ("power", "temperature"), 35 * per_day, 21 * per_day)
    hour, day = _clock(world.rows, per_day)
    for number in range(5):
        working = (day % 7 < 5) & (hour >= 6) & (hour < 22)
        load = np.where(working, 40.0 + 5 * number, 4.0)
        power = load + np.where(working, 2.0, 0.3) * rng.normal(size=world.rows)
        warmth = follow(20 + 0.5 * load, 12) + 1.5 * np.sin(hour / 24 * 2 * np.pi)
        series = {"power": power, "temperature": warmth + 0.3 * rng.normal(size=world.rows)}
        world.series[f"m{number + 1}"] = series
    noon, night = 22 * per_day + 144, 24 * per_day + 24
    world.fault("spike", "m1", (noon, noon + 2), "up", power=lambda x: x + 60)
    world.fault("stuck", "m2", (noon, noon + 48), "", temperature=lambda x: np.full_like(x, x[0]))
    world.fault("runs at night", "m3", (night, night + 24), "up", power=lambda x: x + 35)
    shift = 25 * per_day + 78
    world.fault("no shift", "m4", (shift, shift + 60), "down", power=lambda x: x - 45)
    world.fault(
        "overheats", "m5", (noon, noon + 60), "up", temperature=lambda x: x + np.linspace(0, 15, len(x))
    )
    world.fault("dead", "m1", (shift, shift + 12), "down", temperature=lambda x: np.zeros_like(x))
    late = 29 * per_day + 120
    rough = 8 * rng.normal(size=36)
    world.fault("noisy", "m2", (late, late + 36), "", power=lambda x: x + rough)
    return world


def offices(seed: int) -> World:
    """Traffic of offices with a nightly backup."""
    rng, per_day = np.random.default_rng([seed, 2]), 288
    world = World("offices", "network", "5m", ("bytes", "connections"), 35 * per_day, 21 * per_day)
    hour, day = _clock(world.rows, per_day)
    busy = np.where(day % 7 < 5, 1.0, 0.15)
    for number in range(5):
        level = 0.1 + busy * np.exp(-(((hour - 13) / 3.5) ** 2))
        backup = 30_000.0 * ((hour >= 2) & (hour < 3))
        sent = 4e3 * (number + 1) * level * np.exp(0.2 * rng.normal(size=world.rows)) + backup
        opened = rng.poisson(0.5 + 6 * (number + 1) * level)
        world.series[f"o{number + 1}"] = {"bytes": np.round(sent), "connections": opened.astype(float)}
    noon, night = 22 * per_day + 150, 23 * per_day + 50
    world.fault(
        "flood", "o1", (noon, noon + 6), "up", bytes=lambda x: x * 15, connections=lambda x: x * 10 + 40
    )
    world.fault("silence", "o2", (noon, noon + 9), "down", bytes=np.zeros_like, connections=np.zeros_like)
    world.fault("night load", "o3", (night, night + 18), "up", bytes=lambda x: x + 6e4)
    backup_at = 24 * per_day + 24
    world.fault(
        "no backup", "o4", (backup_at, backup_at + 12), "down", bytes=lambda x: np.maximum(x - 30_000, 300)
    )
    world.fault("stuck", "o5", (noon, noon + 24), "", bytes=lambda x: np.full_like(x, x[0]))
    return world


def bars(seed: int) -> World:
    """Bars of a market that is open round the clock: price and volume."""
    rng, per_day = np.random.default_rng([seed, 3]), 288
    world = World("bars", "stock", "5m", ("close", "volume"), 24 * per_day, 12 * per_day)
    hour, _ = _clock(world.rows, per_day)
    for number in range(4):
        calm = np.exp(_walk(rng, world.rows, 0.995, 0.3))
        close = 100.0 * (number + 1) * np.exp(np.cumsum(8e-4 * calm * rng.normal(size=world.rows)))
        daily = 0.5 + np.exp(-(((hour - 15) / 3) ** 2))
        volume = np.ceil(5e3 * daily * calm * np.exp(0.4 * rng.normal(size=world.rows)))
        world.series[f"x{number + 1}"] = {"close": close, "volume": volume}
    at = 14 * per_day + 100
    world.fault("bad tick", "x1", (at, at + 1), "up", close=lambda x: x * 1.1)
    world.fault("stuck quote", "x2", (at, at + 36), "", close=lambda x: np.full_like(x, x[0]))
    world.fault("volume burst", "x3", (at, at + 8), "up", volume=lambda x: x * 20)
    return world


WORLDS = (workshop, offices, bars)


@dataclass(frozen=True)
class Verdict:
    """A fault and its best event; found if there is a statement."""

    fault: Fault
    statement: str = ""
    right: bool = False
    contradicts: bool = False

    @property
    def name(self) -> str:
        """Return the series and the kind of the fault."""
        return f"{self.fault.series} {self.fault.kind}"


@dataclass(frozen=True)
class Result:
    """Verdicts of one world.

    false: events without a fault. inside: events whose stated value lies inside the stated range.
    """

    world: str
    verdicts: list[Verdict]
    false: list[str]
    inside: list[str]
    series_weeks: float

    @property
    def found(self) -> list[str]:
        """Return the faults that were found."""
        return [one.name for one in self.verdicts if one.statement]

    @property
    def missed(self) -> list[str]:
        """Return the faults that were not found."""
        return [one.name for one in self.verdicts if not one.statement]

    @property
    def right(self) -> int:
        """Return the number of faults that were told rightly."""
        return sum(one.right for one in self.verdicts)

    @property
    def contradicting(self) -> int:
        """Return the number of faults told in the opposite direction only."""
        return sum(one.contradicts for one in self.verdicts)

    @property
    def false_rate(self) -> float:
        """Return the false events a series and week."""
        return len(self.false) / self.series_weeks


def judge(world: World, detector: str, **options: object) -> Result:
    """Run ``detect`` over a world and compare its anomalies with the faults."""
    frame = world.frame()
    out = detect(
        frame, time="time", series="series", values=list(world.channels), preset=world.preset,
        every=world.every, detector=detector, **(world.options | options),
    )  # fmt: skip
    joined = pd.concat([frame, out.drop(columns=["series"], errors="ignore")], axis=1)
    verdicts = {fault: Verdict(fault) for fault in world.faults}
    false, inside = [], []
    events = joined[joined["anomaly"].notna()].sort_values("time", kind="stable").groupby("anomaly").head(1)
    for _, event in events.iterrows():
        row = int(world.times.searchsorted(event["time"]))
        channel = max(world.channels, key=lambda name: event[f"contribution:{name}"])
        within = event[f"lower:{channel}"] <= event[f"observed:{channel}"] <= event[f"upper:{channel}"]
        if within:
            inside.append(str(event["statement"]))
        text = f"{event['series']} {event['time']:%m-%d %a %H:%M} {event['severity']}: {event['statement']}"
        mine = [one for one in world.faults if one.series == event["series"]]
        fault = next((one for one in mine if one.first <= row <= one.last_found), None)
        if fault is not None:
            opposite = {fault.direction, event["direction"]} == {"up", "down"}
            named = channel in fault.channels
            verdict = Verdict(fault, text, named and not opposite and not within, named and opposite)
            if not verdicts[fault].statement or (verdict.right and not verdicts[fault].right):
                verdicts[fault] = verdict
        elif (
            row >= world.counted_from
            and not any(one.last < row <= one.last_of_return for one in mine)
            and not any(
                series in ("", event["series"]) and first <= row < end
                for series, first, end in world.expected
            )
        ):
            false.append(text)
    return Result(world.name, list(verdicts.values()), false, inside, world.series_weeks)


def _clock(rows: int, per_day: int) -> tuple[np.ndarray, np.ndarray]:
    row = np.arange(rows)
    return row % per_day / per_day * 24, row // per_day


def _walk(rng: np.random.Generator, rows: int, keep: float, spread: float) -> np.ndarray:
    steps = pd.Series(rng.normal(size=rows) * spread * np.sqrt(1 - keep**2) / (1 - keep))
    return steps.ewm(alpha=1 - keep, adjust=False).mean().to_numpy()


def _print_result(result: Result, events: bool) -> None:
    found = f"{len(result.found):3d}/{len(result.verdicts):<3d}"
    rate, inside = f"{result.false_rate:23.2f}", len(result.inside)
    print(
        f"{result.world:10} {found} {result.right:5d} {rate} {result.contradicting:13d} {inside:6d}",
        flush=True,
    )
    if events:
        lines = [f"missed: {one}" for one in result.missed] + [f"false: {one}" for one in result.false]
        print("".join(f"    {line}\n" for line in lines), end="")


def _print_total(results: list[Result]) -> None:
    verdicts = [one for result in results for one in result.verdicts]
    found, right = sum(bool(one.statement) for one in verdicts), sum(one.right for one in verdicts)
    rate = np.mean([result.false_rate for result in results])
    contradicting = sum(one.contradicts for one in verdicts)
    inside = sum(len(result.inside) for result in results)
    print(
        f"{'total':10} {found:3d}/{len(verdicts):<3d} {right:5d} {rate:23.2f} {contradicting:13d} {inside:6d}"
    )


def _record(result: Result) -> dict[str, object]:
    faults = [
        asdict(one.fault)
        | {
            "found": bool(one.statement),
            "right": one.right,
            "contradicts": one.contradicts,
            "statement": one.statement,
        }
        for one in result.verdicts
    ]
    weeks = round(result.series_weeks, 2)
    return {"world": result.world, "series_weeks": weeks, "faults": faults, "false": result.false}


def main(argv: Sequence[str] | None = None) -> None:
    """Print one line per world and a total."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    every = {make.__name__: make for make in (*WORLDS, *FURTHER_WORLDS)}
    parser.add_argument("worlds", nargs="*", metavar="WORLD", help=f"one of {', '.join(every)}")
    parser.add_argument("--further", action="store_true", help="the twelve further worlds")
    parser.add_argument("--held-out", action="store_true", help=f"only {', '.join(HELD_OUT)}")
    parser.add_argument("--detector", default="standard")
    parser.add_argument("--decision", default="usual_range")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--events", action="store_true", help="print missed faults and false events")
    parser.add_argument("--json", type=Path, help="file for all faults and false events")
    given = parser.parse_args(argv)
    if unknown := set(given.worlds) - set(every):
        parser.error(f"no world {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    names = given.worlds or [make.__name__ for make in (FURTHER_WORLDS if given.further else WORLDS)]
    if given.held_out:
        names = given.worlds or list(HELD_OUT)
    print(f"{'world':10} found   right false a series and week contradicting inside")
    warnings.simplefilter("ignore", UserWarning)
    results = []
    for name in names:
        results.append(judge(every[name](given.seed), given.detector, decision=given.decision))
        _print_result(results[-1], given.events)
    _print_total(results)
    if given.json is not None:
        given.json.write_text(json.dumps([_record(one) for one in results], indent=1))


if __name__ == "__main__":
    main()
