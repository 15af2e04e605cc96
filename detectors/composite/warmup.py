"""Compilation of the kernels of a detector before the first record.

Numba caches the machine code on disk. The first compilation takes minutes, a later load about a second.
"""

from __future__ import annotations

import numpy as np

from detectors.base import Detector, Points

MINUTE_NS = 60_000_000_000
_WARMUP_ROWS = 3000


def compile_kernels(detector: Detector) -> None:
    """Run ``detector`` over one synthetic series that is long enough to call every kernel."""
    channels = len(detector.spec.channels)
    rows = np.arange(_WARMUP_ROWS, dtype=np.int64)
    values = np.sin(rows / 20)[:, None] + np.random.default_rng(0).normal(0, 0.1, (_WARMUP_ROWS, channels))
    none, every = np.zeros(_WARMUP_ROWS, np.int32), np.full(_WARMUP_ROWS, MINUTE_NS, np.int64)
    detector.step(detector.initial(1), Points(none, rows * MINUTE_NS, values, none.copy(), every))
