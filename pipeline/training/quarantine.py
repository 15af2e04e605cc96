"""The quarantine: points that a training must not use.

It holds flagged points, points that people labelled or excluded, and the aftermath of both.

A flag marks only the beginning of an incident: of a level shift only the first points are flagged. A flagged
or labelled interval therefore has an *aftermath*, which lasts as long as the series, day by day, has not come
back to its former level. The aftermath of a labelled interval ends with the data at the latest. That of an
interval that is only flagged lasts a day at most, the time that people have to label it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

DAY_NS: Final = 86_400_000_000_000
MAX_GAP_ROWS: Final = 3  # unflagged rows within a flagged interval, as ``close_after`` of an anomaly
MAX_MEAN_DEVIATIONS: Final = 4.0  # standard deviations of the daily means
MAX_REFERENCE_DAYS: Final = 30  # days that an aftermath is compared with
MIN_REFERENCE_DAYS: Final = 4  # with less past than that, a "day" is shorter
MIN_ROWS_PER_DAY: Final = 8


class ExclusionReason(StrEnum):
    """Reasons for an exclusion; a later one overrides an earlier one.

    NORMAL returns flagged points to training.
    """

    FLAGGED = "flagged"
    NORMAL = "labelled false"
    ANOMALY = "labelled true"
    MAINTENANCE = "maintenance"
    EXCLUDED = "excluded"


@dataclass(frozen=True, slots=True)
class ReviewLabel:
    """A review by ``by`` of start_ns ≤ time ≤ end_ns of ``series`` (None: all series)."""

    series: str | None
    start_ns: int
    end_ns: int
    reason: ExclusionReason
    by: str


@dataclass(frozen=True, slots=True)
class ExcludedInterval:
    """An interval that is excluded from training, with its aftermath.

    ``points`` rows have start_ns ≤ time ≤ end_ns.
    """

    series: str
    start_ns: int
    end_ns: int
    reason: ExclusionReason
    by: str
    points: int


@dataclass(slots=True)
class SeriesRows:
    """N rows of S series, sorted by series and time.

    first (S + 1,), time (N,) ns, values (N, C), flagged (N,).
    """

    series: list[str]
    first: NDArray[np.int64]
    time: NDArray[np.int64]
    values: NDArray[np.float64]
    flagged: NDArray[np.bool_]


def quarantine(
    rows: SeriesRows, review_labels: Sequence[ReviewLabel]
) -> tuple[NDArray[np.bool_], list[ExcludedInterval]]:
    """Return the rows (N,) that a training may use, and the excluded intervals."""
    mask = _ExclusionMask(rows)
    for label in [
        *_flagged_intervals(rows),
        *sorted(review_labels, key=lambda one: list(ExclusionReason).index(one.reason)),
    ]:
        mask.apply(label)
    return mask.interval_of_row < 0, mask.excluded_intervals()


class _ExclusionMask:
    """The exclusions of all rows.

    ``interval_of_row`` (N,): number of the interval that excludes a row, −1 for none.
    """

    def __init__(self, rows: SeriesRows) -> None:
        self._rows = rows
        self._series_index = {name: i for i, name in enumerate(rows.series)}
        self._clean = (
            rows.values.copy()
        )  # NaN where excluded, so that no incident is the reference of another
        self._clean[rows.flagged] = np.nan
        self._intervals: list[tuple[int, ReviewLabel]] = []
        self.interval_of_row = np.full(len(rows.time), -1, np.int64)

    def apply(self, label: ReviewLabel) -> None:
        """Exclude or return the rows that a label names."""
        chosen = (
            range(len(self._rows.series))
            if label.series is None
            else [self._series_index.get(label.series, -1)]
        )
        for place in chosen:
            if place >= 0:
                self._apply_to_series(place, label)

    def _apply_to_series(self, place: int, label: ReviewLabel) -> None:
        begin, end = self._rows.first[place : place + 2].tolist()
        time = self._rows.time[begin:end]
        start, stop = (
            int(np.searchsorted(time, label.start_ns)),
            int(np.searchsorted(time, label.end_ns, side="right")),
        )
        if start >= stop:
            return
        if label.reason in (ExclusionReason.FLAGGED, ExclusionReason.NORMAL, ExclusionReason.ANOMALY):
            latest = label.end_ns + DAY_NS if label.reason is ExclusionReason.FLAGGED else int(time[-1]) + 1
            stop = aftermath(time, self._rows.values[begin:end], self._clean[begin:end], start, stop, latest)
        here = slice(begin + start, begin + stop)
        if label.reason is ExclusionReason.NORMAL:
            self.interval_of_row[here] = -1
            self._clean[here] = self._rows.values[here]
            return
        self.interval_of_row[here] = len(self._intervals)
        self._clean[here] = np.nan
        self._intervals.append((place, label))

    def excluded_intervals(self) -> list[ExcludedInterval]:
        counts = np.bincount(self.interval_of_row[self.interval_of_row >= 0], minlength=len(self._intervals))
        order = np.argsort(self.interval_of_row, kind="stable")[int((self.interval_of_row < 0).sum()) :]
        found, at = [], 0
        for (place, label), count in zip(self._intervals, counts.tolist(), strict=True):
            if count:
                time = self._rows.time[order[at : at + count]]
                found.append(
                    ExcludedInterval(
                        self._rows.series[place], int(time[0]), int(time[-1]), label.reason, label.by, count
                    )
                )
            at += count
        return found


def _flagged_intervals(rows: SeriesRows) -> Iterable[ReviewLabel]:
    """Yield the runs of flagged rows as labels.

    Runs of a series that are at most ``MAX_GAP_ROWS`` rows apart are one.
    """
    hits = np.flatnonzero(rows.flagged)
    if not len(hits):
        return
    owner = np.searchsorted(rows.first, hits, side="right") - 1
    new = np.r_[True, (np.diff(hits) > MAX_GAP_ROWS) | (np.diff(owner) != 0)]
    starts = np.flatnonzero(new)
    for a, b in zip(starts.tolist(), [*(starts[1:] - 1).tolist(), len(hits) - 1], strict=True):
        yield ReviewLabel(
            rows.series[owner[a]],
            int(rows.time[hits[a]]),
            int(rows.time[hits[b]]),
            ExclusionReason.FLAGGED,
            "detector",
        )


def aftermath(
    time: NDArray[np.int64],
    values: NDArray[np.float64],
    clean: NDArray[np.float64],
    start: int,
    stop: int,
    latest_ns: int,
) -> int:
    """Return the row (exclusive) at which the aftermath of [start, stop) ends.

    Each day after the interval is compared, channel by channel, with the same times of the days before. The
    mean of a whole day tells more about a level than any single point.

    Args:
        time: times of one series (n,), ns.
        values: values as received (n, C).
        clean: the same (n, C) with NaN in rows that must not serve as a reference.
        start: first row of the interval.
        stop: row after the interval.
        latest_ns: the aftermath ends here at the latest.
    """
    usual = float(np.median(np.diff(time[: start + 1]))) if start else 0.0
    day = min(round(DAY_NS / usual), start // MIN_REFERENCE_DAYS) if usual > 0 else 0
    if day < MIN_ROWS_PER_DAY:
        return stop
    # Go back from ``stop`` by whole days until before the interval.
    anchor = stop - -(-(stop - start) // day) * day
    days = min(anchor // day, MAX_REFERENCE_DAYS)
    before = clean[anchor - days * day : anchor].reshape(days, day, -1)
    last = int(np.searchsorted(time, latest_ns))
    while stop < last:
        rows = min(day, last - stop)
        if not _mean_has_moved(before[:, :rows], values[stop : stop + rows]):
            return stop
        stop += rows
    return stop


def _mean_has_moved(before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
    """Return whether the mean of a day lies outside the means of the days before.

    ``before`` (D, n, C), ``after`` (n, C); one channel suffices.
    """
    with np.errstate(all="ignore"):
        there = np.isfinite(before)
        count = there.sum(1)
        # (D, C)
        means = np.where(count >= before.shape[1] / 2, np.where(there, before, 0.0).sum(1) / count, np.nan)
        enough = np.isfinite(means).sum(0) >= MIN_REFERENCE_DAYS - 1
        centre = np.nanmedian(np.where(enough, means, 0.0), 0)
        within = np.nanstd(np.where(enough, before.reshape(-1, before.shape[2]), 0.0), 0) / np.sqrt(
            before.shape[1]
        )
        spread = np.maximum(np.nanstd(np.where(enough, means, 0.0), 0, ddof=1), within)
        here = np.isfinite(after)
        # A channel without a value gives NaN, which counts as not moved.
        off = np.abs(np.where(here, after, 0.0).sum(0) / here.sum(0) - centre)
        return bool((enough & (off > MAX_MEAN_DEVIATIONS * spread + 1e-9 * np.abs(centre))).any())
