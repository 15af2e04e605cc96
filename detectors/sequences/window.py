"""Likelihood of the last events of a key, and number of rare ones among them.

Each step of such a change is only a little improbable. The −log probability of an event less its expected
value has the mean 0, whatever came before, if the model is right. Certain steps have no variance and do not
count. The sums over the last events, which fall off with the age of an event, give the evidence
x² / (2 (v + c x / 3)): −log of Freedman's bound on the probability that such a sum reaches x, where v is the
sum of the variances and c bounds one event (Freedman, "On tail probabilities for martingales", 1975). The
number of rare events and new codes less its expected value is a second such sum. Its bound c is 1, so that it
finds a burst where the order is mostly chance.

A log can change for good after it was learned. Such a change is one alarm: after ``WINDOW_EVENTS`` flagged
events the evidence has become ordinary, and only more of it is an alarm again. This level falls off while
the evidence is below the limit.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from detectors.channel_batch import Ints
from detectors.jit import kernel
from detectors.sequences.frozen_lstm import MAX_EVENT_NATS, EventProbabilities
from detectors.sequences.vocabulary import BOUNDARY

#: Events of which the sums have about two thirds.
WINDOW_EVENTS: Final = 32
DECAY: Final = 1.0 - 1.0 / WINDOW_EVENTS
#: Events after which two thirds of the level are gone.
LEVEL_EVENTS: Final = 256
LEVEL_DECAY: Final = 1.0 - 1.0 / LEVEL_EVENTS
#: Evidence, in decades, over the level from which on the last events are an alarm again.
LEVEL_MARGIN: Final = 1.0
#: Sums of the excess and of its variance, both of rare events, level of evidence, and alarms since it rose.
SUMS: Final = 6


class WindowRule(NamedTuple):
    """Rule over the last events.

    limit: evidence of an alarm. rare: rare events are counted, too. level: evidence becomes ordinary.
    """

    limit: float
    rare: bool
    level: bool


def initial_window(n: int) -> NDArray[np.float64]:
    """Return the sums (n, 6) of new keys."""
    return np.zeros((n, SUMS))


def judge_window(
    state: NDArray[np.float64],
    events: tuple[Ints, Ints],
    found: EventProbabilities,
    left_out: NDArray[np.bool_],
    rule: WindowRule,
) -> NDArray[np.float64]:
    """Return the evidence after each event over limit and level (N,), in decades.

    From 0 on it is an alarm.

    Args:
        state: Sums by key (S, 6), changed in place; those of a key are 0 after a boundary.
        events: Key and number of each event, both (N,).
        found: Probabilities of the events.
        left_out: Events (N,) that do not count.
        rule: The rule.
    """
    over = np.full(len(left_out), -rule.limit)
    columns = (found.excess, found.variance, found.rare, found.rare_variance, left_out)
    _advance_window(state, events, columns, (float(rule.limit), rule.rare, rule.level), over)
    return over


@kernel
def _advance_window(state, events, columns, rule, over) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    (slot, token), (limit, count_rare, use_level) = events, rule
    excess, variance, rare, rare_variance, left_out = columns
    for row in range(len(slot)):
        sums = state[slot[row]]
        if left_out[row]:
            continue
        sums[0] = DECAY * sums[0] + excess[row]
        sums[1] = DECAY * DECAY * sums[1] + variance[row]
        evidence = _evidence(sums[0], sums[1], MAX_EVENT_NATS)
        if count_rare:
            sums[2] = DECAY * sums[2] + rare[row]
            sums[3] = DECAY * DECAY * sums[3] + rare_variance[row]
            evidence = max(evidence, _evidence(sums[2], sums[3], 1.0))
        over[row] = evidence - limit
        if use_level:
            over[row] = _over_level(sums, over[row])
        if token[row] == BOUNDARY:
            sums[:] = 0.0


@kernel
def _evidence(x, variance, most):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the evidence of a sum ``x`` of values of at most ``most``."""
    if x <= 0.0:
        return 0.0
    return x * x / (2.0 * (variance + most * x / 3.0)) / np.log(10.0)


@kernel
def _over_level(sums, over):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return evidence ``over`` the limit as evidence over the level; update that."""
    level = sums[4] * LEVEL_DECAY
    if over < 0.0:
        sums[5] = max(0.0, sums[5] - 1.0)
    elif over >= level:
        sums[5] += 1.0
    sums[4] = level
    if sums[5] >= WINDOW_EVENTS:
        sums[4], sums[5] = over + LEVEL_MARGIN, 0.0
    elif 0.0 <= over < level:
        sums[4] = max(level, over + LEVEL_MARGIN)
    return over - level
