"""Compile before the first record comes: numba keeps the machine code on disk, so that this costs minutes
once and a moment afterwards.
"""

from __future__ import annotations

import numpy as np

from detectors.base import Detector, Points

MINUTE = 60_000_000_000
_POINTS = 3000


def warm(detector: Detector) -> None:
    """Run ``detector`` over one made-up series, long enough that every stage of it has something to do."""
    channels = len(detector.spec.channels)
    rows = np.arange(_POINTS, dtype=np.int64)
    values = np.sin(rows / 20)[:, None] + np.random.default_rng(0).normal(0, 0.1, (_POINTS, channels))
    none, every = np.zeros(_POINTS, np.int32), np.full(_POINTS, MINUTE, np.int64)
    detector.step(detector.initial(1), Points(none, rows * MINUTE, values, none.copy(), every))
