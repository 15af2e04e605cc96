"""Alarms in ordinary weeks whose days differ: days of rest, weekly jobs.

Every alarm is false but those of the first time that something comes. An alarm is counted once in six hours.

    python -m benchmarks.weekly_patterns [--tiers standard] [--every 5min] [--series 6] [--weeks 10]

Prints the alarms of each week over all series, one line a pattern.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forewatch import detect

Numbers = NDArray[np.float64]
Times = pd.DatetimeIndex
MONDAY = "2026-03-02"


def hours(times: Times) -> Numbers:
    """Return the hours since midnight."""
    return np.asarray(times.hour + times.minute / 60, np.float64)


class Job(NamedTuple):
    """A job of ``length`` hours on one weekday, on top of a daily season.

    Its size varies by 8 %, and its start by ``late`` hours.
    """

    day: int
    start: float
    length: float
    size: float
    late: float = 0

    def __call__(self, times: Times, rng: np.random.Generator) -> Numbers:
        """Return the values at ``times``."""
        week = np.asarray((times - times[0]).days // 7)
        begin = self.start + rng.normal(0, self.late, week.max() + 1)[week]
        on = (times.day_of_week == self.day) & (hours(times) >= begin) & (hours(times) < begin + self.length)
        season = 50 + 10 * np.sin(2 * np.pi * hours(times) / 24) + rng.normal(0, 1, len(times))
        return np.asarray(season + self.size * on * rng.normal(1, 0.08, week.max() + 1)[week])


class Shop(NamedTuple):
    """Visitors from ``opens`` to ``closes``, with a level for each weekday."""

    levels: tuple[float, ...]
    opens: float
    closes: float

    def __call__(self, times: Times, rng: np.random.Generator) -> Numbers:
        """Return the values at ``times``."""
        is_open = (hours(times) >= self.opens) & (hours(times) < self.closes)
        level = np.array(self.levels)[times.day_of_week] * is_open * (1 + rng.normal(0, 0.05, len(times)))
        return np.asarray(np.maximum(0, level + 3 + rng.normal(0, 0.5, len(times))))


def open_but(*closed: int) -> Shop:
    """Return a shop that is open from 08:00 to 18:00 but on the weekdays ``closed``."""
    return Shop(tuple(0.0 if day in closed else 80.0 for day in range(7)), 8, 18)


PATTERNS: dict[str, Callable[[Times, np.random.Generator], Numbers]] = {
    "Wednesday 03:00, 1 h, 60 noises": Job(2, 3, 1, 60),
    "Wednesday 03:00, 1 h, 15 noises": Job(2, 3, 1, 15),
    "Wednesday 02:00, 6 h": Job(2, 2, 6, 60),
    "Sunday 02:00, 8 h": Job(6, 2, 8, 60),
    "Sunday 02:00, 2 h, ± 10 min": Job(6, 2, 2, 40, 0.17),
    "all of Tuesday": Job(1, 0, 24, 40),
    "Friday 20:00, 4 h, less": Job(4, 20, 4, -30),
    "closed on Mondays": open_but(0),
    "closed on Sundays": open_but(6),
    "closed on Saturdays and Sundays": open_but(5, 6),
    "closed on Fridays and Saturdays": open_but(4, 5),
    "closed on Wednesdays and Sundays": open_but(2, 6),
    "restaurant, closed on Mondays": Shop((0.0, 70.0, 75.0, 80.0, 130.0, 150.0, 110.0), 11, 23),
}


def main() -> None:
    """Print the alarms of each week."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiers", nargs="+", default=["standard"])
    parser.add_argument("--every", default="5min")
    parser.add_argument("--series", type=int, default=6)
    parser.add_argument("--weeks", type=int, default=10)
    given = parser.parse_args()
    times = pd.date_range(
        MONDAY,
        periods=int(pd.Timedelta(weeks=given.weeks) / pd.Timedelta(given.every)),
        freq=given.every,
        tz="UTC",
    )
    for tier in given.tiers:
        for name, make in PATTERNS.items():
            frames = [
                pd.DataFrame({"time": times, "name": f"s{k}", "v": make(times, np.random.default_rng(k))})
                for k in range(given.series)
            ]
            frame = pd.concat(frames, ignore_index=True)
            found = detect(frame, time="time", values=["v"], series="name", detector=tier, preset="sensor")
            flagged = frame[found["flag"].to_numpy()]
            alarms = pd.DataFrame(
                {"name": flagged["name"], "at": flagged["time"].dt.floor("6h")}
            ).drop_duplicates()
            weeks = np.bincount((alarms["at"] - times[0]).dt.days // 7, minlength=given.weeks)
            print(f"{tier:9s}{name:34s}", *weeks.tolist(), flush=True)


if __name__ == "__main__":
    main()
