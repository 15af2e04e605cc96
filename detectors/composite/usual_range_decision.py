"""The decision by usual ranges: ratios of all channels become flag, cause and stated range of a point.

It replaces the flag and the cause of the decision by surprise, and the band by a prediction interval. Score
and surprise stay as they are: they rank rows. The rarity is the calibrated probability of a row.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.base import CAUSES, DetectorSpec, Points, State, Verdicts
from detectors.channel_batch import ChannelBatch, Floats, of_channel, over_channels
from detectors.composite.former_states import (
    Conversion,
    add_weekdays,
    merge_bins,
    refine_event_sizes,
    reset_levels_of_evidence,
    start_departures,
)
from detectors.composite.presets import Preset
from detectors.composite.stated_ranges import MAX_FLOAT32, Numbers, Statements, lead_channels, state_channels
from detectors.jit import kernel
from detectors.stages.robust_scale import anchors
from detectors.stages.usual_range import quantities as q
from detectors.stages.usual_range.limits import CONFIRMED_RATIO, MIN_FACTOR
from detectors.stages.usual_range.stage import ChannelRatios, UsualRange, UsualRangeSizes

STATIC_LIMIT, IMPOSSIBLE_VALUE, UNUSUAL_VALUE, RELATION = (
    np.uint8(CAUSES.index(word)) for word in ("static_limit", "impossible_value", "unusual_value", "relation")
)
MIN_STATED_LOG_STEP = np.float32(np.log(2))  # of a price that is stated itself
IMPOSSIBLE_RATIO = np.float32(10)  # of an impossible value, which has no range of its own
MIN_SHARED_SURPRISE = np.float32(0.01)  # decades: the channels of a smaller surprise have no shares
#: Rows on end outside of a range that make an alarm of a ratio below ``CONFIRMED_RATIO``.
CONFIRMED_ROWS = 5
ALARM_BITS, ALARM_ROWS, MAX_RUN = 3, 7, 4_095  # both counts share an int16


#: In the form of a state whose levels of evidence count relations by a map that was learned on them, one
#: whose large residuals have sizes in eighths of an octave, one that learns the kinds of day, and one that
#: keeps the largest departure of each day.
RELATION_IN_MAP, FINE_SIZES, WEEKDAYS = "relation in map", "fine sizes", "weekdays"
DEPARTURES = "departures"
#: Tier → bins of the day in former states.
FORMER_BINS = {"strong": 96}


class UsualRangeDecision:
    """The stage of usual ranges and the rules of the spec on its ratios.

    State: that of the stage, and 2 bytes a series.
    """

    def __init__(self, spec: DetectorSpec, preset: Preset, sizes: UsualRangeSizes) -> None:
        """Configure the decision for ``spec``, its preset and the sizes of its tier."""
        self.spec, self.preset = spec, preset
        self.stage = UsualRange(spec, sizes)
        self.limits = np.array([(one.low, one.high) for one in spec.limits]).reshape(-1, 2)
        *former, self.shape = self._shapes(sizes.bins)
        #: Shapes of former states, and the conversions that these need.
        self.former_shapes = dict(zip([*former, self.shape], self._conversions(), strict=True))
        if bins := FORMER_BINS.get(spec.tier):
            merge = partial(merge_bins, layout=self.stage.layout, former_bins=bins)
            for shape, conversions in zip(self._shapes(bins), self._conversions(), strict=True):
                self.former_shapes[shape] = (*conversions, merge)

    def _shapes(self, bins: int) -> list[tuple[Any, ...]]:
        """Return the values that decide names, shapes and meaning of the state, the oldest first."""
        sizes, stage = self.stage.sizes, self.stage
        first = ("usual_range", 4, sizes.quantities, sizes.phased, bins, self.spec.preset == "stock")
        second = first + ((RELATION_IN_MAP,) if stage.relation else ())
        third = second + ((FINE_SIZES,) if stage.judges_residual else ())
        fourth = (*third, WEEKDAYS)
        return [first, second, third, fourth, fourth + ((DEPARTURES,) if stage.judges_residual else ())]

    def _conversions(self) -> list[tuple[Conversion, ...]]:
        """Return the conversions of the states of ``_shapes``."""
        refines = (refine_event_sizes,) if self.stage.judges_residual else ()
        first = (reset_levels_of_evidence,) if self.stage.relation else ()
        last = (start_departures,) if self.stage.judges_residual else ()
        second = (*refines, add_weekdays, *last)
        return [(*first, *second), second, (add_weekdays, *last), last, ()]

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
        shape = points.values.shape
        anchor = anchors(state, batch).reshape(shape)
        logarithmic = self.stage.settings.logarithmic
        settings = (logarithmic, self.limits)
        stated = state_channels(found, points.values, anchor, expected.reshape(shape), settings)
        if self.stage.prices.any():
            self._state_prices(found, batch, stated)
        ratio = found.ratio.copy()
        if self.spec.direction != "both" or self.spec.min_deviation > 0:
            allowed = self._allowed(found, stated, verdicts)
            ratio = np.where(allowed, ratio, np.minimum(ratio, np.float32(1)))
        violated = self._static_limits(points, ratio, stated, verdicts)
        violated |= self._impossible_values(points, ratio, stated, verdicts)
        leading = lead_channels(found, ratio, stated, anchor, (logarithmic, violated))
        for name in leading._fields[1:]:
            setattr(verdicts, name, getattr(leading, name))
        lead = leading.lead
        side = np.where(violated, of_channel(stated.side, lead), of_channel(found.side, lead))
        _separate(verdicts, side)
        quantity = of_channel(found.quantity, lead)
        sure = quantity == q.Q_FORECAST  # a limit by rows has no error of extremes
        lasts = ~np.isin(quantity, (q.Q_HIGHEST, q.Q_LOWEST, q.Q_TREND))
        run = state["decision.run"]
        flag, verdicts.run_outside = _confirm(
            run, points.slot, verdicts.ratio, (sure, lasts), self.spec.min_points
        )
        verdicts.flag, verdicts.alone = flag | violated, of_channel(found.alone, lead) | violated
        _share_contribution(ratio, verdicts)
        self._state_relation(found, batch, anchor, lead, verdicts)
        verdicts.channel_rarity, verdicts.lower, verdicts.upper = found.rarity, stated.lower, stated.upper
        if self.stage.relation is not None:
            verdicts.relation = found.relation

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
        known = np.isfinite(of_channel(found.relation, lead))
        at = np.flatnonzero((verdicts.cause == RELATION) & known)
        verdicts.partner, verdicts.implied = (
            np.full(len(lead), -1, np.int16),
            np.full(len(lead), np.nan, np.float32),
        )
        if len(at):
            place = (at, lead[at])
            verdicts.partner[at] = found.partner[place]
            implied = batch.v.reshape(anchor.shape)[place] - found.relation[place] + anchor[place]
            verdicts.implied[at] = np.clip(self.preset.inverse(implied), -MAX_FLOAT32, MAX_FLOAT32)

    def _state_prices(self, found: ChannelRatios, batch: ChannelBatch, stated: Statements) -> None:
        """State prices that double or halve as prices, in place.

        Such a price is wrong more often than not, and a reader has to see it.
        """
        shape = found.ratio.shape
        prices = (found.quantity == q.Q_STEP) & (np.abs(found.observed) >= MIN_STATED_LOG_STEP)
        prices &= self.stage.prices
        if prices.any():
            given = (batch.x + batch.split).reshape(shape)[prices]
            before = given - found.observed[prices]
            for one, end in ((stated.low, found.low), (stated.high, found.high)):
                one[prices] = np.clip(self.preset.inverse(before + end[prices]), -MAX_FLOAT32, MAX_FLOAT32)
            stated.observed[prices] = self.preset.inverse(given)
            stated.cause[prices] = UNUSUAL_VALUE

    def _allowed(self, found: ChannelRatios, stated: Statements, verdicts: Verdicts) -> NDArray[np.bool_]:
        """Return the ratios (N, C) whose direction and deviation can be an alarm."""
        allowed = np.ones(found.ratio.shape, np.bool_)
        directed = q.HAS_DIRECTION[found.quantity]
        if self.spec.direction == "up":
            allowed &= ~(directed & (found.side < 0))
        if self.spec.direction == "down":
            allowed &= ~(directed & (found.side > 0))
        if self.spec.min_deviation > 0:
            off = np.abs(stated.observed - 0.5 * (stated.low + stated.high))
            allowed &= ~(directed & (off < self.spec.min_deviation * np.abs(verdicts.expected)))
        return allowed

    def _static_limits(
        self, points: Points, ratio: Floats, stated: Statements, verdicts: Verdicts
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
            stated.cause[rows, c] = STATIC_LIMIT
            stated.side[rows, c] = np.where(x[rows] > limit.high, 1, -1)
            stated.observed[rows, c] = np.clip(x[rows], -MAX_FLOAT32, MAX_FLOAT32)
            for one, end in ((stated.low, limit.low), (stated.high, limit.high)):
                one[rows, c] = end if np.isfinite(end) else np.nan
        return violated

    def _impossible_values(
        self, points: Points, ratio: Floats, stated: Statements, verdicts: Verdicts
    ) -> NDArray[np.bool_]:
        """Let impossible values lead, in place; return their points (N,).

        The stated range is the band of the forecast.
        """
        impossible = self.preset.impossible(points.values, self.spec.channels)
        if impossible.any():
            ratio[impossible], stated.cause[impossible] = IMPOSSIBLE_RATIO, IMPOSSIBLE_VALUE
            stated.side[impossible] = -1
            stated.observed[impossible] = np.clip(points.values[impossible], -MAX_FLOAT32, MAX_FLOAT32)
            for one, band in ((stated.low, verdicts.lower), (stated.high, verdicts.upper)):
                shown = band[impossible].astype(np.float64)
                one[impossible] = np.where(np.abs(shown) < MAX_FLOAT32, shown, np.nan)
        return np.asarray(over_channels(np.any, impossible), np.bool_)


def _separate(verdicts: Verdicts, side: NDArray[np.int8]) -> None:
    """Keep the observed value of a ratio above 1 outside its range, whatever rounding to 32 bits did."""
    outside, inf = np.flatnonzero(verdicts.ratio > 1), np.float32(np.inf)
    above, below = outside[side[outside] > 0], outside[side[outside] < 0]
    high, low, observed = verdicts.usual_high, verdicts.usual_low, verdicts.observed
    with np.errstate(over="ignore"):  # beyond 32 bits lies infinity
        high[above] = np.minimum(high[above], np.nextafter(observed[above], -inf))
        low[below] = np.maximum(low[below], np.nextafter(observed[below], inf))


def _share_contribution(ratio: Floats, verdicts: Verdicts) -> None:
    """Share what is beyond the ranges among the channels, in place."""
    ranked = (verdicts.surprise >= MIN_SHARED_SURPRISE)[:, None]
    verdicts.contribution = np.where(ranked, verdicts.contribution, np.float32(0))
    outside = np.flatnonzero(verdicts.ratio > 1)
    beyond = np.maximum(ratio[outside] - 1, 0).astype(np.float64)
    verdicts.contribution[outside] = beyond / beyond.sum(axis=1, keepdims=True)


@kernel
def _confirm(state, slot, ratio, kinds, least):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Return the rows that end ``least`` or more consecutive rows outside and are not marginal.

    The second result is the number of those rows.

    ``state`` holds the run of rows outside, and in its lowest bits the rows for which a marginal row still
    belongs to the alarm before it. ``kinds`` marks the rows whose ratio is not that of a range of extremes, and
    those that rows on end confirm: an extreme of hours, or a trend, repeats itself.
    """
    sure, lasts = kinds
    flag, runs = np.zeros(len(slot), np.bool_), np.zeros(len(slot), np.int32)
    for i in range(len(slot)):
        run, still = state[slot[i]] >> ALARM_BITS, state[slot[i]] & ALARM_ROWS
        run = min(run + 1, MAX_RUN) if ratio[i] > 1 else 0
        by_run = run >= CONFIRMED_ROWS and lasts[i]
        confirmed = sure[i] or ratio[i] >= CONFIRMED_RATIO or by_run or still > 0
        flag[i] = ratio[i] > 1 and confirmed and run >= least
        still = ALARM_ROWS if flag[i] else max(still - 1, 0)
        state[slot[i]], runs[i] = run << ALARM_BITS | still, run
    return flag, runs
