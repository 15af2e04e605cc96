"""Numbers of event codes: an event passes through the engine as a value."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray

#: Number of the end of a session. No code has it.
END_NUMBER: Final = 0.0
#: Beginning of the text of a code of which only the number is known.
NUMBER_PREFIX: Final = "#"
_HASH_BYTES: Final = 6  # a float64 holds integers of 53 bits


def code_number(code: str) -> float:
    """Return the number of a code, the same in every process.

    It is a hash of 48 bits plus one. The probability that two of 10,000 codes share a number is 2e-7.
    """
    if code.startswith(NUMBER_PREFIX) and code[1:].isdecimal():
        return float(int(code[1:]))
    digest = blake2b(code.encode("utf-8", "surrogatepass"), digest_size=_HASH_BYTES).digest()
    return float(int.from_bytes(digest, "little") + 1)


def number_text(number: float) -> str:
    """Return a text whose ``code_number`` is ``number``."""
    return f"{NUMBER_PREFIX}{int(number)}"


def code_numbers(codes: Iterable[str]) -> NDArray[np.float64]:
    """Return the number of each code (N,)."""
    return np.fromiter(map(code_number, codes), np.float64)
