"""The profile: the usual range of each quantity at each phase of the day, by kind of day.

The day has ``bins`` bins of equal length. A passage of a series through one bin is a *visit*. At its end the
lowest and highest values of each quantity move the two ends of the bin's range: outward by ``OUTWARD_RATE``
of the distance and inward by ``INWARD_RATE``. The ends are then a high expectile of the extremes of visits.

The range at a row is the union of its bin and both neighbours, so that a shift that begins ten minutes early
is no event. While a bin has had few visits, its range is wider by its width over the visits.

A visit outside the usual range is cut to it before it is learned. A visit outside adds ``STREAK_OUTSIDE`` to
the streak of its bin and one inside takes 1. From ``STREAK_ACCEPTED`` on, which are three days at the same
phase, visits are learned as they are: the new pattern has become usual.

Storage: an end is an int16 in quanta of the channel slot (one quantum for values, one for differences). A
quantum doubles when a larger end comes. Visits and streak share a byte.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.jit import inlined_kernel, log2, row_kernel
from detectors.stages.usual_range.quantities import (
    KINDS_OF_DAY,
    MODEL_DAILY,
    MODEL_POOLED,
    MODEL_WEEKLY,
    OCTAVES_NOISE,
    OCTAVES_STILL,
    Q_NOISE,
    Q_RELATION,
    Q_STEP,
    Q_STILL,
    Layout,
)

#: Three visits are the fewest that tell a habit from a coincidence.
MIN_VISITS = 3
#: Visits and streaks are counted up to 15, so that both fit into a byte. A bin with as many visits is no
#: longer widened.
MAX_VISITS, MAX_STREAK = 15, 14
#: The next visit goes beyond n earlier ones by about the width over n, in each direction.
YOUNG_WIDENING = np.float32(1.0)
#: The memory of an end is about ten visits: one unusual visit is forgotten in two weeks of days.
OUTWARD_RATE, INWARD_RATE = np.float32(0.5), np.float32(0.1)
#: A visit outside the range moves its end by half as much as one inside.
OUTWARD_RATE_OUTSIDE = np.float32(0.25)
STREAK_OUTSIDE, STREAK_ACCEPTED = 4, 10
#: Streak of a bin since the kinds of day have changed: the next visit replaces its range.
STREAK_UNITED = 15
MISSING = np.int16(-32_768)
MAX_QUANTA = np.float32(32_767)
MIN_QUANTUM = np.float32(1e-30)
#: Logarithms of noise lie in ±128 octaves, with steps of 1/256.
NOISE_QUANTUM = np.float32(1 / 256)
#: Growth of a quantum in one visit: an outlier of any size costs six of the fifteen bits.
MAX_QUANTUM_GROWTH = np.float32(64)
QUANTUM_VALUES, QUANTUM_DIFFERENCES = range(2)
NAN = np.float32(np.nan)
HALF = np.float32(0.5)


def initial_profile(slots: int, layout: Layout) -> State:
    """Return the empty profile of ``slots`` channel slots."""
    cells = KINDS_OF_DAY * layout.bins
    return {
        "usual.profile": np.full((slots, cells, layout.numbers), MISSING, np.int16),
        "usual.quantum": np.zeros((slots, 2), np.float32),
        "usual.visits": np.zeros((slots, cells), np.uint8),  # visits in the high half, streak in the low
    }


@row_kernel
def _quantum_index(k):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the quantum of quantity ``k``, −1 for the fixed one of noise."""
    if k == Q_NOISE:
        return -1
    difference = k in (Q_STEP, Q_RELATION)
    return QUANTUM_DIFFERENCES if difference else QUANTUM_VALUES


@row_kernel
def _stored(profile, quantum, layout, cell, j, end):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return one end of a range as stored, NaN where it is unknown or not kept."""
    at = layout.number[j, end]
    if at < 0 or profile[cell, at] == MISSING:
        return NAN
    which = _quantum_index(layout.quantity[j])
    return np.float32(profile[cell, at]) * (NOISE_QUANTUM if which < 0 else quantum[which])


@row_kernel
def _store(profile, quantum, largest, layout, cell, j, end, value):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Store one end of a range; double its quantum where the value is too large for it.

    ``largest`` (2,) is the largest quantum that the visit allows (0: any).
    """
    at = layout.number[j, end]
    which = _quantum_index(layout.quantity[j])
    if which < 0:
        profile[cell, at] = np.int16(np.rint(min(max(value / NOISE_QUANTUM, -MAX_QUANTA), MAX_QUANTA)))
        return
    if largest[which] > 0:
        value = min(max(value, -MAX_QUANTA * largest[which]), MAX_QUANTA * largest[which])
    size = abs(value)
    if quantum[which] == 0 and size > 0:
        quantum[which] = max(np.float32(2.0) ** np.floor(log2(max(size, MIN_QUANTUM)) - 14), MIN_QUANTUM)
    while size > MAX_QUANTA * quantum[which]:
        quantum[which] *= 2
        for other in range(len(layout.quantity)):
            if _quantum_index(layout.quantity[other]) != which:
                continue
            for e in range(2):
                p = layout.number[other, e]
                if p < 0:
                    continue
                for c in range(profile.shape[0]):
                    if profile[c, p] != MISSING:
                        profile[c, p] = (profile[c, p] + 1) >> 1
    profile[cell, at] = np.int16(np.rint(value / quantum[which])) if size > 0 else np.int16(0)


@row_kernel
def half_octaves(k):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the half width of a quantity that is a logarithm."""
    return OCTAVES_STILL if k == Q_STILL else OCTAVES_NOISE


@row_kernel
def phase_ranges(profile, quantum, visits, pool, layout, cell, reach, out) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Write the range of each quantity and model at ``cell`` to ``out`` (J, 3, 2), NaN where unknown.

    ``cell`` is kind of day · bins + bin. ``reach`` is the number of neighbours on each side; −1 leaves the
    models by phase out.
    """
    bins = layout.bins
    kind, b = cell // bins, cell % bins
    for j in range(len(layout.quantity)):
        k = layout.quantity[j]
        out[j, MODEL_POOLED, 0], out[j, MODEL_POOLED, 1] = pool[j, 0], pool[j, 1]
        out[j, MODEL_DAILY] = NAN
        out[j, MODEL_WEEKLY] = NAN
        if layout.number[j, 1] >= 0 and reach >= 0:
            for o in range(-reach, reach + 1):
                _widen_by_bin(profile, quantum, visits, layout, (b + o) % bins, kind, j, out)
            if visits[cell] >> 4 < MIN_VISITS:
                out[j, MODEL_WEEKLY] = NAN
        if k in (Q_STILL, Q_NOISE):
            for m in range(3):
                out[j, m, 0] = out[j, m, 1] - 2 * half_octaves(k)


@row_kernel
def _widen_by_bin(profile, quantum, visits, layout, b, kind, j, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Widen the ranges by phase of quantity ``j`` in ``out`` by bin ``b``."""
    n_all = (visits[b] >> 4) + (visits[layout.bins + b] >> 4)
    if n_all < MIN_VISITS:
        return
    for own in range(KINDS_OF_DAY):
        cell = own * layout.bins + b
        n = visits[cell] >> 4
        high = _stored(profile, quantum, layout, cell, j, 1)
        if n == 0 or np.isnan(high):
            continue
        low = _stored(profile, quantum, layout, cell, j, 0) if layout.number[j, 0] >= 0 else high
        width = YOUNG_WIDENING * (high - low)
        if own == kind and n >= MIN_VISITS:
            _unite(out, j, MODEL_WEEKLY, low, high, width / n if n < MAX_VISITS else np.float32(0))
        _unite(out, j, MODEL_DAILY, low, high, width / n_all if n_all < MAX_VISITS else np.float32(0))


@row_kernel
def has_known_bin(visits, bins):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return whether one of the bins has enough visits for a range by phase."""
    most = 0
    for b in range(bins):
        most = max(most, (visits[b] >> 4) + (visits[bins + b] >> 4))
    return most >= MIN_VISITS


@row_kernel
def bin_ranges(kept, layout, j, buffer, out) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Write the ranges of quantity ``j`` by each bin alone to ``out``.

    ``out`` (1 + kinds, bins, 2) has those of all days, then those of each kind of day, NaN where unknown.
    ``kept`` are profile, quanta and visits, ``buffer`` is (J, 3, 2).
    """
    profile, quantum, visits = kept
    for b in range(layout.bins):
        for kind in range(KINDS_OF_DAY):
            buffer[j, MODEL_DAILY] = NAN
            buffer[j, MODEL_WEEKLY] = NAN
            _widen_by_bin(profile, quantum, visits, layout, b, kind, j, buffer)
            for end in range(2):
                out[0, b, end] = buffer[j, MODEL_DAILY, end]
                out[1 + kind, b, end] = buffer[j, MODEL_WEEKLY, end]


@row_kernel
def half_over_neighbours(ranges, b, reach):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the half width over bin ``b`` and its neighbours, NaN if unknown."""
    low = high = NAN
    for at in range(b - reach, b + reach + 1):
        if at < 0 or at >= len(ranges):
            at += len(ranges) if at < 0 else -len(ranges)
        if not low <= ranges[at, 0] and not np.isnan(ranges[at, 0]):
            low = ranges[at, 0]
        if not high >= ranges[at, 1] and not np.isnan(ranges[at, 1]):
            high = ranges[at, 1]
    return HALF * (high - low)


@row_kernel
def _unite(out, j, model, low, high, widening):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Widen one range in ``out`` to contain ``low`` and ``high`` with ``widening`` on each side."""
    if not out[j, model, 0] <= low - widening:
        out[j, model, 0] = low - widening
    if not out[j, model, 1] >= high + widening:
        out[j, model, 1] = high + widening


@row_kernel
def toward(old, new, outward, inward, up):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Move one end of a range towards ``new``."""
    off = new - old
    return old + (outward if (off > 0) == up else inward) * off


@row_kernel
def cut_to_range(low, high, ends, factors, floor, old_low, old_high):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return ``low`` and ``high`` cut to the usual range, which is never inside the old ends."""
    middle = HALF * (ends[0] + ends[1])
    half = max(HALF * (ends[1] - ends[0]), floor)
    least = min(middle - factors[0] * half, old_high)
    most = max(middle + factors[1] * half, old_low)
    return min(max(low, least), most), min(max(high, least), most)


@row_kernel
def unite_kinds(profile, visits, layout) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Let both kinds of day have the union of their ranges until the next visit."""
    for b in range(layout.bins):
        other = layout.bins + b
        if visits[b] >> 4 == 0 or visits[other] >> 4 == 0:
            continue
        for cell in (b, other):
            visits[cell] = (visits[cell] >> 4 << 4) | STREAK_UNITED
        for j in range(len(layout.quantity)):
            for end in range(2):
                at = layout.number[j, end]
                if at < 0:
                    continue
                one, two = profile[b, at], profile[other, at]
                if one == MISSING or two == MISSING:
                    united = one if two == MISSING else two
                else:
                    united = min(one, two) if end == 0 else max(one, two)
                profile[b, at] = profile[other, at] = united


@inlined_kernel
def model_of(model, ranges, j):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the model in use; where it has no range at this phase, the next simpler one that has."""
    m = int(model[j])
    if np.isnan(ranges[j, m, 0]):
        m = MODEL_DAILY if m == MODEL_WEEKLY else MODEL_POOLED
    if np.isnan(ranges[j, m, 0]) and m == MODEL_DAILY:
        m = MODEL_POOLED
    return m


@row_kernel
def close_visit(profile, quantum, visits, layout, cell, learned, ranges, picks, factors, floor) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Learn the visit that ends, at its ``cell``.

    ``learned`` holds the extremes of the visit (J, 2), and whether a quantity left its range. ``ranges``,
    ``picks`` and ``factors`` are the ranges (J, 3, 2), the models in use (J,) and the factors of their limits
    (J, 3, 2).
    """
    visit, outside = learned
    n, streak = visits[cell] >> 4, visits[cell] & 15
    replaced = streak == STREAK_UNITED
    streak = min(streak + STREAK_OUTSIDE, MAX_STREAK) if outside else max(streak - 1, 0)
    accepted = streak >= STREAK_ACCEPTED
    largest = (quantum[0] * MAX_QUANTUM_GROWTH, quantum[1] * MAX_QUANTUM_GROWTH)
    outward = np.float32(1) if accepted else OUTWARD_RATE_OUTSIDE if outside else OUTWARD_RATE
    outward = max(outward, np.float32(1) / max(n, 1)) if not outside else outward
    for j in range(len(layout.quantity)):
        if layout.number[j, 1] < 0 or np.isnan(visit[j, 0]):  # ``visit`` has no rows of the others
            continue
        low, high = visit[j, 0], visit[j, 1]
        old_high = _stored(profile, quantum, layout, cell, j, 1)
        old_low = _stored(profile, quantum, layout, cell, j, 0) if layout.number[j, 0] >= 0 else old_high
        if n > 0 and not replaced and not np.isnan(old_high):
            m = picks[j]
            if not accepted and not np.isnan(ranges[j, m, 0]) and np.isfinite(factors[j, m, 1]):
                low, high = cut_to_range(
                    low, high, ranges[j, m], factors[j, m], floor[layout.quantity[j]], old_low, old_high
                )
            low = toward(old_low, low, outward, INWARD_RATE, False)
            high = toward(old_high, high, outward, INWARD_RATE, True)
        if layout.number[j, 0] >= 0:
            _store(profile, quantum, largest, layout, cell, j, 0, low)
        _store(profile, quantum, largest, layout, cell, j, 1, high)
    visits[cell] = ((2 if replaced else min(n + 1, MAX_VISITS)) << 4) | streak
