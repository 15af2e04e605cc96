"""Storage of the hidden and cell states of an LSTM in 16 bits a number.

A stored number is an int16 in steps of a power of two: 1/32,768 for the hidden state, which lies within ±1,
and 1/2,048 for the cell state, which is clipped to ±16 (beyond it tanh is 1). States are rounded to these
steps after each row, not when they are stored, so that verdicts do not depend on batches or restarts.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.channel_batch import Floats
from detectors.jit import kernel

HIDDEN_STEPS, CELL_STEPS = np.float32(32_768), np.float32(2_048)  # in 1
MIN_STEPS: Final = np.float32(-32_768)
MAX_STEPS: Final = np.float32(32_767)


def is_rounded(stored: NDArray[Any]) -> bool:
    """Return True for a state of 16 bits, False for one that is kept as float32."""
    return stored.dtype == np.int16


def unpack_states(h: NDArray[Any], c: NDArray[Any]) -> tuple[Floats, Floats]:
    """Return stored hidden and cell states as float32, a copy."""
    if not is_rounded(h):
        return h.copy(), c.copy()
    return h * (1 / HIDDEN_STEPS), c * (1 / CELL_STEPS)


def pack_states(h: Floats, c: Floats) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Return hidden and cell states as stored, rounded to their steps."""
    packed = (
        np.clip(np.rint(values * steps), MIN_STEPS, MAX_STEPS).astype(np.int16)
        for values, steps in ((h, HIDDEN_STEPS), (c, CELL_STEPS))
    )
    return next(packed), next(packed)


@kernel
def round_states(h, c) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Round the hidden and the cell state of one row (H,) to their steps, in place."""
    for k in range(len(h)):
        h[k] = min(max(np.rint(h[k] * HIDDEN_STEPS), MIN_STEPS), MAX_STEPS) * (1 / HIDDEN_STEPS)
        c[k] = min(max(np.rint(c[k] * CELL_STEPS), MIN_STEPS), MAX_STEPS) * (1 / CELL_STEPS)
