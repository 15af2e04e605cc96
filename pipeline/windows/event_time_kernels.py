"""The loops behind ``pipeline.windows.event_time``: one pass over the points of a batch, state by slot."""

# mypy: disable-error-code="no-untyped-def"
# ruff: noqa: ANN001, ANN201
from __future__ import annotations

import numpy as np
from numba import njit

from pipeline.core.trading_calendar import step_time, steps_between

NEVER = np.iinfo(np.int64).min
SCORED, LATE, DUPLICATE = 0, 1, 2

#: Columns of the state array ``cadence``.
EVERY, CANDIDATE, VOTES = 0, 1, 2
#: Votes of an interval for or against a cadence: it fits, is a multiple (points were lost), is otherwise
#: longer, is shorter.
FITS, MULTIPLE, LONGER, SHORTER = 4, -1, -2, -6
#: A cadence is believed from here on (three equal intervals), and holds no more votes than that.
BELIEVED, MOST_VOTES = 3 * FITS, 8 * FITS
#: Longer gaps are counted no further: int32, and nothing behind it tells them apart.
MOST_MISSED = 1_000_000


@njit(cache=True)
def supersede(slots, time, release, scratch, superseded):
    """Mark points that another point of the same series, time and release writes over: the last one stands.

    ``scratch`` (slots,) int32 is not initialised: whatever stands there is believed only if the point that it
    names is such another one (the sparse set of Briggs and Torczon 1993).
    """
    n = len(slots)
    for i in range(n - 1, -1, -1):
        s = slots[i]
        j = scratch[s]
        superseded[i] = i < j < n and slots[j] == s and time[j] == time[i] and release[j] == release[i]
        scratch[s] = i


@njit(cache=True)
def learn(cadence, slot, interval):
    """The cadence of a series by majority vote over its intervals (after Boyer and Moore 1981, MJRTY), 0
    while there is none.

    An interval within a quarter of the candidate fits, and moves it by a sixteenth of the difference. Lost
    points make multiples, so these weigh little and a shorter interval much: the cadence is the shortest
    interval that comes again and again, even where most points are lost.
    """
    candidate = cadence[slot, CANDIDATE]
    if candidate > 0 and 4 * abs(interval - candidate) <= candidate:
        cadence[slot, VOTES] = min(cadence[slot, VOTES] + FITS, MOST_VOTES)
        cadence[slot, CANDIDATE] = candidate + (interval - candidate + 8) // 16
        if cadence[slot, VOTES] >= BELIEVED:
            cadence[slot, EVERY] = cadence[slot, CANDIDATE]
        return cadence[slot, EVERY]
    if interval < candidate:
        cadence[slot, VOTES] += SHORTER
    elif candidate > 0:
        off = (interval + candidate // 2) % candidate - candidate // 2
        cadence[slot, VOTES] += MULTIPLE if 4 * abs(off) <= candidate else LONGER
    if cadence[slot, VOTES] <= 0:
        cadence[slot, CANDIDATE], cadence[slot, VOTES] = interval, FITS
    return cadence[slot, EVERY]


@njit(cache=True)
def admit(
    last_time, seq, cadence, slots, time, superseded, fixed, market, outcome, before, missed, every, number
):
    """Outcome of each point (N,); for those that are scored the time before, steps missed, cadence and
    number. Returns how many they are.
    """
    sessions, opens, closes, opened = market
    admitted = 0
    for i in range(len(slots)):
        s, t = slots[i], time[i]
        last = last_time[s]
        if t <= last or (len(superseded) > 0 and superseded[i]):
            outcome[i] = LATE if t < last else DUPLICATE
            continue
        outcome[i] = SCORED
        before[i] = last
        step = fixed
        missed[i] = 0
        if last != NEVER:
            if fixed == 0:
                step = learn(cadence, s, t - last)
            if step > 0 and t - last > step + step // 2:
                steps = steps_between(last, t, step, sessions, opens, closes, opened)
                missed[i] = min(max(steps - 1, 0), MOST_MISSED)
        every[i] = step
        last_time[s] = t
        seq[s] += 1
        number[i] = seq[s]
        admitted += 1
    return admitted


@njit(cache=True)
def rate(total, total_time, channels, slots, time, restart, values):
    """Turn the counters among ``values`` (M, C) into rates per second, in place; state (slots, K) of their
    last totals.
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
            # After a reset nobody knows what was counted before it: a missing value is true, a rate from zero
            # would be a guess.
            known = since != NEVER and now >= then
            values[i, channels[k]] = (now - then) / (time[i] - since) * 1e9 if known else np.nan


@njit(cache=True)
def fill(
    value, slots, time, before, missed, every, values, extra, linear, market, row, filled_time, filled_values
):
    """Write M points and, before each, the ``extra`` (M,) ones that its gap is filled with; state (slots, C)
    of the last known values.
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
