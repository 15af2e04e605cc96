"""The score of the Numenta Anomaly Benchmark, as in its official scorer (v1.1).

Lavin & Ahmad, "Evaluating real-time anomaly detection algorithms – the Numenta Anomaly Benchmark" (2015),
§II. Comments name official rules that are easy to miss. Scores are normalised: no detection gives 0, a
detection at the first row of every window gives 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.accuracy_metrics import Bools, Floats, Segments


@dataclass(frozen=True, slots=True)
class Profile:
    """Weights of a true positive, a false row and a missed window."""

    tp: float
    fp: float
    fn: float


PROFILES = {
    "standard": Profile(1.0, 0.11, 1.0),
    "reward_low_FP_rate": Profile(1.0, 0.22, 1.0),
    "reward_low_FN_rate": Profile(1.0, 0.11, 2.0),
}


def probation(rows: int) -> int:
    """Return the unscored rows at the start of a file: 15 % of it, at most 750."""
    return min(floor(0.15 * rows), 750)


def _sigmoid(position: Floats) -> Floats:
    """Return the scaled sigmoid.

    It is .987 at −1 (first row of a window), 0 at its end, and −1 from 3 window lengths behind it on.
    """
    return np.where(position >= 3.0, -1.0, 2.0 / (1.0 + np.exp(5.0 * np.minimum(position, 3.0))) - 1.0)


@dataclass(slots=True)
class Corpus:
    """All scorable rows of all files, concatenated.

    Each has the value of a detection there, and its window (−1: none).
    """

    value: NDArray[np.float64]  # (N,) in units of tp inside a window, of fp outside
    window: NDArray[np.int64]  # (N,) number of the window within the corpus
    file: NDArray[np.int64]  # (N,) number of the file
    kept: Bools  # (all rows,) False in the probation
    window_file: NDArray[np.int64]  # (W,) file of each window that has a scorable row
    windows_of_file: NDArray[np.int64]  # (F,) windows of each file, scorable or not


def _file_values(rows: int, windows: Segments) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the value of a detection at each row, and its window (−1: outside)."""
    at = np.arange(rows)
    value, window = np.full(rows, -1.0), np.full(rows, -1, np.int64)
    for k, (first, last) in enumerate(windows):
        width = last - first + 1
        # Behind a window the unit of the distance is width − 1, inside it is width, as in the
        # official scorer.
        value[last + 1 :] = _sigmoid((at[last + 1 :] - last) / max(width - 1, 1))
        inside = slice(first, last + 1)
        value[inside] = _sigmoid(-(last - at[inside] + 1) / width) / _sigmoid(np.array(-1.0))
        window[inside] = k
    return value, window


def corpus(rows: Sequence[int], windows: Sequence[Segments]) -> Corpus:
    """Prepare files of the given lengths with their windows.

    A window has its first and last row (inclusive). Windows are in order and do not overlap.
    """
    values, numbers, files, keeps = [], [], [], []
    window_file: list[int] = []
    for number, (count, spans) in enumerate(zip(rows, windows, strict=True)):
        value, window = _file_values(count, spans)
        keep = np.arange(count) >= probation(count)
        scorable = np.unique(window[keep & (window >= 0)])
        renumber = np.full(len(spans) + 1, -1, np.int64)  # index −1 stays −1
        renumber[scorable] = len(window_file) + np.arange(len(scorable))
        window_file += [number] * len(scorable)
        values.append(value[keep])
        numbers.append(renumber[window][keep])
        files.append(np.full(int(keep.sum()), number))
        keeps.append(keep)
    return Corpus(
        np.concatenate(values),
        np.concatenate(numbers),
        np.concatenate(files),
        np.concatenate(keeps),
        np.array(window_file, np.int64),
        np.array([len(spans) for spans in windows], np.int64),
    )


@dataclass(frozen=True, slots=True)
class Sweep:
    """The best threshold over the corpus and the normalised score there.

    ``score >= threshold`` is a detection.
    """

    threshold: float
    score: float


def _normalise(gain: float, windows: int, profile: Profile) -> float:
    """Normalise ``gain``, the gain over no detection.

    A perfect run gains tp + fn for each window.
    """
    return 100.0 * gain / (windows * (profile.tp + profile.fn))


def sweep(scores: Sequence[Floats], corpus: Corpus, profile: Profile) -> Sweep:
    """Try every threshold over the whole corpus.

    Detections enter in order of falling score. A window has the value of its best row so far.
    """
    flat = np.concatenate(scores).astype(np.float64)[corpus.kept]
    order = np.argsort(-flat, kind="stable")
    flat, window = flat[order], corpus.window[order]
    value = corpus.value[order]
    gain = np.where(window < 0, profile.fp * value, 0.0)
    inside = np.flatnonzero(window >= 0)
    inside = inside[np.argsort(window[inside], kind="stable")]
    for rows in np.split(inside, np.flatnonzero(np.diff(window[inside])) + 1) if len(inside) else []:
        # Entering a window turns −fn into the value of the row: each later row adds only what it improves.
        gain[rows] = np.diff(np.maximum.accumulate(profile.tp * value[rows]), prepend=-profile.fn)
    total = np.cumsum(gain)
    last_of_tie = np.append(np.flatnonzero(np.diff(flat)), len(flat) - 1)
    best = last_of_tie[np.argmax(total[last_of_tie])]
    if total[best] <= 0.0:
        return Sweep(np.inf, 0.0)
    return Sweep(
        float(flat[best]), _normalise(float(total[best]), int(corpus.windows_of_file.sum()), profile)
    )


def file_gains(flags: Sequence[Bools], corpus: Corpus, profile: Profile) -> NDArray[np.float64]:
    """Return the unnormalised gain over no detection in each file (F,)."""
    flat = np.concatenate(flags).astype(bool)[corpus.kept]
    files = len(corpus.windows_of_file)
    false = flat & (corpus.window < 0)
    gains = np.bincount(corpus.file[false], profile.fp * corpus.value[false], minlength=files).astype(
        np.float64
    )
    best = np.full(len(corpus.window_file), -np.inf)
    hit = flat & (corpus.window >= 0)
    np.maximum.at(best, corpus.window[hit], profile.tp * corpus.value[hit])
    found = np.isfinite(best)
    gains += np.bincount(corpus.window_file[found], best[found] + profile.fn, minlength=files)
    return gains


def score(flags: Sequence[Bools], corpus: Corpus, profile: Profile, files: Bools | None = None) -> float:
    """Return the normalised score of detections, over all files or the chosen ones.

    NaN if the chosen files have no window.
    """
    chosen = np.ones(len(corpus.windows_of_file), bool) if files is None else files
    windows = int(corpus.windows_of_file[chosen].sum())
    return (
        _normalise(float(file_gains(flags, corpus, profile)[chosen].sum()), windows, profile)
        if windows
        else float("nan")
    )
