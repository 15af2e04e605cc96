"""Pictures of vanishing and exploding gradients: RNN beside LSTM and GRU.

    python -m benchmarks.gradient_pictures [--out docs/explanation/pictures]

It writes ``gradients.svg`` and prints a table. Left: the norm of the gradient of the last forecast by each
input, before any training, by the number of steps back. Right: the norms of all gradients of a training on
the recall task (``detectors.training.recall``), before clipping. All is seeded; it takes half a minute.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure

from detectors.forecasters import build
from detectors.forecasters.base import Forecaster
from detectors.training import recall
from detectors.training.gradients import GradientMonitor, Stepper, reach

STEPS = 150
GAP_STEPS = 100
UPDATES = 160
HIDDEN = 16
SPAN = 128
RECURRENT_GAIN = 1.5  # of the exploding network: 1 keeps a state as it is
COLOURS = ("#0b6e99", "#d9730d", "#5a7d2a", "#8b3fa0", "#666666")


def networks() -> dict[str, Forecaster]:
    """Return the untrained networks by name."""
    loud = build("rnn", hidden=HIDDEN, nonlinearity="relu")
    with torch.no_grad():
        loud.again[0].weight.copy_(RECURRENT_GAIN * torch.eye(HIDDEN))
    return {
        "RNN, tanh": build("rnn", hidden=HIDDEN),
        f"RNN, ReLU, recurrent weights × {RECURRENT_GAIN}": loud,
        "LSTM": build("lstm", hidden=HIDDEN, span=SPAN),
        "GRU": build("gru", hidden=HIDDEN, span=SPAN),
    }


def training_norms(kind: str, **options: float) -> tuple[list[float], dict[str, float], float]:
    """Return the gradient norms of a training, their summary, the unexplained share."""
    forecaster = build(kind, hidden=HIDDEN, head="many_to_one", output="point", **options)
    kept: list[GradientMonitor] = []

    class Recording(Stepper):
        """A stepper whose monitor stays."""

        def __init__(self, *arguments: object) -> None:
            """Keep the monitor."""
            super().__init__(*arguments)  # type: ignore[arg-type]
            kept.append(self.monitor)

    former, recall.Stepper = recall.Stepper, Recording  # type: ignore[misc]
    try:
        share = recall.unexplained_share(forecaster, GAP_STEPS, UPDATES)
    finally:
        recall.Stepper = former  # type: ignore[misc]
    return kept[0].norms, kept[0].summary(), share


def main() -> None:
    """Write the picture and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/explanation/pictures"))
    out: Path = parser.parse_args().out
    torch.set_num_threads(1)
    mpl.rcParams["svg.hashsalt"] = "forewatch"
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    x = 0.1 * torch.randn(4, STEPS, 1, generator=torch.Generator().manual_seed(0))
    print(f"{'network':40} {'100 steps back / 1 step':>24} {'reach':>6}")
    for colour, (name, forecaster) in zip(COLOURS, networks().items(), strict=False):
        found = reach(forecaster, x)
        norms = np.array(found.norms[1:])
        print(f"{name:40} {norms[GAP_STEPS - 1] / norms[0]:24.3g} {found.steps:6}")
        left.semilogy(np.arange(1, STEPS), np.maximum(norms, 1e-30), color=colour, label=name)
    left.set(xlabel="steps back", ylabel="gradient of the forecast by an input", title="Before training")
    left.legend(fontsize=8)
    head = f"{'median norm':>12} {'largest':>9} {'unexplained':>12}"
    print(f"{'training on a dependency 100 steps back':40} {head}")
    trained = {"RNN, tanh": ("rnn", {}), "LSTM": ("lstm", {"span": SPAN}), "GRU": ("gru", {"span": SPAN})}
    for name, (kind, options) in trained.items():
        norms, summary, share = training_norms(kind, **options)
        print(f"{name:40} {summary['median_norm']:12.3g} {summary['largest_norm']:9.3g} {share:12.2f}")
        colour = COLOURS[{"RNN, tanh": 0, "LSTM": 2, "GRU": 3}[name]]
        right.semilogy(norms, color=colour, label=f"{name}: {share:.0%} unexplained")
    right.axhline(1.0, color=COLOURS[4], linestyle="--", linewidth=0.8, label="clip")
    right.set(xlabel="update", ylabel="gradient norm before clipping", title="A dependency 100 steps back")
    right.legend(fontsize=8)
    figure.savefig(out / "gradients.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
