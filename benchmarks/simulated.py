"""Series on one time axis with known faults, and what builds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

Change = Callable[[np.ndarray], np.ndarray]

GRACE_ROWS = 3  # rows after its end in which an event can still belong to a fault
SHORT_ROWS = 12  # a fault of at most so many rows is found up to GRACE_ROWS after its end
MAX_GRACE_ROWS = 144
CLEAN_SHARE = 0.4  # share of the rows before the first fault


@dataclass(frozen=True)
class Fault:
    """A disturbance of one series from row ``first`` to row ``last``."""

    kind: str
    series: str
    channels: tuple[str, ...]
    first: int
    last: int
    direction: str  # up, down, or "" where either is right

    @property
    def last_found(self) -> int:
        """Return the last row in which an event finds the fault."""
        rows = self.last - self.first + 1
        return self.last + (GRACE_ROWS if rows <= SHORT_ROWS else 0)

    @property
    def last_of_return(self) -> int:
        """Return the last row in which an event can be the way back to normal."""
        rows = self.last - self.first + 1
        return self.last + 2 * min(max(GRACE_ROWS, rows // 4), MAX_GRACE_ROWS)


@dataclass
class World:
    """Series on one time axis, their faults, and the row from which on events count.

    index: times in UTC, by default regular from a Monday on. expected: time in which events are neither right
    nor wrong, as a series ("" for all), its first row and the row after its last one. lost: series → rows
    that are not in the frame.
    """

    name: str
    preset: str
    every: str
    channels: tuple[str, ...]
    rows: int
    counted_from: int
    series: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    timezone: str = "UTC"
    index: pd.DatetimeIndex | None = None
    rng: np.random.Generator = field(default_factory=np.random.default_rng)
    options: dict[str, object] = field(default_factory=dict)
    expected: list[tuple[str, int, int]] = field(default_factory=list)
    lost: dict[str, np.ndarray] = field(default_factory=dict)

    @cached_property
    def times(self) -> pd.DatetimeIndex:
        """Return the time of each row."""
        if self.index is not None:
            return self.index
        return pd.date_range("2026-03-02", periods=self.rows, freq=self.every.replace("m", "min"))

    @cached_property
    def local(self) -> pd.DatetimeIndex:
        """Return the local time of each row."""
        return self.times.tz_localize("UTC").tz_convert(self.timezone)

    @cached_property
    def hour(self) -> np.ndarray:
        """Return the local hour of each row, with its fraction."""
        return (self.local.hour + self.local.minute / 60).to_numpy(float)

    @cached_property
    def weekday(self) -> np.ndarray:
        """Return the local weekday of each row, 0 for Monday."""
        return self.local.day_of_week.to_numpy()

    @cached_property
    def day(self) -> np.ndarray:
        """Return the number of the local day of each row."""
        return (self.local.tz_localize(None).normalize() - self._first_day).days.to_numpy()

    @property
    def _first_day(self) -> pd.Timestamp:
        return self.local[0].tz_localize(None).normalize()

    @property
    def series_weeks(self) -> float:
        """Return the weeks in which events count, summed over the series."""
        counted = self.times[-1] - self.times[self.counted_from]
        return counted / pd.Timedelta("7D") * len(self.series)

    def at(self, day: int, hour: float = 0.0) -> int:
        """Return the row of a local hour of a day."""
        wall = self._first_day + pd.Timedelta(days=day) + pd.Timedelta(minutes=round(60 * hour))
        moment = wall.tz_localize(self.timezone, ambiguous=True, nonexistent="shift_forward")
        return int(self.local.searchsorted(moment))

    def span(self, day: int, hour: float, hours: float = 0.0, rows: int = 0) -> tuple[int, int]:
        """Return the first row of some time and the row after it.

        Args:
            day: Number of the local day.
            hour: Local hour of its begin.
            hours: Length in hours.
            rows: Length in rows, instead.
        """
        first = self.at(day, hour)
        return first, first + rows if rows else self.at(day, hour + hours)

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

    def like(self, series: str, day: int, hour: float, *channels: str) -> dict[str, Change]:
        """Return changes to the values of another time.

        Args:
            series: The series.
            day: Number of the local day of the other time.
            hour: Local hour of its begin.
            channels: The channels, by default all.
        """
        first = self.at(day, hour)
        values = {name: self.series[series][name].copy() for name in channels or self.channels}
        return {
            name: lambda x, other=other: other[first : first + len(x)].copy()
            for name, other in values.items()
        }

    def noise(self, spread: float | np.ndarray = 1.0) -> np.ndarray:
        """Return independent normal noise."""
        return spread * self.rng.normal(size=self.rows)

    def wander(self, keep: float, spread: float) -> np.ndarray:
        """Return an autoregression of a standard deviation."""
        steps = self.rng.normal(size=self.rows) * np.sqrt(1 - keep**2) / (1 - keep) * spread
        steps[0] = spread * self.rng.normal()
        return pd.Series(steps).ewm(alpha=1 - keep, adjust=False).mean().to_numpy()

    def peak(self, hour: float, width: float) -> np.ndarray:
        """Return a bell around a local hour of each day, 1 at its top."""
        away = (self.hour - hour + 12) % 24 - 12
        return np.exp(-((away / width) ** 2))

    def between(
        self, first: float, last: float, weekdays: str = "0123456", jitter: float = 0.0
    ) -> np.ndarray:
        """Return 1 in some hours of some weekdays, else 0.

        Args:
            first: Local hour of the begin.
            last: Local hour of the end.
            weekdays: Digits, 0 for Monday.
            jitter: Standard deviation of begin and end, in hours.
        """
        edges = jitter * self.rng.normal(size=(int(self.day.max()) + 1, 2))[self.day]
        inside = (self.hour >= first + edges[:, 0]) & (self.hour < last + edges[:, 1])
        return (inside & np.isin(self.weekday, [int(one) for one in weekdays])).astype(float)

    def per_day(self, draw: Callable[[int], np.ndarray]) -> np.ndarray:
        """Return a value that is drawn for each local day."""
        return draw(int(self.day.max()) + 1)[self.day]

    def lose(self, share: float, longest: int) -> None:
        """Leave out a share of the rows of each series, in gaps, but none of a fault.

        Args:
            share: Share of the rows.
            longest: Longest gap, in rows.
        """
        for name in self.series:
            lost = np.zeros(self.rows, bool)
            for first in np.flatnonzero(self.rng.random(self.rows) < 2 * share / (longest + 1)):
                lost[first : first + self.rng.integers(1, longest + 1)] = True
            for one in self.faults:
                if one.series == name:
                    lost[one.first : one.last + 1] = False
            self.lost[name] = lost

    def frame(self) -> pd.DataFrame:
        """Return one row per series and time."""
        parts = [
            pd.DataFrame({"series": name, "time": self.times, **channels})
            for name, channels in self.series.items()
        ]
        kept = [
            part[~self.lost[name]] if name in self.lost else part
            for name, part in zip(self.series, parts, strict=True)
        ]
        return pd.concat(kept, ignore_index=True)


def open_world(
    name: str, kind: tuple[str, str], channels: tuple[str, ...], period: tuple[str, int, str], seed: int
) -> World:
    """Return a world without series, whose first 40 % of the rows do not count.

    Args:
        name: Its name.
        kind: Preset and interval.
        channels: Names of the channels.
        period: First day, number of days, time zone.
        seed: Seed of its random numbers.
    """
    start, days, zone = period
    ends = [(pd.Timestamp(start) + pd.Timedelta(days=one)).tz_localize(zone) for one in (0, days)]
    step = kind[1].replace("m", "min")
    index = pd.date_range(ends[0], ends[1], freq=step, inclusive="left").tz_convert("UTC").tz_localize(None)
    return world_of(name, kind, channels, (index, zone), seed)


def world_of(
    name: str,
    kind: tuple[str, str],
    channels: tuple[str, ...],
    times: tuple[pd.DatetimeIndex, str],
    seed: int,
) -> World:
    """Return a world without series at given times.

    Args:
        name: Its name.
        kind: Preset and interval.
        channels: Names of the channels.
        times: Times in UTC, without a zone, and the time zone.
        seed: Seed of its random numbers.
    """
    index, zone = times
    rng = np.random.default_rng([seed, *name.encode()])
    world = World(
        name, *kind, channels, len(index), int(CLEAN_SHARE * len(index)), timezone=zone, index=index
    )
    world.rng, world.options = rng, {"timezone": zone}
    return world


def follow(target: np.ndarray, steps: float) -> np.ndarray:
    """Return values that follow a target with a time constant in rows."""
    return pd.Series(target).ewm(alpha=1 / steps, adjust=False).mean().to_numpy().copy()


def plus(by: float) -> Change:
    """Return a change by a constant."""
    return lambda x: x + by


def scaled(by: float) -> Change:
    """Return a change by a factor."""
    return lambda x: x * by


def ramp(to: float) -> Change:
    """Return a change that grows to an amount."""
    return lambda x: x + np.linspace(0, to, len(x))


def steady(value: float, rng: np.random.Generator, spread: float = 0.0) -> Change:
    """Return a change to a value with noise."""
    return lambda x: value + spread * rng.normal(size=len(x))


def rough(spread: float, rng: np.random.Generator) -> Change:
    """Return added noise."""
    return lambda x: x + spread * rng.normal(size=len(x))


def stuck(x: np.ndarray) -> np.ndarray:
    """Return the first value in all rows."""
    return np.full_like(x, x[0])


def zero(x: np.ndarray) -> np.ndarray:
    """Return zeros."""
    return np.zeros_like(x)
