"""What each series knows of itself (scale, rhythm, readout, calibration), learnt by running the detector over
its history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.base import Detector, State
from pipeline.config.schema import Stream
from pipeline.training.dataset import TrainingData, from_history, take
from pipeline.training.quarantine import Ruling, Why

ROWS = 200_000  # of one call of a detector
RELEARNT = 256  # series at a promotion, at most
POINTS = 20_000  # of each, the newest


@dataclass(frozen=True, slots=True)
class Relearnt:
    """Series that begin anew with a promoted model; row i of ``state`` is that of ``names[i]``."""

    names: list[str]
    state: State


def relearn(
    detector: Detector,
    history: str,
    name: str,
    stream: Stream,
    rulings: Sequence[Ruling],
    since_ns: int,
    begun: Callable[[Mapping[str, int]], State],
) -> Relearnt | None:
    """The state, from the history and without the quarantine, of those series that people have ruled on since
    ``since_ns``; None where there are none.

    A live state has seen what people later called an anomaly, and may have got used to it. It is replaced for
    the (at most ``RELEARNT``, the last ruled on) series that are named in a ruling; a range taken out of all
    series at once changes no state. ``begun`` says what the detector knows of series before their first
    points, by name.
    """
    out = [
        one
        for one in rulings
        if one.series is not None and one.why is not Why.NORMAL and one.end_ns >= since_ns
    ]
    newest = sorted(out, key=lambda one: -one.end_ns)
    names = list(dict.fromkeys(one.series for one in newest if one.series is not None))[:RELEARNT]
    if not names:
        return None
    data = from_history(history, name, stream.channels, rulings, since_ns, most_points=POINTS, series=names)
    if not data.series:
        return None
    first_ns = dict(zip(data.series, data.time[data.first[:-1]].tolist(), strict=True))
    return Relearnt(data.series, learn(detector, data, begun=begun(first_ns)))


def learn(
    detector: Detector,
    data: TrainingData,
    until: NDArray[np.int64] | None = None,
    *,
    clean: bool = True,
    begun: State | None = None,
) -> State:
    """State of the series of ``data`` (slot = place in ``data.series``) after their history, but for what is
    in quarantine.

    ``until`` (S,): rows of each series to go to (left out: all). What is in quarantine counts as missing: no
    scale, readout or calibration sees it, unless ``clean`` is False. ``begun`` is what is known of them
    before their history (left out: how they are called).
    """
    if begun is None:
        state = detector.initial(len(data.series))
        detector.register_series(state, np.arange(len(data.series), dtype=np.int32), data.series)
    else:
        state = begun
    points = data.points(clean=clean)
    for part in parts(data, until):
        state, _ = detector.step(state, take(points, part))
    return state


def parts(data: TrainingData, until: NDArray[np.int64] | None = None) -> list[NDArray[np.int64]]:
    """Row numbers in portions of at most about ``ROWS``: whole series where they fit, so that memory stays
    bounded.
    """
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
