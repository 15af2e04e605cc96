"""Clock of a partition, which one series alone does not set ahead.

The clock is the greatest time so far that may advance the watermark. A leap of more than ``leap_ns`` counts
only when it is the log that leaps, and not the clock of a few of its series:

- more series have made it than not, of those heard in the RECENT_POINTS before it and since, or
- only series that made it are heard, over ``confirm_ns`` of their own time, or
- there is one series only.

Until then the clock is that of the others. A log whose points are far apart leaps with every point: once
two leaps counted, one of at most twice the smaller of them is taken at once. The clock depends on the order
of the records only, never on batches.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.core.durations import SECOND_NS
from pipeline.decode import Columns, Key

MIN_CONFIRM_NS = 60 * SECOND_NS
#: A leap is this many times ``confirm_ns``.
LEAP_CONFIRMATIONS = 10
RECENT_POINTS = 64
#: Leaps that counted which are known, and the multiple of the smaller one that is taken at once.
KNOWN_STEPS, USUAL_STEPS = 2, 2
#: Series ahead that are kept apart. A leap that more have made counts.
MAX_SERIES_AHEAD = 100


@dataclass(frozen=True, slots=True)
class PartitionClock:
    """Clock and what it must remember of a leap; ``advance`` returns a new one.

    ns       the clock, None before the first point
    only     the only series so far; None: none, or several
    several  there are several series
    recent   series of the last points
    ahead    series that leapt → their own clock
    others   series that were heard and have not leapt, at most MAX_SERIES_AHEAD + 1
    since    own clock of the series ahead when they began to be the only ones heard; None: others were last
    steps    the last two leaps that counted, ns
    """

    confirm_ns: int
    ns: int | None = None
    only: Key | None = None
    several: bool = False
    recent: tuple[Key, ...] = ()
    ahead: dict[Key, int] = field(default_factory=dict)
    others: frozenset[Key] = frozenset()
    since: int | None = None
    steps: tuple[int, ...] = ()

    @staticmethod
    def begin(*usual_ns: int) -> PartitionClock:
        """Return the clock before the first point, given usual times between points."""
        return PartitionClock(max(MIN_CONFIRM_NS, *usual_ns))

    @property
    def leap_ns(self) -> int:
        """Least leap that is not taken at once."""
        least = LEAP_CONFIRMATIONS * self.confirm_ns
        return max(least, USUAL_STEPS * min(self.steps)) if len(self.steps) == KNOWN_STEPS else least

    def advance(self, columns: Columns) -> tuple[PartitionClock, NDArray[np.int64]]:
        """Return the clock after N points, and the clock after each of them (N,)."""
        start = int(columns.clock[0]) if self.ns is None else self.ns
        clock = np.maximum(np.maximum.accumulate(columns.clock), start)
        before = np.concatenate([[start], clock[:-1]])
        if self.ahead or bool((clock - before > self.leap_ns).any()):
            return _Advance(self, start).over(columns)
        only, several = self._series_with(columns.keys.names)
        recent = recent_series(self.recent, columns)
        after = PartitionClock(self.confirm_ns, int(clock[-1]), only, several, recent, steps=self.steps)
        return after, clock

    def _series_with(self, names: Iterable[Key]) -> tuple[Key | None, bool]:
        if self.several:
            return None, True
        only = self.only
        for name in names:
            if only is None:
                only = name
            elif name != only:
                return None, True
        return only, False

    def to_bytes(self) -> NDArray[np.uint8]:
        """Return all but ``ns`` for a snapshot; ``from_bytes`` is the inverse."""
        heard = [self.only, self.several, self.recent, self.ahead, sorted(self.others), self.since]
        state = [*heard, self.steps] if self.steps else heard
        return np.frombuffer(json.dumps(state).encode(), np.uint8)

    def from_bytes(self, ns: int | None, state: NDArray[np.uint8] | None) -> PartitionClock:
        """Return a stored clock; ``state`` is None if an earlier version wrote it."""
        if state is None:
            return PartitionClock(self.confirm_ns, ns, None, ns is not None)
        only, several, recent, ahead, others, since, *more = json.loads(state.tobytes())
        steps = tuple(more[0]) if more else ()
        return PartitionClock(
            self.confirm_ns, ns, only, several, tuple(recent), ahead, frozenset(others), since, steps
        )


def recent_series(before: tuple[Key, ...], columns: Columns) -> tuple[Key, ...]:
    """Return the series of the last RECENT_POINTS points after a batch."""
    n = len(columns)
    newest = [columns.keys[row] for row in range(max(0, n - RECENT_POINTS), n)]
    return (*before, *newest)[-RECENT_POINTS:]


class _Advance:
    """Advance of a clock point by point, while some series are ahead."""

    def __init__(self, clock: PartitionClock, start: int) -> None:
        """Begin with a clock, at ``start`` ns."""
        self._before, self._ns = clock, start
        self._only, self._several = clock.only, clock.several
        self._recent = deque(clock.recent, RECENT_POINTS)
        self._ahead, self._others, self._since = dict(clock.ahead), set(clock.others), clock.since
        self._steps = clock.steps
        self._leap_ns = clock.leap_ns

    def over(self, columns: Columns) -> tuple[PartitionClock, NDArray[np.int64]]:
        """Return the clock after N points, and after each (N,)."""
        each = np.empty(len(columns), np.int64)
        for row, (key, time) in enumerate(zip(columns.keys.flat(), columns.clock.tolist(), strict=True)):
            self._several |= self._only not in (None, key)
            self._only = None if self._several else key
            self._take(key, time)
            self._recent.append(key)
            each[row] = self._ns
        before = self._before
        heard = tuple(self._recent), self._ahead, frozenset(self._others), self._since, self._steps
        return PartitionClock(before.confirm_ns, self._ns, self._only, self._several, *heard), each

    def _take(self, key: Key, time: int) -> None:
        if not self._several or time <= self._ns + self._leap_ns:
            self._follow(key, time)
            return
        if not self._ahead:
            self._others = set(self._recent)
        self._ahead[key] = max(time, self._ahead.get(key, time))
        self._others.discard(key)
        newest = max(self._ahead.values())
        self._since = newest if self._since is None else self._since
        count = len(self._ahead)
        if (
            count > len(self._others)
            or count > MAX_SERIES_AHEAD
            or newest - self._since >= self._before.confirm_ns
        ):
            reached = min(self._ahead.values())
            self._steps = (*self._steps, reached - self._ns)[-KNOWN_STEPS:]
            self._leap_ns = replace(self._before, steps=self._steps).leap_ns
            self._reach(reached)

    def _follow(self, key: Key, time: int) -> None:
        """Take a point that does not leap."""
        self._ahead.pop(key, None)
        self._since = None
        if len(self._others) <= MAX_SERIES_AHEAD:
            self._others.add(key)
        if time > self._ns:
            self._reach(time)
        if not self._ahead:
            self._others.clear()

    def _reach(self, time: int) -> None:
        """Move the clock; series that are no longer ahead of it are like the others."""
        self._ns = time
        limit = time + self._leap_ns
        if self._ahead and min(self._ahead.values()) <= limit:
            self._ahead = {key: own for key, own in self._ahead.items() if own > limit}
            self._others.clear()
            self._since = None
