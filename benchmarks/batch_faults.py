"""Batches with one plain fault each, for the examples of alerts about events.

They share no code with the model of events. The steps of an ordinary batch are those of the demo.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from pipeline.demo.simulate import PAUSE, Batches

Steps = list[str]
#: Ticks of a batch that stops, longer than `idle`.
STOPPED_TICKS = 20


def _without(step: str) -> Callable[[Steps], Steps]:
    return lambda steps: [one for one in steps if one != step]


def _swapped(first: str, second: str) -> Callable[[Steps], Steps]:
    swap = {first: second, second: first}
    return lambda steps: [swap.get(one, one) for one in steps]


def _stopped_after(step: str) -> Callable[[Steps], Steps]:
    return lambda steps: [*steps[: steps.index(step) + 1], *[PAUSE] * STOPPED_TICKS]


def _followed(step: str, *more: str) -> Callable[[Steps], Steps]:
    """Return an edit that puts ``more`` behind a step."""
    return lambda steps: [*steps[: steps.index(step) + 1], *more, *steps[steps.index(step) + 1 :]]


EDITS: dict[str, Callable[[Steps], Steps]] = {
    "cooling after draining": _swapped("cool", "drain"),
    "batch without rinsing": _without("rinse"),
    "batch that stops": _stopped_after("add catalyst"),
    "step that is due and does not come": _stopped_after("fill"),
    "no heating": _without("heat"),
    "catalyst before heating": _swapped("heat", "add catalyst"),
    "heated twice": _followed("heat", "heat"),
    "adjusted again and again": _followed("sample", *["adjust", "stir", "sample"] * 4),
    "unknown step": _followed("stir", "vent"),
    "begun anew": _followed("stir", "fill", "heat", "add catalyst", "stir"),
}


class FaultyBatches(Batches):
    """The mixers of the demo, with the faults of ``EDITS``.

    A fault changes the first batch that begins after it.
    """

    faults: ClassVar = dict.fromkeys(EDITS, 36)

    def _apply_fault(self, steps: Steps, fault: str, *, begins: bool) -> bool:
        if begins:
            steps[:] = EDITS[fault](steps)
        return begins
