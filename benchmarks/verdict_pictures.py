"""Pictures of docs/explanation/how-a-verdict-is-made.md.

    python -m benchmarks.verdict_pictures

Writes ``docs/explanation/pictures/*.svg``.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.calibration_families import CADENCES_NS, SEED
from benchmarks.rarity_map import record
from detectors import DetectorSpec, build, contract
from detectors.base import Points, Verdicts
from detectors.composite.tiers import USUAL_RANGE_SIZES
from detectors.stages.usual_range import own_tail
from detectors.stages.usual_range import quantities as q
from detectors.stages.usual_range.rarity_map import read_rarity_map
from detectors.stages.usual_range.stage import UsualRange, UsualRangeSizes

FOLDER = Path(__file__).parents[1] / "docs" / "explanation" / "pictures"
PER_DAY, DAYS, MONDAY_NS = 96, 28, 1_767_571_200_000_000_000
EVERY_NS = 900_000_000_000
FAULT = slice(24 * PER_DAY + 60, 24 * PER_DAY + 68)  # a Thursday, 15:00 to 17:00
LINE, RANGE, ALARM, GREY = "#22303c", "#a9cdf0", "#c4162a", "#8592a0"
NAMES = {
    q.Q_VALUE: "value",
    q.Q_LEVEL: "level",
    q.Q_STEP: "step",
    q.Q_NOISE: "noise",
    q.Q_STILL: "standstill",
}


def machine() -> NDArray[np.float64]:
    """Return the power of a machine in shifts, with a fault of two hours."""
    row = np.arange(DAYS * PER_DAY)
    hour, day = row % PER_DAY / 4, row // PER_DAY
    works = (hour >= 6) & (hour < 18) & (day % 7 < 5)
    warm = np.where(works, 40 + 3 * np.sin((hour - 6) / 12 * np.pi), 6.0)
    values: NDArray[np.float64] = warm + np.random.default_rng(3).normal(0, 1, len(row))
    values[FAULT] += 9
    return values


def verdicts_by(quantity: int, values: NDArray[np.float64]) -> Verdicts:
    """Return the verdicts of a detector that judges one quantity only."""
    spec = DetectorSpec(tier="light", decision="usual_range")
    detector: Any = build(spec)
    used = (quantity,) if quantity == q.Q_VALUE else (q.Q_VALUE, quantity)
    detector.usual_range.stage = UsualRange(spec, UsualRangeSizes(used, (quantity,), 24, 5.0))
    if quantity != q.Q_VALUE:
        detector.usual_range.stage.settings.enabled[:, q.Q_VALUE] = False
    n = len(values)
    zeros = np.zeros(n, np.int32)
    time = MONDAY_NS + np.arange(n, dtype=np.int64) * EVERY_NS
    return contract.run_batches(
        detector, Points(zeros, time, values[:, None], zeros, np.full(n, EVERY_NS, np.int64))
    )


def axes_of(height: float = 2.6) -> tuple[Figure, Axes]:
    """Return an empty picture."""
    figure = Figure(figsize=(8, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    return figure, axes


def usual_range_picture(values: NDArray[np.float64]) -> Figure:
    """Return five days of the value with its usual range, and the fault."""
    figure, axes = axes_of()
    found = verdicts_by(q.Q_VALUE, values)
    rows = np.arange(22 * PER_DAY, 27 * PER_DAY)
    days = rows / PER_DAY
    axes.fill_between(
        days, found.usual_low[rows], found.usual_high[rows], color=RANGE, alpha=0.6, lw=0, step="mid"
    )
    axes.plot(days, values[rows], color=LINE, lw=0.8)
    out = rows[found.flag[rows]]
    axes.plot(out / PER_DAY, values[out], ls="", marker="o", ms=3, color=ALARM)
    axes.set_xticks(np.arange(22, 27) + 0.5, ["Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"])
    axes.set_ylabel("power, kW", fontsize=8)
    axes.margins(x=0)
    return figure


def quantities_picture(values: NDArray[np.float64]) -> Figure:
    """Return the ratios of the quantities around the fault."""
    figure, axes = axes_of()
    rows = np.arange(FAULT.start - 40, FAULT.stop + 40)
    for quantity, name in NAMES.items():
        if quantity == q.Q_STILL:  # judged from eight repeated values on
            continue
        found = verdicts_by(quantity, values)
        axes.plot((rows - FAULT.start) / 4, found.ratio[rows], lw=1.1, label=name)
    axes.axhline(1, color=ALARM, lw=0.8, ls="--")
    axes.text(-9.8, 1.04, "end of the usual range", fontsize=8, color=ALARM)
    axes.set_xlabel("hours since the begin of the fault", fontsize=8)
    axes.set_ylabel("distance / limit", fontsize=8)
    axes.legend(fontsize=8, frameon=False, loc="upper right")
    axes.margins(x=0)
    return figure


def levels_picture() -> Figure:
    """Return the share of rows with p ≤ 0.01 by age, for four families."""
    figure, axes = axes_of()
    chosen = read_rarity_map("standard")
    for family in ("normal", "t3", "minute traffic", "set points"):
        one = record("standard", family, 6, CADENCES_NS["5m"], SEED)
        found = one.run(chosen)
        rare = (found.rarity.reshape(one.series, -1) >= 2).mean(axis=0)
        edges = np.geomspace(200, len(rare), 13).astype(int)
        shares = [rare[a:b].mean() for a, b in itertools.pairwise(edges)]
        axes.plot(np.sqrt(edges[:-1] * edges[1:]), shares, lw=1.1, marker="o", ms=3, label=family)
    axes.axhline(0.01, color=GREY, lw=0.8, ls="--")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("rows of the series so far", fontsize=8)
    axes.set_ylabel("share of rows with p ≤ 0.01", fontsize=8)
    axes.legend(fontsize=8, frameon=False)
    return figure


def evidence_picture() -> Figure:
    """Return the pooled map from ratios to decades of evidence."""
    figure, axes = axes_of()
    chosen, ratios = read_rarity_map("standard"), np.arange(own_tail.KNOTS) / float(own_tail.RATIO_STEPS)
    shown = [k for k in NAMES if k in USUAL_RANGE_SIZES["standard"].quantities]
    for quantity in shown:
        axes.plot(ratios, chosen.evidence[quantity], lw=1.1, label=NAMES[quantity])
    axes.axvline(1, color=ALARM, lw=0.8, ls="--")
    axes.set_xlabel("distance / limit", fontsize=8)
    axes.set_ylabel("decades of evidence", fontsize=8)
    axes.legend(fontsize=8, frameon=False)
    axes.margins(x=0)
    return figure


def main() -> None:
    """Write all pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    values = machine()
    pictures = {
        "usual-range": usual_range_picture(values),
        "quantities": quantities_picture(values),
        "evidence": evidence_picture(),
        "levels": levels_picture(),
    }
    with mpl.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "forewatch", "path.simplify_threshold": 0.5}
    ):
        for name, figure in pictures.items():
            figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
