"""Curve of the quantity of an anomaly and its usual range, from recorded values.

The detector cuts outliers before it averages, so a curve can differ a little from the stated number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.alerts.messages.payload import AnomalyView, Channel, moment
from pipeline.core.durations import SECOND_NS
from pipeline.core.told_quantity import stated_ends
from pipeline.core.usual_range_text import (
    EXTREME_HOURS,
    MEAN_READINGS,
    RELATION_READINGS,
)
from pipeline.core.verdict_words import CAUSES_OF_VALUES

HOUR_NS = 3_600_000_000_000
MAX_UNIT_CHARACTERS = 12
#: Distance of a curve from the stated number at the peak, as a share of it, from which it is another curve.
MAX_OFF_PEAK = 0.02
#: The same, up to which curves are equally near, and the likeliest of them is drawn.
EQUALLY_NEAR = 0.005
#: Shares of the steps that are smaller than a cut, of which one is near to that of the detector.
STEP_CUTS = (0.98, 0.95, 0.9, 0.99, 1.0)
Values = NDArray[np.float64]
Columns = Mapping[str, NDArray[Any]]
#: End of a usual range: a number, a curve beside the forecast, or none.
End = float | Values | None


@dataclass(frozen=True, slots=True)
class ChartQuantity:
    """A curve with its usual range.

    label      name of the curve, "" for the value itself
    usual      name of the range
    values     the curve (N,)
    low, high  ends of its usual range
    of_values  it is in the unit of the value, so that it is drawn among the values
    implied    what the other channels imply for the value (N,)
    """

    label: str
    usual: str
    values: Values
    low: End
    high: End
    of_values: bool = False
    implied: Values | None = None

    @property
    def ends(self) -> list[float | Values]:
        """The ends that there are."""
        return [end for end in (self.low, self.high) if end is not None]

    @property
    def is_outside(self) -> NDArray[np.bool_]:
        """Points outside of the range (N,)."""
        low, high = (math.nan if end is None else end for end in (self.low, self.high))
        return np.asarray((self.values < low) | (self.values > high))


def quantity_of(anomaly: AnomalyView, top: Channel, points: Columns) -> ChartQuantity | None:
    """Return the quantity of which the sentence speaks, None if it has no curve.

    Args:
        anomaly: The anomaly.
        top: Its leading channel.
        points: ``time`` in ns, ``value`` and ``expected``, and ``relation`` if it is recorded.
    """
    values = points["value"].astype(np.float64)
    if anomaly.cause == "static_limit":
        return ChartQuantity("", "limit", values, top.lower, top.upper, of_values=True)
    if not anomaly.statement:
        return None
    with np.errstate(all="ignore"):  # a value can be infinite
        if anomaly.cause in ("forecast", *CAUSES_OF_VALUES):
            return _of_values(anomaly, top, points, values)
        return _beside_values(anomaly, top, points, values)


def _of_values(anomaly: AnomalyView, top: Channel, points: Columns, values: Values) -> ChartQuantity | None:
    """Return a quantity in the unit of the value.

    Args:
        anomaly: The anomaly.
        top: Its leading channel.
        points: Columns of the picture.
        values: Values of the channel.
    """
    low, high = _stated(top)
    usual = "usual range of the value"
    match anomaly.cause:
        case "unusual_level":
            label, usual = f"smoothed over about {MEAN_READINGS}", "usual range of the smoothed value"
            means = (running_mean(values), _of_logarithm(running_mean(_logarithm(values))))
            return ChartQuantity(
                label, usual, _as_stated(anomaly, top, points, *means), low, high, of_values=True
            )
        case "absence":
            word = "highest" if anomaly.direction == "down" else "lowest"
            label = f"{word} of the last {EXTREME_HOURS} hours"
            low, high = (top.lower, None) if word == "highest" else (None, top.upper)
            values = running_extreme(points["time"], values, highest=word == "highest")
            usual = f"usually at {'least' if word == 'highest' else 'most'}"
            return ChartQuantity(label, usual, values, low, high, of_values=True)
        case "forecast":
            ends = _beside_forecast(top, points["expected"].astype(np.float64))
            return ends and ChartQuantity(
                "", "usual range beside the forecast", values, *ends, of_values=True
            )
    return ChartQuantity("", usual, values, low, high, of_values=True)


def _beside_values(
    anomaly: AnomalyView, top: Channel, points: Columns, values: Values
) -> ChartQuantity | None:
    """Return a quantity in another unit than the value.

    Args:
        anomaly: The anomaly.
        top: Its leading channel.
        points: Columns of the picture.
        values: Values of the channel.
    """
    share, limit = (100 if anomaly.relative else 1), "its usual limit"
    low, high = (None if end is None else share * end for end in (top.lower, top.upper))
    short = top.unit and top.unit[:MAX_UNIT_CHARACTERS]
    unit = " (%)" if anomaly.relative else f" ({short})" if short else ""
    match anomaly.cause:
        case "unusual_step":
            changes = [np.expm1(one) for one in _log_steps(values)] if anomaly.relative else [_steps(values)]
            change = share * _as_stated(anomaly, top, points, *changes)
            return ChartQuantity(f"change{unit}", limit, change, low, high)
        case "trend":
            trends = [np.expm1(one) for one in _trends(_log_steps(values)[0])]
            trend = share * _as_stated(anomaly, top, points, *trends)
            return ChartQuantity(f"drift{unit}", limit, trend, low, high)
        case "unusual_noise":
            steps_of = _log_steps(values) if anomaly.relative else [_steps(values)]
            means = [running_mean(np.abs(one)) for one in steps_of]
            means = [np.expm1(one) for one in means] if anomaly.relative else means
            mean = share * _as_stated(anomaly, top, points, *means)
            return ChartQuantity(f"smoothed change{unit}", limit, mean, None, high)
        case "flatline":
            most = None if top.upper is None else float(math.floor(top.upper))
            return ChartQuantity("repeated readings", limit, running_repeats(values), None, most)
        case "relation" if np.isfinite(off := _relation(points)).any():
            mean, implied = running_mean(off, RELATION_READINGS), values - off
            if anomaly.relative:
                mean, implied = np.expm1(mean), _of_logarithm(_logarithm(values) - off)
            label = f"smoothed difference{unit}"
            return ChartQuantity(label, limit, share * mean, low, high, implied=implied)
    return None


def _relation(points: Columns) -> Values:
    """Return the difference from what other channels imply (N,), NaN: unknown."""
    return np.asarray(points.get("relation", np.full(len(points["time"]), np.nan)), np.float64)


def _stated(top: Channel) -> tuple[float | None, float | None]:
    """Return the ends of a usual range that the sentence states."""
    if top.observed is None:
        return top.lower, top.upper
    ends = (math.nan if end is None else end for end in (top.lower, top.upper))
    low, high = stated_ends(top.observed, *ends)
    return (None if math.isnan(low) else low), (None if math.isnan(high) else high)


def _beside_forecast(top: Channel, expected: Values) -> tuple[End, End] | None:
    """Return the usual range of the peak beside the forecast of each point (N,).

    It is as wide everywhere as at the peak, in the value or in its logarithm.
    """
    low, high = _stated(top)
    if top.expected is None or (low is None and high is None):
        return None

    def along(convert: Callable[[Any], Any], back: Callable[[Any], Any]) -> tuple[End, End]:
        middle, at = convert(expected), convert(top.expected)
        return (
            None if low is None else back(middle + convert(low) - at),
            None if high is None else back(middle + convert(high) - at),
        )

    if top.lower is not None and top.upper is not None and top.lower > 0:
        even = abs(top.upper + top.lower - 2 * top.expected) / (top.upper - top.lower)
        below, above, middle = (float(_logarithm(np.array(x))) for x in (top.lower, top.upper, top.expected))
        if abs(above + below - 2 * middle) / (above - below) < even:
            return along(_logarithm, _of_logarithm)
    return along(np.asarray, np.asarray)


def _as_stated(anomaly: AnomalyView, top: Channel, points: Columns, *curves: Values) -> Values:
    """Return the curve that is nearest to the stated number.

    The decision judges values or logarithms of them, by a preset that a message does not name. The number is
    that of the peak, or in a message about the end that of the farthest reading.

    Args:
        anomaly: The anomaly.
        top: Its leading channel.
        points: Columns of the picture.
        curves: The curves, the likeliest first.
    """
    peak, begin, end = (
        int(np.searchsorted(points["time"], round(moment(text).timestamp() * SECOND_NS)))
        for text in (anomaly.peak, anomaly.start, anomaly.end)
    )
    stated = math.nan if top.observed is None else top.observed
    for rows, near in ((slice(peak, peak + 1), MAX_OFF_PEAK), (slice(begin, end + 1), math.inf)):
        off = [np.fmin.reduce(np.abs(curve[rows] - stated), initial=math.inf) for curve in curves]
        if min(off) < near * abs(stated):
            most = min(off) + EQUALLY_NEAR * abs(stated)
            return next(curve for curve, one in zip(curves, off, strict=True) if one <= most)
    return curves[0]


def running_mean(values: Values, readings: int = MEAN_READINGS) -> Values:
    """Return the exponential mean of the last readings (N,), NaN for fewer.

    A missing value changes nothing.
    """
    out, mean, seen = np.full(len(values), np.nan), math.nan, 0
    for i, value in enumerate(values.tolist()):
        if math.isfinite(value):
            seen += 1
            mean = value if seen == 1 else mean + (value - mean) / min(seen, readings)
        if seen >= readings:
            out[i] = mean
    return out


def running_trend(steps: Values, cut: float = math.inf) -> Values:
    """Return the trend of a price as the detector sums it (N,).

    Args:
        steps: Steps of the logarithm (N,).
        cut: Size up to which a step counts.
    """
    from detectors.stages.usual_range.ordinary import moved_trend  # numba is imported with the first picture

    out, trend, most = np.zeros(len(steps)), np.float32(0), np.float32(cut)
    for i, step in enumerate(steps.astype(np.float32)):
        out[i] = trend = np.float32(moved_trend(trend, step, min(abs(step), most)))
    return out


def _trends(steps: Values) -> list[Values]:
    """Return the trend for each cut that may be that of the detector."""
    sizes = np.abs(steps[np.isfinite(steps)])
    cuts = np.quantile(sizes, STEP_CUTS).tolist() if len(sizes) else [math.inf]
    return [running_trend(steps, cut) for cut in cuts]


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


def _steps(values: Values) -> Values:
    return np.diff(values, prepend=np.nan)


def _log_steps(values: Values) -> list[Values]:
    """Return the steps of log x, where all are positive, and of log(1 + |x|)."""
    positive = [] if (values <= 0).any() else [np.log(values)]
    return [_steps(one) for one in (*positive, _logarithm(values))]


def _logarithm(values: Values) -> Values:
    """Return the logarithm of 1 + |x| with the sign of x, in which counts are judged."""
    return np.asarray(np.sign(values) * np.log1p(np.abs(values)))


def _of_logarithm(values: Values) -> Values:
    """Return the numbers of ``_logarithm``."""
    return np.asarray(np.sign(values) * np.expm1(np.abs(values)))
