"""Learn the pooled map of the rarity, and measure it on other series.

    python -m benchmarks.rarity_map learn [--tiers light standard strong] [--series 8]
    python -m benchmarks.rarity_map measure [--tiers standard] [--series 8] [--left-out]

``learn`` writes ``detectors/weights/rarity_map.json``. ``measure`` prints Markdown tables: observed over
nominal frequency of p ≤ 10^−k, and the coverage of the 99 % interval, by family, on other seeds than those
of ``learn``. With ``--left-out``, a family is measured with a map learned on the families of other folds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration_families import (
    CADENCES_NS,
    FAMILIES,
    NETWORK_FAMILIES,
    OLD_ROWS,
    RELATED,
    RELATED_FAMILIES,
    ROWS,
    SEED,
    YOUNG_ROWS,
    family_points,
)
from detectors import DetectorSpec, build
from detectors.base import Points
from detectors.channel_batch import ChannelBatch, Floats
from detectors.composite.presets import PRESETS
from detectors.composite.tiers import USUAL_RANGE_SIZES
from detectors.stages.usual_range.own_tail import KNOTS, LEVEL_SHARES, RATIO_STEPS
from detectors.stages.usual_range.quantities import Q_RELATION, QUANTITIES
from detectors.stages.usual_range.rarity_map import FILE, RarityMap, rarity_map_of
from detectors.stages.usual_range.stage import ChannelRatios, UsualRange
from pipeline.training.calibration import CalibrationCounts

LEARNING_SEED = SEED + 101
LEARNED_FROM = 2_000  # first row of a series that the map is learned on
MIN_ROWS_OF_KNOT = 20  # rows beyond a knot; knots with fewer go on with the slope
LEAST_SLOPE = 0.05  # decades from one knot to the next
FOLDS = 3
RATIOS = np.arange(KNOTS) / float(RATIO_STEPS)


@dataclass
class Recorded:
    """Inputs of the stage of usual ranges on one family, so that it can be run again."""

    spec: DetectorSpec
    points: Points
    batch: ChannelBatch
    expected: Floats
    moments: NDArray[Any]
    series: int

    def run(self, chosen: RarityMap) -> ChannelRatios:
        """Run the stage with a map."""
        stage = UsualRange(self.spec, USUAL_RANGE_SIZES[self.spec.tier], chosen)
        state = stage.initial(self.series * len(self.spec.channels)) | stage.initial_series(self.series)
        rate = PRESETS[self.spec.preset]().min_alarm_rate(self.points.every)
        state |= {"scale.moments": self.moments}
        return stage.run(state, self.points, self.batch, self.expected, rate)


def record(tier: str, family: str, series: int, every_ns: int, seed: int) -> Recorded:
    """Run a detector over a family; keep the inputs of its usual ranges.

    Args:
        tier: Tier of the detector.
        family: Name of the family.
        series: Number of series.
        every_ns: Cadence.
        seed: Seed of the values.
    """
    preset = "network" if family in NETWORK_FAMILIES else "sensor"
    channels = ("first", "second") if family.startswith(RELATED) else ("value",)
    spec = DetectorSpec(tier=tier, preset=preset, decision="usual_range", channels=channels)
    detector: Any = build(spec)
    kept: dict[str, Any] = {}
    run = detector.usual_range.stage.run

    def _keep(
        state: Any, points: Points, batch: ChannelBatch, expected: Floats, rate: Floats
    ) -> ChannelRatios:
        kept.update(batch=batch, expected=expected.copy(), moments=state["scale.moments"].copy())
        return run(state, points, batch, expected, rate)

    detector.usual_range.stage.run = _keep
    points = family_points(family, series, every_ns, seed)
    detector.step(detector.initial(series), points)
    return Recorded(spec, points, kept["batch"], kept["expected"], kept["moments"], series)


def only_quantity(quantity: int) -> RarityMap:
    """Return a map whose evidence is the ratio of one quantity."""
    evidence = np.zeros((QUANTITIES, KNOTS), np.float32)
    evidence[quantity] = RATIOS
    return RarityMap(evidence, (1.0, 2.0, 3.0, 4.0), 3.0)


def survival(ratios: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float64], int]:
    """Return the mean share (KNOTS,) of rows with each ratio, and all rows."""
    shares = [[(one >= ratio).mean() for ratio in RATIOS] for one in ratios]
    return np.mean(shares, axis=0), sum(one.size for one in ratios)


def evidence_of_survival(share: NDArray[np.float64], rows: int) -> list[float]:
    """Return decades by ratio.

    They rise, and have the least slope beyond the last supported knot.
    """
    out, last = [0.0], 0.0
    for one in share[1:]:
        supported = one * rows >= MIN_ROWS_OF_KNOT
        last = max(-np.log10(one) if supported else 0.0, last + LEAST_SLOPE)
        out.append(round(float(last), 3))
    return out


def learn_map(recorded: Sequence[Recorded], related: Sequence[Recorded]) -> dict[str, Any]:
    """Return the map of a tier as plain JSON.

    Args:
        recorded: Families of one channel.
        related: Families of two, of which the evidence of a relation is learned.
    """
    evidence = []
    for quantity in range(QUANTITIES):
        ratios = [
            one.run(only_quantity(quantity)).evidence.reshape(one.series, ROWS, -1)[:, LEARNED_FROM:]
            for one in (related if quantity == Q_RELATION else recorded)
        ]
        evidence.append(evidence_of_survival(*survival(ratios)))
    values = {"evidence": evidence, "levels": [1.0, 2.0, 3.0, 4.0], "width": 3.0}
    found = [one.run(rarity_map_of(values)) for one in recorded]
    largest = [
        np.quantile(f.evidence.reshape(one.series, ROWS)[:, YOUNG_ROWS], 1 - LEVEL_SHARES)
        for f, one in zip(found, recorded, strict=True)
    ]
    # Young rows of the median family: levels and width are where a series begins, and it moves them itself.
    levels = [round(float(one), 3) for one in np.median(largest, axis=0)]
    return values | {"levels": levels, "width": round(_pooled_width(recorded), 3)}


def _learn_all(recorded: dict[str, Recorded]) -> dict[str, Any]:
    """Return the map of all families, by name."""
    related = [one for name, one in recorded.items() if name.startswith(RELATED)]
    return learn_map([one for name, one in recorded.items() if not name.startswith(RELATED)], related)


def _pooled_width(recorded: Sequence[Recorded]) -> float:
    """Return the median over families of the .99 quantile of residuals."""
    widths = []
    for one in recorded:
        residual, step = np.abs(one.batch.v - one.expected), one.batch.step
        young = np.zeros((one.series, ROWS), bool)
        young[:, YOUNG_ROWS] = True
        known = young.ravel() & np.isfinite(residual) & (step > 0)
        if known.any():
            widths.append(np.quantile(residual[known] / step[known], 0.99))
    return float(np.median(widths))


def measure(one: Recorded, chosen: RarityMap) -> tuple[CalibrationCounts, CalibrationCounts]:
    """Return the counts of young and old rows."""
    found = one.run(chosen)
    shape = (one.series, ROWS, len(one.spec.channels))
    residual = np.abs(one.batch.v - one.expected).astype(np.float64)
    half, zeros = found.half_width.ravel(), np.zeros(len(residual), np.float32)
    counts = []
    for rows in (YOUNG_ROWS, OLD_ROWS):
        count = CalibrationCounts()
        seen = np.broadcast_to(np.arange(1, ROWS + 1)[:, None], shape)[:, rows].ravel()
        count.add_rarity(found.rarity.reshape(shape)[:, rows].ravel(), seen)
        at = np.arange(len(residual)).reshape(shape)[:, rows].ravel()
        count.add_interval(residual[at], zeros[at], half[at])
        counts.append(count)
    return counts[0], counts[1]


def print_table(tier: str, maps: dict[str, RarityMap], recorded: dict[str, Recorded]) -> None:
    """Print a Markdown table of one tier.

    Args:
        tier: Name of the tier.
        maps: Family → the map that it is measured with.
        recorded: Family → its recorded inputs.
    """
    print(f"\n{tier}\n\n| family | young k = 1, 2, 3 | old k = 1, 2, 3, 4 | coverage young, old |")
    print("| --- | --- | --- | --- |")
    within = np.zeros((2, 4), int)
    for name, one in recorded.items():
        both = measure(one, maps[name])
        texts = []
        for age, count in enumerate(both):
            found = [f for f in count.frequencies() if f.rows]
            for f in found:
                within[age, f.decade - 1] += bool(f.within)
            texts.append(", ".join(f"{f.factor:.2f}{'' if f.within else ' ✗'}" for f in found))
        print(
            f"| {name} | {texts[0]} | {texts[1]} | {both[0].coverage:.4f}, {both[1].coverage:.4f} |",
            flush=True,
        )
    print(f"\nwithin the factor: young {within[0].tolist()}, old {within[1].tolist()} of {len(recorded)}")


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("learn", "measure"))
    parser.add_argument("--tiers", nargs="+", default=list(USUAL_RANGE_SIZES), choices=USUAL_RANGE_SIZES)
    parser.add_argument("--series", type=int, default=8)
    parser.add_argument("--every", default="5m", choices=CADENCES_NS)
    every = [*FAMILIES, *RELATED_FAMILIES]
    parser.add_argument("--families", nargs="+", choices=every, default=every)
    parser.add_argument("--left-out", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Run the action of the command line."""
    options, file = arguments(), Path(__file__).parents[1] / "detectors" / "weights" / FILE
    values = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"tiers": {}}
    every_ns = CADENCES_NS[options.every]

    def recorded(tier: str, seed: int) -> dict[str, Recorded]:
        return {name: record(tier, name, options.series, every_ns, seed) for name in options.families}

    for tier in options.tiers:
        if options.action == "learn":
            values["tiers"][tier] = _learn_all(recorded(tier, LEARNING_SEED))
            file.write_text(json.dumps(values) + "\n", encoding="utf-8")
            continue
        maps = dict.fromkeys(options.families, rarity_map_of(values["tiers"][tier]))
        if options.left_out:
            learning = recorded(tier, LEARNING_SEED)
            for fold in range(FOLDS):
                left_out = options.families[fold::FOLDS]
                made = _learn_all({name: one for name, one in learning.items() if name not in left_out})
                maps |= dict.fromkeys(left_out, rarity_map_of(made))
        print_table(tier, maps, recorded(tier, SEED))


if __name__ == "__main__":
    main()
