"""Kernels of ``pipeline.windows.event_time``: one pass over a batch, state by slot."""

# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201
from __future__ import annotations

import numpy as np
from numba import njit

from pipeline.core.trading_calendar import step_time, steps_between

NEVER = np.iinfo(np.int64).min
SCORED, LATE, DUPLICATE, SUPERSEDED = 0, 1, 2, 3

#: Columns of the state array ``cadence``.
CADENCE_EVERY, CADENCE_CANDIDATE, CADENCE_VOTES = 0, 1, 2
#: Votes of an interval for a cadence: it fits, is a multiple (points were lost), is otherwise longer, is
#: shorter.
VOTES_FIT, VOTES_MULTIPLE, VOTES_LONGER, VOTES_SHORTER = 4, -1, -2, -6
#: Votes from which a cadence is used (three equal intervals), and the most that it keeps.
BELIEVED_VOTES, MAX_VOTES = 3 * VOTES_FIT, 8 * VOTES_FIT
#: Count at which longer gaps are cut: it fits in int32, and no detector distinguishes longer ones.
MAX_MISSED_POINTS = 1_000_000


@njit(cache=True)
def mark_superseded(slots, time, release, scratch, superseded):
    """Mark points that a later point of the same series, time and release replaces.

    ``scratch`` (slots,) int32 needs no initial values: an entry counts only if the point that it names has
    the same series, time and release (the sparse set of Briggs and Torczon 1993).
    """
    n = len(slots)
    for i in range(n - 1, -1, -1):
        s = slots[i]
        j = scratch[s]
        superseded[i] = i < j < n and slots[j] == s and time[j] == time[i] and release[j] == release[i]
        scratch[s] = i


@njit(cache=True)
def update_cadence(cadence, slot, interval):
    """Update and return the cadence of a series, 0 while there is none.

    It is found by majority vote over the intervals (after Boyer and Moore 1981, MJRTY). An interval within a
    quarter of the candidate fits, and moves it by a sixteenth of the difference. Lost points make multiples,
    so a multiple weighs little and a shorter interval much: the cadence is the shortest interval that
    repeats, even where most points are lost.
    """
    candidate = cadence[slot, CADENCE_CANDIDATE]
    if candidate > 0 and 4 * abs(interval - candidate) <= candidate:
        cadence[slot, CADENCE_VOTES] = min(cadence[slot, CADENCE_VOTES] + VOTES_FIT, MAX_VOTES)
        cadence[slot, CADENCE_CANDIDATE] = candidate + (interval - candidate + 8) // 16
        if cadence[slot, CADENCE_VOTES] >= BELIEVED_VOTES:
            cadence[slot, CADENCE_EVERY] = cadence[slot, CADENCE_CANDIDATE]
        return cadence[slot, CADENCE_EVERY]
    if interval < candidate:
        cadence[slot, CADENCE_VOTES] += VOTES_SHORTER
    elif candidate > 0:
        off = (interval + candidate // 2) % candidate - candidate // 2
        cadence[slot, CADENCE_VOTES] += VOTES_MULTIPLE if 4 * abs(off) <= candidate else VOTES_LONGER
    if cadence[slot, CADENCE_VOTES] <= 0:
        cadence[slot, CADENCE_CANDIDATE], cadence[slot, CADENCE_VOTES] = interval, VOTES_FIT
    return cadence[slot, CADENCE_EVERY]


@njit(cache=True)
def admit_points(
    last_time, seq, cadence, slots, time, superseded, fixed, market, outcome, before, missed, every, number
):
    """Write the outcome of each point (N,), and return the number of scored ones.

    ``before`` gets the newest time of the series before each point. Scored points also get the missed steps, the cadence and their number.
    """
    sessions, opens, closes, opened = market
    admitted = 0
    for i in range(len(slots)):
        s, t = slots[i], time[i]
        last = last_time[s]
        before[i] = last
        if t <= last or (len(superseded) > 0 and superseded[i]):
            outcome[i] = LATE if t < last else DUPLICATE if t == last else SUPERSEDED
            continue
        outcome[i] = SCORED
        step = fixed
        missed[i] = 0
        if last != NEVER:
            if fixed == 0:
                step = update_cadence(cadence, s, t - last)
            if step > 0 and t - last > step + step // 2:
                steps = steps_between(last, t, step, sessions, opens, closes, opened)
                missed[i] = min(max(steps - 1, 0), MAX_MISSED_POINTS)
        every[i] = step
        last_time[s] = t
        seq[s] += 1
        number[i] = seq[s]
        admitted += 1
    return admitted


@njit(cache=True)
def counters_to_rates(total, total_time, channels, slots, time, restart, values):
    """Turn the counters among ``values`` (M, C) into rates per second, in place.

    ``total`` and ``total_time`` (slots, K) are the state: the last totals and their times.
    """
    for i in range(len(slots)):
        s = slots[i]
        for k in range(len(channels)):
            now = values[i, channels[k]]
            if restart[i]:
                total_time[s, k] = NEVER
            if np.isnan(now):
                continue
            then, since = total[s, k], total_time[s, k]
            total[s, k], total_time[s, k] = now, time[i]
            # The count before a reset is unknown: a missing value is correct, a rate from zero is a guess.
            known = since != NEVER and now >= then
            values[i, channels[k]] = (now - then) / (time[i] - since) * 1e9 if known else np.nan


@njit(cache=True)
def fill_gaps(
    value, slots, time, before, missed, every, values, extra, linear, market, row, filled_time, filled_values
):
    """Write M points and, before each, the ``extra`` (M,) points that fill its gap.

    ``value`` (slots, C) is the state: the last known values.
    """
    sessions, opens, closes, opened = market
    channels = values.shape[1]
    at = 0
    for i in range(len(slots)):
        s = slots[i]
        for k in range(1, extra[i] + 1):
            row[at] = -1 - i
            filled_time[at] = step_time(
                before[i], time[i], k, missed[i] + 1, every[i], sessions, opens, closes, opened
            )
            for c in range(channels):
                share = k / (extra[i] + 1) if linear and not np.isnan(values[i, c]) else 0.0
                filled_values[at, c] = (
                    value[s, c] if share == 0.0 else value[s, c] + share * (values[i, c] - value[s, c])
                )
            at += 1
        row[at] = i
        filled_time[at] = time[i]
        for c in range(channels):
            filled_values[at, c] = values[i, c]
            if not np.isnan(values[i, c]):
                value[s, c] = values[i, c]
        at += 1
