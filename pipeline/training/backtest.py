"""A version on the recent past that it did not learn from: what it would have forecast, flagged, caught and
missed, by the real detector.

The challenger begins with what its series' history teaches without the quarantine (as it would after a
promotion), the champion with all that it has seen (as it lives). Both then take the held-out end as it came,
incidents and all; what is in quarantine there is scored, but no forecast error, calibration or alarm of it
counts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors import build
from detectors.base import Detector, DetectorSpec, State
from pipeline.core.types import Power
from pipeline.training.dataset import HELD_BACK, TrainingData, take_points
from pipeline.training.quarantine import DAY_NS, MAX_GAP_ROWS, ExcludedInterval, ExclusionReason, ReviewLabel
from pipeline.training.state_fitting import fit_state, row_batches
from pipeline.training.synthetic_changes import KINDS, LEAD, ROWS, probe, robust_deviation

LEVELS: Final = (1, 2, 3)  # decades of tail probability at which the calibration is looked at
RECENT: Final = 500  # rows that say how far a series spreads


@dataclass(frozen=True, slots=True)
class BacktestConfig:
    """held_out: share of each series at its end.

    More than ``most_series`` are a seeded sample (those with labels always count).
    """

    held_out: float = HELD_BACK
    most_series: int = 256
    power_series: int = 12
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Backtest:
    """One version on the held-out end.

    mase: median over series of the mean absolute error one step ahead, in mean steps |x_t − x_(t−1)| of the
    series' past (Hyndman & Koehler 2006); errors: the same by series; tails: share of points whose surprise
    is at least 1, 2 and 3 (wanted .1, .01, .001); covered: share inside the band; alarms: stretches of
    flagged points among the ``points`` that no person took out; caught, missed: labelled-true stretches;
    repeated: labelled-false ones that are flagged again; power: by kind, the share of synthetic changes that
    is caught; smallest: by kind, the median smallest size, in spreads (None: at least half of the series
    catch none); microseconds: a point.
    """

    version: str
    points: int
    mase: float
    errors: dict[str, float]
    covered: float
    tails: dict[str, float]
    alarms: int
    detected: list[str]
    missed: list[str]
    repeated: list[str]
    power: dict[str, float]
    minimum_size: dict[str, float | None]
    microseconds: float


@dataclass(slots=True)
class Trial:
    """The data of one comparison: what all versions are judged on."""

    data: TrainingData
    spec: DetectorSpec
    config: BacktestConfig
    review_labels: Sequence[ReviewLabel] = ()
    until: NDArray[np.int64] = field(init=False)
    rows: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        tail = self.data.tail(self.config.held_out)
        self.rows = np.flatnonzero(tail)
        self.until = np.diff(self.data.first) - np.bincount(
            self.data.owner[tail], minlength=len(self.data.series)
        )

    def run(self, weights: Mapping[str, NDArray[Any]] | None, *, lived: bool) -> Backtest:
        """Judge the version with ``weights`` (None: those of the package).

        ``lived``: it has seen what is in quarantine, too (the champion).
        """
        detector = build(self.spec, weights)
        state = fit_state(detector, self.data, self.until, clean=not lived)
        power = self._power(detector, state)
        points, step = self.data.points(clean=False), _spread_steps(self.data, self.until)
        flags = self.data.flagged.copy() if lived else np.zeros(len(self.data), np.bool_)
        errors, surprise, inside = (np.full(len(self.data), np.nan) for _ in range(3))
        spent = time.thread_time()
        for rows in _in_parts(self.data, self.until):
            state, verdicts = detector.step(state, take_points(points, rows))
            flags[rows], surprise[rows] = verdicts.flag, verdicts.surprise
            off = np.abs(points.values[rows] - verdicts.expected) / step[points.slot[rows]]
            errors[rows] = _row_means(off)
            band = (points.values[rows] >= verdicts.lower) & (points.values[rows] <= verdicts.upper)
            inside[rows] = np.where(np.isfinite(verdicts.expected).all(1), band.all(1), np.nan)
        spent = time.thread_time() - spent
        return self._summary(
            detector.version, flags, errors, surprise, inside, power, 1e6 * spent / max(1, len(self.rows))
        )

    def _summary(
        self,
        version: str,
        flags: NDArray[np.bool_],
        errors: NDArray[np.float64],
        surprise: NDArray[np.float64],
        inside: NDArray[np.float64],
        power: list[Power],
        microseconds: float,
    ) -> Backtest:
        fair = self.rows[self.data.allowed[self.rows]]
        # what only the detector took out is where its alarms are
        quiet = self.rows[_unnamed(self.data)[self.rows]]
        by_series = series_means(self.data, errors, fair)
        detected, missed = self._labelled(flags, ExclusionReason.ANOMALY)
        normal = [one for one in self.review_labels if one.reason is ExclusionReason.NORMAL]
        return Backtest(
            version=version,
            points=len(quiet),
            mase=float(np.median(list(by_series.values()))) if by_series else float("nan"),
            errors=by_series,
            covered=_mean(inside[fair]),
            tails={
                str(level): float((surprise[quiet] >= level).sum()) / max(1, len(quiet)) for level in LEVELS
            },
            alarms=alarms(self.data, flags, quiet),
            detected=detected,
            missed=missed,
            repeated=[_name(one) for one in normal if _hit(self.data, flags, one, self.rows)],
            power={kind: float(np.mean([p.detected for p in power if p.kind == kind])) for kind in KINDS}
            if power
            else {},
            minimum_size={kind: _median([p.minimum_size for p in power if p.kind == kind]) for kind in KINDS}
            if power
            else {},
            microseconds=microseconds,
        )

    def _labelled(self, flags: NDArray[np.bool_], reason: ExclusionReason) -> tuple[list[str], list[str]]:
        """Stretches that reach into the held-out end: flagged in it (by a champion also before), or not."""
        found: tuple[list[str], list[str]] = ([], [])
        for one in self.data.excluded:
            if one.reason is reason and len(_within(self.data, one, self.rows)):
                found[0 if _hit(self.data, flags, one) else 1].append(_name(one))
        return found

    def _power(self, detector: Detector, state: State) -> list[Power]:
        """Synthetic changes at the beginning of the held-out end of some series."""
        rng = np.random.default_rng(self.config.seed)
        found: list[Power] = []
        points = self.data.points(clean=True)
        for place in rng.permutation(len(self.data.series))[: self.config.power_series].tolist():
            begin, cut = int(self.data.first[place]), int(self.data.first[place] + self.until[place])
            rows = np.arange(cut, min(cut + ROWS, int(self.data.first[place + 1])))
            if len(rows) <= LEAD:
                continue
            deviation = np.array(
                [robust_deviation(column) for column in points.values[max(begin, cut - RECENT) : cut].T]
            )
            part = take_points(points, rows)
            found += probe(
                detector, state, place, part, self.data.series[place], deviation, self.config.seed + place
            )
        return found


def chosen(data: TrainingData, config: BacktestConfig) -> TrainingData:
    """At most ``most_series`` of the data, those with something labelled true first."""
    if len(data.series) <= config.most_series:
        return data
    labelled = {one.series for one in data.excluded if one.reason is ExclusionReason.ANOMALY}
    order = np.random.default_rng(config.seed).permutation(len(data.series)).tolist()
    order.sort(key=lambda place: data.series[place] not in labelled)
    return data.only(order[: config.most_series])


def seasonal_naive(data: TrainingData, until: NDArray[np.int64], rows: NDArray[np.int64]) -> dict[str, float]:
    """MASE by series of "as one season ago" on ``rows``; the season (a row, a day, a week) is the one that
    fits the series' own past best.
    """
    step, out = _spread_steps(data, until), np.full(len(data), np.nan)
    for place, (begin, end) in enumerate(zip(data.first[:-1].tolist(), data.first[1:].tolist(), strict=True)):
        x, usual = data.clean[begin:end], float(np.median(data.every[begin:end]))
        seasons = {1, *(round(days * DAY_NS / usual) for days in (1, 7) if usual > 0)}
        tried = [
            (_season_error(x, season), season) for season in sorted(seasons) if 0 < 2 * season < until[place]
        ]
        scored = [
            (float(np.nanmean(error[: until[place]])), error)
            for error, _ in tried
            if np.isfinite(error[: until[place]]).any()
        ]
        if scored:
            out[begin:end] = min(scored, key=lambda one: one[0])[1] / _mean_of(step[place])
    return series_means(data, out, rows)


def _season_error(x: NDArray[np.float64], season: int) -> NDArray[np.float64]:
    error = np.full(len(x), np.nan)
    error[season:] = _row_means(np.abs(x[season:] - x[:-season]))
    return error


def series_means(
    data: TrainingData, errors: NDArray[np.float64], rows: NDArray[np.int64]
) -> dict[str, float]:
    """Mean of ``errors`` (N,) over ``rows`` by series, where there is any."""
    rows = rows[np.isfinite(errors[rows])]
    owner = data.owner[rows]
    count = np.bincount(owner, minlength=len(data.series))
    total = np.bincount(owner, errors[rows], minlength=len(data.series))
    return {data.series[i]: float(total[i] / count[i]) for i in np.flatnonzero(count)}


def alarms(data: TrainingData, flags: NDArray[np.bool_], rows: NDArray[np.int64]) -> int:
    """Stretches of flagged rows among ``rows``; as in an anomaly, ``CLOSE`` rows without a flag end one."""
    hits = rows[flags[rows]]
    if not len(hits):
        return 0
    owner = data.owner[hits]
    return int(1 + ((np.diff(hits) > MAX_GAP_ROWS) | (np.diff(owner) != 0)).sum())


def _in_parts(data: TrainingData, until: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Rows from ``until`` on, in portions."""
    length = np.diff(data.first)
    late = np.arange(len(data)) - np.repeat(data.first[:-1], length) >= np.repeat(until, length)
    return [rows[late[rows]] for rows in row_batches(data) if late[rows].any()]


def _spread_steps(data: TrainingData, until: NDArray[np.int64]) -> NDArray[np.float64]:
    """(S, C) mean |x_t − x_(t−1)| of each series' past; NaN where it never moved."""
    length = np.diff(data.first)
    inside = np.arange(len(data)) - np.repeat(data.first[:-1], length) < np.repeat(until, length)
    owner, clean = data.owner, data.clean
    pair = inside[1:] & (owner[1:] == owner[:-1])
    out = np.full((len(data.series), clean.shape[1]), np.nan)
    for channel in range(clean.shape[1]):
        move = np.abs(np.diff(clean[:, channel]))
        good = pair & np.isfinite(move)
        count = np.bincount(owner[1:][good], minlength=len(out))
        total = np.bincount(owner[1:][good], move[good], minlength=len(out))
        out[:, channel] = np.divide(total, count, out=np.full(len(out), np.nan), where=total > 0)
    return out


def _unnamed(data: TrainingData) -> NDArray[np.bool_]:
    """Rows (N,) that nobody but the detector took out: an alarm there counts as an alarm."""
    named = np.zeros(len(data), np.bool_)
    for one in data.excluded:
        if one.reason is not ExclusionReason.FLAGGED:
            named[_within(data, one)] = True
    return ~named


def _within(
    data: TrainingData, one: ExcludedInterval | ReviewLabel, rows: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """The rows of a stretch."""
    if one.series not in data.series:  # gone, or all series: then it is nobody's anomaly
        return np.empty(0, np.int64)
    place = data.series.index(one.series)
    begin, end = data.first[place : place + 2].tolist()
    a, b = np.searchsorted(data.time[begin:end], [one.start_ns, one.end_ns + 1])
    found = np.arange(begin + a, begin + b)
    return found if rows is None else found[np.isin(found, rows)]


def _hit(
    data: TrainingData,
    flags: NDArray[np.bool_],
    one: ExcludedInterval | ReviewLabel,
    rows: NDArray[np.int64] | None = None,
) -> bool:
    return bool(flags[_within(data, one, rows)].any())


def _name(one: ExcludedInterval | ReviewLabel) -> str:
    return f"{one.series} {np.datetime64(one.start_ns, 'ns').astype('datetime64[s]')}Z"


def _row_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the channels that are there (N,), NaN where none is."""
    there = np.isfinite(values)
    count = there.sum(1)
    return np.divide(
        np.where(there, values, 0.0).sum(1), count, out=np.full(len(values), np.nan), where=count > 0
    )


def _mean(values: NDArray[np.float64]) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def _mean_of(values: NDArray[np.float64]) -> float:
    return _mean(np.atleast_1d(values))


def _median(values: Sequence[float | None]) -> float | None:
    """Median where None is larger than all."""
    middle = (
        sorted(np.inf if value is None else value for value in values)[len(values) // 2] if values else np.inf
    )
    return None if np.isinf(middle) else float(middle)
