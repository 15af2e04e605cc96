"""First step of a person who has just read an alert, by the cause of the anomaly.

Each names one thing to look at. Nothing is claimed that the anomaly does not state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.core.deviation_size import fell_to_zero, value_is_outside
from pipeline.core.shown_numbers import shown_texts
from pipeline.core.types import Anomaly, AnomalyState
from pipeline.core.usual_range_text import MEAN_READINGS, MIN_CHANGES_OF_MOVEMENT

_SECOND_SOURCE = "Compare {name} with a second source"
_NEWS = f"{_SECOND_SOURCE}, then look for news {{when}}."
_MEAN_MOVED = "Look for what changed {when} and stayed: load, configuration or calibration."
_ONLY_THE_MEAN = " The mean has moved, single values may still look normal."
_ONE_STEP = "Look for what happened {when}: a restart, a deployment, a lost unit or a wrong quote."
_CHANGES = (
    "Look at {name} since {began} in the chart: a ramp, an oscillation, retries or a loose contact. Then "
    "look for what was changed then."
)
_VALUE = "Look for what changed {when}: maintenance or a release, a restart, another load or set point."
_RELATION = (
    "Compare {name} with {others} since {began}: {name} no longer follows. Check how {name} is measured first, "
    "then what it measures."
)
_NEW_VALUE = (
    "Look for what is new since {began}: no such values came before, so something was added, changed or set."
)
#: Cause → advice. ``{began}`` is the begin of the deviation, ``{name}`` the leading channel, ``{others}`` the
#: other channels.
FIRST_STEPS = {
    "static_limit": "The limit is one that you configured: do what you have agreed on for it. If the "
    "limit is wrong, change `limits` of the stream.",
    "flatline": "Check that the source of {name} still measures: a value that repeats often means a sensor, "
    "an agent or a poller that hangs since {began}.",
    "multivariate": _RELATION,
    "relation": _RELATION,
    "forecast": "Look for what happened {when}: a lost connection, a restart, or work that began or ended.",
    "shape": "Compare the curve since {began} with that of earlier days in the chart, then look for what ran "
    "differently.",
    "novelty": _NEW_VALUE,
    "range": _NEW_VALUE,
    "level_shift": _MEAN_MOVED,
    "unusual_level": _MEAN_MOVED,
    "step": _ONE_STEP,
    "unusual_step": _ONE_STEP,
    "return": _ONE_STEP,
    "volatility": _CHANGES,
    "unusual_noise": _CHANGES,
    "unusual_value": _VALUE,
    "steady_state": _VALUE,
    "impossible_value": "Check the record at {began} where it comes from: such a value is an error of the "
    "source, of its unit or of a parser.",
    "absence": "Check the job, the feed or the people behind {name}: what happens regularly at this time has "
    "not happened.",
    "seasonal_profile": "Check for a shifted schedule, a holiday or a change of clocks: the value is usual "
    "at another time of day.",
    "unexpected_event": "Look at what wrote this event at {began}, and at the step that should have come in "
    "its place.",
    "missing_event": "Check why nothing follows since {began}: the process may hang or have been aborted, or "
    "its records are missing.",
    "new_event": "Find out what writes this event since {began}: the model never saw it. After a change or "
    "a release it is expected.",
    "trend": _NEWS,
    "unusual_sequence": "Compare the last events with those of an ordinary run: no single step is wrong, but "
    "the order drifts.",
}
_STOPPED = (
    "Check whether {name} has stopped {when} or is only no longer measured: the process behind it first, "
    "then its meter, agent or feed."
)
_ONE_READING = "One reading so far: see whether the next one is usual again. If not: "
#: The usual range may have widened with the reading, so nothing is said about the ones after it.
_ENDED_READING = (
    "One reading raised this alarm; see in the chart whether the next ones were usual. If it comes again: "
)
HOUR_NS = 3_600_000_000_000
_DEFAULT = "Look for what happened {when}."
_MOVES = "{name} is {moving}: look for what drives it since {began}, and how long it may go on."
_QUOTE = f"{_SECOND_SOURCE}: a wrong quote, or news {{when}}."
_NO_TRADES = (
    "Check whether trading was halted {when}; if it was not, whether the feed of {name} loses records."
)
_SPLIT = f"{_SECOND_SOURCE}: a split {{when}}, or a wrong quote."
_HALT = "Check whether trading was halted at {began}; if it was not, the feed of {name} hangs."
#: Cause → advice about a price, where that differs.
_FIRST_STEPS_OF_PRICES = {
    "flatline": _HALT,
    "unusual_value": _QUOTE,
    "forecast": _QUOTE,
    "unusual_step": _QUOTE,
    "unusual_level": _NEWS,
    "unusual_noise": _NEWS,
    "relation": _NEWS,
    "trend": _NEWS,
}
#: Cause → advice about a count or a share of one, where that differs.
_FIRST_STEPS_OF_COUNTS = {
    "unusual_value": "Look for what changed {when}: a deployment, a restart, other senders or other work.",
    "unusual_noise": "Look at {name} since {began} in the chart: retries, a job that starts and stops, or a "
    "second sender.",
}
#: Cause → advice about a traded volume, where that differs.
_FIRST_STEPS_OF_VOLUMES = dict.fromkeys(
    ("unusual_value", "unusual_level", "unusual_step", "unusual_noise", "forecast"),
    "Look for news {when}, or for one large trade; compare {name} with a second source.",
)
#: Multiple of the usual value from which a price is more likely a wrong number than a price.
MIN_SHIFTED_DECIMAL = 5.0
#: Old shares for new ones in a split, and the largest distance of a price from it, as a share.
SPLITS, MAX_OFF_SPLIT = (2, 3, 4, 5, 8, 10, 20), 0.02
#: Causes of a value that can be back with the next reading.
_CAUSES_OF_SINGLE_READINGS = frozenset({"unusual_value", "forecast"})
#: Causes of a quantity in units of the value; an absence has an advice of its own.
_CAUSES_OF_STOPS = frozenset({"unusual_value", "unusual_level", "forecast"})


def first_step(anomaly: Anomaly, began: str, earliest: str = "") -> str:
    """Return the one thing to look at first.

    Args:
        anomaly: the anomaly.
        began: the begin of the deviation as text.
        earliest: the earliest begin as text, "" where the begin is sure.
    """
    at = max(range(len(anomaly.channels)), key=lambda i: anomaly.contribution[i])
    others = [name for i, name in enumerate(anomaly.channels) if i != at and _is_as_expected(anomaly, i)]
    known = others or [name for i, name in enumerate(anomaly.channels) if i != at] or ["the others"]
    when = f"between {earliest} and {began}" if earliest else f"at {began}"
    words = {"began": began, "when": when, "name": anomaly.channels[at], "others": _joined(known)}
    text = _template(anomaly).format(**words, moving=movement_text(anomaly))
    if anomaly.cause in _CAUSES_OF_SINGLE_READINGS and anomaly.readings == 1:
        first = _ENDED_READING if anomaly.state is AnomalyState.CLOSED else _ONE_READING
        return f"{first}{text[0].lower()}{text[1:]}"
    return text


def _template(anomaly: Anomaly) -> str:
    """Return the advice on an anomaly, with its gaps."""
    kind = "" if anomaly.context is None else anomaly.context.kind
    if kind == "price" and (multiple := _multiple_of_price(anomaly)):
        return f"{_SECOND_SOURCE}: {multiple}. A shifted decimal?"
    if kind == "price" and _may_be_split(anomaly):
        return _SPLIT
    if movement_text(anomaly):
        return _MOVES
    if kind == "price" and anomaly.cause in _FIRST_STEPS_OF_PRICES:
        return _FIRST_STEPS_OF_PRICES[anomaly.cause]
    if _has_stopped(anomaly):
        return _NO_TRADES if kind == "volume" else _STOPPED
    if kind == "volume" and anomaly.direction == "down" and anomaly.cause in _FIRST_STEPS_OF_VOLUMES:
        return _NO_TRADES
    if kind == "volume" and anomaly.cause in _FIRST_STEPS_OF_VOLUMES:
        return _FIRST_STEPS_OF_VOLUMES[anomaly.cause]
    if kind == "count" and anomaly.cause in _FIRST_STEPS_OF_COUNTS:
        return _FIRST_STEPS_OF_COUNTS[anomaly.cause]
    text = FIRST_STEPS.get(anomaly.cause, _DEFAULT)
    return text + _ONLY_THE_MEAN if text == _MEAN_MOVED and not value_is_outside(anomaly) else text


def movement_text(anomaly: Anomaly) -> str:
    """Return whether a value rises or falls and how fast, "" for neither.

    A value that moves is farther from the mean of its last readings than one change, and nearer than the
    width of its usual range: beyond that it jumped.
    """
    at, context = anomaly.leading_channel, anomaly.context
    if context is None or context.value is None or context.recent_mean is None or anomaly.readings < 2:
        return ""
    moved = context.value - context.recent_mean
    verb = "rising" if moved > 0 else "falling"
    if anomaly.cause == "unusual_noise" and anomaly.every_ns > 0:
        share = moved / abs(context.recent_mean) if anomaly.relative and context.recent_mean else moved
        change = anomaly.observed[at]
        if abs(share) < MIN_CHANGES_OF_MOVEMENT * change:
            return ""
        hourly = change * HOUR_NS / anomaly.every_ns
        amount = f"{_two_digits(100 * hourly)} %" if anomaly.relative else _two_digits(hourly)
        return f"{verb} by about {amount} an hour"
    width = anomaly.upper[at] - anomaly.lower[at]
    outwards = (moved > 0) == (anomaly.direction == "up")
    if anomaly.cause != "unusual_value" or not outwards or not 0 < abs(moved) <= width:
        return ""
    side = "above" if moved > 0 else "below"
    smoothed = f"its value smoothed over about {MEAN_READINGS} readings"
    return f"{verb} ({_two_digits(abs(moved))} {side} {smoothed})"


def _multiple_of_price(anomaly: Anomaly) -> str:
    """Return how many times the usual a price is, "" for a price that can be one."""
    value, usual = anomaly.observed[anomaly.leading_channel], anomaly.expected[anomaly.leading_channel]
    if anomaly.cause not in ("unusual_value", "forecast") or not (value > 0 and usual > 0):
        return ""
    times = value / usual
    if 1 / MIN_SHIFTED_DECIMAL < times < MIN_SHIFTED_DECIMAL:
        return ""
    (shown,) = shown_texts(value)
    return f"{shown} is about {_two_digits(times)} times the usual"


def _may_be_split(anomaly: Anomaly) -> bool:
    """Return whether a price changed as in a split or a merger of shares."""
    if anomaly.cause != "unusual_step" or not anomaly.relative:
        return False
    factor = 1 + anomaly.observed[anomaly.leading_channel]
    return any(
        abs(factor * one - 1) < MAX_OFF_SPLIT or abs(factor / one - 1) < MAX_OFF_SPLIT for one in SPLITS
    )


def _two_digits(x: float) -> str:
    return f"{float(f'{x:.2g}'):,.15g}"


def _has_stopped(anomaly: Anomaly) -> bool:
    """Return True if the value itself, not a limit of it, fell to zero."""
    return anomaly.cause in _CAUSES_OF_STOPS and fell_to_zero(anomaly)


def _is_as_expected(anomaly: Anomaly, channel: int) -> bool:
    """Return True if a channel lies inside its interval at the peak."""
    value, low, high = anomaly.observed[channel], anomaly.lower[channel], anomaly.upper[channel]
    return math.isfinite(value) and low <= value <= high


def _joined(names: Sequence[str]) -> str:
    """Return names as a list in words, the first three of them."""
    shown = list(names[:3])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
