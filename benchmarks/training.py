"""Training at scale: the models of many series trained together, beside a loop over the series; and
fine-tuning of one shared LSTM.

    python -m benchmarks.training [--series 2048] [--points 1000] [--loop 8] [--epochs 6] [--hidden 16]
    [--device cpu|cuda]

Same data, settings and device. The loop is measured over ``--loop`` series and given per series; CPU seconds
of one thread on the CPU (a busy machine changes them little), wall seconds on a GPU. Prints tables and one
machine-readable line.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import time
from dataclasses import replace

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from detectors.forecasters.shared_lstm import HIDDEN, SharedLSTM, network
from detectors.training.batched_finetune import finetune_batched
from detectors.training.finetune import finetune
from detectors.training.sequences import FinetuneSettings, stacked

console = Console(width=140)


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, usual in (("series", 2048), ("points", 1000), ("loop", 8), ("epochs", 6), ("hidden", 16)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [together(options), shared(options)]
    for title, row in zip(
        ("A network a series: all together against a loop", "One shared LSTM, fine-tuned"), rows, strict=True
    ):
        table = Table(*row, title=title, title_justify="left")
        table.add_row(*map(str, row.values()))
        console.print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {
                "benchmark": "training",
                "device": options.device,
                "peak_bytes": peak,
                "many": rows[0],
                "shared": rows[1],
            }
        )
    )


def now(device: str) -> float:
    """Seconds: of this process's CPU time, or of the wall once the GPU has done what it was told."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def waves(n: int, points: int) -> np.ndarray:
    rng, t = np.random.default_rng(2026), np.arange(points)
    return np.stack(
        [np.sin(2 * np.pi * t / (10 + i % 30) + i) + 0.15 * rng.normal(size=points) for i in range(n)]
    )


def together(options: argparse.Namespace) -> dict[str, float]:
    """``--hidden`` cells a network; 64 is what a retraining gives to series of their own."""
    series = list(waves(options.series, options.points))
    tuning = FinetuneSettings(epochs=options.epochs, patience=options.epochs, device=options.device)
    torch.manual_seed(0)
    module = SharedLSTM(options.hidden) if options.hidden != HIDDEN else network(None)
    owner = np.arange(options.series, dtype=np.int32)
    # the first call loads kernels
    finetune_batched(module, stacked(series[:2]), owner[:2], replace(tuning, epochs=1))
    start = now(options.device)
    many = finetune_batched(module, stacked(series), owner, tuning)
    batched = (now(options.device) - start) / options.series
    start = now(options.device)
    scores = [
        min(finetune(copy.deepcopy(module), stacked([lane]), tuning).held_out)
        for lane in series[: options.loop]
    ]
    alone = (now(options.device) - start) / options.loop
    return {
        "series": options.series,
        "points": options.points,
        "epochs": options.epochs,
        "hidden": options.hidden,
        "together_ms_a_series": round(1e3 * batched, 2),
        "loop_ms_a_series": round(1e3 * alone, 2),
        "faster": round(alone / batched, 1),
        "score_before": round(float(many.before[: options.loop].mean()), 3),
        "together_score": round(float(many.held_out[: options.loop].mean()), 3),
        "loop_score": round(float(np.mean(scores)), 3),
    }


def shared(options: argparse.Namespace) -> dict[str, float]:
    count = min(options.series, 256)
    start = now(options.device)
    tuned = finetune(
        network(None),
        stacked(list(waves(count, options.points))),
        FinetuneSettings(epochs=2, device=options.device),
    )
    seconds = now(options.device) - start
    return {
        "series": count,
        "points": options.points,
        "epochs": 2,
        "seconds": round(seconds, 1),
        "us_a_point_and_epoch": round(1e6 * seconds / (2 * tuned.rows), 2),
        "held_out_before": round(tuned.before, 4),
        "held_out_after": round(min(tuned.held_out), 4),
    }


if __name__ == "__main__":
    main()
