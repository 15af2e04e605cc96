"""Numbers of a sentence, with as few digits as keep them apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Significant digits of the largest number of a text. More are printed where the numbers would look equal.
MIN_DIGITS, MAX_DIGITS = 3, 15
NO_VALUE = "no value"


def shown_texts(*numbers: float) -> Sequence[str]:
    """Return numbers with equal decimals, as few as keep them apart.

    Integers have none.
    """
    finite = [x for x in numbers if math.isfinite(x)]
    largest = max(map(abs, finite), default=0.0)
    magnitude = math.floor(math.log10(largest)) if largest > 0 else 0
    texts: list[str] = []
    for digits in range(MIN_DIGITS, MAX_DIGITS + 1):
        decimals = max(digits - 1 - magnitude, 0)
        texts = [_number(x, digits, decimals, magnitude) for x in numbers]
        shown = (t.replace(",", "").replace("−", "-") for t in texts if t != NO_VALUE)
        if len(set(map(float, shown))) == len(set(finite)):
            break
    return texts


def _number(value: float, digits: int, decimals: int, magnitude: int) -> str:
    if not math.isfinite(value):
        return NO_VALUE
    if value == round(value) and magnitude < 15:
        decimals = 0
    text = f"{value:,.{decimals}f}" if -4 <= magnitude < 15 else f"{value:.{digits}g}"
    if text.startswith("-"):
        return text[1:] if not text.strip("-0.,") else f"−{text[1:]}"
    return text


def shown_numbers(*numbers: float) -> list[float]:
    """Return numbers rounded as ``shown_texts`` prints them.

    A size that is computed from them is the one that a reader computes.
    """
    texts = shown_texts(*numbers)
    return [
        float(text.replace(",", "").replace("−", "-")) if math.isfinite(number) else number
        for text, number in zip(texts, numbers, strict=True)
    ]
