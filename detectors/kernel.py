"""How every hot loop here is compiled: sequential over points, cached on disk, no interpreter lock.

NaN marks a missing value, so the two fast-math flags that assume its absence stay off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

FAST_MATH = {"reassoc", "contract", "nsz", "arcp"}


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` with numba; the machine code is kept between runs."""
    return numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=FAST_MATH)(function)
