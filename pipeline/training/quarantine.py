"""Which points a model may learn from: not the flagged ones, not what people called an anomaly or took out,
nor what such an incident left behind.

An alarm marks the beginning of an incident, not all of it: of a level shift only the first points are
flagged. So a stretch that was flagged or labelled has an *aftermath*: as long as the series, day by day, has
not come back to where it was before. What was labelled lasts until it is back (or until the data ends); what
was only flagged lasts a day at most, which is the time that people have to say what it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

DAY: Final = 86_400_000_000_000
CLOSE: Final = 3  # rows without a flag that end a flagged stretch, as ``close_after`` ends an anomaly
AWAY: Final = 4.0  # spreads of the days before
DAYS: Final = 30  # that an aftermath is compared with, at most
LEAST_DAYS: Final = 4  # and at least; a "day" is shorter where there is less of a past
LEAST_ROWS: Final = 8  # of a "day"


class Why(StrEnum):
    """Why a stretch is out, in the order in which one beats another; NORMAL brings flagged points back in."""

    FLAGGED = "flagged"
    NORMAL = "labelled false"
    ANOMALY = "labelled true"
    MAINTENANCE = "maintenance"
    EXCLUDED = "excluded"


@dataclass(frozen=True, slots=True)
class Ruling:
    """What ``by`` said of start_ns ≤ time ≤ end_ns of ``series`` (None: of all series)."""

    series: str | None
    start_ns: int
    end_ns: int
    why: Why
    by: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A stretch that is kept out of training: ``points`` rows with start_ns ≤ time ≤ end_ns, its aftermath in
    it.
    """

    series: str
    start_ns: int
    end_ns: int
    why: Why
    by: str
    points: int


@dataclass(slots=True)
class Rows:
    """N rows of S series, by series and time: ``first`` (S + 1,), time (N,) ns, values (N, C), flagged (N,)."""

    series: list[str]
    first: NDArray[np.int64]
    time: NDArray[np.int64]
    values: NDArray[np.float64]
    flagged: NDArray[np.bool_]


def quarantine(rows: Rows, rulings: Sequence[Ruling]) -> tuple[NDArray[np.bool_], list[LeftOut]]:
    """Which rows may be learnt from (N,), and what was left out."""
    court = _Court(rows)
    for ruling in [*_flagged(rows), *sorted(rulings, key=lambda one: list(Why).index(one.why))]:
        court.rule(ruling)
    return court.verdict < 0, court.left_out()


class _Court:
    """``verdict`` (N,): the number of the stretch that keeps a row out, −1 for none."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._place = {name: i for i, name in enumerate(rows.series)}
        self._clean = rows.values.copy()  # NaN where out: no incident is measured by another one
        self._clean[rows.flagged] = np.nan
        self._stretches: list[tuple[int, Ruling]] = []
        self.verdict = np.full(len(rows.time), -1, np.int64)

    def rule(self, ruling: Ruling) -> None:
        chosen = (
            range(len(self._rows.series)) if ruling.series is None else [self._place.get(ruling.series, -1)]
        )
        for place in chosen:
            if place >= 0:
                self._apply(place, ruling)

    def _apply(self, place: int, ruling: Ruling) -> None:
        begin, end = self._rows.first[place : place + 2].tolist()
        time = self._rows.time[begin:end]
        start, stop = (
            int(np.searchsorted(time, ruling.start_ns)),
            int(np.searchsorted(time, ruling.end_ns, side="right")),
        )
        if start >= stop:
            return
        if ruling.why in (Why.FLAGGED, Why.NORMAL, Why.ANOMALY):
            latest = ruling.end_ns + DAY if ruling.why is Why.FLAGGED else int(time[-1]) + 1
            stop = aftermath(time, self._rows.values[begin:end], self._clean[begin:end], start, stop, latest)
        here = slice(begin + start, begin + stop)
        if ruling.why is Why.NORMAL:
            self.verdict[here] = -1
            self._clean[here] = self._rows.values[here]
            return
        self.verdict[here] = len(self._stretches)
        self._clean[here] = np.nan
        self._stretches.append((place, ruling))

    def left_out(self) -> list[LeftOut]:
        counts = np.bincount(self.verdict[self.verdict >= 0], minlength=len(self._stretches))
        order = np.argsort(self.verdict, kind="stable")[int((self.verdict < 0).sum()) :]
        found, at = [], 0
        for (place, ruling), count in zip(self._stretches, counts.tolist(), strict=True):
            if count:
                time = self._rows.time[order[at : at + count]]
                found.append(
                    LeftOut(
                        self._rows.series[place], int(time[0]), int(time[-1]), ruling.why, ruling.by, count
                    )
                )
            at += count
        return found


def _flagged(rows: Rows) -> Iterable[Ruling]:
    """Runs of flagged rows; those of a series that are at most ``CLOSE`` rows apart are one."""
    hits = np.flatnonzero(rows.flagged)
    if not len(hits):
        return
    owner = np.searchsorted(rows.first, hits, side="right") - 1
    new = np.r_[True, (np.diff(hits) > CLOSE) | (np.diff(owner) != 0)]
    starts = np.flatnonzero(new)
    for a, b in zip(starts.tolist(), [*(starts[1:] - 1).tolist(), len(hits) - 1], strict=True):
        yield Ruling(
            rows.series[owner[a]], int(rows.time[hits[a]]), int(rows.time[hits[b]]), Why.FLAGGED, "detector"
        )


def aftermath(
    time: NDArray[np.int64],
    values: NDArray[np.float64],
    clean: NDArray[np.float64],
    start: int,
    stop: int,
    latest_ns: int,
) -> int:
    """The row (exclusive) at which the stretch [start, stop) of one series is over: no later than
    ``latest_ns``.

    ``values`` (n, C) as they came, ``clean`` (n, C) the same with NaN where they must not be compared with.
    Each day after the stretch is compared, channel by channel, with the same times of the days before: the
    mean of a whole day says more of a level than any single point.
    """
    usual = float(np.median(np.diff(time[: start + 1]))) if start else 0.0
    day = min(round(DAY / usual), start // LEAST_DAYS) if usual > 0 else 0
    if day < LEAST_ROWS:
        return stop
    # as many whole days before ``stop`` as take us out of the stretch
    anchor = stop - -(-(stop - start) // day) * day
    days = min(anchor // day, DAYS)
    before = clean[anchor - days * day : anchor].reshape(days, day, -1)
    last = int(np.searchsorted(time, latest_ns))
    while stop < last:
        rows = min(day, last - stop)
        if not _away(before[:, :rows], values[stop : stop + rows]):
            return stop
        stop += rows
    return stop


def _away(before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
    """Whether the mean of ``after`` (n, C) lies outside what the means of ``before`` (D, n, C) were, in any
    channel.
    """
    with np.errstate(all="ignore"):
        there = np.isfinite(before)
        count = there.sum(1)
        # (D, C)
        means = np.where(count >= before.shape[1] / 2, np.where(there, before, 0.0).sum(1) / count, np.nan)
        enough = np.isfinite(means).sum(0) >= LEAST_DAYS - 1
        centre = np.nanmedian(np.where(enough, means, 0.0), 0)
        within = np.nanstd(np.where(enough, before.reshape(-1, before.shape[2]), 0.0), 0) / np.sqrt(
            before.shape[1]
        )
        spread = np.maximum(np.nanstd(np.where(enough, means, 0.0), 0, ddof=1), within)
        here = np.isfinite(after)
        # NaN, so not away, in a channel without a value
        off = np.abs(np.where(here, after, 0.0).sum(0) / here.sum(0) - centre)
        return bool((enough & (off > AWAY * spread + 1e-9 * np.abs(centre))).any())
