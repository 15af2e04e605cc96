"""Compile before the first record comes: numba keeps the machine code on disk, so that this costs a minute once and a moment afterwards.

``python -m detectors.warm`` does it for every tier; ``make setup`` calls that.
"""

from __future__ import annotations

import sys

import numpy as np

from detectors import build
from detectors.base import Detector, DetectorSpec, Points

MINUTE = 60_000_000_000
_POINTS = 3000


def warm(detector: Detector) -> None:
    """Run ``detector`` over one made-up series, long enough that every stage of it has something to do."""
    channels = len(detector.spec.channels)
    rows = np.arange(_POINTS, dtype=np.int64)
    values = np.sin(rows / 20)[:, None] + np.random.default_rng(0).normal(0, 0.1, (_POINTS, channels))
    none, every = np.zeros(_POINTS, np.int32), np.full(_POINTS, MINUTE, np.int64)
    detector.step(detector.initial(1), Points(none, rows * MINUTE, values, none.copy(), every))


def main() -> None:
    """Warm every tier, and the windows' kernels with them where they are imported from."""
    for tier in ("light", "standard", "strong"):
        print(f"compiling the detector {tier} (once)", file=sys.stderr, flush=True)
        for channels in (("a",), ("a", "b")):
            warm(build(DetectorSpec(tier=tier, channels=channels)))


if __name__ == "__main__":
    main()
