"""Limits: how far outside the usual extremes is unusual, learned from the series' own past.

The distance of a quantity from the middle of its range, over the half width, is taken at each row. A *block*
is a day, of ``MIN_BLOCK_ROWS`` to ``MAX_BLOCK_ROWS`` rows; blocks of a young series are shorter. Of each block
the largest distance up and down is kept, as a logarithm in one byte, for the last ``BLOCKS`` blocks and for
each model. With the median and the third largest of them the limit is

    T = exp(median + k · β · (1 + 2 / n)),   β = (third largest − median) / its expectation for a Gumbel law.

β is drawn to ``PRIOR_BETA`` with the weight of ``PRIOR_BLOCKS`` blocks. Order statistics make one or two
anomalous blocks of sixteen harmless; a distance that comes in three blocks widens the limit. The distance is
taken before the block is learned, so the limit contains the error of the range itself.

The model in use is the one with the narrowest range, T · mean half width, after two corrections: a factor of
exp(10 · share of blocks that left it), and a handicap of the models that ask less of the data. So the season
is used where it gives a sharper range at the same coverage on the series' own past.
"""

from __future__ import annotations

import numpy as np

from detectors.base import State
from detectors.jit import inlined_kernel, kernel, row_kernel
from detectors.stages.usual_range.phase_profile import (
    MIN_VISITS,
    bin_ranges,
    cut_to_range,
    half_octaves,
    half_over_neighbours,
    has_known_bin,
    toward,
)
from detectors.stages.usual_range.quantities import (
    KINDS_OF_DAY,
    MODEL_DAILY,
    MODEL_POOLED,
    MODEL_WEEKLY,
    MODELS,
    Q_HIGHEST,
    Q_LOWEST,
    Q_NOISE,
    Q_STILL,
    Q_VALUE,
    SIDE_DOWN,
    SIDE_UP,
    Layout,
)

CONFIRMED_RATIO = np.float32(1.15)  # a smaller ratio is an alarm only if it lasts: ranges are uncertain
CLEAR_RATIO = np.float32(2)  # from which on a quantity leads over a value at the edge of its range
#: Sixteen blocks hold two weeks of days; the third largest of them is a high quantile (0.84).
BLOCKS = 16
MIN_BLOCKS = 6  # before a limit is used: fewer do not give an order statistic above the median
MIN_YOUNG_BLOCKS = 2  # before a limit is used that leans on the prior
YOUNG_WIDENING = np.float32(1.1)  # in fewer than six blocks, where the prior has most of the weight
MIN_BLOCK_ROWS, MAX_BLOCK_ROWS = 48.0, 480.0
YOUNG_BLOCK_SHARE = 0.25  # of the rows so far: a young series has a block after each quarter of its life
STEPS_PER_E_FOLD = np.float32(16)  # of the kept logarithms: one step is 6 %
HALF_STEP = np.float32(0.5) / STEPS_PER_E_FOLD
UNUSED = np.int8(-128)  # a block in which a model had no range
MIN_DISTANCE = np.float32(0.4)  # smaller distances of a block count as this: a third of the range is no news
LEAST_STEP = np.int8(np.rint(STEPS_PER_E_FOLD * np.log(MIN_DISTANCE)))
#: Distance from which the step of a kept logarithm rises, by the step + 128.
STEP_EDGES = np.exp((np.arange(-128, 128) + 0.5) / STEPS_PER_E_FOLD).astype(np.float32)
STEP_EDGES[0] = -np.inf
#: Mean of β over fifteen families of undisturbed synthetic series.
PRIOR_BETA, PRIOR_BLOCKS = np.float32(0.2), np.float32(4)
MIN_BETA = np.float32(0.03)  # equal blocks do not prove that nothing larger can come
PRIOR_MEDIAN, PRIOR_MEDIAN_BLOCKS = (
    np.float32(0.3),
    np.float32(2),
)  # of the logarithm, in fewer than six blocks
MIN_FACTOR = np.float32(1.1)  # least limit in half widths
#: An extreme of hours has few independent values a block, so its limit is wider.
ABSENCE_FACTOR = np.float32(1.5)
#: Octaves that a standstill may exceed the usual longest one. Its distances are logarithms, whose own
#: logarithms say little where most blocks have no standstill at all.
STILL_MARGIN = np.float32(3)
LIMIT_STEPS_PER_E_FOLD = np.float32(256)  # of the stored logarithm of a limit
NO_LIMIT = np.int16(32_767)
#: Limits of up to e^8 half widths by their stored logarithms: a batch reads up to 33 of each of its series.
LIMIT_TABLE = np.exp(np.arange(2_048) / float(LIMIT_STEPS_PER_E_FOLD)).astype(np.float32)
#: Handicap of the models, from the one that asks least of the data to the one that asks most.
MODEL_HANDICAP = np.array([0.64, 0.8, 1.0], np.float32)
LEFT_EXPONENT = np.float32(10)
DAYS_OF_KIND = np.array([5, 2], np.float32)
POOL_OUTWARD_RATE, POOL_INWARD_RATE = 0.3, 0.03  # a memory of about thirty blocks
ACCEPTED_DAYS = 3.0  # days on end outside the range after which the new values are learned as they are
#: By the number of kept blocks: which of the largest counts, and its distance from the median of a Gumbel law
#: in its scale.
ORDER = np.array([0] + [1 if n < 5 else 2 if n < 10 else 3 for n in range(1, BLOCKS + 1)])
ORDER_DISTANCE = np.ones(BLOCKS + 1, np.float32)
for _n in range(2, BLOCKS + 1):
    ORDER_DISTANCE[_n] = max(-np.log(-np.log(1 - (ORDER[_n] - 0.5) / _n)) + np.log(np.log(2)), 0.3)


def initial_limits(slots: int, layout: Layout) -> State:
    """Return the state of ``slots`` channel slots before the first block."""
    used = len(layout.quantity)
    return {
        "usual.pool": np.full((slots, used, 2), np.nan, np.float32),
        "usual.block": np.full((slots, used, 2), np.nan, np.float32),
        "usual.distances": np.full((slots, layout.entries, BLOCKS), UNUSED, np.int8),
        "usual.limits": np.full((slots, layout.entries), NO_LIMIT, np.int16),
        "usual.blocks": np.zeros((slots, layout.tracks), np.uint8),
        "usual.left": np.zeros((slots, layout.tracks), np.uint16),  # a bit a block: the range was left
        "usual.model": np.zeros((slots, used), np.int8),
    }


@inlined_kernel
def _limit_of(logarithm):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the limit in half widths of its stored logarithm."""
    if 0 <= logarithm < len(LIMIT_TABLE):
        return LIMIT_TABLE[logarithm]
    return np.exp(np.float32(logarithm) / LIMIT_STEPS_PER_E_FOLD)


@row_kernel
def limit_factors(limits, layout, out) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Write the limits in half widths to ``out`` (J, 3, 2), infinite where there is none."""
    for j in range(len(layout.quantity)):
        for m in range(MODELS):
            for s in range(2):
                e = layout.entry[j, m, s]
                out[j, m, s] = np.float32(np.inf)
                if e >= 0 and limits[e] != NO_LIMIT:
                    out[j, m, s] = _limit_of(limits[e])
            # A quantity with one side is cut on the other side by the same limit.
            for s in range(2):
                if layout.entry[j, m, s] < 0:
                    out[j, m, s] = out[j, m, 1 - s]


@inlined_kernel
def keep_distance(distances, entry, blocks, distance) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Keep ``distance`` if it is the largest of the open block.

    The place of the open block is the oldest one.
    """
    at = blocks % BLOCKS
    if distance > STEP_EDGES[int(distances[entry, at]) + 128]:
        step = np.rint(STEPS_PER_E_FOLD * np.log(max(distance, MIN_DISTANCE)))
        distances[entry, at] = np.int8(min(max(step, np.float32(LEAST_STEP)), np.float32(127)))


@kernel
def _sorted_distances(distances, n):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the first ``n`` of at most sixteen distances in ascending order.

    ``np.sort`` takes several times as long for so few, most of it for its stack.
    """
    kept = np.empty(n, np.int8)
    for b in range(n):
        distance, at = distances[b], b
        while at > 0 and kept[at - 1] > distance:
            kept[at] = kept[at - 1]
            at -= 1
        kept[at] = distance
    return kept


@kernel
def _order_statistics(distances, n):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return centre, counted maximum, scale and widening of ``n`` kept blocks."""
    kept = _sorted_distances(distances, n)
    median = HALF_STEP * (np.float32(kept[n // 2]) + np.float32(kept[(n - 1) // 2]))
    high = np.float32(kept[n - ORDER[n]]) / STEPS_PER_E_FOLD
    beta = n * max(high - median, np.float32(0)) / ORDER_DISTANCE[n] + PRIOR_BLOCKS * PRIOR_BETA
    beta = max(beta / (n + PRIOR_BLOCKS), MIN_BETA)
    centre = median
    if n < MIN_BLOCKS:
        shrunk = (n * median + PRIOR_MEDIAN_BLOCKS * PRIOR_MEDIAN) / (n + PRIOR_MEDIAN_BLOCKS)
        centre = max(median, shrunk)
    widening = 1 + np.float32(2) / n if n >= MIN_BLOCKS else YOUNG_WIDENING
    return centre, high, beta, widening


@kernel
def _limit(distances, n, k, most):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the logarithm of the limit by the ``n`` kept blocks of one entry.

    The limit is at most ``most`` half widths beyond the third largest distance.
    """
    centre, high, beta, widening = _order_statistics(distances, n)
    spread = k * beta * widening
    limit = min(centre + spread, np.log(np.exp(high) + most))
    return max(limit, np.log(MIN_FACTOR))


@kernel
def fill_spreads(distances, blocks, layout, out) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Write the spreads of all limits to ``out`` (J, 3, 2).

    A spread is the change of the logarithm of a limit for a k that is larger by one. Only closed blocks
    count, so that a row has the same spread in whatever batch it comes.

    Args:
        distances: Kept distances of each entry.
        blocks: Number of blocks of each track.
        layout: Places of the quantities.
        out: The spreads.
    """
    kept = np.empty(BLOCKS, np.int8)
    for j in range(len(layout.quantity)):
        factor = ABSENCE_FACTOR if layout.quantity[j] in (Q_HIGHEST, Q_LOWEST) else np.float32(1)
        for m in range(MODELS):
            for s in range(2):
                e = layout.entry[j, m, s]
                out[j, m, s] = np.float32(0)
                if e < 0:
                    continue
                n, blocks_seen = 0, int(blocks[layout.track[j, m]])
                for b in range(min(blocks_seen, BLOCKS)):
                    if b != blocks_seen % BLOCKS:
                        kept[n] = distances[e, b]
                        n += 1
                if n > 0:
                    _, _, beta, widening = _order_statistics(kept, n)
                    out[j, m, s] = factor * beta * widening
            for s in range(2):
                if layout.entry[j, m, s] < 0:
                    out[j, m, s] = out[j, m, 1 - s]


@inlined_kernel
def moved_factor(factors, spreads, place, side, shift):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201
    """Return a limit in half widths at another sensitivity.

    Args:
        factors: Learned limits (J, 3, 2).
        spreads: Spreads of ``fill_spreads``.
        place: Quantity and model.
        side: Side of the limit.
        shift: Its k less that of the learned limits.
    """
    j, m = place
    learned = factors[j, m, side]
    if shift == 0:
        return learned
    return max(learned * np.exp(shift * spreads[j, m, side]), MIN_FACTOR)


@kernel
def _mean_half_widths(profile, quantum, visits, pool, layout, reach, floor, ranges, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Write the mean half width over all phases to ``out`` (J, 3), NaN for a model without a range."""
    phased = reach >= 0 and has_known_bin(visits, layout.bins)
    bins = np.empty((1 + KINDS_OF_DAY, layout.bins if phased else 0, 2), np.float32)
    for j in range(len(layout.quantity)):
        k = layout.quantity[j]
        # The ends of a logarithm have a fixed distance.
        fixed = half_octaves(k) if k in (Q_STILL, Q_NOISE) else np.float32(0)
        half = np.float32(0.5) * (pool[j, 1] - pool[j, 0])
        out[j] = np.float32(np.nan)
        if not np.isnan(half):
            out[j, MODEL_POOLED] = max(half if fixed == 0 else fixed, floor[k])
        if not phased or layout.number[j, 1] < 0:
            continue
        bin_ranges((profile, quantum, visits), layout, j, ranges, bins)
        out[j, MODEL_DAILY], out[j, MODEL_WEEKLY] = _means_by_phase(bins, visits, reach, fixed, floor[k])


@kernel
def _means_by_phase(bins, visits, reach, fixed, least):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the mean half widths of the models by phase, NaN if unknown."""
    total = weight = weekly = weekly_weight = np.float32(0)
    for b in range(bins.shape[1]):
        half = half_over_neighbours(bins[0], b, reach)
        if not np.isnan(half):
            total += max(half if fixed == 0 else fixed, least)
            weight += np.float32(1)
        for kind in range(KINDS_OF_DAY):
            half = half_over_neighbours(bins[1 + kind], b, reach)
            if visits[kind * bins.shape[1] + b] >> 4 >= MIN_VISITS and not np.isnan(half):
                weekly += DAYS_OF_KIND[kind] * max(half if fixed == 0 else fixed, least)
                weekly_weight += DAYS_OF_KIND[kind]
    none = np.float32(np.nan)
    return total / weight if weight > 0 else none, weekly / weekly_weight if weekly_weight > 0 else none


@kernel
def _share_left(left, blocks):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the share of the last blocks that left the range, drawn to 0 by four blocks."""
    count = 0
    for b in range(BLOCKS):
        count += (int(left) >> b) & 1
    return np.float32(count) / np.float32(min(int(blocks) + 4, BLOCKS + 4))


@kernel
def _close_model(distances, limits, layout, j, m, n, left, k):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Close the block of one quantity and model; return its new bits."""
    was_left = False
    most = STILL_MARGIN if layout.quantity[j] == Q_STILL else np.float32(np.inf)
    for s in range(2):
        e = layout.entry[j, m, s]
        if e < 0:
            continue
        kept = distances[e, n % BLOCKS]
        if limits[e] != NO_LIMIT:
            reached = np.float32(kept) / STEPS_PER_E_FOLD
            was_left = bool(was_left or reached > np.float32(limits[e]) / LIMIT_STEPS_PER_E_FOLD)
        found = _limit(distances[e], min(n + 1, BLOCKS), k, most)
        limits[e] = np.int16(min(np.rint(found * LIMIT_STEPS_PER_E_FOLD), np.float32(32_766)))
    return np.uint16(((int(left) << 1) | int(was_left)) & 0xFFFF)


@kernel
def close_block(profile, quantum, visits, s, layout, reach, floor, k, work) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Close a block: new limits and the model in use of each quantity.

    Args:
        profile: Profile of the channel slot.
        quantum: Its quanta.
        visits: Its visits.
        s: Arrays pool, distances, limits, blocks, left and model of the channel slot.
        layout: Places of the quantities.
        reach: Neighbours that belong to the range of a bin, −1 without phases.
        floor: Least half width by quantity.
        k: Sensitivity: number of scales β beyond the median.
        work: Buffers: ranges (J, 3, 2), half widths (J, 3).
    """
    pool, distances, limits, blocks, left, model = s
    ranges, widths = work
    _mean_half_widths(profile, quantum, visits, pool, layout, reach, floor, ranges, widths)
    for j in range(len(layout.quantity)):
        quantity = layout.quantity[j]
        best, model[j] = np.float32(np.inf), 0
        for m in range(MODELS):
            e = max(layout.entry[j, m, SIDE_DOWN], layout.entry[j, m, SIDE_UP])
            if e < 0:
                continue
            t = layout.track[j, m]
            n = int(blocks[t])
            if distances[e, n % BLOCKS] != UNUSED:
                factor = ABSENCE_FACTOR if quantity in (Q_HIGHEST, Q_LOWEST) else np.float32(1)
                left[t] = _close_model(distances, limits, layout, j, m, n, left[t], k * factor)
                n = n + 1 if n < 255 - BLOCKS else n + 1 - BLOCKS
                blocks[t] = n
            for side in range(2):
                if layout.entry[j, m, side] >= 0:
                    distances[layout.entry[j, m, side], n % BLOCKS] = UNUSED
            if n < MIN_BLOCKS or np.isnan(widths[j, m]):
                continue
            width = np.float32(0)
            for side in range(2):
                if layout.entry[j, m, side] >= 0:
                    log_limit = np.float32(limits[layout.entry[j, m, side]]) / LIMIT_STEPS_PER_E_FOLD
                    width += widths[j, m] * np.exp(log_limit)
            width *= MODEL_HANDICAP[m] * np.exp(LEFT_EXPONENT * _share_left(left[t], n))
            if width < best:
                best, model[j] = width, m


@inlined_kernel
def leads(ratio, best, leading) -> bool:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return whether a quantity with ``ratio`` leads over the one before it, whose ratio is ``best``.

    A value outside its range says most, unless it is at the edge and the other is far outside.
    """
    by_value = best > 1 and leading == Q_VALUE
    return ratio > best and (not by_value or (best < CONFIRMED_RATIO and ratio >= CLEAR_RATIO))


@kernel
def learn_pool(pool, block, layout, blocks_seen, accepted, factors, floor) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Move the pooled ranges (J, 2) by the extremes of the block (J, 2), and begin the next block.

    ``accepted`` says that the series has been outside for so long that its values count as they are.
    """
    outward = np.float32(max(POOL_OUTWARD_RATE, 1 / (blocks_seen + 1)))
    for j in range(len(layout.quantity)):
        low, high = block[j, 0], block[j, 1]
        block[j, 0] = block[j, 1] = np.float32(np.nan)
        if np.isnan(low):
            continue
        if np.isnan(pool[j, 0]):
            pool[j, 0], pool[j, 1] = low, high
            continue
        k = layout.quantity[j]
        if not accepted and np.isfinite(factors[j, MODEL_POOLED, SIDE_UP]):
            ends = pool[j].copy()
            if k in (Q_STILL, Q_NOISE):
                ends[0] = ends[1] - 2 * half_octaves(k)
            low, high = cut_to_range(
                low, high, ends, factors[j, MODEL_POOLED], floor[k], pool[j, 0], pool[j, 1]
            )
        pool[j, 0] = toward(pool[j, 0], low, outward, np.float32(POOL_INWARD_RATE), False)
        pool[j, 1] = toward(pool[j, 1], high, outward, np.float32(POOL_INWARD_RATE), True)
