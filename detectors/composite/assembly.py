"""The decision: scores per channel slot become verdicts per point.

It adds the multivariate score, applies threshold, static limits and the rules of the spec, and converts the
band to units of the input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.base import CAUSES, DetectorSpec, Points, State, Verdicts
from detectors.channel_batch import ChannelBatch, Floats, of_channel, over_channels
from detectors.composite.presets import Preset
from detectors.stages.forecaster_selection import FORECASTER_STATIC, SelectedForecasts
from detectors.stages.multivariate import Multivariate
from detectors.stages.robust_scale import anchors
from detectors.thresholds.base import Threshold
from detectors.thresholds.event_gate import EventGate

MAX_FLOAT32 = float(np.finfo(np.float32).max)
LIMIT_SURPRISE_FACTOR = 1.5  # times the threshold: least surprise of a value outside its static limits
IMPOSSIBLE_SURPRISE_FACTOR = 3.0  # the same of an impossible value
STATIC_LIMIT, MULTIVARIATE, STEADY_STATE, IMPOSSIBLE_VALUE = (
    np.uint8(CAUSES.index(word))
    for word in ("static_limit", "multivariate", "steady_state", "impossible_value")
)


@dataclass(frozen=True, slots=True)
class DecisionParts:
    """The parts of a detector that the decision uses; ``multivariate`` is None for one channel."""

    spec: DetectorSpec
    preset: Preset
    event_gate: EventGate
    threshold: Threshold
    multivariate: Multivariate | None


@dataclass(frozen=True, slots=True)
class SlotScores:
    """Results of the stages for M channel slots.

    raw         (M, 2) float32  surprise, and the part of it for which each row is an event of its own
    cause       (M,)   uint8    index into CAUSES
    forecasts   (M,)            selected forecasts
    half_width  (M,)   float32  half width of the band in steps of the series
    """

    raw: Floats
    cause: NDArray[np.uint8]
    forecasts: SelectedForecasts
    half_width: Floats


def assemble_verdicts(
    parts: DecisionParts, state: State, points: Points, batch: ChannelBatch, scores: SlotScores
) -> Verdicts:
    """Return the verdicts on N points of C channels; M = N · C.

    Args:
        parts: the parts of the detector.
        state: state of the detector; arrays per channel are flattened to M rows.
        points: the points in units of the input.
        batch: the same points as M channel slots in working units.
        scores: results of the stages.
    """
    shape = points.values.shape
    expected, low, high = _bands(parts, state, batch, scores, shape)
    by_channel, repeats, cause = _channel_surprises(parts, state, points, batch, scores)
    # Alarms are decided on the scale of the static threshold: surprises are scaled to any other threshold.
    scale = np.float32(parts.event_gate.threshold) / parts.threshold.run(
        state, points.slot, over_channels(np.max, by_channel)
    )
    by_channel, repeats = by_channel * scale[:, None], repeats * scale
    outside = _outside_limits(parts, points, low, high)
    any_outside = over_channels(np.any, outside)
    impossible = parts.preset.impossible(points.values, parts.spec.channels)
    _raise_surprise(parts, by_channel, repeats, outside, impossible)
    any_impossible = over_channels(np.any, impossible)
    any_outside = any_outside | any_impossible
    min_rate = parts.preset.min_alarm_rate(points.every)
    peak = by_channel.argmax(axis=1) if shape[1] > 1 else np.zeros(len(points), np.intp)
    allowed = _allowed(parts, of_channel(points.values, peak), of_channel(expected, peak)) | any_outside
    surprise, flag = parts.event_gate.run(
        state, points.slot, of_channel(by_channel, peak), repeats, allowed, min_rate
    )
    total = over_channels(np.sum, by_channel)[:, None]
    contribution = np.divide(by_channel, total, out=np.zeros(shape, np.float32), where=total > 0)
    forecaster = of_channel(scores.forecasts.forecaster.reshape(shape), peak)
    return Verdicts(
        score=(1.0 - 10.0 ** -surprise.astype(np.float64)).astype(np.float32),
        surprise=surprise,
        flag=flag,
        expected=expected.astype(np.float32),
        lower=low.astype(np.float32),
        upper=high.astype(np.float32),
        contribution=contribution,
        forecaster=np.where(any_outside, np.uint8(FORECASTER_STATIC), forecaster),
        cause=np.select(
            [any_impossible, any_outside], [IMPOSSIBLE_VALUE, STATIC_LIMIT], of_channel(cause, peak)
        ).astype(np.uint8),
    )


def _raise_surprise(
    parts: DecisionParts,
    by_channel: Floats,
    repeats: Floats,
    outside: NDArray[np.bool_],
    impossible: NDArray[np.bool_],
) -> None:
    """Give values outside their limits and impossible ones their surprise, in place."""
    for where, factor in ((outside, LIMIT_SURPRISE_FACTOR), (impossible, IMPOSSIBLE_SURPRISE_FACTOR)):
        if not where.any():
            continue
        least = np.float32(parts.event_gate.threshold * factor)
        by_channel[where] = np.maximum(by_channel[where], least)
        repeats[where.any(axis=1)] = least


def _bands(
    parts: DecisionParts, state: State, batch: ChannelBatch, scores: SlotScores, shape: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return expected value, lower and upper end of the band (N, C), in units of the input."""
    centre = scores.forecasts.expected.astype(np.float64) + anchors(state, batch)
    width = (scores.half_width * batch.step).astype(np.float64)
    expected, low, high = (
        np.clip(parts.preset.inverse(x), -MAX_FLOAT32, MAX_FLOAT32).reshape(shape)
        for x in (centre, centre - width, centre + width)
    )
    return expected, low, high


def _channel_surprises(
    parts: DecisionParts, state: State, points: Points, batch: ChannelBatch, scores: SlotScores
) -> tuple[Floats, Floats, NDArray[np.uint8]]:
    """Return surprise (N, C), its repeating part (N,) and cause (N, C)."""
    shape = points.values.shape
    # The largest of C surprises is C times as likely to be this large as a single one.
    one, repeating = (
        np.maximum(scores.raw[:, k].reshape(shape) - np.float32(np.log10(shape[1])), 0) for k in range(2)
    )
    by_channel = np.where(np.isnan(points.values), np.float32(0), one)
    repeats, cause = over_channels(np.max, repeating), scores.cause.reshape(shape)
    if parts.multivariate is not None:
        joint, lasting, share, left = parts.multivariate.run(state, points.slot, batch, scores.forecasts)
        leads = (joint > over_channels(np.max, by_channel))[:, None]
        by_channel = np.where(leads, _spread(joint, share), by_channel)
        cause = np.where(leads, np.where(left, STEADY_STATE, MULTIVARIATE)[:, None], cause)
        repeats = np.maximum(repeats, lasting)
    return by_channel, repeats, cause


def _spread(joint: Floats, share: Floats) -> Floats:
    """Return the joint surprise (N,) per channel (N, C), in proportion to the share.

    The channel with the largest share gets the whole surprise.
    """
    largest = share.max(axis=1, keepdims=True)
    return np.divide(share, largest, out=np.zeros_like(share), where=largest > 0) * joint[:, None]


def _outside_limits(
    parts: DecisionParts, points: Points, low: NDArray[np.float64], high: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return the values outside their static limits (N, C); narrow the band to the limits in place."""
    outside = np.zeros(points.values.shape, np.bool_)
    for c, limit in enumerate(parts.spec.limits):
        outside[:, c] = (points.values[:, c] < limit.low) | (points.values[:, c] > limit.high)
        low[:, c], high[:, c] = np.fmax(low[:, c], limit.low), np.fmin(high[:, c], limit.high)
    return outside


def _allowed(
    parts: DecisionParts, value: NDArray[np.float64], expected: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return the rows (N,) whose direction and deviation can be an alarm."""
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
