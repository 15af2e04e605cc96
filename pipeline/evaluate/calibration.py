"""Calibration of a run on the rows without a label."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.evaluate.evaluation import Run
from pipeline.training.calibration import CalibrationCounts, rows_by_age


def calibration_of(run: Run) -> dict[str, CalibrationCounts]:
    """Return the counts of young and old rows outside of the labelled anomalies.

    Scores that an earlier version has stored hold no rarity, and count for the interval only.
    """
    counts = {"young": CalibrationCounts(), "old": CalibrationCounts()}
    for series, scores in zip(run.series, run.scores, strict=True):
        seen = np.arange(1, len(series) + 1)
        for age, rows in rows_by_age(seen).items():
            free = rows & (np.asarray(series.label) == 0)
            if len(scores.rarity):
                known = free & np.isfinite(scores.rarity)
                counts[age].add_rarity(scores.rarity[known].astype(np.float32), seen[known])
            for c in range(series.values.shape[1]):
                counts[age].add_interval(series.values[free, c], scores.lower[free, c], scores.upper[free, c])
    return counts


def calibration_rows(made: dict[str, Any]) -> list[list[str]]:
    """Return the cells of a table: age, stated, observed, within.

    ``made`` is ``calibration`` of a report.
    """
    rows: list[list[str]] = []
    for age, counts in made.items():
        rows += [
            [
                age,
                f"p ≤ 1 in {10 ** one['decade']:,}",
                f"{one['frequency']:.3g} of {one['rows']:,} rows",
                "yes" if one["within"] else "no",
            ]
            for one in counts["frequencies"]
            if one["rows"]
        ]
        if counts["values"]:
            rows.append(
                [age, "inside the interval", f"{counts['coverage']:.4f} of {counts['values']:,} values", ""]
            )
    return rows
