"""Text of an anomaly under the decision "usual_range": its quantity, its value and its usual range.

Every message, page and command prints this text, so that all state the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta

from pipeline.core.durations import duration_text
from pipeline.core.types import Anomaly

#: Rows over which a level and a noise are averaged, and hours of the window of an absence. They describe the
#: quantities of ``detectors.stages.usual_range``.
MEAN_ROWS, EXTREME_HOURS = 8, 3
#: Significant digits of the largest number of a text. More are printed where the numbers would look equal.
MIN_DIGITS, MAX_DIGITS = 3, 15
#: Share of the points seen from which a rarity is that of a record.
RECORD_SHARE = 0.501
#: Decades from which a rarity is stated. Next to an alarm, one in ten says nothing.
MIN_STATED_RARITY = 2.0

#: Cause → sentence about its quantity.
_SENTENCES = {
    "static_limit": "{name} {is_} {amount}, {limit_side} its limit of {limit}",
    "impossible_value": "{name} {is_} {amount}, which is no possible value; expected {usual}",
    "unusual_value": "{name} {is_} {amount}, usual at this time {usual}",
    "unusual_level": f"the mean of the last {MEAN_ROWS} values of {{name}} {{is_}} {{amount}}, "
    "usual at this time {usual}",
    "unusual_step": "{name} {verb} by {absolute} in one step, usual {usual}",
    "unusual_noise": f"{{name}} {{changes}} by {{amount}} in the mean of the last {MEAN_ROWS} steps, "
    "usual {usual}",
    "relation": "{name} {is_} {absolute} {side} the value that the other channels imply, usual {usual}",
    "forecast": "{name} {is_} {absolute} {side} its forecast, usual {usual}",
    "absence": f"{{name}} {{stays}} {{missing}}: the {{peak}} value of the last {EXTREME_HOURS} hours "
    "{is_} {amount}, usual {usual}",
}


def usual_range_text(anomaly: Anomaly, unit: str | None = None, *, ended: bool = False) -> str | None:
    """Return the sentence of an anomaly, or None under the decision "surprise".

    Args:
        anomaly: the anomaly.
        unit: unit of the leading channel.
        ended: write in the past tense.
    """
    if not anomaly.ratio:
        return None
    at = max(range(len(anomaly.channels)), key=lambda i: anomaly.contribution[i])
    name, numbers = anomaly.channels[at], (anomaly.observed[at], anomaly.lower[at], anomaly.upper[at])
    observed, low, high = numbers
    if anomaly.cause == "flatline":
        return _flatline(name, observed, high, anomaly.every_ns, ended=ended)
    if anomaly.relative:
        numbers, unit = (100 * numbers[0], 100 * numbers[1], 100 * numbers[2]), "%"
    above = observed > anomaly.expected[at]
    size, low_text, high_text = _formatted(numbers)
    peak = "highest" if observed < low else "lowest"
    return _SENTENCES.get(anomaly.cause, "{name} {is_} {amount}, usual {usual}").format(
        name=name,
        is_="was" if ended else "is",
        stays="stayed" if ended else "stays",
        changes="changed" if ended else "changes",
        verb="rose" if observed >= 0 else "fell",
        side="above" if observed >= 0 else "below",
        limit_side="above" if above else "below",
        limit=_with_unit(high_text if above else low_text, unit),
        missing="below its usual peak" if peak == "highest" else "above its usual trough",
        peak=peak,
        amount=_with_unit(size, unit),
        absolute=_with_unit(size.removeprefix("−"), unit),
        usual=_range(low_text, high_text, low, high, unit),
    )


def deviation_text(anomaly: Anomaly) -> str:
    """Return the size and the duration of a deviation from a usual range."""
    rows = "1 row" if anomaly.points == 1 else f"{anomaly.points:,} rows"
    size = f"{anomaly.ratio:.3g} × the distance from the middle of the usual range to its end; {rows} outside"
    rarity = "" if anomaly.cause == "static_limit" else rarity_text(anomaly.surprise, anomaly.last_flag_seq)
    return f"{size}; {rarity}" if rarity else size


def rarity_text(surprise: float, points_seen: int) -> str:
    """Return the rarity of a deviation in words, "" where it is unknown or not rare.

    Nothing is claimed that was not seen. A detector that states usual ranges claims a rarity of more than one
    in half of the points seen only for a deviation that was never reached before.

    Args:
        surprise: −log10 of the probability of a row at least as unusual.
        points_seen: Points of the series so far.
    """
    if not (math.isfinite(surprise) and surprise >= MIN_STATED_RARITY):
        return ""
    times = 10.0 ** min(surprise, 15.0)
    if points_seen > 0 and times > RECORD_SHARE * points_seen:
        return f"rarer than anything in {min(round(times), points_seen):,} points"
    return f"about 1 in {_rounded(times):,} points"


def _rounded(value: float) -> int:
    """Return a count with two significant digits."""
    digits = max(math.floor(math.log10(max(value, 1.0))) - 1, 0)
    return max(round(value / 10**digits), 1) * 10**digits


def _flatline(name: str, run: float, longest: float, every_ns: int, *, ended: bool) -> str:
    repeats = "repeated" if ended else "repeats"
    lasted = f" ({duration_text(timedelta(microseconds=run * every_ns / 1000))})" if every_ns > 0 else ""
    usual = f"{math.floor(longest):,}" if math.isfinite(longest) else "unknown"
    return (
        f"{name} {repeats} the same value for {round(run):,} readings{lasted}; "
        f"the longest usual run is {usual}"
    )


def _range(low_text: str, high_text: str, low: float, high: float, unit: str | None) -> str:
    if math.isfinite(low) and math.isfinite(high):
        return _with_unit(f"{low_text} to {high_text}", unit)
    if math.isfinite(high):
        return f"at most {_with_unit(high_text, unit)}"
    return f"at least {_with_unit(low_text, unit)}" if math.isfinite(low) else "unknown"


def _formatted(numbers: Sequence[float]) -> list[str]:
    """Return numbers with equal decimals, as few as keep their order visible."""
    finite = [x for x in numbers if math.isfinite(x)]
    largest = max(map(abs, finite), default=0.0)
    magnitude = math.floor(math.log10(largest)) if largest > 0 else 0
    texts: list[str] = []
    for digits in range(MIN_DIGITS, MAX_DIGITS + 1):
        decimals = max(digits - 1 - magnitude, 0)
        texts = [_number(x, digits, decimals, magnitude) for x in numbers]
        if len({t for t, x in zip(texts, numbers, strict=True) if math.isfinite(x)}) == len(set(finite)):
            break
    return texts


def _number(value: float, digits: int, decimals: int, magnitude: int) -> str:
    if not math.isfinite(value):
        return "no value"
    text = f"{value:,.{decimals}f}" if -4 <= magnitude < 15 else f"{value:.{digits}g}"
    if text.startswith("-"):
        return text[1:] if not text.strip("-0.,") else f"−{text[1:]}"
    return text


def _with_unit(text: str, unit: str | None) -> str:
    return f"{text} {unit}" if unit else text
