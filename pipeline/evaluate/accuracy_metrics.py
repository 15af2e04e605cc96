"""Accuracy of scores and flags against labels, as functions on arrays.

In all functions ``score`` (n,) is larger for the more anomalous row, ``label`` and ``flag`` (n,) are bool, a
*segment* is a row ``(first, last)``, both inclusive. The caller cuts off the rows that
are not measured (the warm-up).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]
Segments = NDArray[np.int64]

#: Flagged runs with at most this many quiet rows between them are one alarm (one less than a stream's
#: ``close_after`` default).
QUIET_ROWS = 2


def segments(mask: Bools, quiet: int = 0) -> Segments:
    """Return the runs of True as (k, 2) first and last rows.

    Runs with at most ``quiet`` rows between them are one.
    """
    edges = np.flatnonzero(
        np.diff(np.concatenate(([False], np.asarray(mask, bool), [False])).astype(np.int8))
    )
    first, last = edges[::2], edges[1::2] - 1
    if quiet and len(first) > 1:
        apart = first[1:] - last[:-1] - 1 > quiet
        first, last = first[np.concatenate(([True], apart))], last[np.concatenate((apart, [True]))]
    return np.stack([first, last], axis=1).astype(np.int64)


def average_precision(score: Floats, label: Bools) -> float:
    """Return the area under the precision-recall curve, Σ (R_k − R_{k−1}) P_k.

    Equal scores are one threshold. NaN without a positive row.
    """
    positives = int(np.sum(label))
    if positives == 0:
        return float("nan")
    order = np.argsort(-score, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    hits = np.cumsum(label[order])[last_of_tie]
    recall = hits / positives
    return float(np.sum(np.diff(recall, prepend=0.0) * hits / (last_of_tie + 1)))


@dataclass(frozen=True, slots=True)
class Events:
    """Counts of labelled events and alarms, without point adjustment.

    Counts can be added. An event is *found* if a flagged row lies inside it. An alarm (a flagged run, see
    ``QUIET_ROWS``) is *right* if it overlaps an event. ``delays`` are rows from the start of a found event to
    its first flagged row. ``alarm_rows`` reveals a scorer that is always in alarm.
    """

    events: int = 0
    found: int = 0
    alarms: int = 0
    right: int = 0
    rows: int = 0
    normal_rows: int = 0
    alarm_rows: int = 0
    delays: tuple[int, ...] = ()

    def __add__(self, other: Events) -> Events:
        """Add the counts of two sets of series."""
        return Events(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    @property
    def precision(self) -> float:
        return self.right / self.alarms if self.alarms else 0.0

    @property
    def recall(self) -> float:
        return self.found / self.events if self.events else float("nan")

    @property
    def f1(self) -> float:
        """Return the harmonic mean of precision over alarms and recall over events."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0

    @property
    def median_delay(self) -> float:
        return float(np.median(self.delays)) if self.delays else float("nan")

    @property
    def alarm_share(self) -> float:
        """Return the share of all rows that are flagged."""
        return self.alarm_rows / self.rows if self.rows else 0.0

    @property
    def false_per_10k(self) -> float:
        """Return the number of false alarms per 10,000 rows outside the events."""
        return 1e4 * (self.alarms - self.right) / self.normal_rows if self.normal_rows else float("nan")


def count_events(flag: Bools, label: Bools, quiet: int = QUIET_ROWS) -> Events:
    """Count the events and alarms of one series."""
    flag, label = np.asarray(flag, bool), np.asarray(label, bool)
    truth, alarms = segments(label), segments(flag, quiet)
    flagged_before = np.concatenate(([0], np.cumsum(flag)))
    labelled_before = np.concatenate(([0], np.cumsum(label)))
    found = flagged_before[truth[:, 1] + 1] > flagged_before[truth[:, 0]]
    right = labelled_before[alarms[:, 1] + 1] > labelled_before[alarms[:, 0]]
    flagged = np.flatnonzero(flag)
    starts = truth[found, 0]
    delays = flagged[np.searchsorted(flagged, starts)] - starts
    return Events(
        events=len(truth),
        found=int(found.sum()),
        alarms=len(alarms),
        right=int(right.sum()),
        rows=len(flag),
        normal_rows=int((~label).sum()),
        alarm_rows=len(flagged),
        delays=tuple(int(delay) for delay in delays),
    )


@dataclass(frozen=True, slots=True)
class Rows:
    """Confusion counts over rows, as in the SKAB benchmark; counts can be added."""

    tp: int = 0
    fp: int = 0
    tn: int = 0
    fn: int = 0

    def __add__(self, other: Rows) -> Rows:
        """Add the counts of two sets of series."""
        return Rows(self.tp + other.tp, self.fp + other.fp, self.tn + other.tn, self.fn + other.fn)

    @property
    def f1(self) -> float:
        return self.tp / (self.tp + (self.fp + self.fn) / 2) if self.tp else 0.0

    @property
    def far(self) -> float:
        """Return the false-alarm rate: the share of the normal rows that are flagged."""
        return self.fp / (self.fp + self.tn) if self.fp + self.tn else float("nan")

    @property
    def mar(self) -> float:
        """Return the missed-alarm rate: the share of anomalous rows without a flag."""
        return self.fn / (self.fn + self.tp) if self.fn + self.tp else float("nan")


def count_rows(flag: Bools, label: Bools) -> Rows:
    """Count the confusion of one series."""
    flag, label = np.asarray(flag, bool), np.asarray(label, bool)
    return Rows(
        int((flag & label).sum()),
        int((flag & ~label).sum()),
        int((~flag & ~label).sum()),
        int((~flag & label).sum()),
    )


def best_threshold(score: Floats, label: Bools, most_false: float = 0.1) -> float:
    """Return the threshold of the highest row F1; ``score >= threshold`` is flagged.

    Only thresholds that flag at most this share of the normal rows take part.
    """
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    last_of_tie = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    hits = np.cumsum(label[order])[last_of_tie]
    f1 = 2 * hits / (last_of_tie + 1 + np.sum(label))
    bearable = last_of_tie + 1 - hits <= most_false * np.sum(~label)
    return float(ranked[last_of_tie[np.argmax(np.where(bearable, f1, -1.0))]]) if bearable.any() else np.inf


def ucr_hit(score: Floats, label: Bools, train_rows: int, slack: int = 100) -> bool:
    """Return whether the highest score is within ``slack`` rows of the only anomaly.

    The measure of the UCR archive: the first row with the highest score after the training part counts. Wu &
    Keogh, "Current time series anomaly detection benchmarks are flawed" (2021).
    """
    first, last = segments(label)[0]
    top = train_rows + int(np.argmax(score[train_rows:]))
    return bool(first - slack <= top <= last + slack)


def recording(name: str) -> str:
    """Return the recording that a UCR series is derived from.

    The archive repeats a recording as DISTORTED…, NOISE… and with numbered anomalies.
    """
    return re.sub(r"\d+$", "", re.sub(r"^(DISTORTED|NOISE)", "", name))


def mean_by(groups: Sequence[str], values: Sequence[float]) -> float:
    """Return the mean over groups of the mean within a group.

    Several copies of one recording then count once.
    """
    inside: dict[str, list[float]] = {}
    for group, value in zip(groups, values, strict=True):
        inside.setdefault(group, []).append(float(value))
    return float(np.mean([np.mean(group) for group in inside.values()])) if inside else float("nan")
