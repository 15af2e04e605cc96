"""Numbers of the quantity that a sentence is about, and how they are written."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pipeline.core.shown_numbers import shown_texts
from pipeline.core.types import DeviationContext, DeviationCourse

#: Ends of a range that are this many times larger than the value and the end that it left are not stated.
MAX_STATED_END = 30.0


def stated_ends(observed: float, low: float, high: float) -> tuple[float, float]:
    """Return the ends of a range, NaN for one that says nothing.

    An end that is far beyond all other numbers, as in the first days of a series, says nothing.
    """
    left = low if observed < low else high
    near = MAX_STATED_END * max(abs(observed), abs(left))
    low_end, high_end = (end if math.isfinite(end) else math.nan for end in (low, high))
    low_end = math.nan if observed > high and abs(low) > near else low_end
    return low_end, math.nan if observed < low and abs(high) > near else high_end


@dataclass(frozen=True, slots=True)
class ToldQuantity:
    """Numbers of the leading channel, at the peak of an anomaly.

    ``when`` is the time of the peak as text, "" where it is not stated.
    """

    name: str
    observed: float
    low: float
    high: float
    expected: float
    context: DeviationContext
    course: DeviationCourse
    unit: str | None
    ended: bool
    lasted: bool
    when: str

    @property
    def was(self) -> str:
        """The verb before the value of the peak."""
        if not self.ended:
            return "is"
        return f"was as {self.side} as" if self.lasted else "was"

    @property
    def side(self) -> str:
        """The side of the range on which the quantity is."""
        return "high" if self.observed > self.high else "low"

    @property
    def then(self) -> str:
        """The time of the peak, or a word for it."""
        return (self.when or " then") if self.ended else ""

    @property
    def leaves_both_ends(self) -> bool:
        """True if values were beyond both ends of the range, and both can be stated."""
        low, high = self.stated_ends
        lowest, highest = self.course.lowest, self.course.highest
        return self.ended and lowest is not None and highest is not None and lowest < low < high < highest

    @property
    def extreme(self) -> float | None:
        """The farthest value on the side of the quantity, None where it is inside."""
        value = self.course.highest if self.side == "high" else self.course.lowest
        outside = value is not None and (value > self.high if self.side == "high" else value < self.low)
        return value if self.ended and self.lasted and outside else None

    def verb(self, present: str, past: str) -> str:
        """Return the form of a verb."""
        return past if self.ended else present

    def is_(self, amount: str) -> str:
        """Return that the channel is, or was, an amount."""
        return f"{self.name} {self.was} {self.with_unit(amount)}{self.when}"

    def with_unit(self, text: str) -> str:
        """Return a number with the unit."""
        return f"{text} {self.unit}" if self.unit else text

    @property
    def stated_ends(self) -> tuple[float, float]:
        """Ends of the range, NaN for one that says nothing."""
        return stated_ends(self.observed, self.low, self.high)

    @property
    def amount(self) -> str:
        """The quantity, with digits enough to tell it from the ends of its range."""
        return shown_texts(self.observed, *self.stated_ends)[0]

    @property
    def value(self) -> str | None:
        """The channel itself with its unit, None where it is not known."""
        return None if self.context.value is None else self.with_unit(shown_texts(self.context.value)[0])
