"""Size of a deviation in words, from the numbers that its statement prints.

The size is measured in widths of the usual range. Where the range is much wider than its lower end, as that
of traffic, a width says nothing about a value below it: such a value is compared with the end itself.
"""

from __future__ import annotations

import math

from pipeline.core.shown_numbers import shown_numbers
from pipeline.core.types import Anomaly

#: Cause whose quantity is a change, a difference or a length → its usual maximum in words.
NOUNS_OF_CHANGES = {
    "unusual_step": "largest usual step",
    "unusual_noise": "largest usual change",
    "relation": "largest usual difference",
    "trend": "largest usual drift",
    "flatline": "longest usual standstill",
}
#: Causes whose quantity is a value, its mean, or a value beside its forecast.
CAUSES_OF_COUNTS = frozenset({"unusual_value", "unusual_level", "forecast"})
#: Widths of the range in its lower end from which a value below it is compared with the end.
MIN_WIDTHS_OF_END = 10.0
#: Multiple of an end of its range from which a count is obvious, however wide its range is in logarithms.
MIN_OBVIOUS_TIMES = 10.0
#: Share of the end, or of the width, below which a value is next to the range.
MAX_NEXT_TO_END = 0.01
LEAST_SHARE = 0.01  # of an end of the range; below it a message says "less than 1 %"
NEXT_TO_RANGE = "just beyond the usual range"


def size_text(anomaly: Anomaly) -> str:
    """Return the size of a deviation.

    ``ratio`` compares logarithms for some presets, which a reader cannot follow.
    """
    at = anomaly.leading_channel
    value, low, high = anomaly.observed[at], anomaly.lower[at], anomaly.upper[at]
    is_change = anomaly.cause in NOUNS_OF_CHANGES
    if is_change and (text := _size_of_change(anomaly, value, low, high)):
        return text
    value, low, high = shown_numbers(value, low, high)
    if math.isfinite(value + low + high) and low < high and not low <= value <= high:
        return _size_in_widths(value, low, high) if is_change else _size_of_value(value, low, high)
    return _multiple(anomaly.ratio, "the largest usual deviation")


def fell_to_zero(anomaly: Anomaly) -> bool:
    """Return whether a value is 0 that is always above 0."""
    at, context = anomaly.leading_channel, anomaly.context
    value = anomaly.observed[at]
    if anomaly.cause == "unusual_level" and context is not None and context.value is not None:
        value = context.value
    return anomaly.cause not in NOUNS_OF_CHANGES and value == 0 < anomaly.lower[at]


def is_many_times(anomaly: Anomaly) -> bool:
    """Return whether a count is many times as large, or as small, as usual.

    A count of 0 is compared as 1.
    """
    context, at = anomaly.context, anomaly.leading_channel
    if context is None or context.kind not in ("count", "volume") or anomaly.cause not in CAUSES_OF_COUNTS:
        return False
    value, low, high = anomaly.observed[at], anomaly.lower[at], anomaly.upper[at]
    if value > high:
        return value >= MIN_OBVIOUS_TIMES * high > 0
    return low >= MIN_OBVIOUS_TIMES * max(0.0 if fell_to_zero(anomaly) else value, 1.0)


def value_is_outside(anomaly: Anomaly) -> bool:
    """Return whether the value, not only its mean, is outside the stated range."""
    at, context = anomaly.leading_channel, anomaly.context
    low, high = anomaly.lower[at], anomaly.upper[at]
    if anomaly.cause != "unusual_level":
        return anomaly.cause not in NOUNS_OF_CHANGES and not low <= anomaly.observed[at] <= high
    if context is None or context.value is None:
        return False
    return context.value > high if anomaly.observed[at] > high else context.value < low


def _size_of_change(anomaly: Anomaly, value: float, low: float, high: float) -> str:
    """Return the size of a change or a length, "" without a usual maximum."""
    noun, end = NOUNS_OF_CHANGES[anomaly.cause], high if value > high else low
    if anomaly.cause == "flatline":
        end = math.floor(end) if math.isfinite(end) else end
    else:
        value, end = _printed_change(anomaly, value, end)
    if math.isfinite(end) and end and value / end > 1:
        return _multiple(value / end, f"the {noun}")
    return "no standstill of this length is usual" if anomaly.cause == "flatline" else ""


def _printed_change(anomaly: Anomaly, value: float, end: float) -> tuple[float, float]:
    """Return a change and its limit as their sentence prints them."""
    added = 1.0 if anomaly.relative and value > 1 and end > 0 else 0.0
    value, end = shown_numbers(added + value, added + end)
    return value, end


def _size_of_value(value: float, low: float, high: float) -> str:
    """Return the size of a value outside its finite range."""
    if low == 0 and value > high:
        return _multiple(value / high, "the upper end of the usual range")
    if 0 <= value < low and high - low > MIN_WIDTHS_OF_END * low:
        return _size_below(value, low)
    words = _size_in_widths(value, low, high)
    if value == 0 < low:
        return f"down to zero, {words}"
    return "below zero, where no usual value is" if value < 0 <= low and words == NEXT_TO_RANGE else words


def _size_in_widths(value: float, low: float, high: float) -> str:
    widths = max(value - high, low - value) / (high - low)
    if widths < MAX_NEXT_TO_END:
        return NEXT_TO_RANGE
    share = f"{_two_digits(widths)} times " if widths >= 1 else f"{_percent(widths)} of "
    return f"beyond the usual range by {share.removeprefix('1 times ')}its width"


def _size_below(value: float, low: float) -> str:
    """Return the size of a value below the lower end of a much wider range."""
    if value == 0:
        return "down to zero"
    if low >= 2 * value:
        share = value / low
        amount = _percent(share) if share >= LEAST_SHARE else f"less than {_percent(LEAST_SHARE)}"
        return f"{amount} of the lower end of the usual range"
    if value < low * (1 - MAX_NEXT_TO_END):
        return f"{_percent(1 - value / low)} below the lower end of the usual range"
    return NEXT_TO_RANGE


def _multiple(times: float, noun: str) -> str:
    """Return a multiple of an amount.

    One of 1.04 is a share, as "1 times" would say nothing.
    """
    if times < 1 + MAX_NEXT_TO_END:
        return f"just beyond {noun}"
    return f"{_percent(times - 1)} beyond {noun}" if times < 1.1 else f"{_two_digits(times)} times {noun}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _two_digits(x: float) -> str:
    """Return ``x`` with two significant digits."""
    return f"{float(f'{x:.2g}'):,.15g}"
