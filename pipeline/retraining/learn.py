"""What each series knows of itself (scale, rhythm, readout, calibration), learnt by running the detector over its history."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.base import Detector, State
from pipeline.retraining.data import TrainingData, take

ROWS = 200_000  # of one call of a detector


def learn(detector: Detector, data: TrainingData, until: NDArray[np.int64] | None = None, *, clean: bool = True) -> State:
    """State of the series of ``data`` (slot = place in ``data.series``) after their history, but for what is in quarantine.

    ``until`` (S,): rows of each series to go to (left out: all). What is in quarantine counts as missing: no scale, readout or calibration sees it,
    unless ``clean`` is False.
    """
    state = detector.initial(len(data.series))
    points = data.points(clean=clean)
    for part in parts(data, until):
        state, _ = detector.step(state, take(points, part))
    return state


def parts(data: TrainingData, until: NDArray[np.int64] | None = None) -> list[NDArray[np.int64]]:
    """Row numbers in portions of at most about ``ROWS``: whole series where they fit, so that memory stays bounded."""
    length = np.diff(data.first) if until is None else until
    found: list[NDArray[np.int64]] = []
    rows: list[NDArray[np.int64]] = []
    held = 0
    for begin, count in zip(data.first[:-1].tolist(), length.tolist(), strict=True):
        for at in range(begin, begin + count, ROWS):
            rows.append(np.arange(at, min(at + ROWS, begin + count)))
            held += len(rows[-1])
            if held >= ROWS:
                found.append(np.concatenate(rows))
                rows, held = [], 0
    return [*found, np.concatenate(rows)] if rows else found
