"""What a lane remembers of its values, in 16 bits each: whole numbers of a quantum, a power of two that
doubles when a larger value comes.

A first value fills half the range, so the quantum is at most a 16,384th of it, and counts are kept exactly.
What is packed is ``Lanes.near``: one wild value costs the others no more than a known part of their
resolution.
"""

from __future__ import annotations

import numpy as np

from detectors.jit import kernel

LARGEST = 32_767
SMALLEST = 1e-30  # quantum


@kernel
def quantise(past, quantum, row, value):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """``value`` in quanta of the lane; ``past`` (what it packed before, any shape) gets coarser in place
    where the quantum doubles.
    """
    size = abs(value)
    if quantum[row] == 0:
        if size == 0:
            return np.int16(0)
        quantum[row] = max(np.float32(2.0) ** np.floor(np.log2(size) - 14), np.float32(SMALLEST))
    while size > LARGEST * quantum[row]:
        quantum[row] *= 2
        past[:] = (past + 1) >> 1
    return np.int16(np.rint(value / quantum[row]))
