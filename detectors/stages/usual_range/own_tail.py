"""Rarity of a row on the past of its channel slot, and prediction intervals.

*Evidence* of a row is the largest evidence of its quantities, in decades: −log10 of the share of
rows with at least this ratio, pooled over many undisturbed series (``rarity_map``). The pooled map
is a start only. Each channel slot keeps the evidence that one in ten, 100, 1,000 and 10,000 of its
rows exceed. Such a *level* rises by a gain at each row beyond it. It falls by the gain times its
share at every row. So the share of rows beyond it becomes the wanted one, whatever the series is
(adaptive conformal inference; Gibbs and Candès 2021). The gain falls with the rows beyond the level
that were due, and the pooled level counts as ``PRIOR_EXCEEDANCES`` of them. The maximum over the
quantities is calibrated as it is, dependent as they are.

The *rarity* of a row is interpolated between the levels. It is never rarer than one in the rows
seen, nor one in half of them where as much was seen before. A *record* is a row with more evidence
than all before it. Of n rows that could come in any order, each is the record with probability 1/n
(the conformal p-value; Vovk, Gammerman & Shafer 2005), whatever the levels are. So a record states
at least that, also in a young series, whose rare levels are still the pooled ones. Records on end,
and those within an excursion, are one event: only the first of them does.

The interval is the forecast plus and minus a multiple of the usual step; the multiple is a level of
the same kind, for the share of rows outside of the interval.

Levels have 12 fraction bits in an int16. A fall of less than one step is taken once in
``FALL_STRIDES`` rows.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from detectors.base import State
from detectors.jit import inlined_kernel, log10, row_kernel

LEVELS = 4
COL_LARGEST, COL_WIDTH, COL_RUN, OWN_COLUMNS = 4, 5, 6, 7  # of "usual.own", after the levels
STEPS = np.float32(4096)  # of a level, in one decade; of the width, in one e-fold
LARGEST_STEPS = np.float32(2048)
MAX_LEVEL, MAX_STORED = np.float32(7.9), 32_767
LEVEL_SHARES = np.array([1e-1, 1e-2, 1e-3, 1e-4], np.float32)
#: Rows between two falls of a level, powers of two: a fall is about eight steps.
FALL_STRIDES = np.array([1, 16, 128, 1024], np.int64)
PRIOR_EXCEEDANCES, MEMORY_EXCEEDANCES = np.float32(2), np.float32(10)
WIDTH_MEMORY_EXCEEDANCES = np.float32(8)
#: Decades (of a level) and e-folds (of the width) between two rows of neighbouring rank, for one row of mass.
LEVEL_GAIN, WIDTH_GAIN = np.float32(0.43), np.float32(0.3)
#: Rarer levels move by this share of the moves of the level of one in 100, which has more rows to learn from.
FOLLOWED_LEVEL, FOLLOWED_SHARE = 1, np.float32(0.7)
MIN_LEVEL_DISTANCE = np.float32(0.02)
#: Rows on end outside of the usual range that count. What lasts longer is one event, not the tail.
MAX_COUNTED_RUN = 12
RECORD_INSIDE = -1  # in the place of a run: no row outside, and the last row was a record
RATIO_STEPS, KNOTS = np.float32(10), 31  # the pooled map has a knot each tenth of a ratio, from 0 to 3
DECADES_PER_OCTAVE = np.float32(1)  # of the pooled map beyond its last knot
MIN_UNIT = np.float32(1e-30)


def initial_own(slots: int, levels: tuple[float, ...], width: float) -> State:
    """Return the state of ``slots`` channel slots before their first row.

    Args:
        slots: Number of channel slots.
        levels: Pooled levels, in decades of evidence.
        width: Pooled half width of the interval, in usual steps.
    """
    row = np.zeros(OWN_COLUMNS, np.int16)
    row[:LEVELS] = np.rint(np.array(levels) * STEPS)
    row[COL_WIDTH] = np.rint(np.log(width) * STEPS)
    return {"usual.own": np.tile(row, (slots, 1))}


def fall_stride(share: float) -> int:
    """Return the rows between two falls of a level with this share of them.

    They are a power of two.
    """
    return int(2 ** np.clip(np.rint(np.log2(0.16 / share)), 0, 10))


def width_factor(share: float) -> float:
    """Return the width of a normal law over that of one in 100 rows outside."""
    law = NormalDist()
    return law.inv_cdf(1 - share / 2) / law.inv_cdf(1 - 0.01 / 2)


@inlined_kernel
def evidence_of(table, quantity, ratio):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the evidence (decades) of one quantity by its ratio."""
    place = max(ratio, np.float32(0)) * RATIO_STEPS
    if place >= KNOTS - 1:
        beyond = np.float32(KNOTS - 1) / RATIO_STEPS
        octaves = log10(min(ratio, np.float32(1e30)) / beyond) * np.float32(3.3219281)
        return table[quantity, KNOTS - 1] + DECADES_PER_OCTAVE * octaves
    knot = int(place)
    share = place - np.float32(knot)
    return table[quantity, knot] * (1 - share) + table[quantity, knot + 1] * share


@inlined_kernel
def rarity_of(own, evidence, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the rarity (decades) of a row with this evidence after ``rows`` earlier ones."""
    lower, found, known = np.float32(0), np.float32(0), False
    for k in range(LEVELS):
        level = np.float32(own[k]) / STEPS
        if not known and evidence <= level:
            found = np.float32(k) + (evidence - lower) / max(level - lower, MIN_LEVEL_DISTANCE)
            known = True
        if not known:
            lower = level
    if not known:
        found = np.float32(LEVELS) + (evidence - lower)
    seen = np.float32(rows + 1)
    if evidence * LARGEST_STEPS <= np.float32(own[COL_LARGEST]):
        seen = max(np.float32(0.5) * seen, np.float32(1))
    elif own[COL_RUN] == 0 and own[COL_LARGEST] > 0:
        found = max(found, log10(seen))
    return min(max(found, np.float32(0)), log10(seen))


@inlined_kernel
def _gain(share, rows, memory, gain):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the rise of a level at a row beyond it, in steps."""
    return STEPS * gain / (min(share * np.float32(rows), memory) + PRIOR_EXCEEDANCES)


@row_kernel
def learn_evidence(own, evidence, rows, outside) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Move the levels after a row.

    Args:
        own: Row of ``usual.own``.
        evidence: Evidence of the row; 0 where no quantity has a range.
        rows: Earlier rows.
        outside: Whether a quantity lies outside of its usual range.
    """
    own[COL_RUN] = min(max(int(own[COL_RUN]), 0) + 1, MAX_STORED) if outside else 0
    if evidence <= 0:
        return
    # Rounded up, so that a row with the same evidence is no record.
    size = int(np.ceil(min(evidence * LARGEST_STEPS, np.float32(MAX_STORED))))
    if size > own[COL_LARGEST]:
        own[COL_LARGEST] = size
        own[COL_RUN] = own[COL_RUN] if outside else RECORD_INSIDE
    below = moved = np.float32(0)
    for k in range(LEVELS):
        level = np.float32(own[k]) + moved
        rise = _gain(LEVEL_SHARES[k], rows, MEMORY_EXCEEDANCES, LEVEL_GAIN)
        if evidence * STEPS > level and own[COL_RUN] <= MAX_COUNTED_RUN:
            level += rise
        if rows & (FALL_STRIDES[k] - 1) == 0:
            level -= rise * LEVEL_SHARES[k] * np.float32(FALL_STRIDES[k])
        level = min(max(level, below + MIN_LEVEL_DISTANCE * STEPS), MAX_LEVEL * STEPS)
        if k == FOLLOWED_LEVEL:
            moved = FOLLOWED_SHARE * (level - np.float32(own[k]))
        own[k] = np.int16(np.rint(level))
        below = np.float32(own[k])


@row_kernel
def half_width(own, unit):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return the half width of the interval, in the unit of ``unit``: a usual step."""
    return unit * np.exp(np.float32(own[COL_WIDTH]) / STEPS)


@row_kernel
def learn_width(own, residual, half, rows, share, stride) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Move the width after a row with this absolute residual.

    Args:
        own: Row of ``usual.own``.
        residual: Absolute residual of the forecast.
        half: ``half_width`` before the row.
        rows: Earlier rows.
        share: Wanted share of the rows outside of the interval.
        stride: Rows between two falls of the width, a power of two.
    """
    level = np.float32(own[COL_WIDTH])
    rise = _gain(share, rows, WIDTH_MEMORY_EXCEEDANCES, WIDTH_GAIN)
    if residual > half and own[COL_RUN] <= MAX_COUNTED_RUN:
        level += rise
    if rows & (stride - 1) == 0:
        level -= rise * share * np.float32(stride)
    own[COL_WIDTH] = np.int16(np.rint(min(max(level, np.float32(-MAX_STORED)), np.float32(MAX_STORED))))
