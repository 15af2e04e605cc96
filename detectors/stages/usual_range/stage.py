"""The decision by usual ranges: a quantity of a channel outside its usual range is an alarm.

Each channel slot has up to nine plain quantities (``quantities``). Each has a usual range at this phase of
the day, or over all phases where those do not help (``phase_profile``, ``limits``). The range is printed with
the alarm, so the observed value always lies outside of it. The forecast residual is one of the quantities
(``residual_tail``), and so is the residual on the other channels (``relation``).

The state of a channel slot has a fixed size. Verdicts do not depend on how points are cut into batches: every
number that is stored with fewer bits is rounded at the end of a visit or of a block, not of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.base import DetectorSpec, Points, State
from detectors.channel_batch import ChannelBatch, Floats
from detectors.local_time import holiday_days, local_ns, possible_clock_changes
from detectors.stages.robust_scale import anchors
from detectors.stages.stock_channels import price_channels
from detectors.stages.usual_range import quantities as q
from detectors.stages.usual_range.departures import initial_departures
from detectors.stages.usual_range.lane import (
    MINUTE_NS,
    SECOND_NS,
    Found,
    Lane,
    Rows,
    Settings,
    initial_head,
    new_work,
)
from detectors.stages.usual_range.limits import initial_limits
from detectors.stages.usual_range.own_tail import fall_stride, initial_own, width_factor
from detectors.stages.usual_range.phase_profile import initial_profile
from detectors.stages.usual_range.rarity_map import RarityMap, read_rarity_map
from detectors.stages.usual_range.relation import Relation
from detectors.stages.usual_range.residual_tail import initial_tail
from detectors.stages.usual_range.rows import judge_rows

REFERENCE_ALARM_RATE = 1e-4
SENSITIVITY_OF_PRICES = 5.0  # prices have the same quantities in each tier
MIN_SENSITIVITY = 1.0
EXTREME_HOURS = 3  # length of the window of HIGHEST and LOWEST
#: The limit of the forecast residual is read half a decade beyond the alarm rate: the residual is one of
#: several quantities.
RESIDUAL_DECADES = 0.5
#: A broken relation is attributed to a channel only if no other one is farther from its own usual value or
#: level by this ratio.
BLAME_MARGIN = np.float32(0.15)
#: Quantities that have no meaning for prices, which are random walks.
NOT_OF_PRICES = (q.Q_VALUE, q.Q_HIGHEST, q.Q_LOWEST)
LOGARITHM_OF_PRESET = {"sensor": 0, "network": 1, "stock": 2}


@dataclass(frozen=True, slots=True)
class UsualRangeSizes:
    """Quantities and sizes of a tier.

    quantities  used quantities
    phased      those with a range by the time of day
    bins        bins of a day
    sensitivity k of ``limits`` at ``REFERENCE_ALARM_RATE`` on one channel
    """

    quantities: tuple[int, ...]
    phased: tuple[int, ...]
    bins: int
    sensitivity: float


@dataclass(frozen=True, slots=True)
class ChannelRatios:
    """Results of N points of C channels, in working units.

    ratio      (N, C) float32  see ``detectors.base.Verdicts``
    quantity   (N, C) int8     leading quantity, −1: none
    side       (N, C) int8     1: above the middle, −1: below
    observed   (N, C) float32  value of the leading quantity, relative to the anchor where it is a value
    low, high  (N, C) float32  its usual range
    minimum    (N, C) float32  lowest value of the channel before the row
    maximum    (N, C) float32  highest one
    evidence   (N, C) float32  largest evidence of the quantities by the pooled map, in decades
    rarity     (N, C) float32  −log10 of the probability on the past of the channel, in decades
    half_width (N, C) float32  half width of the prediction interval
    stated_rarity (N, C) float32  rarity of the leading quantity, in decades
    basis      (N, C) uint8    see ``detectors.base.Verdicts``
    level      (N, C) float32  mean of the last rows, relative to the anchor; NaN in the first rows
    alone      (N, C) bool     see ``detectors.base.Verdicts``
    relation   (N, C) float32  difference of the value from what the other channels imply, NaN: none
    partner    (N, C) int16    channel that implies most of it, −1: none
    """

    ratio: Floats
    quantity: NDArray[np.int8]
    side: NDArray[np.int8]
    observed: Floats
    low: Floats
    high: Floats
    minimum: Floats
    maximum: Floats
    evidence: Floats
    rarity: Floats
    half_width: Floats
    stated_rarity: Floats
    basis: NDArray[np.uint8]
    level: Floats
    alone: NDArray[np.bool_]
    relation: Floats
    partner: NDArray[np.int16]


class UsualRange:
    """The quantities of each channel slot and their usual ranges."""

    def __init__(
        self, spec: DetectorSpec, sizes: UsualRangeSizes, rarity_map: RarityMap | None = None
    ) -> None:
        """Configure the stage for ``spec`` and the sizes of its tier.

        ``rarity_map`` replaces the packaged one.
        """
        channels = len(spec.channels)
        self.timezone, self.channels, self.sizes = spec.timezone, channels, sizes
        self.interval, self.alarm_rate = spec.interval, spec.alarm_rate
        self.reference_sensitivity = SENSITIVITY_OF_PRICES if spec.preset == "stock" else sizes.sensitivity
        shifted = spec.alarm_rate != REFERENCE_ALARM_RATE
        related = channels > 1 and spec.preset != "stock"
        self.relation = Relation(channels) if related and q.Q_RELATION in sizes.quantities else None
        self.map = read_rarity_map(spec.tier) if rarity_map is None else rarity_map
        self.judges_residual = spec.preset != "stock" and q.Q_FORECAST in sizes.quantities
        # The residual has a tail of its own instead of a range.
        left_out = {q.Q_FORECAST} if self.relation else {q.Q_FORECAST, q.Q_RELATION}
        self.layout = q.make_layout(
            tuple(k for k in sizes.quantities if k not in left_out),
            tuple(k for k in sizes.phased if k not in left_out),
            sizes.bins,
        )
        enabled = np.ones((channels, q.QUANTITIES), np.bool_)
        self.prices = (
            price_channels(spec.channels) if spec.preset == "stock" else np.zeros(channels, np.bool_)
        )
        enabled[np.ix_(self.prices, np.array(NOT_OF_PRICES))] = False
        self.settings = Settings(
            enabled,
            *possible_clock_changes(spec.timezone),
            holiday_days(spec.holidays),
            shifted,
            np.float32(RESIDUAL_DECADES + np.log10(channels) - np.log10(REFERENCE_ALARM_RATE)),
            LOGARITHM_OF_PRESET[spec.preset],
            self.map.evidence,
            np.float32(1 - spec.interval),
            fall_stride(1 - spec.interval),
        )

    def initial(self, slots: int) -> State:
        """Return the empty state of ``slots`` channel slots."""
        state: State = {
            "usual.visit": np.full((slots, self.layout.phased, 2), np.nan, np.float32),
        }
        if q.Q_HIGHEST in self.layout.quantity:
            rows = max(EXTREME_HOURS * self.layout.bins // 24, 1)
            state["usual.recent"] = np.full((slots, rows, 2), np.nan, np.float32)
        if self.judges_residual:
            state |= initial_tail(slots) | initial_departures(slots)
        width = self.map.width * width_factor(1 - self.interval)
        state |= initial_own(slots, self.map.levels, width) | initial_head(slots)
        return state | initial_profile(slots, self.layout) | initial_limits(slots, self.layout)

    def initial_series(self, n: int) -> State:
        """Return the empty state of ``n`` series."""
        return self.relation.initial(n) if self.relation else {}

    def run(
        self, state: State, points: Points, batch: ChannelBatch, expected: Floats, min_alarm_rate: Floats
    ) -> ChannelRatios:
        """Judge N points and advance the state in place.

        Args:
            state: Arrays of ``initial`` and ``initial_series``.
            points: The points in units of the input.
            batch: The same points as N · C channel slots.
            expected: Forecast of each channel slot (N · C,) in the units of ``batch.v``, NaN: none.
            min_alarm_rate: Lowest alarm rate of each point (N,), whatever the spec says.
        """
        shape, m, c = points.values.shape, len(batch), self.channels
        relation, partner = np.full(shape, np.nan, np.float32), np.full(shape, -1, np.int16)
        if self.relation is not None:
            relation, partner = self.relation.run(state, points.slot, batch.v.reshape(shape), points.every)
        local = local_ns(self.timezone, points.time)
        minutes = minutes_of_a_row(points.every)
        # Limits are learned at the reference rate, so that probabilities do not depend on that of the alarms.
        learned, alarms = (
            sensitivity(np.maximum(min_alarm_rate, rate * minutes), c, self.reference_sensitivity)
            for rate in (REFERENCE_ALARM_RATE, self.alarm_rate)
        )
        rows = Rows(
            batch.slot,
            batch.v,
            np.ascontiguousarray(points.values, np.float64).ravel(),
            anchors(state, batch),
            batch.time,
            local if c == 1 else np.repeat(local, c),
            batch.every,
            relation.ravel(),
            (batch.v - expected).astype(np.float32, copy=False),
            np.ascontiguousarray(batch.step, np.float32),
            np.repeat(learned, c),
            np.repeat(alarms - learned, c),
        )
        found = _not_judged(m)
        if m:
            order = np.argsort(batch.slot, kind="stable")
            output = (new_work(len(self.layout.quantity)), found)
            judge_rows(self._arrays(state), self.layout, self.settings, order, rows, output)
        if self.relation is not None:
            _blame(found, shape)
        quantity = found.quantity.reshape(shape)
        quantity[(quantity == q.Q_LEVEL) & self.prices] = q.Q_TREND
        known = {
            name: one.reshape(shape) for name, one in found._asdict().items() if name not in ("own", "step")
        }
        known["alone"] = _lies_outside_alone(found, batch.v, relation.ravel()).reshape(shape)
        return ChannelRatios(**known, relation=relation, partner=partner)

    def _arrays(self, state: State) -> tuple[NDArray[Any], ...]:
        """Return the arrays of ``Lane`` in its order; an array that this tier does not keep is empty."""
        slots = len(state["usual.head"])
        empty: State = {
            "usual.recent": np.zeros((slots, 0, 2), np.float32),
            "usual.tail": np.zeros((slots, 0), np.uint16),
            "usual.tail_head": np.zeros((slots, 0), np.float32),
            "usual.events": np.zeros((slots, 0, 3), np.int8),
            "usual.departures": np.zeros((slots, 0, 3), np.int8),
        }
        names = (f"usual.{name}" for name in Lane._fields)
        return tuple(state[name] if name in state else empty[name] for name in names)


def minutes_of_a_row(every: NDArray[np.int64]) -> Floats:
    """Return the minutes for which a row of this cadence counts.

    The alarm rate is multiplied by them.
    """
    return np.asarray(np.where(every > 0, np.clip(every, SECOND_NS, MINUTE_NS), MINUTE_NS) / MINUTE_NS)


def sensitivity(alarm_rate: Floats, channels: int, reference: float) -> Floats:
    """Return k of ``limits``: one e-fold fewer alarms for each 1, shared among the channels."""
    k = reference + np.log(REFERENCE_ALARM_RATE * channels / alarm_rate)
    return np.maximum(k, MIN_SENSITIVITY).astype(np.float32)


def _not_judged(m: int) -> Found:
    """Return the results of ``m`` rows that are not judged."""
    ratio, own, minimum, maximum, evidence, rarity, stated = (np.zeros(m, np.float32) for _ in range(7))
    observed, low, high, half_width, level, step = (np.full(m, np.nan, np.float32) for _ in range(6))
    quantity, side, basis = np.full(m, -1, np.int8), np.zeros(m, np.int8), np.zeros(m, np.uint8)
    found = (ratio, quantity, side, observed, low, high, own, minimum, maximum, evidence, rarity, half_width)
    return Found(*found, stated, basis, level, step)


def _lies_outside_alone(found: Found, v: Floats, relation: Floats) -> NDArray[np.bool_]:
    """Return the rows (M,) that lie outside without the rows before them."""
    alone, rows = np.zeros(len(v), np.bool_), np.flatnonzero(found.ratio > 1)
    if not len(rows):
        return alone
    means = [found.quantity[rows] == k for k in (q.Q_LEVEL, q.Q_NOISE, q.Q_RELATION)]
    with np.errstate(divide="ignore"):
        step = np.log2(np.abs(found.step[rows]))
    single = np.select(means, [v[rows], step, relation[rows]], found.observed[rows])
    alone[rows] = np.where(found.side[rows] > 0, single > found.high[rows], single < found.low[rows])
    return alone


def _blame(found: Found, shape: tuple[int, ...]) -> None:
    """Lower to 1 the ratio of a broken relation where another channel is itself less usual."""
    own, ratio = found.own.reshape(shape), found.ratio.reshape(shape)
    broken = (found.quantity.reshape(shape) == q.Q_RELATION) & (ratio > 1)
    for c in range(shape[1]):
        others = np.delete(own, c, axis=1).max(axis=1)
        excused = broken[:, c] & (others > own[:, c] + BLAME_MARGIN)
        ratio[excused, c] = np.float32(1)
