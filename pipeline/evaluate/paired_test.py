"""Comparison of two detectors on the same series, with a paired test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import InputError
from pipeline.evaluate.scoring_run import SEED

#: Metrics of a single series: key in the ``series`` of a report → its name.
PAIRED = {
    "nab_gain": "NAB gain over silence",
    "vus_pr": "VUS-PR",
    "auc_pr": "AUC-PR",
    "hit": "UCR hit",
    "event_f1": "event F1",
    "row_f1": "row F1",
}
_PERMUTATIONS = 20_000


@dataclass(frozen=True, slots=True)
class Pair:
    """One metric over the series that both detectors have.

    It has the means, the number of series that each wins, and the p-value of the difference.
    """

    metric: str
    series: int
    mean_a: float
    mean_b: float
    wins_a: int
    wins_b: int
    p: float


def load(path: Path) -> dict[str, Any]:
    """Read a JSON report of ``evaluate --report``. Raises InputError."""
    try:
        made = json.loads(path.read_text())
        return {**made, "series": list(made["series"]), "metrics": dict(made["metrics"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: no report of `forewatch evaluate --report {path.stem}.json`: {error}"
        ) from None


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Pair]:
    """Compare the metrics over the series that both reports have.

    Raises InputError if there is no such series.
    """
    other = {series["name"]: series for series in b["series"]}
    both = [(series, other[series["name"]]) for series in a["series"] if series["name"] in other]
    if not both:
        raise InputError(f"{a['dataset']} and {b['dataset']} have no series in common")
    pairs = []
    for key, name in PAIRED.items():
        values = [(one[key], two[key]) for one, two in both if one[key] is not None and two[key] is not None]
        if not values:
            continue
        first, second = np.array(values, np.float64).T
        wins = int((first > second).sum()), int((second > first).sum())
        pairs.append(
            Pair(name, len(values), float(first.mean()), float(second.mean()), *wins, p_value(second - first))
        )
    return pairs


def p_value(differences: NDArray[np.float64]) -> float:
    """Return the p-value of a two-sided sign-flip test of the mean difference.

    It is exact up to 14 series that differ, otherwise from 20,000 seeded draws. Under the null hypothesis
    the sign of each difference is random (the paired randomisation test of Fisher).
    """
    differences = differences[differences != 0]
    count = len(differences)
    if count == 0:
        return 1.0
    if count <= 14:
        signs = 1.0 - 2.0 * ((np.arange(2**count)[:, None] >> np.arange(count)) & 1)
    else:
        signs = np.random.default_rng(SEED).choice((-1.0, 1.0), size=(_PERMUTATIONS, count))
    sums = np.abs(signs @ differences)
    extreme = int((sums >= abs(differences.sum()) * (1 - 1e-12)).sum())
    # A drawn sample does not contain the observed signs: count them too, so that p is never 0 (Phipson &
    # Smyth, 2010).
    return extreme / len(signs) if count <= 14 else (extreme + 1) / (len(signs) + 1)
