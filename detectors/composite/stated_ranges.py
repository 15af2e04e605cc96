"""Statements on ratios: values, ranges and prediction intervals.

Each pass over the rows is one kernel: the numbers of a row are used together, and arrays of whole batches for
each step would cost more than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.channel_batch import Floats
from detectors.jit import inlined_kernel, ordered_kernel
from detectors.stages.usual_range.quantities import (
    CAUSE_OF_QUANTITY,
    HAS_DIRECTION,
    Q_FORECAST,
    Q_HIGHEST,
    Q_LEVEL,
    Q_LOWEST,
    Q_NOISE,
    Q_STILL,
    Q_VALUE,
)
from detectors.stages.usual_range.stage import ChannelRatios

MAX_FLOAT32 = float(np.finfo(np.float32).max)
#: Values of which the highest is this near to 100, and none above, are percentages.
MIN_HIGHEST_PERCENTAGE, MAX_PERCENTAGE = 99.0, 100.0
ROUNDING = 4 * float(np.finfo(np.float32).eps)
MAX_EXPONENT, MAX_EXPONENT_64, MAX_OCTAVES = 88.0, 700.0, 127.0  # e^88 and 2^127 are a float32
NAN = np.float32(np.nan)

Numbers = NDArray[np.float64]


class Statements(NamedTuple):
    """Statements on N points of C channels (N, C).

    observed, low, high  float64  leading quantity of each channel and its usual range, in its own unit
    cause                uint8    index into ``detectors.base.CAUSES``
    side                 int8     1: above the middle, −1: below, 0: without a direction
    lower, upper         float32  ends of the prediction interval, in units of the input
    """

    observed: Numbers
    low: Numbers
    high: Numbers
    cause: NDArray[np.uint8]
    side: NDArray[np.int8]
    lower: Floats
    upper: Floats


class LeadingStatements(NamedTuple):
    """Statements on the leading channel of N points; see ``detectors.base.Verdicts``."""

    lead: NDArray[np.intp]
    ratio: Floats
    channel: NDArray[np.int16]
    side: NDArray[np.int8]
    observed: Floats
    usual_low: Floats
    usual_high: Floats
    cause: NDArray[np.uint8]
    basis: NDArray[np.uint8]
    rarity: Floats
    stated_rarity: Floats
    recent_mean: Floats


def state_channels(
    found: ChannelRatios, values: Numbers, anchor: Numbers, expected: Floats, settings: tuple[int, Numbers]
) -> Statements:
    """Return the statements on each channel.

    Args:
        found: Results of the stage.
        values: Values (N, C) in units of the input.
        anchor: Anchor of each channel (N, C).
        expected: Forecasts (N, C) relative to the anchor.
        settings: ``logarithmic`` of the stage, and static limits (C, 2).
    """
    shape = values.shape
    types = (np.float64, np.float64, np.float64, np.uint8, np.int8, np.float32, np.float32)
    out = Statements(*_empty(shape, *types))
    columns = (found.quantity, found.side, found.observed, found.low, found.high)
    past = (found.minimum, found.maximum, found.half_width)
    _state_channels(columns, past, (values, anchor, expected), settings, out)
    return out


def lead_channels(
    found: ChannelRatios,
    ratio: Floats,
    stated: Statements,
    anchor: Numbers,
    rules: tuple[int, NDArray[np.bool_]],
) -> LeadingStatements:
    """Return the statements on the channel with the largest ratio of each point.

    Args:
        found: Results of the stage.
        ratio: Ratios (N, C) after the rules of the spec.
        stated: Statements on the channels.
        anchor: Anchor of each channel (N, C).
        rules: ``logarithmic`` of the stage, and points (N,) outside a static limit or impossible.
    """
    n = len(ratio)
    numbers = (np.float32, np.float32, np.float32)
    out = LeadingStatements(
        *_empty((n,), np.intp, np.float32, np.int16, np.int8, *numbers, np.uint8, np.uint8, *numbers)
    )
    columns = (found.rarity, found.stated_rarity, found.basis, found.level)
    shared = np.float32(np.log10(ratio.shape[1]))
    _lead_channels(ratio, tuple(stated), columns, anchor, (*rules, shared), out)
    return out


def _empty(shape: tuple[int, ...], *types: Any) -> Iterator[NDArray[Any]]:
    return (np.empty(shape, kind) for kind in types)


@inlined_kernel
def _inverse(x, logarithmic):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return a working value in units of the input, as ``Preset.inverse`` does."""
    if logarithmic == 0 or np.isnan(x):
        return x
    if logarithmic == 1:
        return np.sign(x) * np.expm1(min(abs(x), MAX_EXPONENT_64))
    return np.exp(min(x, MAX_EXPONENT_64))


@inlined_kernel
def _cut(x):  # type: ignore[no-untyped-def]  # noqa: ANN001
    return x if np.isnan(x) else min(max(x, -MAX_FLOAT32), MAX_FLOAT32)


@inlined_kernel
def _is_of_values(quantity):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return whether a quantity is in the unit of the value; −1 counts as one."""
    return quantity in (-1, Q_VALUE, Q_LEVEL, Q_HIGHEST, Q_LOWEST, Q_FORECAST)


@inlined_kernel
def _in_units(x, quantity, anchor, logarithmic):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return ``x`` in the unit of its quantity.

    A difference is in units of the input, or relative to the value where working units are logarithms. Noise
    is a mean step, a standstill a number of rows.
    """
    if np.isnan(x):
        return x
    if _is_of_values(quantity):
        return _cut(_inverse(x + anchor, logarithmic))
    if quantity in (Q_NOISE, Q_STILL):
        size = np.exp2(min(x, MAX_OCTAVES))
        if quantity == Q_STILL:
            return _cut(size - 1)
        return _cut(np.expm1(min(size, MAX_EXPONENT)) if logarithmic else size)
    return _cut(np.expm1(min(x, MAX_EXPONENT)) if logarithmic else x)


@inlined_kernel
def _never_negative(minimum, anchor):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return whether a channel had no negative value so far.

    A 0 loses its last bits when the anchor is taken from it and added again.
    """
    return np.float64(minimum) >= -ROUNDING * abs(anchor)


@inlined_kernel
def _interval(minimum, maximum, anchor, ends, logarithmic):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the ends of the prediction interval of one channel.

    It does not reach below 0 for values that were never negative, nor above 100 for values that have come
    close to 100 and never exceeded it.
    """
    low, high = _inverse(ends[0], logarithmic), _inverse(ends[1], logarithmic)
    lowest, highest = _inverse(np.float64(minimum), logarithmic), _inverse(np.float64(maximum), logarithmic)
    positive = np.isfinite(lowest) and (lowest >= 0 or _never_negative(minimum, anchor))
    if positive and low < 0:
        low = 0.0
    if positive and MIN_HIGHEST_PERCENTAGE <= highest <= MAX_PERCENTAGE and high > MAX_PERCENTAGE:
        high = MAX_PERCENTAGE
    return low, high


@ordered_kernel
def _state_channels(columns, past, numbers, settings, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Fill ``out``.

    A value is in units of the input, also one that is far from its forecast.
    """
    quantities, sides, observed, lows, highs = columns
    minimum, maximum, half_width = past
    values, anchors, expected = numbers
    logarithmic, limits = settings
    for i in range(values.shape[0]):
        for c in range(values.shape[1]):
            quantity, anchor = quantities[i, c], anchors[i, c]
            shift = expected[i, c] if quantity == Q_FORECAST else np.float32(0)
            low = _in_units(np.float64(lows[i, c] + shift), quantity, anchor, logarithmic)
            high = _in_units(np.float64(highs[i, c] + shift), quantity, anchor, logarithmic)
            value = values[i, c]
            if quantity in (Q_FORECAST, Q_VALUE):
                value = _cut(value)
            else:
                value = _in_units(np.float64(observed[i, c]), quantity, anchor, logarithmic)
            # The range of a value that was never negative begins at 0.
            begins = quantity >= 0 and logarithmic != 2 and _is_of_values(quantity)
            if begins and low < 0 and _never_negative(minimum[i, c], anchor):
                low = 0.0
            out.observed[i, c], out.low[i, c], out.high[i, c] = value, low, high
            out.cause[i, c] = CAUSE_OF_QUANTITY[quantity] if quantity >= 0 else np.uint8(0)
            out.side[i, c] = sides[i, c] if HAS_DIRECTION[quantity] else np.int8(0)
            width, centre = np.float64(half_width[i, c]), np.float64(expected[i, c])
            ends = (centre - width + anchor, centre + width + anchor)
            low, high = _interval(minimum[i, c], maximum[i, c], anchor, ends, logarithmic)
            if len(limits):
                low = limits[c, 0] if np.isnan(low) else max(low, limits[c, 0])
                high = limits[c, 1] if np.isnan(high) else min(high, limits[c, 1])
            out.lower[i, c], out.upper[i, c] = _cut(low), _cut(high)


@ordered_kernel
def _lead_channels(ratios, stated, columns, anchors, rules, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Fill ``out``."""
    observed, low, high, cause, side, _, _ = stated
    rarities, stated_rarities, bases, levels = columns
    logarithmic, violated, shared = rules
    for i in range(len(ratios)):
        lead, rarest = 0, rarities[i, 0]
        for c in range(1, ratios.shape[1]):
            rarest = max(rarest, rarities[i, c])
            if ratios[i, c] > ratios[i, lead]:
                lead = c
        ratio = ratios[i, lead]
        known = ratio > 0
        out.lead[i], out.ratio[i] = lead, ratio
        out.channel[i], out.side[i] = (lead, side[i, lead]) if known else (0, 0)
        out.observed[i] = observed[i, lead] if known else NAN
        out.usual_low[i], out.usual_high[i] = (low[i, lead], high[i, lead]) if known else (NAN, NAN)
        out.cause[i] = cause[i, lead] if ratio > 1 else np.uint8(0)
        out.basis[i] = bases[i, lead] if known and not violated[i] else np.uint8(0)
        # The rarest of C channels is C times as likely to be this rare as a single one.
        out.rarity[i] = max(rarest - shared, np.float32(0))
        out.stated_rarity[i] = max(stated_rarities[i, lead] - shared, np.float32(0))
        out.recent_mean[i] = _cut(_inverse(np.float64(levels[i, lead]) + anchors[i, lead], logarithmic))
