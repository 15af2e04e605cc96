"""Compilation of the kernels, and fast elementary functions for them.

Kernels are sequential over points, cached on disk, and release the interpreter lock. NaN marks a missing
value, so the fast-math flags "nnan" and "ninf" stay off.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

FAST_MATH = {"reassoc", "contract", "nsz", "arcp"}
ROOT_HALF_BITS = np.int32(0x3F3504F3)  # √½ as a float32
MANTISSA_BITS = np.int32(23)
ONE = np.float32(1)
#: 2 / ln 2 · 1 / (2 k + 1): the series of log2((1 + t) / (1 − t)) / t in t².
LOG2_SERIES = tuple(np.float32(2.8853900817779268 / (2 * k + 1)) for k in range(5))
LOG10_2, LN_2 = np.float32(0.30102999566398120), np.float32(0.69314718055994531)


def _compile(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    shared: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "fastmath": FAST_MATH}
    compiled: Callable[..., Any] = numba.njit(**shared | options)(function)
    return compiled


def kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` with numba and cache the machine code on disk."""
    # A function inherits _nrt from the function that calls it, unless it is set.
    return _compile(function, _nrt=True)


def ordered_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` like ``kernel``, and keep the order of its sums; product and sum may be fused."""
    return _compile(function, fastmath={"contract"}, _nrt=True)


def row_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` like ``kernel``, without counting references.

    Numba counts a reference, with an atomic instruction, for each field of a tuple of arrays that is read
    and for each row of an array that is taken. In a pass over many small arrays this costs more than the
    arithmetic. Such a function can neither make nor return an array; its caller keeps those that it is given.
    """
    return _compile(function, _nrt=False)


def inlined_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` like ``row_kernel`` and inline it into its callers.

    A tuple of arrays is passed field by field. For a function that runs once a row, this costs more than its
    body.
    """
    return _compile(function, forceinline=True, _nrt=False)


@kernel
def log2(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return log2 of a normal positive float32, accurate to its last two places.

    Exponent and mantissa are taken apart, the latter in [√½, √2). The C library takes four times as long.
    """
    bits = np.float32(x).view(np.int32)
    exponent = np.int32((bits - ROOT_HALF_BITS) >> MANTISSA_BITS)
    mantissa = np.int32(bits - (exponent << MANTISSA_BITS)).view(np.float32)
    t = (mantissa - ONE) / (mantissa + ONE)
    s = t * t
    return np.float32(exponent) + t * (
        LOG2_SERIES[0]
        + s * (LOG2_SERIES[1] + s * (LOG2_SERIES[2] + s * (LOG2_SERIES[3] + s * LOG2_SERIES[4])))
    )


@kernel
def log10(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return log10 of a normal positive float32, by ``log2``."""
    return LOG10_2 * log2(x)


@kernel
def log(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the natural logarithm of a normal positive float32, by ``log2``."""
    return LN_2 * log2(np.float32(x))


@kernel
def asinh(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return asinh of a float32, with an absolute error of a few 1e-7."""
    size = abs(np.float32(x))
    value = log(size + np.sqrt(size * size + ONE))
    return value if x >= 0 else -value


@kernel
def tanh(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return tanh by a rational approximation.

    It is accurate to a few units in the last place.
    It is that of Eigen's ``ptanh``. A loop of it is compiled to vectors, unlike one of the C library's.
    """
    x = min(max(x, np.float32(-7.9053111)), np.float32(7.9053111))
    y = x * x
    p = y * np.float32(-2.76076847742355e-16) + np.float32(2.00018790482477e-13)
    p = y * p + np.float32(-8.60467152213735e-11)
    p = y * p + np.float32(5.12229709037114e-08)
    p = y * p + np.float32(1.48572235717979e-05)
    p = y * p + np.float32(6.37261928875436e-04)
    p = y * p + np.float32(4.89352455891786e-03)
    q = y * np.float32(1.19825839466702e-06) + np.float32(1.18534705686654e-04)
    q = y * q + np.float32(2.26843463243900e-03)
    q = y * q + np.float32(4.89352518554385e-03)
    return x * p / q


@kernel
def sigmoid(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return 1 / (1 + e^−x) of a float32, by ``tanh``."""
    return np.float32(0.5) + np.float32(0.5) * tanh(np.float32(0.5) * x)
