"""Likelihood of the last events of a key, for slow changes of order.

Each step of such a change is only a little improbable. The −log probability of an event less its expected
value has the mean 0, whatever came before, if the model is right. Certain steps have no variance and do not
count. The sums over the last events, which fall off with the age of an event, give the evidence
x² / (2 (v + c x / 3)): −log of Freedman's bound on the probability that such a sum reaches x, where v is the
sum of the variances and c bounds one event (Freedman, "On tail probabilities for martingales", 1975).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from detectors.channel_batch import Ints
from detectors.jit import kernel
from detectors.sequences.frozen_lstm import MAX_EVENT_NATS, EventProbabilities
from detectors.sequences.vocabulary import BOUNDARY, UNKNOWN

#: Events of which the sums have about two thirds.
WINDOW_EVENTS: Final = 32
DECAY: Final = 1.0 - 1.0 / WINDOW_EVENTS


def initial_window(n: int) -> NDArray[np.float64]:
    """Return the sums (n, 2) of new keys: of the excess, and of its variance."""
    return np.zeros((n, 2))


def window_evidence(
    state: NDArray[np.float64], slot: Ints, token: Ints, found: EventProbabilities
) -> NDArray[np.float64]:
    """Return the evidence (N,) after each event, in decades.

    Args:
        state: Sums by key (S, 2), changed in place; those of a key are 0 after a boundary.
        slot: Key of each event (N,).
        token: Number of each event (N,).
        found: Probabilities of the events.
    """
    out = np.zeros(len(slot))
    _advance_window(state, slot, token, (found.excess, found.variance), out)
    return out


@kernel
def _advance_window(state, slot, token, columns, out) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    excess, variance = columns
    for row in range(len(slot)):
        sums = state[slot[row]]
        if token[row] == UNKNOWN:  # new codes are alarms by themselves
            continue
        sums[0] = DECAY * sums[0] + excess[row]
        sums[1] = DECAY * DECAY * sums[1] + variance[row]
        x = sums[0]
        if x > 0:
            out[row] = x * x / (2.0 * (sums[1] + MAX_EVENT_NATS * x / 3.0)) / np.log(10.0)
        if token[row] == BOUNDARY:
            sums[0] = sums[1] = 0.0
