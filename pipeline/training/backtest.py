"""The backtest of a version on the recent past that its training did not use.

It runs the real detector. The challenger begins with the state that its series' history gives without the
quarantine, as after a promotion. The champion begins with everything that it has seen, as it does live. Both
then score the held-out end as it was received, incidents included. Points in quarantine are scored there, but
their forecast errors do not count, and their probabilities and alarms only where the detector alone excluded
them.
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
from pipeline.training.calibration import CalibrationCounts, calibrated_decades
from pipeline.training.dataset import HELD_BACK, TrainingData, take_points
from pipeline.training.quarantine import DAY_NS, MAX_GAP_ROWS, ExcludedInterval, ExclusionReason, ReviewLabel
from pipeline.training.state_fitting import fit_state, row_batches
from pipeline.training.synthetic_changes import KINDS, LEAD, ROWS, probe, robust_deviation

TAIL_DECADES: Final = (1, 2, 3)  # tail probabilities at which the calibration is measured
DEVIATION_ROWS: Final = 500  # of the robust standard deviation of a series


@dataclass(frozen=True, slots=True)
class BacktestConfig:
    """Size of a backtest.

    held_out: share of each series at its end. Of more than ``most_series`` a seeded sample is drawn, which
    prefers series with labels.
    """

    held_out: float = HELD_BACK
    most_series: int = 256
    power_series: int = 12
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Backtest:
    """The figures of one version on the held-out end.

    mase: median over series of the mean absolute error one step ahead, in mean steps |x_t − x_(t−1)| of the
    series' past (Hyndman & Koehler 2006); errors: the same by series; tails: share of points with a stated
    probability of at most .1, .01 and .001 (NaN: no series is long enough to state it); covered: share inside
    the band; alarms: runs of flagged
    points among the ``points`` that no person excluded; detected, missed: intervals labelled true; repeated:
    intervals labelled false that are flagged again; power: detected share of the synthetic changes by kind;
    minimum_size: median minimum detectable size by kind, in robust standard deviations (None: at least half
    of the series detect no size); microseconds: per point.
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
    """The data of one comparison, on which every version is judged."""

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
        """Backtest the version with ``weights`` (None: the packaged ones).

        ``lived``: it has seen what is in quarantine, as the champion has.
        """
        detector = build(self.spec, weights)
        state = fit_state(detector, self.data, self.until, clean=not lived)
        power = self._power(detector, state)
        points, step = self.data.points(clean=False), _mean_steps(self.data, self.until)
        flags = self.data.flagged.copy() if lived else np.zeros(len(self.data), np.bool_)
        errors, rarity, inside = (np.full(len(self.data), np.nan) for _ in range(3))
        spent = time.thread_time()
        for rows in _held_out_batches(self.data, self.until):
            state, verdicts = detector.step(state, take_points(points, rows))
            flags[rows] = verdicts.flag
            rarity[rows] = calibrated_decades(verdicts, self.spec.decision)
            off = np.abs(points.values[rows] - verdicts.expected) / step[points.slot[rows]]
            errors[rows] = _row_means(off)
            band = (points.values[rows] >= verdicts.lower) & (points.values[rows] <= verdicts.upper)
            inside[rows] = np.where(np.isfinite(verdicts.expected).all(1), band.all(1), np.nan)
        spent = time.thread_time() - spent
        return self._summary(
            detector.version, flags, errors, rarity, inside, power, 1e6 * spent / max(1, len(self.rows))
        )

    def _summary(
        self,
        version: str,
        flags: NDArray[np.bool_],
        errors: NDArray[np.float64],
        rarity: NDArray[np.float64],
        inside: NDArray[np.float64],
        power: list[Power],
        microseconds: float,
    ) -> Backtest:
        fair = self.rows[self.data.allowed[self.rows]]
        # Alarms lie in rows that only the detector excluded.
        quiet = self.rows[_not_excluded_by_people(self.data)[self.rows]]
        by_series = series_means(self.data, errors, fair)
        detected, missed = self._labelled(flags, ExclusionReason.ANOMALY)
        normal = [one for one in self.review_labels if one.reason is ExclusionReason.NORMAL]
        return Backtest(
            version=version,
            points=len(quiet),
            mase=float(np.median(list(by_series.values()))) if by_series else float("nan"),
            errors=by_series,
            covered=_mean(inside[fair]),
            tails=self._tails(rarity, quiet),
            alarms=alarms(self.data, flags, quiet),
            detected=detected,
            missed=missed,
            repeated=[_name(one) for one in normal if _is_flagged(self.data, flags, one, self.rows)],
            power={kind: float(np.mean([p.detected for p in power if p.kind == kind])) for kind in KINDS}
            if power
            else {},
            minimum_size={kind: _median([p.minimum_size for p in power if p.kind == kind]) for kind in KINDS}
            if power
            else {},
            microseconds=microseconds,
        )

    def _tails(self, rarity: NDArray[np.float64], rows: NDArray[np.int64]) -> dict[str, float]:
        """Return the share of ``rows`` with each stated probability."""
        counts = CalibrationCounts()
        seen = rows - self.data.first[self.data.owner[rows]] + 1
        counts.add_rarity(rarity[rows].astype(np.float32), seen)
        return {str(f.decade): f.frequency for f in counts.frequencies() if f.decade in TAIL_DECADES}

    def _labelled(self, flags: NDArray[np.bool_], reason: ExclusionReason) -> tuple[list[str], list[str]]:
        """Return the labelled intervals of the held-out end: flagged ones, missed ones.

        A flag of the champion before the held-out end counts too.
        """
        found: tuple[list[str], list[str]] = ([], [])
        for one in self.data.excluded:
            if one.reason is reason and len(_within(self.data, one, self.rows)):
                found[0 if _is_flagged(self.data, flags, one) else 1].append(_name(one))
        return found

    def _power(self, detector: Detector, state: State) -> list[Power]:
        """Measure detection power at the beginning of the held-out end of some series."""
        rng = np.random.default_rng(self.config.seed)
        found: list[Power] = []
        points = self.data.points(clean=True)
        for place in rng.permutation(len(self.data.series))[: self.config.power_series].tolist():
            begin, cut = int(self.data.first[place]), int(self.data.first[place] + self.until[place])
            rows = np.arange(cut, min(cut + ROWS, int(self.data.first[place + 1])))
            if len(rows) <= LEAD:
                continue
            deviation = np.array(
                [
                    robust_deviation(column)
                    for column in points.values[max(begin, cut - DEVIATION_ROWS) : cut].T
                ]
            )
            part = take_points(points, rows)
            found += probe(
                detector, state, place, part, self.data.series[place], deviation, self.config.seed + place
            )
        return found


def choose_series(data: TrainingData, config: BacktestConfig) -> TrainingData:
    """Return at most ``most_series`` of the data, those labelled true first."""
    if len(data.series) <= config.most_series:
        return data
    labelled = {one.series for one in data.excluded if one.reason is ExclusionReason.ANOMALY}
    order = np.random.default_rng(config.seed).permutation(len(data.series)).tolist()
    order.sort(key=lambda place: data.series[place] not in labelled)
    return data.only(order[: config.most_series])


def seasonal_naive(data: TrainingData, until: NDArray[np.int64], rows: NDArray[np.int64]) -> dict[str, float]:
    """Return the MASE by series of the seasonal naive forecast on ``rows``.

    The season is a row, a day or a week, whichever fits the series' own past best.
    """
    step, out = _mean_steps(data, until), np.full(len(data), np.nan)
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
    """Return the mean of ``errors`` (N,) over ``rows`` by series."""
    rows = rows[np.isfinite(errors[rows])]
    owner = data.owner[rows]
    count = np.bincount(owner, minlength=len(data.series))
    total = np.bincount(owner, errors[rows], minlength=len(data.series))
    return {data.series[i]: float(total[i] / count[i]) for i in np.flatnonzero(count)}


def alarms(data: TrainingData, flags: NDArray[np.bool_], rows: NDArray[np.int64]) -> int:
    """Count the runs of flagged rows; ``MAX_GAP_ROWS`` rows without a flag end one."""
    hits = rows[flags[rows]]
    if not len(hits):
        return 0
    owner = data.owner[hits]
    return int(1 + ((np.diff(hits) > MAX_GAP_ROWS) | (np.diff(owner) != 0)).sum())


def _held_out_batches(data: TrainingData, until: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the rows from ``until`` on, in batches."""
    length = np.diff(data.first)
    late = np.arange(len(data)) - np.repeat(data.first[:-1], length) >= np.repeat(until, length)
    return [rows[late[rows]] for rows in row_batches(data) if late[rows].any()]


def _mean_steps(data: TrainingData, until: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean |x_t − x_(t−1)| of each series' past (S, C).

    It is NaN for a channel that never changed.
    """
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


def _not_excluded_by_people(data: TrainingData) -> NDArray[np.bool_]:
    """Return a mask (N,) of rows that only the detector excluded.

    An alarm there counts as an alarm.
    """
    named = np.zeros(len(data), np.bool_)
    for one in data.excluded:
        if one.reason is not ExclusionReason.FLAGGED:
            named[_within(data, one)] = True
    return ~named


def _within(
    data: TrainingData, one: ExcludedInterval | ReviewLabel, rows: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Return the rows of an interval."""
    if one.series not in data.series:  # a removed series, or all series
        return np.empty(0, np.int64)
    place = data.series.index(one.series)
    begin, end = data.first[place : place + 2].tolist()
    a, b = np.searchsorted(data.time[begin:end], [one.start_ns, one.end_ns + 1])
    found = np.arange(begin + a, begin + b)
    return found if rows is None else found[np.isin(found, rows)]


def _is_flagged(
    data: TrainingData,
    flags: NDArray[np.bool_],
    one: ExcludedInterval | ReviewLabel,
    rows: NDArray[np.int64] | None = None,
) -> bool:
    return bool(flags[_within(data, one, rows)].any())


def _name(one: ExcludedInterval | ReviewLabel) -> str:
    return f"{one.series} {np.datetime64(one.start_ns, 'ns').astype('datetime64[s]')}Z"


def _row_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean over the known channels (N,), NaN if there is none."""
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
    """Return the median; None counts as larger than every number."""
    middle = (
        sorted(np.inf if value is None else value for value in values)[len(values) // 2] if values else np.inf
    )
    return None if np.isinf(middle) else float(middle)
