"""From lanes back to points: the joint surprise of the channels, static limits, rules, the alarm, and the
band in input units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.base import CAUSES, DetectorSpec, Points, State, Verdicts
from detectors.channel_batch import ChannelBatch, Floats
from detectors.composite.presets import Preset
from detectors.stages.forecaster_selection import STATIC, SelectedForecasts
from detectors.stages.multivariate import Multivariate
from detectors.stages.robust_scale import ANCHOR
from detectors.thresholds.base import Threshold
from detectors.thresholds.event_gate import Event

BIG = float(np.finfo(np.float32).max)
STATIC_LIMIT, MULTIVARIATE, STEADY_STATE = (
    np.uint8(CAUSES.index(word)) for word in ("static_limit", "multivariate", "steady_state")
)


@dataclass(frozen=True, slots=True)
class DecisionParts:
    """What of a detector the decision needs; ``multivariate`` is None for one channel."""

    spec: DetectorSpec
    preset: Preset
    event: Event
    threshold: Threshold
    multivariate: Multivariate | None


def assemble(
    parts: DecisionParts,
    state: State,
    points: Points,
    batch: ChannelBatch,
    raw: Floats,
    lead: NDArray[np.uint8],
    forecasts: SelectedForecasts,
    half: Floats,
) -> Verdicts:
    """``raw``, ``lead``, ``forecasts`` and ``half`` (band in steps) are per channel slot (M, …); the verdicts are per
    point (N,).
    """
    shape = points.values.shape
    centre = forecasts.expected.astype(np.float64) + state["scale.moments"][batch.slot, ANCHOR]
    width = (half * batch.step).astype(np.float64)
    inverse = parts.preset.inverse
    middle, low, high = (
        np.clip(inverse(x), -BIG, BIG).reshape(shape) for x in (centre, centre - width, centre + width)
    )
    guards, lead = forecasts.forecaster.reshape(shape), lead.reshape(shape)
    # The largest of C channels is C times as likely to be rare as one of them.
    one, repeats = (
        np.maximum(raw[:, k].reshape(shape) - np.float32(np.log10(shape[1])), 0) for k in range(2)
    )
    by_channel = np.where(np.isnan(points.values), np.float32(0), one)
    repeats = repeats.max(axis=1)
    if parts.multivariate is not None:
        together, lasting, share, left = parts.multivariate.run(state, points.slot, batch, forecasts)
        leads = together > by_channel.max(axis=1)
        by_channel = np.where(leads[:, None], _spread(together, share), by_channel)
        lead = np.where(leads[:, None], np.where(left, STEADY_STATE, MULTIVARIATE)[:, None], lead)
        repeats = np.maximum(repeats, lasting)
    # The static threshold is the scale of all surprises: another one brings them to it.
    scale = np.float32(parts.event.threshold) / parts.threshold.run(
        state, points.slot, by_channel.max(axis=1)
    )
    by_channel, repeats = by_channel * scale[:, None], repeats * scale
    outside = _limits(parts, points, low, high)
    beyond = np.float32(parts.event.threshold * 1.5)
    by_channel[outside] = np.maximum(by_channel[outside], beyond)
    repeats[outside.any(axis=1)] = beyond
    usual = parts.preset.usual_rate(points.every)
    peak = by_channel.argmax(axis=1)
    rows = np.arange(len(points))
    allowed = _allowed(parts, points.values[rows, peak], middle[rows, peak]) | outside.any(axis=1)
    surprise, flag = parts.event.run(state, points.slot, by_channel[rows, peak], repeats, allowed, usual)
    total = by_channel.sum(axis=1, keepdims=True)
    contribution = np.divide(by_channel, total, out=np.zeros(shape, np.float32), where=total > 0)
    who = np.where(outside.any(axis=1), np.uint8(STATIC), guards[rows, peak])
    return Verdicts(
        (1.0 - 10.0 ** -surprise.astype(np.float64)).astype(np.float32),
        surprise,
        flag,
        middle.astype(np.float32),
        low.astype(np.float32),
        high.astype(np.float32),
        contribution,
        who,
        np.where(outside.any(axis=1), STATIC_LIMIT, lead[rows, peak]),
    )


def _spread(together: Floats, share: Floats) -> Floats:
    """The joint surprise (N,) given to the channels by their share (N, C): the largest share gets all of it."""
    largest = share.max(axis=1, keepdims=True)
    return np.divide(share, largest, out=np.zeros_like(share), where=largest > 0) * together[:, None]


def _limits(
    parts: DecisionParts, points: Points, low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which values lie outside their static limits (N, C); narrows the band to the limits."""
    outside = np.zeros(points.values.shape, np.bool_)
    for c, limit in enumerate(parts.spec.limits):
        outside[:, c] = (points.values[:, c] < limit.low) | (points.values[:, c] > limit.high)
        low[:, c], high[:, c] = np.fmax(low[:, c], limit.low), np.fmin(high[:, c], limit.high)
    return outside


def _allowed(
    parts: DecisionParts, value: NDArray[np.float64], expected: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Direction and least deviation (N,)."""
    spec = parts.spec
    off = value - expected
    allowed = (
        ~(np.abs(off) < spec.min_deviation * np.abs(expected))
        if spec.min_deviation > 0
        else np.ones(len(value), np.bool_)
    )
    if spec.direction == "up":
        allowed &= ~(off < 0)
    if spec.direction == "down":
        allowed &= ~(off > 0)
    return allowed
