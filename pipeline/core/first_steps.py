"""First step of a person who has just read an alert, by the cause of the anomaly.

Each names one thing to look at. Nothing is claimed that the anomaly does not state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipeline.core.deviation_size import fell_to_zero, value_is_outside
from pipeline.core.types import Anomaly

_MEAN_MOVED = "Look for what changed at {began} and stayed: load, configuration or calibration."
_ONLY_THE_MEAN = " The mean has moved, single values may still look normal."
_ONE_STEP = "Look for what happened at {began}: a restart, a deployment, a lost unit or a wrong quote."
_CHANGES = (
    "Look at {name} since {began} in the chart: a ramp, an oscillation, retries or a loose contact. Then "
    "look for what was changed then."
)
_VALUE = "Look for what changed at {began}: a deployment, a restart, a change of load or of a set point."
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
    "forecast": "Look for what happened at {began}: {name} left the course that its own last values led to.",
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
    "missing_event": "Check whether the process, the batch or the person behind it is stuck: the next step "
    "was due and did not come.",
    "new_event": "Find out what writes this event since {began}: the model never saw it. After a change or "
    "a release it is expected.",
    "unusual_sequence": "Compare the last events with those of an ordinary run: no single step is wrong, but "
    "the order drifts.",
}
_STOPPED = (
    "Check whether {name} has stopped at {began} or is only no longer measured: the process behind it first, then "
    "its meter, agent or feed."
)
_ONE_READING = "One reading so far: see whether the next one is usual again. If not: "
_DEFAULT = "Look for what happened at {began}."
#: Causes of a value that can be back with the next reading.
_CAUSES_OF_SINGLE_READINGS = frozenset({"unusual_value", "forecast"})
#: Causes of a quantity in units of the value; an absence has an advice of its own.
_CAUSES_OF_STOPS = frozenset({"unusual_value", "unusual_level", "forecast"})


def first_step(anomaly: Anomaly, began: str) -> str:
    """Return the one thing to look at first.

    Args:
        anomaly: the anomaly.
        began: the begin of the deviation as text.
    """
    at = max(range(len(anomaly.channels)), key=lambda i: anomaly.contribution[i])
    others = [name for i, name in enumerate(anomaly.channels) if i != at and _is_as_expected(anomaly, i)]
    known = others or [name for i, name in enumerate(anomaly.channels) if i != at] or ["the others"]
    text = _STOPPED if _has_stopped(anomaly) else FIRST_STEPS.get(anomaly.cause, _DEFAULT)
    if text == _MEAN_MOVED and not value_is_outside(anomaly):
        text += _ONLY_THE_MEAN
    text = text.format(began=began, name=anomaly.channels[at], others=_joined(known))
    if anomaly.cause in _CAUSES_OF_SINGLE_READINGS and anomaly.readings == 1:
        return f"{_ONE_READING}{text[0].lower()}{text[1:]}"
    return text


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
