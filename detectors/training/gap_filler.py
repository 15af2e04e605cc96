"""Fill gaps in finished series, and smooth, with a bidirectional network.

The network learns on the series themselves: gaps like theirs are cut into what is known, and it estimates
what was cut from both sides. Three estimates compete on gaps in the last fifth of each series, on which
nothing was trained: the network, the straight line between the neighbours, and the season moved to the level
of the neighbours. The one with the smallest error fills the series. It looks ahead: never use it in a live
stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from detectors.forecasters.bidirectional import Bidirectional
from detectors.training.fit import untrainable
from detectors.training.gap_inputs import (
    Array,
    Mask,
    ScaledSeries,
    cut_gaps,
    gap_lengths,
    held_out_rows,
    line_over_gaps,
    network_inputs,
    scale_series,
)
from detectors.training.gap_network import RANGE_SHARE, FillSettings, apply_network, train_network

#: Times that gaps are drawn for the choice.
CHOICE_DRAWS: Final = 4
#: Rows that are estimated as if they were missing at a time, one of so many: for smoothing.
SMOOTHING_PASSES: Final = 8


class Method(StrEnum):
    """Estimates of what is missing."""

    NETWORK = "network"
    LINE = "line"
    SEASON = "season"


class Estimate(NamedTuple):
    """An estimate of each row of a series, from the rows on both sides of it.

    value, lower, upper (n,); method: the estimate with the smallest error on cut gaps; error: that error over
    that of the line, NaN where it was not measured.
    """

    value: Array
    lower: Array
    upper: Array
    method: Method
    error: float


def estimate_series(
    series: Sequence[Array], usable: Sequence[Mask], settings: FillSettings | None = None
) -> list[Estimate]:
    """Train on all series, and estimate each row from the others of its series.

    Args:
        series: Values of equal steps (n,), NaN where one is missing.
        usable: Rows that say what is usual (n,): the others, anomalies, count as missing.
        settings: How to train.
    """
    settings = settings or FillSettings()
    known = [
        np.where(mask & np.isfinite(values), values, np.nan)
        for values, mask in zip(series, usable, strict=True)
    ]
    chosen = [i for i, values in enumerate(known) if len(values) and not untrainable(values[None])]
    scaled = {i: scale_series(known[i], usable[i]) for i in chosen}
    lengths = gap_lengths(series)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more of them wait for each other in such small steps
    try:
        network = train_network(list(scaled.values()), lengths, settings)
        return [
            _choose(scaled[i], network, lengths, settings) if i in scaled else _without_network(values)
            for i, values in enumerate(series)
        ]
    finally:
        torch.set_num_threads(threads)


def _without_network(values: Array) -> Estimate:
    """Return the line for a series that is too short or constant."""
    line = line_over_gaps(values) if np.isfinite(values).any() else values
    nothing = np.full(len(values), np.nan)
    return Estimate(line, nothing, nothing, Method.LINE, np.nan)


def _estimates(
    one: ScaledSeries, cut: Mask, network: Bidirectional | None
) -> dict[Method, tuple[Array, Array, Array]]:
    """Return value and range by each method, with the rows of ``cut`` missing."""
    x, line, season = network_inputs(np.where(cut, np.nan, one.values), one.period)
    unknown = np.full(len(line), np.nan)
    found = {Method.LINE: (line, unknown, unknown)}
    if one.period:
        found[Method.SEASON] = (season, unknown, unknown)
    if network is not None:
        found[Method.NETWORK] = apply_network(network, x)
    return found


def _choose(
    one: ScaledSeries, network: Bidirectional | None, lengths: NDArray[np.int64], settings: FillSettings
) -> Estimate:
    """Estimate a series by the method with the smallest error at its end."""
    first = len(one.values) - held_out_rows(one.values)
    parts_of: dict[Method, list[Array]] = {}
    rng = np.random.default_rng(settings.seed + 1)
    for _ in range(CHOICE_DRAWS):
        cut = cut_gaps(one, lengths, rng, first=first, spread=False)
        for name, (value, _, _) in _estimates(one, cut, network).items():
            parts_of.setdefault(name, []).append(np.abs(value - one.values)[cut & one.usable])
    errors = {name: np.concatenate(parts) for name, parts in parts_of.items()}
    method, error = Method.LINE, np.nan
    if len(errors[method]):
        method = min(errors, key=lambda name: float(errors[name].mean()))
        error = float(errors[method].mean() / max(float(errors[Method.LINE].mean()), 1e-12))
    nothing = np.zeros(len(one.values), np.bool_)
    parts = [part.copy() for part in _with_range(_estimates(one, nothing, network)[method], errors, method)]
    smoothed, known = _smoothed(one, network)
    for part, found_part in zip(parts, smoothed, strict=True):
        part[known] = found_part[known]
    value, lower, upper = (one.location + one.scale * part for part in parts)
    return Estimate(value, lower, upper, method, error)


def _with_range(
    found: tuple[Array, Array, Array], errors: dict[Method, Array], method: Method
) -> tuple[Array, Array, Array]:
    """Add a range: that of the network, or that of the errors of the method."""
    value, lower, upper = found
    if method == Method.NETWORK or not len(errors[method]):
        return value, lower, upper
    away = float(np.quantile(errors[method], RANGE_SHARE))
    return value, value - away, value + away


def _smoothed(one: ScaledSeries, network: Bidirectional | None) -> tuple[tuple[Array, Array, Array], Mask]:
    """Estimate each known row without itself, and return which rows are known.

    The method is the one with the smallest error at the end of the series.
    """
    known = np.isfinite(one.values)
    tail = known & one.usable
    tail[: len(tail) - held_out_rows(one.values)] = False
    found: dict[Method, tuple[Array, Array, Array]] = {}
    for number in range(SMOOTHING_PASSES):
        cut = np.zeros(len(known), np.bool_)
        cut[np.flatnonzero(known)[number::SMOOTHING_PASSES]] = True
        for method, parts in _estimates(one, cut, network).items():
            value, lower, upper = np.full((3, len(known)), np.nan)
            whole = found.setdefault(method, (value, lower, upper))
            for part, estimate in zip(whole, parts, strict=True):
                part[cut] = estimate[cut]
    errors = {method: np.abs(parts[0] - one.values)[tail] for method, parts in found.items()}
    best = min(errors, key=lambda name: float(errors[name].mean()) if tail.any() else 0.0)
    return _with_range(found[best], errors, best), known
