"""Series with one plain fault each, for the presets sensor, network and stock.

They share no code with the detectors. The faults are sizes that a person sees in a plot.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.schema import Stream

Values = NDArray[np.float64]
Change = Callable[[Values, np.random.Generator], Values]

#: Monday 2026-03-02 00:00 in Berlin.
START_S, EVERY_S, PER_DAY, DAYS = 1_772_406_000, 300, 288, 23
FAULT_ROW = 22 * PER_DAY + 150  # a Tuesday, 12:30


@dataclass
class Source:
    """A stream with one series for each fault.

    rows: series → its values by channel. faults: series → name of its fault.
    """

    name: str
    config: dict[str, Any]
    rows: dict[str, dict[str, Values]] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def stream(self) -> Stream:
        """The configured stream."""
        return Stream.model_validate(self.config)

    def fault(self, name: str, values: dict[str, Values], length: int, **changes: Change) -> None:
        """Add a series whose channels change for ``length`` rows.

        Args:
            name: Name of the fault.
            values: Undisturbed values of the series by channel.
            length: Rows of the fault.
            changes: Channel → function of its values in these rows.
        """
        series = f"unit-{len(self.rows) + 1}"
        rng = np.random.default_rng(len(self.rows))
        for channel, change in changes.items():
            at = slice(FAULT_ROW, FAULT_ROW + length)
            values[channel][at] = change(values[channel][at].copy(), rng)
        self.rows[series], self.faults[series] = values, name

    def records(self) -> Iterator[list[bytes]]:
        """Yield the records of each time."""
        names = list(self.rows)
        for row in range(DAYS * PER_DAY):
            yield [
                json.dumps(
                    {"unit": name, "ts": START_S + row * EVERY_S}
                    | {channel: number(x[row]) for channel, x in self.rows[name].items()}
                ).encode()
                for name in names
            ]


def number(value: float) -> float | None:
    """Return a value as JSON, None for NaN."""
    return None if np.isnan(value) else round(float(value), 4)


def config(preset: str, units: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """Return the configuration of a stream in Berlin."""
    return {
        "source": {"memory": {"name": preset}},
        "format": {"json": {"series": "unit", "time": "ts", "values": list(units)}},
        "preset": preset,
        "every": "5m",
        "timezone": "Europe/Berlin",
        "alerts": {"units": {name: unit for name, unit in units.items() if unit}},
    } | more


def clock() -> tuple[Values, Values]:
    """Return hour and day of each row."""
    row = np.arange(DAYS * PER_DAY)
    return row % PER_DAY / PER_DAY * 24, row // PER_DAY


def plant(seed: int = 0) -> Source:
    """Machines in two shifts with temperature, pressure and speed."""
    units = {"temperature": "°C", "pressure": "bar", "speed": "1/min"}
    source = Source("plant", config("sensor", units, limits={"pressure": {"max": 9}}))
    hour, day = clock()
    works = ((day % 7 < 5) & (hour >= 6) & (hour < 22)).astype(float)

    def machine(seed: int) -> dict[str, Values]:
        rng = np.random.default_rng([seed, 7])
        n = len(hour)
        wander = np.zeros(n)
        for i in range(1, n):
            wander[i] = 0.98 * wander[i - 1] + 0.06 * rng.normal()
        temperature = 58 + 12 * works + 2 * np.sin(hour / 24 * 2 * np.pi) + wander + 0.15 * rng.normal(size=n)
        return {
            "temperature": temperature,
            "pressure": 2.2 + 0.06 * (temperature - 58) + 0.02 * rng.normal(size=n),
            "speed": 880 + 560 * works + (2 + 5 * works) * rng.normal(size=n),
        }

    one = iter(range(100 * seed, 100 * seed + 100))
    source.fault("spike", machine(next(one)), 2, temperature=lambda x, rng: x + 12)
    source.fault("level shift", machine(next(one)), 90, speed=lambda x, rng: x - 120)
    source.fault("drift", machine(next(one)), 60, temperature=lambda x, rng: x + 0.4 * np.arange(len(x)))
    source.fault(
        "slow drift", machine(next(one)), 110, temperature=lambda x, rng: x + 0.1 * np.arange(len(x))
    )
    source.fault(
        "stuck value", machine(next(one)), 40, pressure=lambda x, rng: np.full_like(x, round(x[0], 2))
    )
    source.fault("missing", machine(next(one)), 40, speed=lambda x, rng: np.full_like(x, np.nan))
    source.fault("burst", machine(next(one)), 8, speed=lambda x, rng: x + 90 * rng.normal(size=len(x)))
    source.fault(
        "changed variance", machine(next(one)), 60, speed=lambda x, rng: x + 14 * rng.normal(size=len(x))
    )
    source.fault(
        "changed shape",
        machine(next(one)),
        48,
        temperature=lambda x, rng: x - 4 * np.sin(np.arange(len(x)) / 4),
    )
    source.fault("broken relation", machine(next(one)), 40, pressure=lambda x, rng: x - 0.5)
    source.fault("over its limit", machine(next(one)), 6, pressure=lambda x, rng: x + 7)
    source.fault(
        "no shift", machine(next(one)), 90, temperature=lambda x, rng: x - 12, speed=lambda x, rng: x - 560
    )
    source.fault("dead channel", machine(next(one)), 12, temperature=lambda x, rng: np.zeros_like(x))
    return source  # fmt: skip


def edge(seed: int = 0) -> Source:
    """Traffic of offices with a nightly backup."""
    source = Source("edge", config("network", {"bytes": "B", "flows": "", "peers": ""}))
    hour, day = clock()
    busy = np.where(day % 7 < 5, 1.0, 0.15) * np.exp(-(((hour - 13) / 3.5) ** 2)) + 0.1

    def office(seed: int, size: float = 1.0) -> dict[str, Values]:
        rng = np.random.default_rng([seed, 8])
        flows = rng.poisson(40 * size * busy).astype(float)
        backup = 3e6 * ((hour >= 12) & (hour < 14))
        return {
            "bytes": np.round(2e4 * flows * np.exp(0.3 * rng.normal(size=len(hour))) + backup),
            "flows": flows,
            "peers": np.minimum(flows, rng.poisson(6 + 8 * busy)),
        }

    one = iter(range(100 * seed, 100 * seed + 100))
    source.fault("flood", office(next(one)), 8, flows=lambda x, rng: x + 400, bytes=lambda x, rng: x * 9)
    source.fault(
        "port scan", office(next(one)), 8, peers=lambda x, rng: x + 300, flows=lambda x, rng: x + 300
    )
    source.fault(
        "silence",
        office(next(one)),
        18,
        **dict.fromkeys(("bytes", "flows", "peers"), lambda x, rng: np.zeros_like(x)),
    )
    source.fault("no backup", office(next(one)), 18, bytes=lambda x, rng: np.maximum(x - 3e6, 300))
    source.fault("spike", office(next(one)), 1, bytes=lambda x, rng: x * 12)
    source.fault("level shift", office(next(one)), 90, flows=lambda x, rng: x * 2.2)
    source.fault("stuck value", office(next(one)), 30, bytes=lambda x, rng: np.full_like(x, x[0]))
    source.fault("quiet host", office(next(one), 0.03), 5, flows=lambda x, rng: x + 9)
    source.fault(
        "changed variance",
        office(next(one)),
        40,
        bytes=lambda x, rng: x * np.exp(1.4 * rng.normal(size=len(x))),
    )
    source.fault(
        "drift", office(next(one)), 80, flows=lambda x, rng: np.round(x * (1 + 0.05 * np.arange(len(x))))
    )
    source.fault("fewer peers", office(next(one)), 24, peers=lambda x, rng: np.minimum(x, 1))
    _add_link_faults(source, [office(next(one)), office(next(one), 4), office(next(one), 4)])
    return source  # fmt: skip


def _add_link_faults(source: Source, offices: list[dict[str, Values]]) -> None:
    """Add a transfer of one office, and two faults of the links of larger ones."""
    source.fault("transfer", offices[0], 6, bytes=lambda x, rng: x + 4e9)
    lost = dict.fromkeys(("bytes", "flows", "peers"), lambda x, rng: np.round(0.02 * x))
    source.fault("lost link", offices[1], 36, **lost)
    source.fault("flows without bytes", offices[2], 24, bytes=lambda x, rng: 40.0 + 0 * x)


def market(seed: int = 0) -> Source:
    """Bars of stocks that trade round the clock."""
    source = Source("market", config("stock", {"close": "EUR", "volume": ""}))
    hour, _ = clock()

    def stock(seed: int) -> dict[str, Values]:
        rng = np.random.default_rng([seed, 9])
        lively = 1 + 0.5 * np.cos(2 * np.pi * (hour / 24 - 0.5))
        close = 80 * np.exp(np.cumsum(4e-4 * lively * rng.normal(size=len(hour))))
        return {"close": close, "volume": np.ceil(np.exp(8 + 0.3 * rng.normal(size=len(hour))) * lively)}

    one = iter(range(100 * seed, 100 * seed + 100))
    source.fault("price jump", stock(next(one)), 500, close=lambda x, rng: x * 1.02)
    source.fault("bad tick", stock(next(one)), 1, close=lambda x, rng: x * 100)
    source.fault("flash crash", stock(next(one)), 3, close=lambda x, rng: x * 0.93)
    source.fault("stuck quote", stock(next(one)), 40, close=lambda x, rng: np.full_like(x, x[0]))
    source.fault(
        "volatility burst",
        stock(next(one)),
        30,
        close=lambda x, rng: x * np.exp(0.004 * rng.normal(size=len(x))),
    )
    source.fault("volume burst", stock(next(one)), 10, volume=lambda x, rng: x * 15)
    source.fault("negative price", stock(next(one)), 1, close=lambda x, rng: -x)
    source.fault("no volume", stock(next(one)), 12, volume=lambda x, rng: np.ones_like(x))
    source.fault("split", stock(next(one)), 500, close=lambda x, rng: x / 2)
    source.fault("trend", stock(next(one)), 60, close=lambda x, rng: x * np.exp(0.002 * np.arange(len(x))))
    source.fault("missing", stock(next(one)), 30, close=lambda x, rng: np.full_like(x, np.nan))
    return source  # fmt: skip
