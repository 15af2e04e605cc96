"""First step of a person by the cause of an anomaly, as in the dashboard."""

from __future__ import annotations

_MEAN_MOVED = (
    "The mean has moved and may stay there: look for a change of load, "
    "configuration or calibration at its beginning."
)
_ONE_STEP = (
    "One sudden step: look for what happened at that moment, such as a restart, a"
    " deployment, a lost unit, or a wrong quote."
)
_CHANGES = (
    "The value changes more from reading to reading than usual: look for a ramp, "
    "oscillation, retries or a loose contact."
)
#: Cause → advice. ``web/src/advice.ts`` of the dashboard has the same.
FIRST_STEPS = {
    "static_limit": "The limit is one that you configured: treat it as its owner would. If the "
    "limit is wrong, change `limits` of the stream.",
    "flatline": "A value that repeats often means a sensor, an agent or a connection that "
    "hangs: check that the source still measures.",
    "multivariate": "Each value alone may look normal: compare the channels in the chart, and "
    "look for the one that no longer follows the others.",
    "relation": "Each value alone may look normal: compare the channel with the others of the"
    " series in the chart.",
    "level_shift": _MEAN_MOVED,
    "unusual_level": _MEAN_MOVED,
    "step": _ONE_STEP,
    "unusual_step": _ONE_STEP,
    "volatility": _CHANGES,
    "unusual_noise": _CHANGES,
    "unexpected_event": "The order was wrong: look at what produced this event, and at the step that "
    "should have come before it.",
    "missing_event": "The session stopped before its usual end: check whether the process, the "
    "batch or the person behind it is stuck.",
    "new_event": "A kind of event that the model never saw: after a change or a release it is "
    "expected, otherwise find out what writes it.",
    "unusual_sequence": "No single step is wrong, but the order drifts: compare the last events with "
    "those of an ordinary run, and look for what changed slowly.",
    "absence": "Something that happens regularly did not happen: check the job, the batch or"
    " the people behind it.",
    "seasonal_profile": "Usual at another time of day: check for a shifted schedule, a holiday or a "
    "change of clocks.",
}
