"""Cut gaps into series, and make the inputs of a network that fills them.

It looks ahead: it is for finished series only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.forecasters.period_search import find_period
from detectors.training.fit import Scaler

#: Rows of a period search; the longest period is half of them.
PERIOD_ROWS: Final = 8192
#: Periods before and after a row that its season is the mean of.
SEASONS_EACH_SIDE: Final = 3
#: Share of the known rows that are cut in one pass of the training.
CUT_SHARE: Final = 0.2
#: Share of all rows that are cut one by one, for smoothing.
SINGLE_SHARE: Final = 0.05
#: Longest gap that is cut where the series have no longer ones.
DEFAULT_GAP_ROWS: Final = 32
#: Share of each series at its end that is not trained on and chooses the estimate.
HELD_OUT_SHARE: Final = 0.2
#: Columns of ``network_inputs``.
INPUTS: Final = 6

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class ScaledSeries(NamedTuple):
    """A scaled series with its scaling: values (n,), NaN where none is known.

    ``period`` is in rows, 0: none.
    """

    values: Array
    usable: Mask
    period: int
    location: float
    scale: float


def held_out_rows(values: Array) -> int:
    """Return how many rows at the end of a series are not trained on."""
    return round(HELD_OUT_SHARE * len(values))


def scale_series(known: Array, usable: Mask) -> ScaledSeries:
    """Scale a series and find its period."""
    scaler = Scaler.of(known[None])
    scaled = scaler.apply(known[None])[0].astype(np.float64)
    recent = line_over_gaps(scaled)[-PERIOD_ROWS:].astype(np.float32)
    ring = np.zeros(PERIOD_ROWS, np.float32)
    ring[: len(recent)] = recent
    period = int(find_period(ring, len(recent)))
    return ScaledSeries(scaled, usable, period, float(scaler.location[0]), float(scaler.scale[0]))


def gap_lengths(series: Sequence[Array]) -> NDArray[np.int64]:
    """Return the lengths of all gaps that have a value on each side."""
    found = [np.empty(0, np.int64)]
    for values in series:
        known = np.flatnonzero(np.isfinite(values))
        inside = np.isnan(values[known[0] : known[-1]]) if len(known) else np.empty(0, np.bool_)
        missing = np.diff(np.r_[0, inside, 0].astype(np.int8))
        found.append(np.flatnonzero(missing < 0) - np.flatnonzero(missing > 0))
    return np.concatenate(found)


def cut_gaps(
    series: ScaledSeries,
    lengths: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    first: int = 0,
    spread: bool,
) -> Mask:
    """Draw gaps in a series; return which known rows are cut (n,).

    Args:
        series: The series.
        lengths: Lengths of the gaps that the series have.
        rng: Random numbers.
        first: Row from which on gaps are cut.
        spread: Half of the lengths are of any order of magnitude.
    """
    n, known = len(series.values), np.isfinite(series.values)
    longest = int(max(DEFAULT_GAP_ROWS, lengths.max(initial=0)))
    single = rng.random(n) < (SINGLE_SHARE if spread else 0.0)
    wanted = max(0.0, float(CUT_SHARE * known[first:].sum() - single.sum()))
    draws = int(wanted) + 1  # enough, as each has a row
    drawn = (longest ** rng.random(draws)).astype(np.int64)
    if len(lengths):
        own = rng.choice(lengths, draws)
        drawn = np.where(rng.random(draws) < 0.5, drawn, own) if spread else own
    drawn = np.clip(drawn, 1, max(1, (n - first) // 3))
    drawn = drawn[: int(np.searchsorted(np.cumsum(drawn), wanted)) + 1]
    start = rng.integers(first, n, len(drawn))
    edges = np.zeros(n + 1, np.int64)
    np.add.at(edges, start, 1)
    np.add.at(edges, np.minimum(start + drawn, n), -1)
    cut = single | (np.cumsum(edges[:-1]) > 0)
    cut[np.flatnonzero(known)[[0, -1]]] = False  # a gap has two sides
    return cut & known


def line_over_gaps(values: Array) -> Array:
    """Return the values with straight lines over gaps; the outermost values go on."""
    known = np.flatnonzero(np.isfinite(values))
    return np.interp(np.arange(len(values)), known, values[known])


def season_over_gaps(values: Array, period: int) -> Array:
    """Return the season at each row, moved to the level of the neighbours.

    It is NaN where there is none. The season is the mean of the values of some periods before and after,
    without the row itself.
    """
    n = len(values)
    total, count = np.zeros(n), np.zeros(n)
    for k in range(1, SEASONS_EACH_SIDE + 1) if period else ():
        if k * period >= n:
            break
        for here, there in (
            (slice(k * period, n), slice(0, n - k * period)),
            (slice(0, n - k * period), slice(k * period, n)),
        ):
            known = np.isfinite(values[there])
            total[here] += np.where(known, values[there], 0.0)
            count[here] += known
    with np.errstate(invalid="ignore"):
        season = np.where(count > 0, total / count, np.nan)
    away = values - season
    return season + line_over_gaps(away) if np.isfinite(away).any() else np.full(n, np.nan)


def network_inputs(values: Array, period: int) -> tuple[NDArray[np.float32], Array, Array]:
    """Return the inputs of the network (n, INPUTS), the line and the season (n,)."""
    n, known = len(values), np.isfinite(values)
    line, season = line_over_gaps(values), season_over_gaps(values, period)
    row = np.arange(n)
    before = row - np.maximum.accumulate(np.where(known, row, 0))
    after = np.minimum.accumulate(np.where(known, row, n - 1)[::-1])[::-1] - row
    has_season = np.isfinite(season)
    columns = (
        line,
        known,
        np.log1p(before) / 4,
        np.log1p(after) / 4,
        np.where(has_season, season - line, 0.0),
        has_season,
    )
    return np.column_stack(columns).astype(np.float32), line, np.where(has_season, season, line)
