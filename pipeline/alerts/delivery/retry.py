"""When a failed delivery is tried again: the schedule that Standard Webhooks 1.0 gives as its example, with
jitter, for about three days.
"""

from __future__ import annotations

import random

_MINUTE, _HOUR = 60.0, 3600.0

#: Seconds after the 1st, 2nd, ... failed attempt; after one more there is no further one.
DELAYS = (
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
ATTEMPTS = len(DELAYS) + 1
#: A delivery this old that was tried at least once is not tried again: its turn came late because those
#: before it failed.
GIVE_UP_SECONDS = sum(DELAYS)
LONGEST_PAUSE = 24 * _HOUR
_JITTER = 0.1


def delay(
    attempts: int, age_s: float, retry_after_s: float | None = None, draw: float | None = None
) -> float | None:
    """Seconds until the next attempt after ``attempts`` failed ones, or None: give up.

    ``age_s`` is how long ago the delivery was created; ``retry_after_s`` what the receiver asked for, which
    is honoured up to a day; ``draw`` in [0, 1) replaces chance.
    """
    if attempts >= ATTEMPTS or (attempts > 0 and age_s > GIVE_UP_SECONDS * (1 + _JITTER)):
        return None
    planned = DELAYS[max(attempts, 1) - 1] * (
        1 + _JITTER * (2 * (random.random() if draw is None else draw) - 1)
    )
    return max(planned, min(retry_after_s or 0.0, LONGEST_PAUSE))
