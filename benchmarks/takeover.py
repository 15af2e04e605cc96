"""Effect of a promotion on scores and forecasts.

It compares verdicts after a row at which other weights continue with the state, and those without it.

    python -m benchmarks.takeover [--tier standard] [--series 40] [--epochs 4]

Waves with noise and synthetic series, 9,000 rows each; the LSTM is fine-tuned on their first 5,000 rows and
takes over at row 6,000. Shares of surprises above 1, 2 and 3 in percent, and the mean error of the forecast,
undisturbed = 1, as the median over the series.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from numpy.typing import NDArray

from detectors import build
from detectors.base import DetectorSpec, Points, Verdicts
from detectors.composite.tiers import TIERS
from detectors.forecasters.shared_lstm import network
from detectors.training.finetune import finetune
from detectors.training.sequences import FinetuneSettings, stacked
from detectors.training.synthetic_series import batch

MINUTE = 60_000_000_000
ROWS, LEARNT, CUT = 9000, 5000, 6000
SPANS = ((0, 60), (60, 240), (240, 720), (720, 1200), (1200, 3000))


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tier", default="standard")
    for name, usual in (("series", 40), ("epochs", 4)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    options = parser.parse_args()
    for name, values in (
        ("waves", waves(options.series)),
        ("synthetic", batch(seed=7, n=options.series, length=ROWS)),
    ):
        for row in measure(options.tier, values, options.epochs):
            print(json.dumps({"benchmark": "takeover", "tier": options.tier, "set": name, **row}), flush=True)


def waves(series: int) -> NDArray[np.float64]:
    phase, noise = np.arange(series)[:, None], np.random.default_rng(3).normal(0, 0.5, (series, ROWS))
    return 5 * np.sin(2 * np.pi * np.arange(ROWS) / 150 + phase) + noise


def measure(tier: str, values: NDArray[np.float64], epochs: int) -> list[dict[str, object]]:
    """One row for each span of rows after the takeover and each of the two; ``values`` (S, ROWS)."""
    tuning = FinetuneSettings(epochs=epochs, memory=TIERS[tier].input_memory_rows)
    tuned = finetune(network(None), stacked(list(values[:, :LEARNT])), tuning)
    old, new = build(DetectorSpec(tier=tier)), build(DetectorSpec(tier=tier), tuned.weights)
    state, _ = old.step(old.initial(len(values)), points(values, 0, CUT))
    kept = {name: array.copy() for name, array in state.items()}
    _, undisturbed = old.step(kept, points(values, CUT, ROWS))
    new.on_weights_changed(state)
    _, after = new.step(state, points(values, CUT, ROWS))
    usual = errors(undisturbed, values)
    rows: list[dict[str, object]] = []
    for start, end in SPANS:
        for who, verdicts in (("undisturbed", undisturbed), ("taken over", after)):
            surprise = verdicts.surprise.reshape(-1, len(values))[start:end]
            shares = [round(100 * float((surprise > level).mean()), 2) for level in (1, 2, 3)]
            ratio = np.nanmean(errors(verdicts, values)[start:end], 0) / np.nanmean(usual[start:end], 0)
            rows.append(
                {
                    "rows": [start, end],
                    "who": who,
                    "above_1_2_3": shares,
                    "error": round(float(np.nanmedian(ratio)), 3),
                }
            )
    flags = {"undisturbed": int(undisturbed.flag.sum()), "taken_over": int(after.flag.sum())}
    return [*rows, {"flags": flags, "training": str(tuned.status)}]


def errors(verdicts: Verdicts, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(rows after the takeover, S)"""
    return np.abs(verdicts.expected.reshape(-1, len(values)) - values[:, CUT:].T)


def points(values: NDArray[np.float64], start: int, end: int) -> Points:
    series, rows = len(values), end - start
    slot, time = (
        np.tile(np.arange(series, dtype=np.int32), rows),
        np.repeat(np.arange(start, end) * MINUTE, series),
    )
    x = np.ascontiguousarray(values[:, start:end].T.reshape(-1, 1))
    return Points(slot, time, x, np.zeros(len(slot), np.int32), np.full(len(slot), MINUTE, np.int64))


if __name__ == "__main__":
    main()
