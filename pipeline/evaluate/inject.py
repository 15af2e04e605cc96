"""Labelled data sets made from real series.

Seeded faults are injected into stock quotes and sensors; recorded network attacks are put on a time grid.

    python -m pipeline.evaluate.inject stocks|sensors|flows SOURCE OUT

Each command writes a folder of layout ``labelled`` and events.csv (file, kind, first, last). The module is
kept apart from the detectors, which must not depend on these faults. Sizes are in units of the recent daily
volatility, or of the recent deviation of the channel, so that all series are disturbed alike.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from hashlib import md5
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.core.errors import InputError

Values = NDArray[np.float64]
#: Disturbs ``values`` (n, C) in place from ``row`` on and returns the number of disturbed rows.
Fault = Callable[[Values, int, np.random.Generator], int]

SEED = 0
STOCK_WARM_UP = 250  # a trading year
SENSOR_WARM_UP = 1000
FLOW_SECONDS = 10


def _sign(rng: np.random.Generator) -> float:
    return float(rng.choice((-1.0, 1.0)))


# Stocks: columns close, volume.


def _volatility(quotes: Values, row: int) -> float:
    """Standard deviation of the last 60 daily log returns before ``row``."""
    return float(np.std(np.diff(np.log(quotes[max(row - 61, 0) : row, 0]))))


def spike(quotes: Values, row: int, rng: np.random.Generator) -> int:
    """Inject one bad quote, 8 volatilities off; two returns are wrong."""
    quotes[row, 0] *= np.exp(_sign(rng) * 8.0 * _volatility(quotes, row))
    return 2


def level_shift(quotes: Values, row: int, rng: np.random.Generator) -> int:
    """Shift the price by 8 volatilities from ``row`` on."""
    quotes[row:, 0] *= np.exp(_sign(rng) * 8.0 * _volatility(quotes, row))
    return 2


def volatility_burst(quotes: Values, row: int, rng: np.random.Generator) -> int:
    """Multiply the returns of ten days by four; the price continues from there."""
    days = 10
    logs = np.log(quotes[:, 0])
    extra = 3.0 * np.cumsum(np.diff(logs[row - 1 : row + days]))
    quotes[row : row + days, 0] *= np.exp(extra)
    quotes[row + days :, 0] *= np.exp(extra[-1])
    return days


def stuck_quote(quotes: Values, row: int, rng: np.random.Generator) -> int:
    """Repeat the last quote and volume for 8 days."""
    quotes[row : row + 8] = quotes[row - 1]
    return 8


def volume_burst(quotes: Values, row: int, rng: np.random.Generator) -> int:
    """Multiply the volume of two days by ten at an ordinary price."""
    quotes[row : row + 2, 1] *= 10.0
    return 2


STOCK_FAULTS: dict[str, Fault] = {
    "spike": spike,
    "level_shift": level_shift,
    "volatility_burst": volatility_burst,
    "stuck_quote": stuck_quote,
    "volume_burst": volume_burst,
}


# Sensors: one channel of several.


def _channel(values: Values, row: int, rng: np.random.Generator) -> tuple[int, float]:
    """Return a recently changed channel, and its deviation over the last 200 rows."""
    spread = np.std(values[max(row - 200, 0) : row], axis=0)
    moving = np.flatnonzero(spread > 0)
    channel = int(rng.choice(moving)) if len(moving) else 0
    return channel, float(spread[channel])


def stuck_value(values: Values, row: int, rng: np.random.Generator) -> int:
    """Repeat the last value for 120 rows."""
    channel, _ = _channel(values, row, rng)
    values[row : row + 120, channel] = values[row - 1, channel]
    return 120


def drift(values: Values, row: int, rng: np.random.Generator) -> int:
    """Add a drift to 8 deviations within 150 rows, which then ends."""
    channel, spread = _channel(values, row, rng)
    values[row : row + 150, channel] += _sign(rng) * np.linspace(0.0, 8.0 * spread, 150)
    return 150


def noise_change(values: Values, row: int, rng: np.random.Generator) -> int:
    """Add noise of four deviations for 100 rows."""
    channel, spread = _channel(values, row, rng)
    values[row : row + 100, channel] += rng.normal(0.0, 4.0 * spread, 100)
    return 100


def dead_channel(values: Values, row: int, rng: np.random.Generator) -> int:
    """Set the channel to zero for 100 rows."""
    channel, _ = _channel(values, row, rng)
    values[row : row + 100, channel] = 0.0
    return 100


SENSOR_FAULTS: dict[str, Fault] = {
    "stuck_value": stuck_value,
    "drift": drift,
    "noise_change": noise_change,
    "dead_channel": dead_channel,
}


# The sets.


def stocks(source: Path, out: Path, seed: int = SEED) -> None:
    """Inject one fault of each kind into each ticker of ``source``.

    ``source`` has daily OHLCV CSVs with Date, Close and Volume. The channels are close and volume.
    """
    tables = {}
    for path in _sources(source, "*.csv"):
        table = pd.read_csv(path)
        if missing := {"Date", "Close", "Volume"} - set(table.columns):
            raise InputError(
                f"{path}: no column {', '.join(sorted(missing))}; daily quotes have Date, Close and Volume"
            )
        tables[path.name] = pd.DataFrame(
            {"timestamp": table["Date"], "close": table["Close"], "volume": table["Volume"]}
        )
    _write(
        out,
        {name: _disturb(name, table, STOCK_FAULTS, STOCK_WARM_UP, 1, seed) for name, table in tables.items()},
        STOCK_WARM_UP,
    )


def sensors(source: Path, out: Path, seed: int = SEED) -> None:
    """Inject three faults of each kind into each fault-free recording of ``source``.

    ``source`` has CSVs separated by ';', with the time in the first column.
    """
    tables = {}
    for path in _sources(source, "*.csv"):
        table = pd.read_csv(path, sep=";")
        tables[path.name] = table.rename(columns={table.columns[0]: "timestamp"})
    _write(
        out,
        {
            name: _disturb(name, table, SENSOR_FAULTS, SENSOR_WARM_UP, 3, seed)
            for name, table in tables.items()
        },
        SENSOR_WARM_UP,
    )


def flows(source: Path, out: Path) -> None:
    """Sum the Westermo flow records of ``source`` over 10 s.

    The channels are flows, packets, bytes and distinct peers. The labels are its list of BAD events.
    """
    archive = _sources(source, "westermo_flows_*.zip")[0]
    with ZipFile(archive) as files:
        records = pd.read_csv(files.open(files.namelist()[0]))
    # the clock of the event list
    start = pd.to_datetime(records["startDate"]).astype("datetime64[ns]").astype("int64") / 1e9
    interval = (start // FLOW_SECONDS).astype("int64") * FLOW_SECONDS
    groups = records.assign(
        packets=records["sPackets"] + records["rPackets"], bytes=records["sBytesSum"] + records["rBytesSum"]
    ).groupby(interval)
    table = pd.DataFrame(
        {
            "flows": groups.size(),
            "packets": groups["packets"].sum(),
            "bytes": groups["bytes"].sum(),
            "peers": groups["rAddress"].nunique(),
        }
    )
    table = (
        table.reindex(range(table.index[0], table.index[-1] + 1, FLOW_SECONDS), fill_value=0)
        .rename_axis("timestamp")
        .reset_index()
    )
    events = []
    times = table["timestamp"].to_numpy()
    for kind, begin, end in _bad_events(source / "westermo_events.txt"):
        rows = np.flatnonzero((times + FLOW_SECONDS > begin) & (times <= end))
        if len(rows):
            events.append((kind, int(rows[0]), int(rows[-1])))
    _write(out, {"westermo_left.csv": (table, events)}, None)


def _bad_events(path: Path) -> list[tuple[str, float, float]]:
    """Return kind, start and end (epoch seconds) of the attacks and misconfigurations."""
    open_at: dict[str, float] = {}
    events = []
    for time, kind, edge in re.findall(
        r"\[(\d+\.\d+) --[^\]]*\] \[BAD-([A-Z0-9-]+)-(START|END)\]", path.read_text()
    ):
        if edge == "START":
            open_at[kind] = float(time)
        elif kind in open_at:
            events.append((kind.lower(), open_at.pop(kind), float(time)))
    return events


Event = tuple[str, int, int]


def _disturb(
    name: str, table: pd.DataFrame, faults: dict[str, Fault], warm_up: int, each: int, seed: int
) -> tuple[pd.DataFrame, list[Event]]:
    """Inject every kind of fault ``each`` times into a series, in random order.

    The rows after the warm-up are cut into equal stretches with one fault each.
    """
    rng = np.random.default_rng([seed, int(md5(name.encode(), usedforsecurity=False).hexdigest()[:8], 16)])
    channels = [column for column in table.columns if column != "timestamp"]
    values = table[channels].to_numpy(np.float64, copy=True)
    kinds = rng.permutation(list(faults) * each)
    edges = np.linspace(warm_up, len(values), len(kinds) + 1).astype(int)
    events = []
    for kind, low, high in zip(kinds, edges[:-1], edges[1:], strict=True):
        # the series settles in the rest of the stretch
        row = int(rng.integers(low + (high - low) // 4, low + (high - low) // 2))
        events.append((str(kind), row, row + faults[kind](values, row, rng) - 1))
    return table.assign(**dict(zip(channels, values.T, strict=True))), events


def _write(out: Path, series: dict[str, tuple[pd.DataFrame, list[Event]]], warm_up: int | None) -> None:
    """Write the labelled set: CSVs and events.csv.

    A manifest is added if the warm-up is not the default.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for file, (table, events) in series.items():
        label = np.zeros(len(table), np.int8)
        for kind, first, last in events:
            label[first : last + 1] = 1
            rows.append((file, kind, first, last))
        table.assign(label=label).to_csv(out / file, index=False)
    pd.DataFrame(rows, columns=["file", "kind", "first", "last"]).to_csv(out / "events.csv", index=False)
    if warm_up is not None:
        manifest = [(file, len(table), warm_up) for file, (table, _) in series.items()]
        pd.DataFrame(manifest, columns=["file", "rows", "train_rows"]).to_csv(
            out / "manifest.csv", index=False
        )


def _sources(source: Path, pattern: str) -> list[Path]:
    if paths := sorted(source.glob(pattern)):
        return paths
    raise InputError(f"{source}: no file {pattern} there")


MAKERS: dict[str, Callable[[Path, Path], None]] = {"stocks": stocks, "sensors": sensors, "flows": flows}

if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in MAKERS:
        sys.exit(f"usage: python -m pipeline.evaluate.inject {'|'.join(MAKERS)} SOURCE OUT")
    MAKERS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
