"""Sentences on alarms in sequences of events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

MAX_CODE_CHARS: Final = 80
MIN_TOLD_PROBABILITY: Final = 0.01
MIN_STATED_PROBABILITY: Final = 1e-6
TOLD_BEFORE: Final = 2  # events before the alarm that the sentence names


def event_statement(
    cause: str,
    event: str,
    probability: float,
    recent: Sequence[str],
    expected: Sequence[tuple[str, float]],
) -> str:
    """Return what came, after what, and what was expected.

    Args:
        cause: unexpected_event, missing_event, new_event or unusual_sequence.
        event: Text of the event; ignored for a missing event.
        probability: Probability of the event.
        recent: Texts of the events before, the last one at the end.
        expected: The most probable events with their probabilities, the most probable first.
    """
    before = [f"“{shorten(one)}”" for one in recent[-TOLD_BEFORE:]]
    after = f"after {', '.join(before)}" if before else "first"
    told = [
        f"“{shorten(text)}” ({_percent(p)}{' of cases' if n == 0 else ''})"
        for n, (text, p) in enumerate(expected)
        if n == 0 or p >= MIN_TOLD_PROBABILITY
    ]
    rest = f"; usual here: {' or '.join(told)}" if told else ""
    if cause == "missing_event":
        due = f"; {' or '.join(told)} was due" if told else ""
        return f"no event came {after}, which happens {frequency_text(probability)}{due}"
    came = f"“{shorten(event)}” came {after}"
    if cause == "new_event":
        return f"{came} and was never seen before{rest}"
    said = f"{came}, as it does {frequency_text(probability)}{rest}"
    if cause == "unusual_sequence":
        return (
            "many of the last events are each a little unusual, and so many together are rare; "
            f"the last: {said}"
        )
    return said


def frequency_text(probability: float) -> str:
    """Return a probability in words; NaN counts as the smallest one."""
    if probability >= MIN_TOLD_PROBABILITY:
        return f"in {100 * probability:.0f} % of cases"
    if not probability >= MIN_STATED_PROBABILITY:
        return "less than once in a million cases"
    return f"once in {rounded_times(-math.log10(probability))} cases"


def rounded_times(decades: float) -> str:
    """Return 10 to the power of ``decades`` with two significant digits."""
    times = 10.0 ** min(max(decades, 0.0), 15.0)
    digits = max(math.floor(math.log10(times)) - 1, 0)
    return f"{round(times / 10**digits) * 10**digits:,}"


def _percent(probability: float) -> str:
    return "more than 99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def shorten(text: str) -> str:
    """Return a text of at most ``MAX_CODE_CHARS`` characters."""
    return text if len(text) <= MAX_CODE_CHARS else f"{text[: MAX_CODE_CHARS - 1]}…"
