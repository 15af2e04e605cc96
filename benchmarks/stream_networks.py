"""Networks of a stream beside the packaged LSTM, inside the detector.

    python -m benchmarks.stream_networks [--epochs 10] [--only SET]

Each kind is trained on the first 80 % of the series of a set and backtested on the rest, as ``forewatch
compare`` does. There are three sets. Everything is seeded; costs are CPU time of one thread.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict

import numpy as np
import torch

from benchmarks.forecasters import open_sets
from detectors.base import DetectorSpec
from detectors.training import synthetic_series
from pipeline.evaluate.stream_comparison import NETWORKS, PACKAGED, network_figures, packaged_figures
from pipeline.training.dataset import TrainingData

MINUTE_NS = 60_000_000_000
SEED, SERIES, POINTS = 2026, 16, 1200
SPEC = DetectorSpec(decision="usual_range")


def henon(series: int, points: int) -> np.ndarray:
    """Return series (S, T) of Hénon's map, which the packaged LSTM has not seen."""
    rng = np.random.default_rng(SEED)
    x = rng.normal(0, 0.1, (series, points))
    for t in range(2, points):
        x[:, t] = 1 - 1.4 * x[:, t - 1] ** 2 + 0.3 * x[:, t - 2]
    return x + rng.normal(0, 0.02, x.shape)


def as_data(values: np.ndarray) -> TrainingData:
    """Return series (S, T) of one value a minute as the history of a stream."""
    series, points = values.shape
    n = series * points
    time = np.tile(np.arange(points, dtype=np.int64) * MINUTE_NS, series)
    return TrainingData(
        "bench", ("value",), [f"s{i}" for i in range(series)], np.arange(series + 1) * points, time,
        values.reshape(-1, 1).astype(np.float64), np.zeros(n, np.int32), np.full(n, MINUTE_NS, np.int64),
        np.zeros(n, np.bool_), np.ones(n, np.bool_), [],
    )  # fmt: skip


def main() -> None:
    """Print one row for each set and network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--only", choices=("henon", "synthetic", "tsb-ad-u-r"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    sets = {"henon": henon(SERIES, POINTS), "synthetic": synthetic_series.batch(SEED, SERIES, POINTS)}
    sets |= {name: values[:, :POINTS] for name, values in open_sets(SERIES) if name == "tsb-ad-u-r"}
    for name, values in sets.items():
        if options.only not in (None, name):
            continue
        data = as_data(values)
        found = {PACKAGED: packaged_figures(data, SPEC)}
        for kind, network in NETWORKS.items():
            found[kind] = network_figures(data, SPEC, network, epochs=options.epochs)
            print(
                name, kind, {key: round(value, 3) for key, value in asdict(found[kind]).items()}, flush=True
            )
        print(
            name,
            PACKAGED,
            {key: round(value, 3) for key, value in asdict(found[PACKAGED]).items()},
            flush=True,
        )


if __name__ == "__main__":
    main()
