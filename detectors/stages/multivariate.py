"""What the channels of a series break together: the Mahalanobis distance of their forecast errors, by their
own past covariance.

Two channels that always move together may part without either leaving its own band. d²_t = r_tᵀ Σ⁻¹ r_t with
r the errors in usual sizes and Σ their exponentially forgetting covariance (Hotelling's T²; Mahalanobis
1936), calibrated like any other track, at once and averaged over ``SPAN`` rows. The share of channel c is r_c
(Σ⁻¹ r)_c where that is positive.

Beside it stands the channel that is farthest from where it settled (``detectors.stages.steady_state``): the
largest over the channels, calibrated by its own past without the rows of an event, so that a fault stays one
for as long as it lasts. It is over when the distance has fallen to ``FALLEN`` of the height it had: a plant
rarely settles where it was before, and what is left of the distance is no news.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats, Ints
from detectors.jit import kernel
from detectors.stages.forecaster_selection import SelectedForecasts
from detectors.stages.score_fusion import ScoreFusion, TrackGroup
from detectors.stages.steady_state import SteadyState
from detectors.stages.tail_calibration import TailCalibration

MEMORY = 5_000.0
SPAN = 10.0
RIDGE = 0.05  # usual sizes squared: channels that repeat each other do not make Σ singular
LARGEST = 8.0  # an error of more usual sizes teaches and counts no more than this
# much below, the tail that is cut off makes the rest look rarer each time; above, a slow fault calibrates
# itself away
QUARANTINE = 2.5
RESTLESS = 4.0  # the same of numbers that do not settle: leaving a level belongs to the tail
FALLEN = 0.4
RISE, DECAY = 30.0, 1000.0  # rows over which the height of an event is taken, and after which it is forgotten
SETTLED = (TrackGroup((("settled", 1.0),), 1.0, 0.9),)
GROUPS = (TrackGroup((("joint", 1.0),), 0.8, slope=0.2), TrackGroup((("joint_mean", 1.0),), 0.8, slope=0.2))


class Multivariate:
    """State: (C² + 4) · 4 bytes a series, three calibrated tracks, and ``SteadyState`` of each lane."""

    def __init__(self, channels: int, bins: int, threshold: float, settles: bool) -> None:
        self.channels = channels
        self.fusion, self.lasting, self.settled = (
            ScoreFusion(GROUPS, threshold),
            ScoreFusion(SETTLED, threshold),
            SteadyState(),
        )
        self.calibrations = {
            "joint.": TailCalibration(tuple(quantile for _, quantile in self.fusion.columns), bins),
            "joint.settled.": TailCalibration((0.9,), bins, QUARANTINE if settles else RESTLESS),
        }

    def initial(self, n: int) -> State:
        own = {"joint.covariance": np.zeros((n, self.channels, self.channels), np.float32)}
        own |= {name: np.zeros((n, 2), np.float32) for name in ("joint.clock", "joint.height")}
        for prefix, calibration in self.calibrations.items():
            own |= {prefix + name: array for name, array in calibration.initial(n).items()}
        return own

    def run(
        self, state: State, series_slot: Ints, batch: ChannelBatch, forecasts: SelectedForecasts
    ) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
        """Surprise (N,) of the channels, of that what lasts as long as its cause (N,), each channel's share
        (N, C), and where it is not what they break together that says more, but the one that is farthest from
        where it settled (N,).
        """
        shape = (len(series_slot), self.channels)
        usual = np.maximum(forecasts.error * batch.unit, 1e-30)
        residual = (
            np.clip((batch.v - forecasts.expected) / usual, -LARGEST, LARGEST)
            .reshape(shape)
            .astype(np.float32)
        )
        errors, share, rows = (
            np.empty((len(series_slot), 2), np.float32),
            np.zeros(shape, np.float32),
            np.empty(len(series_slot), np.float32),
        )
        _joint(state["joint.covariance"], state["joint.clock"], series_slot, residual, errors, share, rows)
        away = self.settled.run(state, batch).reshape(shape)
        farthest = np.fmax.reduce(away, axis=1)[:, None]
        _fallen(state["joint.height"], series_slot, farthest)
        ones = np.ones(len(series_slot), np.float32)
        known = replace(forecasts, error=ones, off=ones, rows=rows)
        together, lasting = (
            fusion.run({}, series_slot, self._surprises(state, prefix, series_slot, error), known)[0][:, 0]
            for fusion, prefix, error in (
                (self.fusion, "joint.", errors),
                (self.lasting, "joint.settled.", farthest),
            )
        )
        away = np.where(away > 1, away - 1, 0)  # nothing where it is as usual
        left = lasting > together
        share = np.where(left[:, None], away, share)
        return np.maximum(together, lasting), lasting, share, left

    def _surprises(self, state: State, prefix: str, series_slot: Ints, errors: Floats) -> Floats:
        own = {
            name.removeprefix(prefix): array
            for name, array in state.items()
            if name.startswith(prefix + "calibration")
        }
        return self.calibrations[prefix].run(own, series_slot, errors, -1, 0.0)[0]


@kernel
def _joint(covariance, clock, series_slot, residual, errors, share, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001
    channels = residual.shape[1]
    r = np.zeros(channels)
    for i in range(len(series_slot)):
        s, t = covariance[series_slot[i]], clock[series_slot[i]]
        rows[i] = t[0]
        known = 0
        for c in range(channels):
            known += not np.isnan(residual[i, c])
            r[c] = 0.0 if np.isnan(residual[i, c]) else residual[i, c]
        errors[i] = np.nan
        if known == 0:
            continue
        if t[0] >= 4 * channels:
            solved = np.linalg.solve(s.astype(np.float64) + RIDGE * np.eye(channels), r)
            distance = np.float32(max((r * solved).sum(), 0.0))
            t[1] += (distance - t[1]) / min(t[0] - 4 * channels + 1, np.float32(SPAN))
            errors[i, 0], errors[i, 1] = distance, t[1]
            for c in range(channels):
                share[i, c] = max(r[c] * solved[c], 0.0)
        t[0] += 1
        rate = max(1 / t[0], np.float32(1 / MEMORY))
        for c in range(channels):
            for e in range(channels):
                s[c, e] += rate * (np.float32(r[c] * r[e]) - s[c, e])


@kernel
def _fallen(height, series_slot, farthest):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Lower in place what is left of an event; distances are about 1 where all is as usual."""
    for i in range(len(series_slot)):
        h = height[series_slot[i]]
        excess = max(farthest[i, 0] - np.float32(1), np.float32(0))
        if np.isnan(farthest[i, 0]):
            continue
        h[0] += (excess - h[0]) / np.float32(RISE)
        h[1] = max(h[1] * np.float32(1 - 1 / DECAY), h[0])
        least = np.float32(FALLEN) * h[1]
        farthest[i, 0] = 1 + (excess if excess >= least else excess * (excess / least) ** 2)
