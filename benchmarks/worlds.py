"""Ordinary operation with known faults: simulated plants, networks and markets.

    python -m benchmarks.worlds --detector standard --seed 1

An event that begins in a fault finds it. It is right if it names a channel of the fault and does not
contradict its direction. All other events after the learning time are false.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from forewatch import detect

Change = Callable[[np.ndarray], np.ndarray]

GRACE_ROWS = 3  # rows after its end in which an event still belongs to a fault


@dataclass(frozen=True)
class Fault:
    """A disturbance of one series from row ``first`` to row ``last``."""

    kind: str
    series: str
    channels: tuple[str, ...]
    first: int
    last: int
    direction: str  # up, down, or "" where either is right


@dataclass
class World:
    """Series on one time axis, their faults, and the row from which on events count."""

    name: str
    preset: str
    every: str
    channels: tuple[str, ...]
    rows: int
    counted_from: int
    series: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    timezone: str = "UTC"

    @property
    def times(self) -> pd.DatetimeIndex:
        """Return the time of each row."""
        return pd.date_range("2026-03-02", periods=self.rows, freq=self.every.replace("m", "min"))

    def fault(self, kind: str, series: str, at: tuple[int, int], direction: str, **changes: Change) -> None:
        """Change channels of a series.

        Args:
            kind: Name of the fault.
            series: The series.
            at: First row, and the row after the last one.
            direction: up, down, or "" where either is right.
            changes: Channel → function of its values in these rows.
        """
        for channel, change in changes.items():
            values = self.series[series][channel]
            values[at[0] : at[1]] = change(values[at[0] : at[1]].copy())
        self.faults.append(Fault(kind, series, tuple(changes), at[0], at[1] - 1, direction))

    def frame(self) -> pd.DataFrame:
        """Return one row per series and time."""
        parts = [
            pd.DataFrame({"series": name, "time": self.times, **channels})
            for name, channels in self.series.items()
        ]
        return pd.concat(parts, ignore_index=True)


def workshop(seed: int) -> World:
    """Machines in two shifts on working days, with power and temperature."""
    rng, per_day = np.random.default_rng([seed, 1]), 288
    world = World("workshop", "sensor", "5m", ("power", "temperature"), 35 * per_day, 21 * per_day)
    hour, day = _clock(world.rows, per_day)
    for number in range(5):
        working = (day % 7 < 5) & (hour >= 6) & (hour < 22)
        load = np.where(working, 40.0 + 5 * number, 4.0)
        power = load + np.where(working, 2.0, 0.3) * rng.normal(size=world.rows)
        warmth = _follow(20 + 0.5 * load, 12) + 1.5 * np.sin(hour / 24 * 2 * np.pi)
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
class Result:
    """Counts of one world.

    false: events without a fault. inside: events whose stated value lies inside the stated range.
    """

    faults: int
    found: list[str]
    missed: list[str]
    right: int
    false: list[str]
    inside: list[str]
    series_weeks: float


def judge(world: World, detector: str, **options: object) -> Result:
    """Run ``detect`` over a world and compare its anomalies with the faults."""
    frame = world.frame()
    out = detect(
        frame, time="time", series="series", values=list(world.channels), preset=world.preset,
        every=world.every, detector=detector, **options,
    )  # fmt: skip
    joined = pd.concat([frame, out.drop(columns=["series"], errors="ignore")], axis=1)
    joined["row"] = joined.groupby("series").cumcount()
    found: dict[Fault, bool] = {}
    false, inside = [], []
    for _, rows in joined[joined["anomaly"].notna()].groupby("anomaly"):
        event = rows.sort_values("row").iloc[0]
        channel = max(world.channels, key=lambda name: event[f"contribution:{name}"])
        if event[f"lower:{channel}"] <= event[f"observed:{channel}"] <= event[f"upper:{channel}"]:
            inside.append(str(event["statement"]))
        fault = _fault_of(world, event)
        if fault is not None:
            right = channel in fault.channels and event["direction"] in (
                fault.direction or event["direction"],
                "mixed",
            )
            found[fault] = found.get(fault, False) or right
        elif event["row"] >= world.counted_from and not _follows_fault(world, event):
            false.append(
                f"{event['series']} {event['time']:%a %H:%M} {event['severity']}: {event['statement']}"
            )
    weeks = (world.rows - world.counted_from) / (7 * 288) * len(world.series)
    missed = [f"{f.series} {f.kind}" for f in world.faults if f not in found]
    kinds = [f"{f.series} {f.kind}" for f in found]
    return Result(len(world.faults), kinds, missed, sum(found.values()), false, inside, weeks)


def _fault_of(world: World, event: pd.Series) -> Fault | None:
    for fault in world.faults:
        if fault.series == event["series"] and fault.first <= event["row"] <= fault.last + GRACE_ROWS:
            return fault
    return None


def _follows_fault(world: World, event: pd.Series) -> bool:
    """Return True for an event on the way back from a fault."""
    return any(
        fault.series == event["series"] and 0 < event["row"] - fault.last <= max(24, fault.last - fault.first)
        for fault in world.faults
    )


def _clock(rows: int, per_day: int) -> tuple[np.ndarray, np.ndarray]:
    row = np.arange(rows)
    return row % per_day / per_day * 24, row // per_day


def _follow(target: np.ndarray, steps: float) -> np.ndarray:
    return pd.Series(target).ewm(alpha=1 / steps, adjust=False).mean().to_numpy().copy()


def _walk(rng: np.random.Generator, rows: int, keep: float, spread: float) -> np.ndarray:
    steps = pd.Series(rng.normal(size=rows) * spread * np.sqrt(1 - keep**2) / (1 - keep))
    return steps.ewm(alpha=1 - keep, adjust=False).mean().to_numpy()


def main(argv: Sequence[str] | None = None) -> None:
    """Print one line per world, then the false events."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detector", default="standard")
    parser.add_argument("--decision", default="usual_range")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(argv)
    print(f"{'world':10} found right false a series and week  inside")
    for make in WORLDS:
        world = make(given.seed)
        result = judge(world, given.detector, decision=given.decision)
        rate = len(result.false) / result.series_weeks
        found = f"{len(result.found):2d}/{result.faults:<2d}"
        print(f"{world.name:10} {found} {result.right:5d} {rate:23.2f} {len(result.inside):7d}")
        for line in [
            *(f"missed: {one}" for one in result.missed),
            *(f"false: {one}" for one in result.false),
        ]:
            print(f"    {line}")


if __name__ == "__main__":
    main()
