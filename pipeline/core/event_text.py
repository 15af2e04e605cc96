"""Sentences on alarms in sequences of events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

MAX_CODE_CHARS: Final = 80
MIN_TOLD_PROBABILITY: Final = 0.01
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
        cause: unexpected_event, missing_event or new_event.
        event: Text of the event; ignored for a missing event.
        probability: Probability of the event.
        recent: Texts of the events before, the last one at the end.
        expected: The most probable events with their probabilities, the most probable first.
    """
    before = [shorten(one) for one in recent[-TOLD_BEFORE:]]
    after = f"after {', '.join(before)} " if before else "as the first event "
    told = [
        f"{shorten(text)} ({_percent(p)})"
        for n, (text, p) in enumerate(expected)
        if n == 0 or p >= MIN_TOLD_PROBABILITY
    ]
    rest = f"; expected {' or '.join(told)}" if told else ""
    if cause == "missing_event":
        return f"{after}the session ended (p = {probability:.2g}){rest}"
    if cause == "new_event":
        return f"{after}came {shorten(event)}, which was never seen before{rest}"
    return f"{after}came {shorten(event)} (p = {probability:.2g}){rest}"


def _percent(probability: float) -> str:
    return ">99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def shorten(text: str) -> str:
    """Return a text of at most ``MAX_CODE_CHARS`` characters."""
    return text if len(text) <= MAX_CODE_CHARS else f"{text[: MAX_CODE_CHARS - 1]}…"
