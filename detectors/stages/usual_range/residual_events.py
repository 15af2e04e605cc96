"""Large residuals that are kept, and whether another one is as usual as they are.

An event is the day, the time of day and the size of a large residual, 16 rows apart from others. The newest
are kept (``residual_tail``).
"""

from __future__ import annotations

import numpy as np

from detectors.jit import log2, row_kernel

DAY_NS = 86_400_000_000_000
EVENTS = 14
EVENT_DAY, EVENT_PHASE, EVENT_SIZE = range(3)
DAYS_KEPT = 63  # days are counted modulo this number, a multiple of a week; up adds it once more
PHASES = 120  # of a day: twelve minutes each
#: Phases: an hour, and two where the clock may have changed. Twice as far is tried, too.
WINDOW, DOUBTFUL_WINDOW = 5, 10
MATCH_SHARE = np.float32(0.5)  # of a residual: as large
MIN_EARLIER_DAYS = 2  # with today they are three
#: Events of about one size, and their share of those on their side, that make this size usual at any time.
MIN_EVENTS_ALIKE, ALIKE_SHARE, ALIKE_STEPS = 4, np.float32(0.75), 1
#: Means above which a Poisson number reaches 2, 3, 4, 5 and 6 in one of twenty cases.
CHANCE_MEANS = (0.36, 0.82, 1.37, 1.97, 2.61)
#: Of a kept size, which is counted modulo 256 steps: sizes of a series are within 16 octaves of each other.
STEPS_PER_OCTAVE = np.float32(8)
MIN_SIZE = np.float32(1e-30)


@row_kernel
def size_step(size):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the rounded logarithm of a size, modulo 256."""
    return wrapped(int(np.rint(log2(max(size, MIN_SIZE)) * STEPS_PER_OCTAVE)))


@row_kernel
def wrapped(steps):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return steps modulo 256 as a number from −128 to 127."""
    return ((int(steps) + 128) & 255) - 128


@row_kernel
def place_of(local):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return time of day, in ``PHASES`` parts, and day of a local time in ns."""
    day = local // DAY_NS
    return int((local - day * DAY_NS) * PHASES // DAY_NS), int(day % DAYS_KEPT)


@row_kernel
def days_wanted(as_large, phases):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return on how many of the last seven days events make a habit.

    As many come by chance in one of twenty cases at most.

    Args:
        as_large: Events of these days at any time of day.
        phases: Phases in which one counts.
    """
    by_chance, wanted = as_large * phases / PHASES, MIN_EARLIER_DAYS
    for mean in CHANCE_MEANS:
        wanted += 1 if by_chance > mean else 0
    return wanted


@row_kernel
def is_recurrent(events, seen, size, place, window):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Say whether residuals as large came at this time of day on earlier days.

    They did, if events of at least ``MATCH_SHARE`` of the size lie within ``window`` phases on so many of the
    last seven days that this is a coincidence in one of twenty cases at most, given the number of such events
    at any time of day, or on two of the last three days of the same weekday.

    Args:
        events: Kept events (EVENTS, 3).
        seen: Events so far.
        size: Size of the residual.
        place: Whether it is above 0 (only events on the same side count), its time of day in ``PHASES``
            parts, and its day.
        window: Largest distance of two phases.
    """
    up, phase, day = place
    least = size_step(size * MATCH_SHARE)
    days = weeks = as_large = 0  # bits: days on which one came
    for n in range(min(seen, EVENTS)):
        if wrapped(int(events[n, EVENT_SIZE]) - least) < 0 or (events[n, EVENT_DAY] >= DAYS_KEPT) != up:
            continue
        since = (day - int(events[n, EVENT_DAY])) % DAYS_KEPT
        as_large += 1 if 0 < since <= 7 else 0
        for turn in range(-1, 2):  # a window can reach over midnight
            off = phase - int(events[n, EVENT_PHASE]) + turn * PHASES
            ago = (since - turn) % DAYS_KEPT
            if abs(off) > window or ago == 0:
                continue
            if ago <= 7:
                days |= 1 << ago
            if ago % 7 == 0 and ago <= 21:
                weeks |= 1 << (ago // 7)
    if _bits(weeks) >= MIN_EARLIER_DAYS:
        return True
    return _bits(days) >= days_wanted(as_large, 2 * window + 1)


@row_kernel
def has_common_size(events, seen, size, up):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Say whether most events on this side have the size of this one, at any time.

    A tank that is filled, memory that is given back or a machine that changes its load has events of one size
    at any time of day. The sizes of disturbances differ. Events that come at one time of day are a job, which
    is not usual at another time.

    Args:
        events: Kept events (EVENTS, 3).
        seen: Events so far.
        size: Size of the residual.
        up: Whether it is above 0.
    """
    step = size_step(size)
    same = alike = together = 0
    first = -1  # phase of one of them
    for n in range(min(seen, EVENTS)):
        if (events[n, EVENT_DAY] >= DAYS_KEPT) != up:
            continue
        same += 1
        if abs(wrapped(int(events[n, EVENT_SIZE]) - step)) <= ALIKE_STEPS:
            alike += 1
            first = int(events[n, EVENT_PHASE]) if first < 0 else first
            off = abs(int(events[n, EVENT_PHASE]) - first)
            together += 1 if min(off, PHASES - off) <= 2 * WINDOW else 0
    at_any_time = 2 * together <= alike
    return alike >= MIN_EVENTS_ALIKE and alike >= ALIKE_SHARE * same and at_any_time


@row_kernel
def _bits(x):  # type: ignore[no-untyped-def]  # noqa: ANN001
    n = 0
    while x:
        n += x & 1
        x >>= 1
    return n
