"""A batch of one row runs what was compiled for longer ones: compilation would stop a daemon for seconds."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

from detectors import DetectorSpec, build, contract
from detectors.base import Points

ROWS = 3000


def compiled() -> dict[str, int]:
    """Return the number of compiled variants of each function."""
    found = [one for one in gc.get_objects() if isinstance(one, Dispatcher)]
    return {f"{one.py_func.__module__}.{one.py_func.__name__}": len(one.signatures) for one in found}


def points_of(values: np.ndarray, first: int) -> Points:
    rows = np.arange(first, first + len(values), dtype=np.int64)
    return contract.make_points(np.zeros(len(rows), np.int32), values, rows)


@pytest.mark.parametrize("decision", ["usual_range", "surprise"])
@pytest.mark.parametrize("channels", [("a",), ("a", "b")], ids=len)
@pytest.mark.parametrize("tier", ["light", "standard", "strong"])
def test_nothing_is_compiled_for_a_single_row(tier: str, channels: tuple[str, ...], decision: str):
    detector = build(DetectorSpec(tier=tier, channels=channels, decision=decision))
    noise = np.random.default_rng(0).normal(0, 0.1, (ROWS + 3, len(channels)))
    values = np.sin(np.arange(ROWS + 3) / 20)[:, None] + noise
    state, _ = detector.step(detector.initial(1), points_of(values[:ROWS], 0))
    before = compiled()
    for row in range(ROWS, ROWS + 3):
        state, _ = detector.step(state, points_of(values[row : row + 1], row))
    assert {name: count for name, count in compiled().items() if count != before.get(name)} == {}
