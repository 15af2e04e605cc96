"""Splits of stocks: how many are recognised, and what is taken for one.

    python -m benchmarks.stock_splits [--series 300]

Prices are walks with steps of Student's t(5), volumes are lognormal with a memory of 3 rows. Each series
is of 500 rows and has one event at row 400. A split divides the price and multiplies the volume from then
on. A wrong price is divided in one row, with the usual volume. A fall is the ratio to a power of 0.9 to 1.1,
with 3 to 10 times the usual volume. Shares of the events that are taken for a split, in percent;
``ordinary``: moves without an event that are, per 10,000 rows.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from detectors.channel_batch import ChannelBatch
from detectors.scorers.volatility import Volatility

ROWS, EVENT = 500, 400
VOLUME_MEMORY = 0.7
#: Bars: volatility of a row, spread of the logarithm of the volume.
BARS = {
    "daily, 1 %": (0.01, 0.35),
    "daily, 2 %": (0.02, 0.35),
    "minute, 0.1 %": (0.001, 0.35),
    "minute, 0.1 %, noisy volume": (0.001, 0.8),
}
RATIOS = {
    "11:10": 1.1,
    "6:5": 1.2,
    "5:4": 1.25,
    "4:3": 4 / 3,
    "3:2": 1.5,
    "5:3": 5 / 3,
    "2:1": 2.0,
    "3:1": 3.0,
    "4:1": 4.0,
    "10:1": 10.0,
    "20:1": 20.0,
    "1:2": 0.5,
    "1:4": 0.25,
    "1:10": 0.1,
    "1:20": 0.05,
    "100:1": 100.0,
    "1:100": 0.01,
}
Floats = NDArray[np.float64]
Event = Callable[[Floats, Floats, float], None]


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=300)
    options = parser.parse_args()
    for bars in BARS:
        row: dict[str, object] = {"bars": bars, "ordinary": round(ordinary_splits(bars, options.series), 2)}
        print(json.dumps(row), flush=True)
        for name, ratio in RATIOS.items():
            shares = {
                kind: event_share(bars, make, ratio, options.series)
                for kind, make in (("split", split), ("wrong price", wrong_price), ("fall", fall))
            }
            print(json.dumps({"bars": bars, "ratio": name, **shares}), flush=True)


def walks(bars: str, series: int, seed: int) -> tuple[Floats, Floats]:
    """Return prices and volumes (S, ROWS).

    Args:
        bars: Key of ``BARS``.
        series: Number of series S.
        seed: Seed of the walks.
    """
    move, spread = BARS[bars]
    rng = np.random.default_rng(seed)
    steps = rng.standard_t(5, (series, ROWS)) * move / np.sqrt(5 / 3)
    noise = rng.normal(0, spread * np.sqrt(1 - VOLUME_MEMORY**2), (series, ROWS))
    volume = np.empty_like(noise)
    volume[:, 0] = rng.normal(0, spread, series)
    for row in range(1, ROWS):
        volume[:, row] = VOLUME_MEMORY * volume[:, row - 1] + noise[:, row]
    return np.float64(100) * np.exp(steps.cumsum(axis=1)), np.exp(12 + volume)


def split(price: Floats, volume: Floats, ratio: float) -> None:
    """Split the shares, in place."""
    price[:, EVENT:] /= ratio
    volume[:, EVENT:] *= ratio


def wrong_price(price: Floats, volume: Floats, ratio: float) -> None:
    """Make one price wrong, in place."""
    price[:, EVENT] /= ratio


def fall(price: Floats, volume: Floats, ratio: float) -> None:
    """Let the price fall or rise, in place."""
    rng = np.random.default_rng(2)
    price[:, EVENT:] /= ratio ** rng.uniform(0.9, 1.1, (len(price), 1))
    volume[:, EVENT] *= rng.uniform(3, 10, len(price))


def share_of_splits(price: Floats, volume: Floats, row: int | slice = EVENT) -> float:
    """Return the share of the series (S, ROWS) that have a split in a row."""
    n = len(price)
    x = np.log(np.stack([price, volume], axis=-1)).transpose(1, 0, 2).ravel()  # rows of all series by time
    slot = np.tile(np.arange(2 * n, dtype=np.int32), ROWS)
    zeros = np.zeros(len(slot), np.int32)
    batch = ChannelBatch(slot, x, np.repeat(np.arange(ROWS), 2 * n), zeros, np.ones(len(slot), np.int64))
    scorer = Volatility(np.array([True, False]), 1)
    scorer.run(scorer.initial(2 * n), batch, np.empty((len(slot), 2), np.float32))
    found = np.diff(batch.split[::2].reshape(ROWS, n), axis=0, prepend=0.0)
    return float((found[row] != 0).mean())


def event_share(bars: str, make: Event, ratio: float, series: int) -> int:
    """Return the share of events that are taken for a split, in percent.

    Args:
        bars: Key of ``BARS``.
        make: Makes the event.
        ratio: Of the prices before and after it.
        series: Number of series.
    """
    price, volume = walks(bars, series, 1)
    make(price, volume, ratio)
    return round(100 * share_of_splits(price, volume))


def ordinary_splits(bars: str, series: int) -> float:
    """Return the moves without an event that are taken for a split, per 10,000 rows."""
    return 1e4 * share_of_splits(*walks(bars, 10 * series, 3), slice(None))


if __name__ == "__main__":
    main()
