"""Forecasters on the same series: error, cost, state and memory length.

Prints tables and one machine-readable line.

    python -m benchmarks.forecasters [--quick] [--only forecasters|detection|shared]

Everything is seeded. Costs are CPU time of one thread, so that a busy machine changes them little.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.forecasters_detection import detection, read
from detectors.forecasters import FORECASTER_REGISTRY, build, lstm_features, shared_lstm
from detectors.training import pretrain, synthetic_series
from detectors.training.fit import TrainingSettings, fit, untrainable
from detectors.training.gradients import reach
from pipeline.evaluate.forecaster_comparison import cost_of

SEED = 2026
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
#: Ranges of points of history in which errors are averaged.
HISTORY_POINTS = ((10, 20), (50, 100), (200, 300), (1000, 1500))
FORECASTERS = {
    "naive": ("seasonal_naive", {}),
    "ewma": ("exponential", {}),
    "holt": ("exponential", {"trend": True}),
    "snarimax": ("snarimax", {}),
    "feedforward": ("feedforward", {"output": "student"}),
    "rnn tanh": ("rnn", {}),
    "rnn relu": ("rnn", {"nonlinearity": "relu"}),
    "rnn leaky": ("rnn", {"nonlinearity": "leaky_relu"}),
    "lstm": ("lstm", {}),
    "lstm 2 layers": ("lstm", {"layers": 2}),
    "gru": ("gru", {}),
    "encoder-decoder": ("encoder_decoder", {}),
    "attention": ("attention", {}),
    "bidirectional": ("bidirectional", {"horizon": 1}),
}
FORECASTERS |= {
    name: (name, {}) for name in FORECASTER_REGISTRY if name not in {kind for kind, _ in FORECASTERS.values()}
}
console = Console(width=150)


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="few series and epochs: a check that it runs, without meaningful figures",
    )
    parser.add_argument("--only", choices=("forecasters", "detection", "shared"), help="one of the parts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", RuntimeWarning)  # means over series that have no such point
    parts = {"forecasters": forecasters, "detection": detecting, "shared": shared_net}
    line = {name: part(options.quick) for name, part in parts.items() if options.only in (None, name)}
    print(json.dumps({"benchmark": "forecasters", "seed": SEED, "quick": options.quick, **line}))


def forecasters(quick: bool) -> list[dict]:
    """Return figures of each forecaster, trained once for all series.

    The error is that on the held-out last fifth of each series.
    """
    series = synthetic_series.batch(SEED, 12 if quick else 48, 1200)
    series = np.delete(series, list(untrainable(series[:, :960])), 0)
    rows = []
    for name, (kind, extra) in FORECASTERS.items():
        forecaster = build(kind, **{"horizon": 4, **extra})
        cpu = time.process_time()
        result, _ = fit(forecaster, series, TrainingSettings(epochs=2 if quick else 25, learning_rate=1e-2))
        cpu = time.process_time() - cpu
        batched, single = cost_of(forecaster)
        rows.append({
            "forecaster": name,
            "mae_to_naive": round(result.mae / result.naive, 3),
            "score": round(min(result.held_out), 3) if result.held_out else None,
            "us_a_point": round(batched, 2),
            "us_a_step": None if single is None else round(single, 2),
            "state_bytes": forecaster.state_bytes(),
            "weights": sum(value.numel() for value in forecaster.parameters()),
            "reach": reach(forecaster, torch.randn(4, 200, 1)).steps,
            "train_cpu_s": round(cpu, 1),
        })  # fmt: skip
    show(
        f"{len(series)} synthetic series of 1,200 points, held-out fifth; bidirectional sees both sides", rows
    )
    return rows


def detecting(quick: bool) -> list[dict]:
    """Return the detection figures of the error of each causal forecaster."""
    sets, rows = read(DATA, 4 if quick else None), []
    for name, (kind, extra) in FORECASTERS.items():
        forecaster = build(kind, **{"horizon": 4, **extra})
        if forecaster.causal:
            rows.append(
                {
                    "forecaster": name,
                    **detection(
                        forecaster, sets, TrainingSettings(epochs=2 if quick else 25, learning_rate=1e-2)
                    ),
                }
            )
    show(
        f"{' and '.join(f'{len(series)} of {name}' for name, series in sets.items())}: "
        f"VUS-PR and accuracy of the error alone",
        rows,
    )
    return rows


def shared_net(quick: bool) -> list[dict]:
    """Compare the packaged net with seasonal naive and the AR expert.

    Errors are by length of history.
    """
    module, rows = shared_lstm.load(), []
    sets = {
        "synthetic, held out": synthetic_series.batch(
            (SEED, pretrain.FIRST_HELD_OUT_ROUND), 64 if quick else 256, 1536
        ),
        **dict(open_sets(6 if quick else 1000)),
    }
    for name, series in sets.items():
        data = pretrain.make_round(series)
        with torch.no_grad():
            location, _, _, _ = module(data.inputs)
        said = {
            "net": location,
            "season": data.inputs[..., [lstm_features.SEASON_NEXT, lstm_features.SEASON_LATER]].sinh(),
            "ar": data.inputs[..., [lstm_features.AR_NEXT, lstm_features.AR_LATER]].sinh(),
        }
        for k, ahead in enumerate(lstm_features.HORIZONS):
            for who, forecast in said.items():
                error = at_history(
                    (data.target - forecast).abs()[..., k].numpy(), data.target.abs()[..., k].numpy()
                )
                rows.append({"set": f"{name} ({len(series)})", "ahead": ahead, "by": who, **error})
    show("MAE / naive (mean over series, a series counts at most 10) by points of history", rows)
    return rows


def at_history(error: np.ndarray, naive: np.ndarray) -> dict[str, float | None]:
    """Return the error relative to the naive one by length of history.

    Both are (T, B), NaN where unknown.
    """
    out: dict[str, float | None] = {}
    for first, last in HISTORY_POINTS:
        size, base = np.nanmean(error[first:last], 0), np.nanmean(naive[first:last], 0)
        moving = base > 1e-3
        out[str(first)] = (
            round(float(np.minimum(size[moving] / base[moving], 10).mean()), 3) if moving.any() else None
        )
    return out


def open_sets(most: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the first 1,500 values of the open series that have them.

    They are for evaluation only.
    """
    for name, pattern in {
        "tsb-ad-u-r": "*.csv.gz",
        "ucr": "*.csv.gz",
        "nasa": "*.csv.gz",
        "nab": "data/*/*.csv",
        "kpi": "*.csv.gz",
    }.items():
        series = []
        for path in sorted((DATA / name).glob(pattern))[:most]:
            with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
                next(lines)
                cells = [line.split(",")[1].strip() for line, _ in zip(lines, range(1500), strict=False)]
            if len(cells) == 1500:
                series.append([float(cell) if cell else np.nan for cell in cells])
        if series:
            yield name, np.array(series)


def show(title: str, rows: list[dict]) -> None:
    table = Table(*rows[0], title=title, title_justify="left")
    for row in rows:
        table.add_row(*("–" if value is None else str(value) for value in row.values()))
    console.print(table)


if __name__ == "__main__":
    main()
