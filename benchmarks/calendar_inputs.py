"""A network of a stream with and without calendar inputs, on recordings.

    python -m benchmarks.calendar_inputs [--epochs 10] [--kind lstm]

Sets, chosen before the first run: the first 12 series of ``wsd`` (25 days) and all 6 of ``kpi`` (the first 60
days), as means of quarters of an hour. A network is trained on the first 80 % of each set as a training job
does it, and the whole detector is measured on the rest. Reads ../shared/data; labels are not used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from detectors.base import DetectorSpec
from pipeline.evaluate.stream_comparison import (
    StreamFigures,
    network_figures,
    network_named,
    packaged_figures,
)
from pipeline.training.dataset import TrainingData

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
QUARTER_NS = 900_000_000_000
#: Set → number of series, days of each.
SETS = {"wsd": (12, 25), "kpi": (6, 60)}
TIERS = ("standard", "strong")
INPUTS = ("", "+calendar+lags")


def quarters(path: Path, days: int) -> tuple[np.ndarray, np.ndarray]:
    """Return times in ns and means of the quarters of an hour that have a value."""
    frame = pd.read_csv(path)
    quarter = frame["timestamp"] // 900
    means = frame["value"].groupby(quarter).mean().dropna()
    means = means[means.index < means.index[0] + days * 96]
    return means.index.to_numpy(np.int64) * QUARTER_NS, means.to_numpy(np.float64)


def as_data(name: str, count: int, days: int) -> TrainingData:
    """Return the series of a set as the history of a stream."""
    paths = sorted((DATA / name).glob("*.csv.gz"))[:count]
    found = [quarters(path, days) for path in paths]
    begins = np.concatenate([[0], np.cumsum([len(time) for time, _ in found])])
    time = np.concatenate([time for time, _ in found])
    steps = np.diff(time, prepend=time[0]) // QUARTER_NS
    steps[begins[:-1]] = 1
    n = len(time)
    return TrainingData(
        name, ("value",), [path.name for path in paths], begins, time,
        np.concatenate([value for _, value in found])[:, None], (steps - 1).astype(np.int32),
        np.full(n, QUARTER_NS), np.zeros(n, np.bool_), np.ones(n, np.bool_), [],
    )  # fmt: skip


def line(place: str, network: str, figures: StreamFigures) -> str:
    """Return one row of the table."""
    error, detection, alarms = figures.seasonal_error, figures.detection, figures.alarms
    text = f"{place:13} {network:20} error {error:.3f} of seasonal naive, detection {detection:.3f}"
    return f"{text}, {alarms} alarms, {figures.microseconds:.2f} us, {figures.state_bytes} B"


def main() -> None:
    """Print one row for each set, tier and network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--kind", default="lstm")
    options = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"the open data sets are not there: {DATA}")
    torch.set_num_threads(1)
    for name, (count, days) in SETS.items():
        data = as_data(name, count, days)
        for tier in TIERS:
            spec = DetectorSpec(tier=tier, decision="usual_range")
            print(line(f"{name} {tier}", "packaged", packaged_figures(data, spec)), flush=True)
            for inputs in INPUTS:
                network = network_named(options.kind + inputs)
                assert network is not None
                figures = network_figures(data, spec, network, epochs=options.epochs)
                print(line(f"{name} {tier}", options.kind + inputs, figures), flush=True)


if __name__ == "__main__":
    main()
