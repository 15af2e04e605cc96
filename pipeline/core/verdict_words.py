"""Words of a verdict: the text of each cause, and the words that forewatch 0.1.0 stored.

The words themselves are ``detectors.base.FORECASTERS`` and ``detectors.base.CAUSES``. Database rows and alert
events that were written before the rename hold former words. Readers translate them here.
"""

from __future__ import annotations

#: Word of ``detectors.base.CAUSES`` → the text that a user reads. A value inside the expected band can be
#: anomalous for any cause but the forecast.
CAUSE_TEXTS = {
    "static_limit": "static limit: the value lies outside the configured limits",
    "multivariate": "multivariate: the channels no longer move together as they did",
    "forecast": "forecast: the forecast error is larger than usual, at this row or averaged over "
    "the last rows",
    "shape": "shape: no earlier stretch of the series resembles the last rows",
    "novelty": "novelty: no value near this one was seen before",
    "range": "range: the value lies outside the range of all values seen",
    "seasonal_profile": "seasonal profile: the value is unusual for this time of day",
    "level_shift": "level shift: the mean of the last rows has moved",
    "step": "step: the change from the previous value is unusually large",
    "flatline": "flatline: the value has repeated for longer than ever before",
    "return": "return: the relative change is large for the recent volatility",
    "volatility": "volatility: the recent volatility is unusually high",
    "steady_state": "steady state: a channel has left the level at which it had been steady",
    "unusual_value": "unusual value: the value lies outside its usual range",
    "unusual_level": "unusual level: the mean of the last rows lies outside its usual range",
    "unusual_step": "unusual step: the change from the previous value lies outside its usual range",
    "unusual_noise": "unusual noise: the mean size of the last changes lies outside its usual range",
    "relation": "relation: the channel has left the value that the other channels of the series imply",
    "absence": "absence: a height or a depth that is usual in these hours was not reached",
    "impossible_value": "impossible value: this kind of data cannot have such a value",
    "unexpected_event": "unexpected event: it is improbable after the events before it",
    "missing_event": "missing event: nothing came where another event was expected",
    "new_event": "new event: the model has never seen this code",
    "unusual_sequence": "unusual sequence: many of the last events were each a little unusual",
    "trend": "trend: the price has moved farther than usual from the mean of its last rows, single jumps "
    "left out",
}

#: Causes whose usual range can be drawn beside the values: a range of values, not of changes or runs.
CAUSES_OF_VALUES = frozenset({"static_limit", "unusual_value", "unusual_level", "absence"})

#: Causes whose quantity is a change or a difference.
CAUSES_OF_CHANGES = frozenset({"unusual_step", "unusual_noise", "relation", "trend"})

#: Causes of anomalies in sequences of events, which have no curve.
CAUSES_OF_EVENTS = frozenset({"unexpected_event", "missing_event", "new_event", "unusual_sequence"})

#: Former word → current word. Words that are not named here have not changed.
_FORECASTERS = {"river": "gaussian", "last": "last_value"}
_CAUSES = {
    "limits": "static_limit",
    "channels": "multivariate",
    "value": "novelty",
    "season": "seasonal_profile",
    "level": "level_shift",
    "stuck": "flatline",
    "burst": "volatility",
    "settled": "steady_state",
}
_FORMER_FORECASTERS = {current: former for former, current in _FORECASTERS.items()}
_FORMER_CAUSES = {current: former for former, current in _CAUSES.items()}


def current_forecaster(word: str) -> str:
    """Return the current word of a forecaster that is given by its current or its former word."""
    return _FORECASTERS.get(word, word)


def current_cause(word: str) -> str:
    """Return the current word of a cause that is given by its current or its former word."""
    return _CAUSES.get(word, word)


def former_forecaster(word: str) -> str:
    """Return the word that forewatch 0.1.0 uses for a forecaster."""
    return _FORMER_FORECASTERS.get(word, word)


def former_cause(word: str) -> str:
    """Return the word that forewatch 0.1.0 uses for a cause."""
    return _FORMER_CAUSES.get(word, word)
