"""Series for the VUS-PR golden file, and the program that writes it with the published implementation.

In an environment that has ``pip install --no-deps TSB-AD`` beside scikit-learn and statsmodels, from the
repository root:

    python -m tests.unit.evaluate.golden.vus_pr > tests/unit/evaluate/golden/vus_pr.json
"""

from __future__ import annotations

import json
import sys

import numpy as np


def series(case: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, labels and scores of one case: labels at the borders, one row long, touching; scores with and
    without ties.
    """
    rng = np.random.default_rng(case)
    n = int(rng.integers(60, 900))
    values = np.sin(np.arange(n) * 2 * np.pi / rng.integers(5, 50)) + rng.normal(0, 0.2, n)
    label = np.zeros(n, int)
    for _ in range(rng.integers(1, 8)):
        start = int(rng.integers(0, n))
        label[start : start + int(rng.integers(1, 20))] = 1
    score = np.round(rng.random(n) + 0.3 * label, int(rng.integers(1, 9)))
    return values, label, score


def main() -> None:
    from TSB_AD.evaluation.metrics import get_metrics
    from TSB_AD.utils.slidingWindows import find_length_rank

    golden = []
    for case in range(40):
        values, label, score = series(case)
        window = int(find_length_rank(values.reshape(-1, 1), rank=1))
        metrics = get_metrics(score, label, slidingWindow=window)
        golden.append(
            {
                "case": case,
                "window": window,
                "VUS-PR": float(metrics["VUS-PR"]),
                "AUC-PR": float(metrics["AUC-PR"]),
            }
        )
    json.dump(golden, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
