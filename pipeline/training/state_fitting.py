"""The state of each series (scale, season, readout, calibration) from its history.

It is fitted in closed form by running the detector over the history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.base import Detector, State
from pipeline.config.schema import Stream
from pipeline.training.dataset import TrainingData, from_history, take_points
from pipeline.training.quarantine import ExclusionReason, ReviewLabel

MAX_ROWS_PER_STEP = 200_000
MAX_REFITTED_SERIES = 256
MAX_POINTS_PER_SERIES = 20_000  # the newest


@dataclass(frozen=True, slots=True)
class RefittedSeries:
    """New states of series; row i of ``state`` belongs to ``names[i]``."""

    names: list[str]
    state: State


def refit_reviewed_series(
    detector: Detector,
    history: str,
    name: str,
    stream: Stream,
    review_labels: Sequence[ReviewLabel],
    since_ns: int,
    initial_state: Callable[[Mapping[str, int]], State],
) -> RefittedSeries | None:
    """Fit the state of recently reviewed series again, without their excluded points.

    A live state has seen what people later labelled as an anomaly, and may have adapted to it. It is replaced
    for the series that a label names, at most ``MAX_REFITTED_SERIES``, the newest labels first. A range that
    is excluded for all series changes no state. Return None if no series is affected.

    Args:
        detector: the promoted detector.
        history: path of the recorded history.
        name: name of the stream.
        stream: config of the stream.
        review_labels: all reviews of the stream.
        since_ns: labels that end earlier are ignored.
        initial_state: returns the state of series before their first points, given those times by name.
    """
    reviewed = [
        one
        for one in review_labels
        if one.series is not None and one.reason is not ExclusionReason.NORMAL and one.end_ns >= since_ns
    ]
    newest = sorted(reviewed, key=lambda one: -one.end_ns)
    names = list(dict.fromkeys(one.series for one in newest if one.series is not None))[:MAX_REFITTED_SERIES]
    if not names:
        return None
    data = from_history(
        history,
        name,
        stream.channels,
        review_labels,
        since_ns,
        most_points=MAX_POINTS_PER_SERIES,
        series=names,
    )
    if not data.series:
        return None
    first_ns = dict(zip(data.series, data.time[data.first[:-1]].tolist(), strict=True))
    return RefittedSeries(data.series, fit_state(detector, data, initial_state=initial_state(first_ns)))


def fit_state(
    detector: Detector,
    data: TrainingData,
    until: NDArray[np.int64] | None = None,
    *,
    clean: bool = True,
    initial_state: State | None = None,
) -> State:
    """Return the state of the series of ``data`` after their history.

    The slot of a series is its place in ``data.series``.

    Args:
        detector: the detector.
        data: the history.
        until: rows of each series to use (S,); None for all.
        clean: treat what is in quarantine as missing.
        initial_state: state before the history; None for that of new series.
    """
    if initial_state is None:
        state = detector.initial(len(data.series))
        detector.register_series(state, np.arange(len(data.series), dtype=np.int32), data.series)
    else:
        state = initial_state
    points = data.points(clean=clean)
    for part in row_batches(data, until):
        state, _ = detector.step(state, take_points(points, part))
    return state


def row_batches(data: TrainingData, until: NDArray[np.int64] | None = None) -> list[NDArray[np.int64]]:
    """Split the row numbers into batches of at most about ``MAX_ROWS_PER_STEP``.

    Whole series stay together where they fit, so that memory stays bounded.
    """
    length = np.diff(data.first) if until is None else until
    found: list[NDArray[np.int64]] = []
    rows: list[NDArray[np.int64]] = []
    held = 0
    for begin, count in zip(data.first[:-1].tolist(), length.tolist(), strict=True):
        for at in range(begin, begin + count, MAX_ROWS_PER_STEP):
            rows.append(np.arange(at, min(at + MAX_ROWS_PER_STEP, begin + count)))
            held += len(rows[-1])
            if held >= MAX_ROWS_PER_STEP:
                found.append(np.concatenate(rows))
                rows, held = [], 0
    return [*found, np.concatenate(rows)] if rows else found
