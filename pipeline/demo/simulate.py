"""Simulated sources with a seed and with faults to inject.

They share no code with the detectors.

A world advances tick by tick in simulated time and yields (key, JSON) records. ``inject`` begins a fault that
lasts for some ticks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import msgspec
import numpy as np

Record = tuple[bytes, bytes]

#: Simulated time between two ticks of every source.
TICK_SECONDS = 300
#: Days before the live records: enough to learn the time of day, with sixteen days of usual largest values.
HISTORY_DAYS = 18
_encode = msgspec.json.encode


class World(ABC):
    """A simulated source of one topic."""

    topic: ClassVar[str]
    #: Stream of the config that reads the topic.
    stream: ClassVar[str]
    #: Faults are found only by a model that was trained.
    needs_model: ClassVar[bool] = False
    tick_s: ClassVar[int] = TICK_SECONDS
    #: Ticks before the live records, from which the detectors learn ordinary operation.
    history_ticks: ClassVar[int] = HISTORY_DAYS * 86_400 // TICK_SECONDS
    targets: ClassVar[tuple[str, ...]]
    faults: ClassVar[dict[str, int]]  # kind → how many ticks it lasts

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self._kind = self._target = ""
        self._left = self._injected = 0

    def tick(self, time_s: int) -> Iterator[Record]:
        """Yield the records of one tick."""
        for index, target in enumerate(self.targets):
            yield from self.records(
                time_s, index, target, self._kind if self._left and target == self._target else ""
            )
        self._left = max(0, self._left - 1)

    def inject(self) -> str:
        """Start the next fault and return its description.

        The kinds take turns in the order of ``faults``, the target is drawn.
        """
        kinds = list(self.faults)
        self._kind, self._target = kinds[self._injected % len(kinds)], str(self.rng.choice(self.targets))
        self._injected += 1
        self._left = self.faults[self._kind]
        return f"{self._kind} at {self._target}"

    @property
    def fault(self) -> tuple[str, str] | None:
        """Kind and target of the current fault, None for none."""
        return (self._kind, self._target) if self._left else None

    @property
    def age(self) -> int:
        """Return the ticks since the fault began."""
        return self.faults[self._kind] - self._left

    @abstractmethod
    def records(self, time_s: int, index: int, target: str, fault: str) -> Iterator[Record]:
        """Yield the records of one target.

        Args:
            time_s: Simulated time.
            index: Index of the target.
            target: Name of the target.
            fault: Kind of its current fault, "" for none.
        """


class Plant(World):
    """Temperature (°C) and pressure (bar) of presses on two sites.

    The signals have an eight-hour period, slow drift and sensor noise.
    """

    topic = "demo-sensors"
    stream = "plant"
    targets = tuple(f"b{site}/press-{number}" for site in (1, 2) for number in (1, 2, 3, 4))
    faults: ClassVar = {
        "temperature spike": 5,
        "temperature drift": 40,
        "pressure drop": 10,
        "stuck sensor": 40,
    }

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._wander = dict.fromkeys(self.targets, 0.0)
        self._last = dict.fromkeys(self.targets, (0.0, 0.0))

    def records(self, time_s: int, index: int, target: str, fault: str) -> Iterator[Record]:
        phase = 2 * math.pi * (time_s / 28_800 + index / len(self.targets))
        self._wander[target] = 0.98 * self._wander[target] + self.rng.normal(0, 0.05)
        temperature = 60 + 2 * index + 4 * math.sin(phase) + self._wander[target] + self.rng.normal(0, 0.1)
        pressure = 5 + 0.3 * math.sin(phase - 0.5) + self.rng.normal(0, 0.02)
        if fault == "temperature spike":
            temperature += 12
        elif fault == "temperature drift":
            temperature += 0.4 * self.age
        elif fault == "pressure drop":
            pressure -= 1.2
        elif fault == "stuck sensor":
            temperature, pressure = self._last[target]
        self._last[target] = temperature, pressure
        site, sensor = target.split("/")
        record = {
            "site": site,
            "sensor": sensor,
            "ts": time_s,
            "temperature": round(temperature, 3),
            "pressure": round(pressure, 4),
        }
        yield target.encode(), _encode(record)


class Network(World):
    """Flow records of hosts.

    A monitor checks each host at a fixed rate. The number of other flows in five minutes is Poisson
    distributed with a daily period, and their sizes are log-normal.
    """

    topic = "demo-flows"
    stream = "edge"
    targets = ("web-1", "web-2", "db-1")
    checks: ClassVar = 6  # of the monitor in a tick
    faults: ClassVar = {"flood": 12, "port scan": 12, "silence": 18}

    def records(self, time_s: int, index: int, target: str, fault: str) -> Iterator[Record]:
        usual = (4 + 2 * index) * (1 + 0.4 * math.sin(2 * math.pi * time_s / 86_400))
        count = (
            0
            if fault == "silence"
            else int(self.rng.poisson(usual)) + {"flood": 120, "port scan": 40}.get(fault, 0)
        )
        scan = fault == "port scan"
        octets = np.exp(self.rng.normal(3.5 if scan else 8.0, 0.6, count)).astype(int).tolist()
        peers = self.rng.integers(0, 4000 if scan else 12, count).tolist()
        flows = [(size, f"peer-{peer}") for size, peer in zip(octets, peers, strict=True)]
        if fault != "silence":
            flows += [(1200 + int(self.rng.integers(0, 200)), "monitor")] * self.checks
        for size, peer in flows:
            record = {
                "host": target,
                "time_ms": time_s * 1000,
                "octets": size,
                "pkts": 1 + size // 900,
                "dst": peer,
            }
            yield target.encode(), _encode(record)


class Market(World):
    """Closing prices and volumes of six stocks, one row in five minutes.

    A price is a geometric random walk, which moves more around midday.
    """

    topic = "demo-ticks"
    stream = "market"
    targets = ("ALPH", "BRAV", "CHAR", "DELT", "ECHO", "FOXT")
    faults: ClassVar = {"price jump": 3, "volatility burst": 30, "stuck quote": 40, "volume burst": 10}

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._price = {symbol: 20.0 * (i + 1) for i, symbol in enumerate(self.targets)}

    def records(self, time_s: int, index: int, target: str, fault: str) -> Iterator[Record]:
        lively = 1 + 0.5 * math.cos(2 * math.pi * (time_s / 86_400 - 0.5))
        move = self.rng.normal(0, 0.0004 * lively * (9 if fault == "volatility burst" else 1))
        if fault == "stuck quote":
            move = 0.0
        elif fault == "price jump" and not self.age:
            move += 0.02
        self._price[target] *= math.exp(move)
        volume = int(np.exp(self.rng.normal(8, 0.3)) * lively * (15 if fault == "volume burst" else 1))
        yield (
            target.encode(),
            _encode(
                {"symbol": target, "ts": time_s, "close": round(self._price[target], 4), "volume": volume}
            ),
        )


class Batches(World):
    """Steps of the batches in four mixers: events, whose order is that of the recipe.

    One batch in five needs more water, one in four is adjusted after its sample.
    """

    topic = "demo-batches"
    stream = "batches"
    needs_model = True
    targets = ("mixer-1", "mixer-2", "mixer-3", "mixer-4")
    history_ticks = 5 * 86_400 // TICK_SECONDS
    faults: ClassVar = {"cooling after draining": 36, "batch without rinsing": 36, "batch that stops": 36}

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._steps: dict[str, list[str]] = {target: [] for target in self.targets}
        self._faulty = 0  # faults that have changed a batch

    def records(self, time_s: int, index: int, target: str, fault: str) -> Iterator[Record]:
        """Yield the next step of the batch in a mixer, none in a pause.

        Args:
            time_s: Simulated time.
            index: Index of the mixer.
            target: Name of the mixer.
            fault: Kind of its current fault, "" for none.
        """
        steps = self._steps[target]
        begins = not steps
        if begins:
            steps += self._recipe()
        if fault and self._faulty < self._injected and self._apply_fault(steps, fault, begins=begins):
            self._faulty = self._injected
        step = steps.pop(0)
        if step != PAUSE:
            yield target.encode(), _encode({"mixer": target, "ts": time_s + 10 * index, "step": step})

    def _recipe(self) -> list[str]:
        """Return the steps of the next batch, one for each tick, with the pause before it."""
        water = ["add water"] if self.rng.random() < 0.2 else []
        adjusted = ["adjust", "stir", "sample"] if self.rng.random() < 0.25 else []
        pause = [PAUSE] * int(self.rng.integers(1, 4))
        start = [*pause, "fill", *water, "heat", "add catalyst", "stir", "sample", *adjusted]
        return [*start, "cool", "drain", "rinse", "dry"]

    def _apply_fault(self, steps: list[str], fault: str, *, begins: bool) -> bool:
        """Change the rest of a batch; return False if it is too late for that."""
        if fault == "cooling after draining" and "cool" in steps:
            at = steps.index("cool")
            steps[at : at + 2] = "drain", "cool"
        elif fault == "batch without rinsing" and "rinse" in steps:
            steps.remove("rinse")
        elif fault == "batch that stops" and "add catalyst" in steps:
            steps[steps.index("add catalyst") + 1 :] = [PAUSE] * self.faults[fault]
        else:
            return False
        return True


#: Tick of a mixer without an event.
PAUSE = ""

WORLDS: tuple[type[World], ...] = (Plant, Batches, Network, Market)
