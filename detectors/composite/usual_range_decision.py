"""The decision by usual ranges: ratios of all channels become flag, cause and stated range of a point.

It replaces the flag and the cause of the decision by surprise, and the band by a prediction interval. Score
and surprise stay as they are: they rank rows. The rarity is the calibrated probability of a row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.base import CAUSES, DetectorSpec, Points, State, Verdicts
from detectors.channel_batch import ChannelBatch, Floats
from detectors.composite.presets import Preset
from detectors.jit import kernel
from detectors.stages.robust_scale import COL_ANCHOR
from detectors.stages.stock_channels import price_channels
from detectors.stages.usual_range import quantities as q
from detectors.stages.usual_range.limits import CONFIRMED_RATIO, MIN_FACTOR
from detectors.stages.usual_range.stage import ChannelRatios, UsualRange, UsualRangeSizes

MAX_FLOAT32 = float(np.finfo(np.float32).max)
STATIC_LIMIT, IMPOSSIBLE_VALUE, UNUSUAL_VALUE, RELATION = (
    np.uint8(CAUSES.index(word)) for word in ("static_limit", "impossible_value", "unusual_value", "relation")
)
MIN_STATED_LOG_STEP = np.float32(np.log(2))  # of a price that is stated itself
IMPOSSIBLE_RATIO = np.float32(10)  # of an impossible value, which has no range of its own
OF_VALUES = np.zeros(q.QUANTITIES, np.bool_)  # quantities in the unit of the value
OF_VALUES[[q.Q_VALUE, q.Q_LEVEL, q.Q_HIGHEST, q.Q_LOWEST, q.Q_FORECAST]] = True
OF_DIFFERENCES = np.zeros(q.QUANTITIES, np.bool_)  # quantities in the unit of a difference
OF_DIFFERENCES[[q.Q_STEP, q.Q_RELATION]] = True
MIN_SHARED_SURPRISE = np.float32(0.01)  # decades: the channels of a smaller surprise have no shares
#: Rows on end outside of a range that make an alarm of a ratio below ``CONFIRMED_RATIO``.
CONFIRMED_ROWS = 5
ALARM_BITS, ALARM_ROWS, MAX_RUN = 3, 7, 4_095  # both counts share an int16
#: Values of which the highest is this near to 100, and none above, are percentages.
MIN_HIGHEST_PERCENTAGE, MAX_PERCENTAGE = 99.0, 100.0
ROUNDING = 4 * float(np.finfo(np.float32).eps)
MAX_EXPONENT = 88.0  # e^88 is a float32

Numbers = NDArray[np.float64]


class UsualRangeDecision:
    """The stage of usual ranges and the rules of the spec on its ratios.

    State: that of the stage, and 2 bytes a series.
    """

    def __init__(self, spec: DetectorSpec, preset: Preset, sizes: UsualRangeSizes) -> None:
        """Configure the decision for ``spec``, its preset and the sizes of its tier."""
        self.spec, self.preset = spec, preset
        self.stage = UsualRange(spec, sizes)
        self.prices = price_channels(spec.channels) if spec.preset == "stock" else np.zeros(1, np.bool_)
        #: Values that decide names and shapes of the state arrays.
        self.shape = ("usual_range", 4, sizes.quantities, sizes.phased, sizes.bins, spec.preset == "stock")

    def initial_series(self, n: int) -> State:
        """Return the empty state of ``n`` series."""
        return self.stage.initial_series(n) | {"decision.run": np.zeros(n, np.int16)}

    def decide(
        self, state: State, points: Points, batch: ChannelBatch, expected: Floats, verdicts: Verdicts
    ) -> None:
        """Replace flag and cause of ``verdicts`` and fill its columns from ``ratio`` on, in place.

        Args:
            state: State of the detector; arrays per channel are flattened.
            points: The points in units of the input.
            batch: The same points as channel slots.
            expected: Forecast of each channel slot in the units of ``batch.v``.
            verdicts: Verdicts by surprise.
        """
        rate = self.preset.min_alarm_rate(points.every)
        found = self.stage.run(state, points, batch, expected, rate)
        anchor = state["scale.moments"][batch.slot, COL_ANCHOR].reshape(points.values.shape)
        stated = self._stated(found, points.values, anchor, expected.reshape(anchor.shape))
        prices = self._state_prices(found, batch, stated)
        ratio = np.where(self._allowed(found, stated, verdicts), found.ratio, np.minimum(found.ratio, 1))
        cause = np.where(found.quantity >= 0, q.CAUSE_OF_QUANTITY[found.quantity], np.uint8(0))
        cause[prices] = UNUSUAL_VALUE
        side = np.where(q.HAS_DIRECTION[found.quantity], found.side, 0).astype(np.int8)
        violated = self._static_limits(points, ratio, cause, side, stated, verdicts)
        violated |= self._impossible_values(points, ratio, cause, side, stated, verdicts)
        rows, lead = np.arange(len(points)), ratio.argmax(axis=1)
        known = ratio[rows, lead] > 0
        verdicts.ratio = ratio[rows, lead].astype(np.float32)
        verdicts.channel = np.where(known, lead, 0).astype(np.int16)
        verdicts.side = np.where(known, side[rows, lead], 0).astype(np.int8)
        with np.errstate(over="ignore"):  # beyond 32 bits lies infinity
            verdicts.observed, verdicts.usual_low, verdicts.usual_high = (
                np.where(known, one[rows, lead], np.nan).astype(np.float32) for one in stated
            )
        _separate(verdicts, np.where(violated, side[rows, lead], found.side[rows, lead]))
        outside = verdicts.ratio > 1
        verdicts.cause = np.where(outside, cause[rows, lead], np.uint8(0)).astype(np.uint8)
        sure = found.quantity[rows, lead] == q.Q_FORECAST  # a limit by rows has no error of extremes
        run = state["decision.run"]
        flag, verdicts.run_outside = _confirm(run, points.slot, verdicts.ratio, sure, self.spec.min_points)
        verdicts.flag, verdicts.alone = flag | violated, found.alone[rows, lead] | violated
        beyond = np.maximum(ratio - 1, 0).astype(np.float64)
        total = beyond.sum(axis=1, keepdims=True)
        share = np.divide(beyond, total, out=np.zeros_like(beyond), where=total > 0)
        ranked = (verdicts.surprise >= MIN_SHARED_SURPRISE)[:, None]
        ranking = np.where(ranked, verdicts.contribution, 0)
        verdicts.contribution = np.where(total > 0, share, ranking).astype(np.float32)
        # The rarest of C channels is C times as likely to be this rare as a single one.
        rarity = np.maximum(found.rarity.max(axis=1) - np.float32(np.log10(ratio.shape[1])), 0)
        verdicts.rarity, verdicts.channel_rarity = rarity.astype(np.float32), found.rarity
        verdicts.basis = np.where(known & ~violated, found.basis[rows, lead], np.uint8(0))
        self._state_context(found, anchor, (rows, lead), verdicts)
        self._state_relation(found, batch, anchor, lead, verdicts)
        verdicts.lower, verdicts.upper = self._interval(found, anchor, expected.reshape(anchor.shape))

    def _state_context(
        self,
        found: ChannelRatios,
        anchor: Numbers,
        at: tuple[NDArray[np.intp], NDArray[np.intp]],
        verdicts: Verdicts,
    ) -> None:
        """State rarity and recent mean of the leading quantity of each point, in place.

        Args:
            found: Results of the stage.
            anchor: Anchor of each channel (N, C).
            at: Row and leading channel of each point.
            verdicts: The verdicts.
        """
        rarity = found.stated_rarity[at] - np.float32(np.log10(anchor.shape[1]))
        verdicts.stated_rarity = np.maximum(rarity, 0).astype(np.float32)
        means = self.preset.inverse(found.level.astype(np.float64) + anchor)[at]
        verdicts.recent_mean = np.clip(means, -MAX_FLOAT32, MAX_FLOAT32).astype(np.float32)

    def _state_relation(
        self,
        found: ChannelRatios,
        batch: ChannelBatch,
        anchor: Numbers,
        lead: NDArray[np.intp],
        verdicts: Verdicts,
    ) -> None:
        """State partner and implied value where a relation leads, in place.

        Args:
            found: Results of the stage.
            batch: The points as channel slots.
            anchor: Anchor of each channel (N, C).
            lead: Leading channel of each point.
            verdicts: The verdicts.
        """
        rows = np.arange(len(lead))
        at = np.flatnonzero((verdicts.cause == RELATION) & np.isfinite(found.relation[rows, lead]))
        verdicts.partner, verdicts.implied = (
            np.full(len(lead), -1, np.int16),
            np.full(len(lead), np.nan, np.float32),
        )
        if len(at):
            place = (at, lead[at])
            verdicts.partner[at] = found.partner[place]
            implied = batch.v.reshape(anchor.shape)[place] - found.relation[place] + anchor[place]
            verdicts.implied[at] = np.clip(self.preset.inverse(implied), -MAX_FLOAT32, MAX_FLOAT32)

    def _stated(
        self, found: ChannelRatios, values: Numbers, anchor: Numbers, expected: Floats
    ) -> tuple[Numbers, Numbers, Numbers]:
        """Return observed value and usual range (N, C) in the unit of each leading quantity.

        A value is in units of the input, also one that is far from its forecast. A difference is in units of
        the input, or relative to the value where working units are logarithms. Noise is a mean step, a
        standstill a number of rows.
        """
        predicted = found.quantity == q.Q_FORECAST
        numbers = [
            self._in_units(
                np.where(predicted, one + expected, one).astype(np.float64), found.quantity, anchor
            )
            for one in (found.observed, found.low, found.high)
        ]
        plain = predicted | (found.quantity == q.Q_VALUE)
        numbers[0] = np.where(plain, np.clip(values, -MAX_FLOAT32, MAX_FLOAT32), numbers[0])
        # The range of a value that was never negative begins at 0.
        never_negative = _never_negative(found, anchor) & OF_VALUES[found.quantity] & (found.quantity >= 0)
        if self.stage.settings.logarithmic != 2:
            numbers[1] = np.where(never_negative, np.maximum(numbers[1], 0), numbers[1])
        return numbers[0], numbers[1], numbers[2]

    def _state_prices(
        self, found: ChannelRatios, batch: ChannelBatch, stated: tuple[Numbers, Numbers, Numbers]
    ) -> NDArray[np.bool_]:
        """State prices that double or halve as prices, in place; return them (N, C).

        Such a price is wrong more often than not, and a reader has to see it.
        """
        shape = found.ratio.shape
        prices = (found.quantity == q.Q_STEP) & (np.abs(found.observed) >= MIN_STATED_LOG_STEP)
        prices &= self.prices
        if prices.any():
            before = (batch.x - batch.split).reshape(shape)[prices] - found.observed[prices]
            for one, end in zip(stated[1:], (found.low, found.high), strict=True):
                one[prices] = np.clip(self.preset.inverse(before + end[prices]), -MAX_FLOAT32, MAX_FLOAT32)
            stated[0][prices] = self.preset.inverse(batch.x.reshape(shape)[prices])
        return prices

    def _interval(self, found: ChannelRatios, anchor: Numbers, expected: Floats) -> tuple[Floats, Floats]:
        """Return the ends (N, C) of the prediction interval.

        It does not reach below 0 for values that were never negative, nor above 100 for values that have come
        close to 100 and never exceeded it. It does not reach over a static limit.
        """
        low, high = (
            self.preset.inverse(expected + sign * found.half_width.astype(np.float64) + anchor)
            for sign in (-1, 1)
        )
        lowest, highest = (self.preset.inverse(x.astype(np.float64)) for x in (found.minimum, found.maximum))
        positive = np.isfinite(lowest) & ((lowest >= 0) | _never_negative(found, anchor))
        low = np.where(positive, np.maximum(low, 0), low)
        share = positive & (highest >= MIN_HIGHEST_PERCENTAGE) & (highest <= MAX_PERCENTAGE)
        high = np.where(share, np.minimum(high, MAX_PERCENTAGE), high)
        for c, limit in enumerate(self.spec.limits):
            low[:, c], high[:, c] = np.fmax(low[:, c], limit.low), np.fmin(high[:, c], limit.high)
        ends = (np.clip(x, -MAX_FLOAT32, MAX_FLOAT32).astype(np.float32) for x in (low, high))
        return next(ends), next(ends)

    def _in_units(self, x: Numbers, quantity: NDArray[np.int8], anchor: Numbers) -> Numbers:
        out = np.where(OF_VALUES[quantity], self.preset.inverse(x + anchor), x)
        if self.stage.settings.logarithmic:
            out = np.where(OF_DIFFERENCES[quantity], np.expm1(np.minimum(x, MAX_EXPONENT)), out)
        step = np.exp2(np.minimum(x, 127.0))
        if self.stage.settings.logarithmic:
            step = np.expm1(np.minimum(step, MAX_EXPONENT))
        out = np.where(quantity == q.Q_NOISE, step, out)
        out = np.where(quantity == q.Q_STILL, np.exp2(np.minimum(x, 127.0)) - 1, out)
        return np.clip(out, -MAX_FLOAT32, MAX_FLOAT32)

    def _allowed(
        self, found: ChannelRatios, stated: tuple[Numbers, Numbers, Numbers], verdicts: Verdicts
    ) -> NDArray[np.bool_]:
        """Return the ratios (N, C) whose direction and deviation can be an alarm."""
        allowed = np.ones(found.ratio.shape, np.bool_)
        directed = q.HAS_DIRECTION[found.quantity]
        if self.spec.direction == "up":
            allowed &= ~(directed & (found.side < 0))
        if self.spec.direction == "down":
            allowed &= ~(directed & (found.side > 0))
        if self.spec.min_deviation > 0:
            observed, low, high = stated
            off = np.abs(observed - 0.5 * (low + high))
            allowed &= ~(directed & (off < self.spec.min_deviation * np.abs(verdicts.expected)))
        return allowed

    def _static_limits(
        self,
        points: Points,
        ratio: Floats,
        cause: NDArray[np.uint8],
        side: NDArray[np.int8],
        stated: tuple[Numbers, Numbers, Numbers],
        verdicts: Verdicts,
    ) -> NDArray[np.bool_]:
        """Let values outside their static limits lead, in place; return the points (N,) that have one."""
        violated = np.zeros(len(points), np.bool_)
        for c, limit in enumerate(self.spec.limits):
            x = points.values[:, c]
            rows = np.flatnonzero((x < limit.low) | (x > limit.high))
            violated[rows] = True
            ends = np.where(x[rows] > limit.high, limit.high, limit.low)
            both = np.isfinite(limit.low) and np.isfinite(limit.high)
            middle = 0.5 * (limit.low + limit.high) if both else verdicts.expected[rows, c].astype(np.float64)
            with np.errstate(all="ignore"):
                far = (x[rows] - middle) / (ends - middle)
            least = np.maximum(ratio.max(axis=1)[rows] * MIN_FACTOR, MIN_FACTOR)
            ratio[rows, c] = np.fmin(np.fmax(far, least), MAX_FLOAT32)
            cause[rows, c] = STATIC_LIMIT
            side[rows, c] = np.where(x[rows] > limit.high, 1, -1)
            stated[0][rows, c] = np.clip(x[rows], -MAX_FLOAT32, MAX_FLOAT32)
            for one, end in zip(stated[1:], (limit.low, limit.high), strict=True):
                one[rows, c] = end if np.isfinite(end) else np.nan
        return violated

    def _impossible_values(
        self,
        points: Points,
        ratio: Floats,
        cause: NDArray[np.uint8],
        side: NDArray[np.int8],
        stated: tuple[Numbers, Numbers, Numbers],
        verdicts: Verdicts,
    ) -> NDArray[np.bool_]:
        """Let impossible values lead, in place; return their points (N,).

        The stated range is the band of the forecast.
        """
        impossible = self.preset.impossible(points.values, self.spec.channels)
        if impossible.any():
            ratio[impossible], cause[impossible] = IMPOSSIBLE_RATIO, IMPOSSIBLE_VALUE
            side[impossible] = -1
            stated[0][impossible] = np.clip(points.values[impossible], -MAX_FLOAT32, MAX_FLOAT32)
            for one, band in zip(stated[1:], (verdicts.lower, verdicts.upper), strict=True):
                shown = band[impossible].astype(np.float64)
                one[impossible] = np.where(np.abs(shown) < MAX_FLOAT32, shown, np.nan)
        return np.asarray(impossible.any(axis=1), np.bool_)


def _never_negative(found: ChannelRatios, anchor: Numbers) -> NDArray[np.bool_]:
    """Return the channels (N, C) without a negative value so far.

    A 0 loses its last bits when the anchor is taken from it and added again.
    """
    return np.asarray(found.minimum >= -ROUNDING * np.abs(anchor), np.bool_)


def _separate(verdicts: Verdicts, side: NDArray[np.int8]) -> None:
    """Keep the observed value of a ratio above 1 outside its range, whatever rounding to 32 bits did."""
    inf = np.float32(np.inf)
    above, below = (verdicts.ratio > 1) & (side > 0), (verdicts.ratio > 1) & (side < 0)
    with np.errstate(over="ignore"):  # beyond 32 bits lies infinity
        most, least = np.nextafter(verdicts.observed, -inf), np.nextafter(verdicts.observed, inf)
    np.copyto(verdicts.usual_high, np.minimum(verdicts.usual_high, most), where=above)
    np.copyto(verdicts.usual_low, np.maximum(verdicts.usual_low, least), where=below)


@kernel
def _confirm(state, slot, ratio, sure, least):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the rows that end ``least`` or more consecutive rows outside and are not marginal.

    The second result is the number of those rows.

    ``state`` holds the run of rows outside, and in its lowest bits the rows for which a marginal row still
    belongs to the alarm before it. ``sure`` marks the rows whose ratio is not that of a range of extremes.
    """
    flag, runs = np.zeros(len(slot), np.bool_), np.zeros(len(slot), np.int32)
    for i in range(len(slot)):
        run, still = state[slot[i]] >> ALARM_BITS, state[slot[i]] & ALARM_ROWS
        run = min(run + 1, MAX_RUN) if ratio[i] > 1 else 0
        confirmed = sure[i] or ratio[i] >= CONFIRMED_RATIO or run >= CONFIRMED_ROWS or still > 0
        flag[i] = ratio[i] > 1 and confirmed and run >= least
        still = ALARM_ROWS if flag[i] else max(still - 1, 0)
        state[slot[i]], runs[i] = run << ALARM_BITS | still, run
    return flag, runs
