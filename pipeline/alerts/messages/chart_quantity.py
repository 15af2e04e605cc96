"""Curve of the quantity of an anomaly, from recorded values of its channel.

The detector cuts outliers before it averages, so a curve can differ a little from the stated number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.alerts.messages.payload import AnomalyView, Channel, moment
from pipeline.core.durations import SECOND_NS
from pipeline.core.usual_range_text import EXTREME_HOURS, MEAN_READINGS, TREND_READINGS

HOUR_NS = 3_600_000_000_000
Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ChartQuantity:
    """A curve with the ends of its usual range.

    ``of_values`` says that it is in the unit of the value, so that it is drawn among the values.
    """

    label: str
    values: Values
    ends: list[float]
    of_values: bool


def quantity_of(
    anomaly: AnomalyView, top: Channel, time: NDArray[np.int64], values: Values
) -> ChartQuantity | None:
    """Return the quantity of an anomaly.

    It is None if it is the value itself or follows from other channels.

    Args:
        anomaly: The anomaly.
        top: Its leading channel.
        time: Times of the points, ns.
        values: Values of the channel.
    """
    if not anomaly.statement:
        return None
    ends = [end for end in (top.lower, top.upper) if end is not None]
    share = 100 if anomaly.relative else 1
    unit = " (%)" if anomaly.relative else f" ({top.unit})" if top.unit else ""
    match anomaly.cause:
        case "unusual_level":
            mean = _mean_as_stated(anomaly, top, time, values)
            return ChartQuantity(f"mean of the last {MEAN_READINGS}", mean, ends, True)
        case "absence":
            word = "highest" if anomaly.direction == "down" else "lowest"
            extreme = running_extreme(time, values, highest=word == "highest")
            return ChartQuantity(f"{word} of the last {EXTREME_HOURS} hours", extreme, ends, True)
        case "unusual_step":
            steps = share * _steps(values, relative=anomaly.relative)
            return ChartQuantity(f"change{unit}", steps, [share * end for end in ends], False)
        case "trend":
            trend = share * np.expm1(running_sum(_log_steps(values)))
            limits = [share * end for end in ends]
            return ChartQuantity(f"drift over {TREND_READINGS}{unit}", trend, limits, False)
        case "unusual_noise":
            mean = running_mean(np.abs(_log_steps(values) if anomaly.relative else _steps(values)))
            mean = np.expm1(mean) if anomaly.relative else mean
            most = [] if top.upper is None else [share * top.upper]
            return ChartQuantity(f"mean change{unit}", share * mean, most, False)
        case "flatline":
            most = [] if top.upper is None else [float(math.floor(top.upper))]
            return ChartQuantity("repeated readings", running_repeats(values), most, False)
    return None


def _mean_as_stated(anomaly: AnomalyView, top: Channel, time: NDArray[np.int64], values: Values) -> Values:
    """Return the mean of the last values, or of their logarithms.

    It is the one that is nearer to the stated mean at the peak: presets of counts average logarithms.
    """
    mean = running_mean(values)
    if top.observed is None or not len(values):
        return mean
    of_logarithms = np.sign(values) * np.log1p(np.abs(values))
    averaged = running_mean(of_logarithms)
    averaged = np.sign(averaged) * np.expm1(np.abs(averaged))
    peak = round(moment(anomaly.peak).timestamp() * SECOND_NS)
    at = min(int(np.searchsorted(time, peak)), len(values) - 1)
    return averaged if abs(averaged[at] - top.observed) < abs(mean[at] - top.observed) else mean


def running_mean(values: Values) -> Values:
    """Return the exponential mean of the last values (N,).

    It is as long as ``MEAN_READINGS``. A missing value changes nothing.
    """
    out, mean, seen = np.full(len(values), np.nan), math.nan, 0
    for i, value in enumerate(values.tolist()):
        if math.isfinite(value):
            seen += 1
            mean = value if seen == 1 else mean + (value - mean) / min(seen, MEAN_READINGS)
        out[i] = mean
    return out


def running_sum(steps: Values) -> Values:
    """Return the sum of the last steps (N,), each forgotten over ``TREND_READINGS``.

    A step back of the whole sum ends it.
    """
    out, total = np.zeros(len(steps)), 0.0
    for i, step in enumerate(steps.tolist()):
        total *= 1 - 1 / TREND_READINGS
        back = total * step < 0 and abs(step) >= abs(total)
        total = 0.0 if back else total + (step if math.isfinite(step) else 0.0)
        out[i] = total
    return out


def running_extreme(time: NDArray[np.int64], values: Values, *, highest: bool) -> Values:
    """Return the highest or lowest value of the last hours (N,)."""
    first = np.searchsorted(time, time - EXTREME_HOURS * HOUR_NS, "right")
    choose = np.fmax.reduce if highest else np.fmin.reduce
    return np.array([choose(values[begin : i + 1]) for i, begin in enumerate(first.tolist())])


def running_repeats(values: Values) -> Values:
    """Return the number of points before that have the same value (N,)."""
    out = np.zeros(len(values))
    for i in range(1, len(values)):
        out[i] = out[i - 1] + 1 if values[i] == values[i - 1] else 0
    return out


def _steps(values: Values, *, relative: bool = False) -> Values:
    steps = np.diff(values, prepend=np.nan)
    if not relative:
        return steps
    with np.errstate(all="ignore"):
        return np.asarray(steps / np.abs(values - steps))


def _log_steps(values: Values) -> Values:
    """Return the steps of the logarithms, of 1 + x where x can be 0."""
    with np.errstate(all="ignore"):
        return np.diff(np.log(values if np.nanmin(values) > 0 else np.abs(values) + 1), prepend=np.nan)
