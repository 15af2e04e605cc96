"""Retry schedule of deliveries: the example of Standard Webhooks 1.0 with jitter, about three days."""

from __future__ import annotations

import random

_MINUTE, _HOUR = 60.0, 3600.0

#: Seconds after the 1st, 2nd, ... failed attempt.
RETRY_DELAYS_SECONDS = (
    5.0,
    5 * _MINUTE,
    30 * _MINUTE,
    2 * _HOUR,
    5 * _HOUR,
    10 * _HOUR,
    14 * _HOUR,
    20 * _HOUR,
    24 * _HOUR,
)
MAX_ATTEMPTS = len(RETRY_DELAYS_SECONDS) + 1
#: A delivery older than this that was tried at least once is not tried again: it was late because those
#: before it in its queue failed.
MAX_AGE_SECONDS = sum(RETRY_DELAYS_SECONDS)
#: Longest pause that a receiver can ask for.
MAX_PAUSE_SECONDS = 10 * _MINUTE
_JITTER = 0.1


def retry_delay(
    attempts: int, age_s: float, retry_after_s: float | None = None, draw: float | None = None
) -> float | None:
    """Return the seconds until the next attempt, or None if there is none.

    Args:
        attempts: Number of failed attempts.
        age_s: Age of the delivery in seconds.
        retry_after_s: Delay that the receiver asked for; used up to ten minutes.
        draw: Number in [0, 1) that replaces the random one.
    """
    if attempts >= MAX_ATTEMPTS or (attempts > 0 and age_s > MAX_AGE_SECONDS * (1 + _JITTER)):
        return None
    planned = RETRY_DELAYS_SECONDS[max(attempts, 1) - 1] * (
        1 + _JITTER * (2 * (random.random() if draw is None else draw) - 1)
    )
    return max(planned, min(retry_after_s or 0.0, MAX_PAUSE_SECONDS))
