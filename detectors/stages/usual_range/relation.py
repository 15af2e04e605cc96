"""The relation of each channel to the others of its series.

A ridge regression on the values and squares of up to ``MAX_OTHERS`` other channels is fitted four times a day
from the past only. Its residual is a quantity of the channel. It is given only where the relation explains
most of the channel, and only within the ranges of the other channels that it was learned from. Nothing is
implied beyond the range of the channel itself: a machine at its rated power gives no more, whatever the wind.
Where another channel has a value that it seldom had, only a value beyond that range is a residual. The
*partner* of a channel is the other one with the largest weights.

State of a series with C channels and F = 2 · min(C − 1, ``MAX_OTHERS``) + 1 inputs:
C · (F · (F + 1) / 2 + 2 · F + 8) · 4 + 12 bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.channel_batch import Floats, Ints
from detectors.jit import kernel

MAX_OTHERS = 4  # other channels of a regression: its cost grows with the square
DAY_NS = 86_400_000_000_000
MIN_DAY_ROWS, MAX_DAY_ROWS = 96.0, 2_000.0
FITS_PER_DAY = 4
FORGETTING = 0.98  # of the moments at each fit: a memory of twelve days
RIDGE, RIDGE_FLOOR = 5e-4, 1e-6
MIN_FITS = 8  # two days, before residuals are given
MIN_FITS_BEFORE_CLIP = 4
MAX_ERRORS = 6.0  # a larger error, in mean ones, counts as this and is not learned
MAX_QUARANTINED_DAYS = 2.0  # of rows that are not learned
MAX_UNEXPLAINED_SHARE = 0.4  # mean error over the mean deviation: with more, the relation says little
RANGE_MARGIN, RANGE_DAYS = 0.15, 3.0  # growth of a channel's range by one row after the first days
#: A value is seldom if fewer than one row in so many has it. An hour of each day is not seldom.
SELDOM = 30.0
MAX_DEVIATIONS = 50.0
SPREAD_FLOOR = 1e-4  # relative to the mean
#: Largest distance from the mean, in spreads: products of four stay within a float32. A channel that
#: stood still in the first day has hardly any spread.
MAX_INPUT_SPREADS = 1e4
(REL_MEAN, REL_SPREAD, REL_LOW, REL_HIGH, REL_ERROR, REL_DEVIATION, REL_QUARANTINED, REL_FITS) = range(8)
CLOCK_ROWS, CLOCK_DUE, CLOCK_RANGED = range(3)


class Relation:
    """Residuals of each channel on the others."""

    def __init__(self, channels: int) -> None:
        """Configure the stage for series of ``channels`` channels."""
        self.channels = channels
        self.inputs = 2 * min(channels - 1, MAX_OTHERS) + 1

    def initial(self, n: int) -> State:
        """Return the empty state of ``n`` series."""
        c, f = self.channels, self.inputs
        return {
            "relation.moments": np.zeros((n, c, f * (f + 1) // 2), np.float32),
            "relation.cross": np.zeros((n, c, f), np.float32),
            "relation.weights": np.zeros((n, c, f), np.float32),
            "relation.channel": np.zeros((n, c, 8), np.float32),
            "relation.clock": np.zeros((n, 3), np.float32),
        }

    def run(
        self, state: State, slot: Ints, v: Floats, every: NDArray[np.int64]
    ) -> tuple[Floats, NDArray[np.int16]]:
        """Return residuals (N, C) in working units (NaN: none) and partners (N, C).

        Args:
            state: Arrays of ``initial``, advanced in place.
            slot: Series of each point (N,).
            v: Values of the channels (N, C) in working units.
            every: Cadence in ns (N,).
        """
        out, partner = np.full(v.shape, np.nan, np.float32), np.full(v.shape, -1, np.int16)
        names = ("moments", "cross", "weights", "channel", "clock")
        _relate(tuple(state[f"relation.{name}"] for name in names), slot, v, every, (out, partner))
        return out, partner


@kernel
def _spread(m, c):  # type: ignore[no-untyped-def]  # noqa: ANN001
    return np.float64(m[c, REL_SPREAD]) + SPREAD_FLOOR * abs(m[c, REL_MEAN]) + 1e-9


@kernel
def _standardise(m, x, c):  # type: ignore[no-untyped-def]  # noqa: ANN001
    z = (x[c] - m[c, REL_MEAN]) / _spread(m, c)
    return min(max(z, -MAX_INPUT_SPREADS), MAX_INPUT_SPREADS)


@kernel
def _fill_inputs(phi, m, x, j, ranged):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Fill the inputs of channel ``j`` and say whether the others lie in their ranges."""
    at, inside = 0, True
    for c in range(len(x)):
        if c == j or at >= len(phi) - 1:
            continue
        z = _standardise(m, x, c)
        phi[at], phi[at + 1] = z, z * z
        if ranged and (x[c] < m[c, REL_LOW] or x[c] > m[c, REL_HIGH]):
            inside = False
        at += 2
    phi[len(phi) - 1] = 1.0
    return inside


@kernel
def _fit(moments, cross, weights):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Solve for the weights and let the moments forget."""
    f = len(cross)
    a, at = np.empty((f, f)), 0
    for k in range(f):
        for other in range(k + 1):
            a[k, other] = a[other, k] = moments[at]
            at += 1
    last = a[f - 1, f - 1]
    for k in range(f):
        a[k, k] = a[k, k] * (1 + RIDGE) + RIDGE_FLOOR * last + 1e-12
    weights[:] = np.linalg.solve(a, cross.astype(np.float64)).astype(np.float32)
    moments *= np.float32(FORGETTING)
    cross *= np.float32(FORGETTING)


@kernel
def _judge(m, j, phi, weights, y, mean, rows, day):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the error of channel ``j`` in its spreads, and whether it may be learned."""
    guess = 0.0
    for k in range(len(phi)):
        guess += weights[k] * phi[k]
    spread = _spread(m, j)
    low, high = (m[j, REL_LOW] - m[j, REL_MEAN]) / spread, (m[j, REL_HIGH] - m[j, REL_MEAN]) / spread
    error = y - min(max(guess, low), high)
    clipped = m[j, REL_FITS] > MIN_FITS_BEFORE_CLIP
    size = abs(error)
    # Where more is implied than the channel ever gave, it is at its end, which would bend the relation.
    learn = not clipped or low <= guess <= high
    quarantines = m[j, REL_QUARANTINED] < MAX_QUARANTINED_DAYS * day
    if learn and clipped and quarantines and size > MAX_ERRORS * m[j, REL_ERROR]:
        learn = False
        m[j, REL_QUARANTINED] += 1
    else:
        m[j, REL_QUARANTINED] = max(m[j, REL_QUARANTINED] - 0.1, 0.0)
    rate = 1 / min(rows - day + 1, 3 * day)
    m[j, REL_ERROR] += (
        rate * (min(size, MAX_ERRORS * m[j, REL_ERROR]) - m[j, REL_ERROR])
        if clipped
        else rate * (size - m[j, REL_ERROR])
    )
    m[j, REL_DEVIATION] += rate * (min(abs(y - mean), MAX_DEVIATIONS) - m[j, REL_DEVIATION])
    return error, learn


@kernel
def _residual(m, j, value, error, seldom):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the residual of channel ``j`` in working units.

    With a ``seldom`` value of another channel, it is the distance to the range of the channel.
    """
    if seldom:
        return value - min(max(value, m[j, REL_LOW]), m[j, REL_HIGH])
    return error * _spread(m, j)


@kernel
def _partner(weights, j):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the channel with the largest weights in the relation of channel ``j``.

    Inputs are in spreads, so that weights are comparable.
    """
    best, largest = 0, -1.0
    for k in range(0, len(weights) - 1, 2):
        size = abs(weights[k]) + abs(weights[k + 1])
        if size > largest:
            best, largest = k // 2, size
    return best + 1 if best >= j else best


@kernel
def _is_seldom(moments, phi):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Say whether another channel has a value that it seldom had.

    The number is the leverage of the value and its square, in rows: for a value that one row in n has and
    that lies apart, it is n.
    """
    last = len(phi) * (len(phi) - 1) // 2
    rows = np.float64(moments[last + len(phi) - 1])
    for k in range(0, len(phi) - 1, 2):
        first, second = k * (k + 1) // 2, (k + 1) * (k + 2) // 2
        mean, mean_square = moments[last + k] / rows, moments[last + k + 1] / rows
        variance = moments[first + k] / rows - mean * mean + RIDGE_FLOOR
        slope = (moments[second + k] / rows - mean * mean_square) / variance
        # The square counts as far as it differs from a straight line of the value.
        rest = moments[second + k + 1] / rows - mean_square * mean_square - slope * slope * variance
        off = phi[k] - mean
        bent = phi[k + 1] - mean_square - slope * off
        leverage = 1 + off * off / variance
        if rest > RIDGE * variance:
            leverage += bent * bent / rest
        if leverage > SELDOM:
            return True
    return False


@kernel
def _learn(moments, cross, phi, y):  # type: ignore[no-untyped-def]  # noqa: ANN001
    at = 0
    for k in range(len(phi)):
        cross[k] += phi[k] * y
        for other in range(k + 1):
            moments[at] += phi[k] * phi[other]
            at += 1


@kernel
def _learn_places(m, x, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Learn mean and spread of the channels, in the first day."""
    for c in range(len(x)):
        off = x[c] - m[c, REL_MEAN]
        m[c, REL_MEAN] += off / (rows + 1)
        m[c, REL_SPREAD] += (abs(off) - m[c, REL_SPREAD]) / (rows + 1)


@kernel
def _learn_ranges(m, x, clock, day):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Widen the ranges of the channels; after the first days by a little at a time."""
    for c in range(len(x)):
        if clock[CLOCK_RANGED] == 0:
            m[c, REL_LOW] = m[c, REL_HIGH] = x[c]
            continue
        margin = RANGE_MARGIN * (m[c, REL_HIGH] - m[c, REL_LOW])
        near = m[c, REL_LOW] - margin < x[c] < m[c, REL_HIGH] + margin
        if clock[CLOCK_ROWS] < RANGE_DAYS * day or near:
            m[c, REL_LOW], m[c, REL_HIGH] = min(m[c, REL_LOW], x[c]), max(m[c, REL_HIGH], x[c])
    clock[CLOCK_RANGED] = 1


@kernel
def _relate(state, slot, values, every, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    moments, cross, weights, channel, clock = state
    residual, partner = out
    phi = np.empty(cross.shape[2])
    for i in range(len(slot)):
        s, x = slot[i], values[i]
        t, m = clock[s], channel[s]
        if np.isnan(x).any():
            continue
        day = min(max(DAY_NS / max(every[i], 1), MIN_DAY_ROWS), MAX_DAY_ROWS)
        t[CLOCK_ROWS] += 1
        if t[CLOCK_ROWS] <= day:
            _learn_places(m, x, t[CLOCK_ROWS] - 1)
            continue
        due = t[CLOCK_ROWS] >= t[CLOCK_DUE]
        for j in range(len(x)):
            inside = _fill_inputs(phi, m, x, j, t[CLOCK_RANGED] > 0)
            y, learn = _standardise(m, x, j), True
            if m[j, REL_FITS] > 0:
                mean = cross[s, j, -1] / max(moments[s, j, -1], 1.0)
                error, learn = _judge(m, j, phi, weights[s, j], y, mean, t[CLOCK_ROWS], day)
                explained = m[j, REL_ERROR] < MAX_UNEXPLAINED_SHARE * m[j, REL_DEVIATION]
                if m[j, REL_FITS] > MIN_FITS and explained and inside:
                    residual[i, j] = _residual(m, j, x[j], error, _is_seldom(moments[s, j], phi))
                    partner[i, j] = _partner(weights[s, j], j)
            if (learn and inside) or m[j, REL_FITS] < MIN_FITS_BEFORE_CLIP:
                _learn(moments[s, j], cross[s, j], phi, y)
            if due:
                _fit(moments[s, j], cross[s, j], weights[s, j])
                m[j, REL_FITS] += 1
        _learn_ranges(m, x, t, day)
        if due:
            t[CLOCK_DUE] = t[CLOCK_ROWS] + day / FITS_PER_DAY
