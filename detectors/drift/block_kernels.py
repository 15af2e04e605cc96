# ruff: noqa: ANN001
"""Compiled pass over a batch for drift.

It keeps block means, hourly profiles, and Page–Hinkley of each channel slot.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.jit import kernel

BLOCK_POINTS: Final = 32
REFERENCE_BLOCKS: Final = 20  # blocks that set the usual mean and spread, learned again after every drift
DELTA_SPREADS: Final = 0.5  # δ of Page–Hinkley: a smaller change is tolerated
ALARM_THRESHOLD: Final = 20.0  # λ of Page–Hinkley
FADING: Final = 0.9999  # α of Page–Hinkley
MAX_ABS_SPREADS: Final = 6.0  # of one block
MAX_USUAL_ERRORS: Final = 6.0  # that one error counts in its block
MAX_ABS_DEVIATIONS: Final = 4  # of one input from its hourly profile
HOUR_NS: Final = 3_600_000_000_000
MUTE_NS: Final = 24 * HOUR_NS
MUTE_POINTS: Final = 2_000
PROFILE_HOURS: Final = 48  # hours of a weekday, hours of a weekend day
MIN_DAYS_BEFORE_PROFILE: Final = 3  # on which an hour must have been seen
NOT_MUTED_NS: Final = -(1 << 62)
RESIDUAL, INPUT = 0, 1  # kinds
SUM_COUNT, SUM_ERRORS, SUM_DEVIATIONS, SUM_KNOWN = range(4)  # columns of "sums": the open block
# Columns of "page", per kind: Page–Hinkley and the reference.
(PH_BLOCKS, PH_MEAN, PH_SQUARES, PH_RUNS, PH_LEVEL, PH_UP, PH_LOWEST, PH_DOWN, PH_HIGHEST, PH_AFTER) = range(
    10
)
PROFILE_CENTRE, PROFILE_SPREAD, PROFILE_DAYS, PROFILE_LAST_DAY = range(4)  # columns of "profile"


def initial(slots: int) -> State:
    """Return the empty state of ``slots`` channel slots."""
    return {
        "sums": np.zeros((slots, 4), np.float32),
        "profile": np.zeros((slots, PROFILE_HOURS, 4), np.float32),
        "page": np.zeros((slots, 2, 10), np.float64),
        # Times of the last lowest and highest point of the two sums.
        "since": np.zeros((slots, 2, 2), np.int64),
    }


def not_muted(slots: int) -> NDArray[np.int64]:
    """Return the muting of each series (slots, 2): its end and the points left."""
    return np.tile(np.array([NOT_MUTED_NS, 0], np.int64), (slots, 1))


def empty_blocks(most: int) -> tuple[NDArray[Any], ...]:
    """Return columns for ``most`` whole blocks.

    They are channel slot, time, standardised value, statistic, start of the change (each per kind), and
    means before and after it.
    """
    shapes: tuple[tuple[tuple[int, ...], type], ...] = (
        ((most,), np.int32),
        ((most,), np.int64),
        ((most, 2), np.float32),
        ((most, 2), np.float32),
        ((most, 2), np.int64),
        ((most, 2, 2), np.float32),
    )
    return tuple(np.empty(shape, kind) for shape, kind in shapes)


@kernel
def fill_blocks(state, points, blocks):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Take in one batch, fill ``blocks`` and return their number.

    Args:
        state: Arrays sums, profile, page and since (a row a channel slot) and muted (a row a series).
        points: Columns slot, time, values (N, C), expected (N, C) and flag.
        blocks: Columns of ``empty_blocks``.
    """
    sums, profile, page, since, muted = state
    slot, time, values, expected, flag = points
    used, channels = 0, values.shape[1]
    hour, day, bin_, begin, end = np.int64(0), np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    for i in range(len(slot)):
        s = slot[i]
        if s >= len(muted):
            continue
        mute = muted[s, 1] > 0 and time[i] < muted[s, 0]
        # A series that stays flagged is muted once only: an alarm that does not end is a change too.
        if flag[i] and not mute and time[i] >= muted[s, 0] + MUTE_NS:
            muted[s, 0], muted[s, 1], mute = time[i] + MUTE_NS, MUTE_POINTS, True
        muted[s, 1] -= mute
        if mute or flag[i]:
            continue
        if time[i] < begin or time[i] >= end:  # most points are of the same hour as the one before
            hour = time[i] // HOUR_NS
            begin, end, day = hour * HOUR_NS, (hour + 1) * HOUR_NS, hour // 24
            bin_ = hour % 24 + (24 if (day + 3) % 7 >= 5 else 0)  # the epoch began on a Thursday
        for c in range(channels):
            x, row = values[i, c], s * channels + c
            error = abs(x - np.float64(expected[i, c]))
            if np.isnan(error):
                continue
            b, usual = sums[row], page[row, RESIDUAL, PH_MEAN]
            known = page[row, RESIDUAL, PH_BLOCKS] >= REFERENCE_BLOCKS and usual > 0
            b[SUM_ERRORS] += min(error, MAX_USUAL_ERRORS * usual) if known else error
            off = _profile_deviation(profile[row, bin_], x, np.float32(day % 16_000_000))
            if not np.isnan(off):
                b[SUM_DEVIATIONS] += off
                b[SUM_KNOWN] += 1
            b[SUM_COUNT] += 1
            if b[SUM_COUNT] >= BLOCK_POINTS:
                _close_block(b, page[row], since[row], row, time[i], used, blocks)
                used += 1
    return used


@kernel
def _close_block(b, page, since, row, now, used, blocks):  # type: ignore[no-untyped-def]
    """Write block number ``used`` of one channel slot and start its next one."""
    slots, at, z, statistic, begun, around = blocks
    slots[used], at[used] = row, now
    known = b[SUM_KNOWN] >= BLOCK_POINTS / 2
    found = (
        b[SUM_ERRORS] / b[SUM_COUNT],
        b[SUM_DEVIATIONS] / b[SUM_KNOWN] if known else np.float32(np.nan),
    )
    for kind in range(2):
        z[used, kind], statistic[used, kind] = page_hinkley(
            page[kind], since[kind], found[kind], now, kind, begun[used], around[used, kind]
        )
    b[:] = 0


@kernel
def _profile_deviation(p, x, day):  # type: ignore[no-untyped-def]
    """Return the clipped deviation of x from its hourly profile in usual deviations.

    It is NaN before the hour has been seen on enough days. The profile learns slowly.
    """
    if p[PROFILE_DAYS] == 0:
        p[PROFILE_CENTRE], p[PROFILE_SPREAD], p[PROFILE_DAYS], p[PROFILE_LAST_DAY] = x, 0, 1, day
        return np.float32(np.nan)
    off = np.float32(x - p[PROFILE_CENTRE])
    known = p[PROFILE_DAYS] > MIN_DAYS_BEFORE_PROFILE and p[PROFILE_SPREAD] > 0
    if p[PROFILE_LAST_DAY] != day:
        p[PROFILE_DAYS], p[PROFILE_LAST_DAY] = p[PROFILE_DAYS] + 1, day
    rate = np.float32(0.002) if known else np.float32(0.1)
    bound = MAX_ABS_DEVIATIONS * p[PROFILE_SPREAD] if known else np.float32(np.inf)
    p[PROFILE_CENTRE] += rate * min(max(off, -bound), bound)
    p[PROFILE_SPREAD] += rate * (min(abs(off), bound) - p[PROFILE_SPREAD])
    if not known:
        return np.float32(np.nan)
    most = np.float32(MAX_ABS_DEVIATIONS)
    return min(max(off / p[PROFILE_SPREAD], -most), most)


@kernel
def page_hinkley(p, since, value, now, kind, begun, around):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Return standardised value and statistic of one block.

    They are NaN and 0 while the reference is learned.
    Residuals are monitored upwards only, inputs in both directions.

    Args:
        p: One row and kind of "page", updated in place.
        since: Times of the lowest and the highest sum, updated in place.
        value: Mean of the block, NaN where unknown.
        now: Time of the block, ns.
        kind: ``RESIDUAL`` or ``INPUT``.
        begun: Filled with the start of the change, per kind.
        around: Filled with the means before and after it.
    """
    if np.isnan(value):
        return np.float32(np.nan), np.float32(0)
    p[PH_BLOCKS] += 1
    if p[PH_BLOCKS] <= REFERENCE_BLOCKS:
        off = value - p[PH_MEAN]
        p[PH_MEAN] += off / p[PH_BLOCKS]
        p[PH_SQUARES] += off * (value - p[PH_MEAN])
        return np.float32(np.nan), np.float32(0)
    spread = max(np.sqrt(p[PH_SQUARES] / (REFERENCE_BLOCKS - 1)), 1e-6 + 0.01 * abs(p[PH_MEAN]))
    z = min(max((value - p[PH_MEAN]) / spread, -MAX_ABS_SPREADS), MAX_ABS_SPREADS)
    p[PH_RUNS] += 1
    p[PH_LEVEL] += (z - p[PH_LEVEL]) / p[PH_RUNS]
    p[PH_UP] = FADING * p[PH_UP] + z - p[PH_LEVEL] - DELTA_SPREADS
    p[PH_DOWN] = FADING * p[PH_DOWN] + z - p[PH_LEVEL] + DELTA_SPREADS
    if p[PH_RUNS] == 1 or p[PH_UP] < p[PH_LOWEST]:
        p[PH_LOWEST], since[0] = p[PH_UP], now
    if p[PH_RUNS] == 1 or p[PH_DOWN] > p[PH_HIGHEST]:
        p[PH_HIGHEST], since[1] = p[PH_DOWN], now
    up, down = p[PH_UP] - p[PH_LOWEST], p[PH_HIGHEST] - p[PH_DOWN]
    p[PH_AFTER] += 0.2 * (value - p[PH_AFTER]) if p[PH_RUNS] > 1 else value
    statistic = max(up, down) if kind == INPUT else up
    begun[kind] = since[0] if up >= down or kind == RESIDUAL else since[1]
    around[0], around[1] = p[PH_MEAN], p[PH_AFTER]
    if statistic > ALARM_THRESHOLD:
        p[:] = 0
    return np.float32(z), np.float32(statistic)
