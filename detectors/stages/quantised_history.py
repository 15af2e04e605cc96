"""Stored values of a channel slot in 16 bits each, as multiples of a quantum.

The quantum is a power of two that doubles when a larger value comes. The first value fills half the range,
so the quantum is at most a 16,384th of it, and counts are stored exactly. The stored value is
``ChannelBatch.near``, so one outlier costs the others no more than a known part of their resolution.
"""

from __future__ import annotations

import numpy as np

from detectors.jit import kernel

MAX_QUANTA = 32_767
MIN_QUANTUM = 1e-30


@kernel
def quantise(past, quantum, slot, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return ``value`` in quanta of the channel slot.

    ``past`` (the values stored before, any shape) gets coarser in place where the quantum doubles.
    """
    size = abs(value)
    if quantum[slot] == 0:
        if size == 0:
            return np.int16(0)
        quantum[slot] = max(np.float32(2.0) ** np.floor(np.log2(size) - 14), np.float32(MIN_QUANTUM))
    while size > MAX_QUANTA * quantum[slot]:
        quantum[slot] *= 2
        past[:] = (past + 1) >> 1
    return np.int16(np.rint(value / quantum[slot]))
