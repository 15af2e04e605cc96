"""The multivariate term: surprise of the channels of a series together.

The first part is the Mahalanobis distance of their forecast errors by their own past covariance. Two channels
that always move together may part without either leaving its own band. d²_t = r_tᵀ Σ⁻¹ r_t, with r the errors
in usual errors and Σ their exponentially forgetting covariance (Hotelling's T²; Mahalanobis 1936). It is
calibrated like any other track, at once and averaged over ``AVERAGING_ROWS``. The share of channel c is
r_c (Σ⁻¹ r)_c where that is positive.

The second part is the distance of the farthest channel from its steady state
(``detectors.stages.steady_state``). It is calibrated by its own past without the rows of an event, so that a
fault stays an anomaly for as long as it lasts. The event ends when the distance has fallen to
``END_HEIGHT_SHARE`` of its height, because a plant rarely returns to exactly the same level.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats, Ints
from detectors.jit import kernel
from detectors.stages.forecaster_selection import SelectedForecasts
from detectors.stages.score_fusion import ScoreFusion, TrackGroup
from detectors.stages.steady_state import SteadyState
from detectors.stages.tail_calibration import TailCalibration

FORGETTING_ROWS = 5_000.0  # of the covariance
AVERAGING_ROWS = 10.0
RIDGE = 0.05  # usual errors squared: keeps Σ regular where channels repeat each other
MAX_ABS_USUAL_ERRORS = 8.0  # an error counts and teaches no more than this
# A much lower value cuts the tail off, so the remaining rows look rarer each time. A higher one lets a slow
# fault calibrate itself away.
QUARANTINE_SURPRISE = 2.5
#: The same for values without a steady state, where leaving a level belongs to the tail.
UNSTEADY_QUARANTINE_SURPRISE = 4.0
MIN_ROWS_PER_CHANNEL = 4  # before a distance is taken
END_HEIGHT_SHARE = 0.4
HEIGHT_RISE_ROWS, HEIGHT_DECAY_ROWS = 30.0, 1000.0
COL_ROWS, COL_MEAN_DISTANCE = range(2)  # of "joint.clock"
COL_EXCESS, COL_HEIGHT = range(2)  # of "joint.height"
STEADY_STATE_GROUPS = (TrackGroup((("settled", 1.0),), 1.0, 0.9),)
DISTANCE_GROUPS = (
    TrackGroup((("joint", 1.0),), 0.8, slope=0.2),
    TrackGroup((("joint_mean", 1.0),), 0.8, slope=0.2),
)


class Multivariate:
    """The two multivariate parts of a detector.

    State: (C² + 4) · 4 bytes a series, three calibrated tracks, and ``SteadyState`` of each channel.
    """

    def __init__(self, channels: int, bins: int, threshold: float, settles: bool) -> None:
        """Configure the stage.

        Args:
            channels: Number C of channels.
            bins: Bins of a calibration histogram.
            threshold: Surprise from which a row may alarm.
            settles: Whether the values have a level to which they return.
        """
        self.channels = channels
        self.fusion = ScoreFusion(DISTANCE_GROUPS, threshold)
        self.steady_fusion = ScoreFusion(STEADY_STATE_GROUPS, threshold)
        self.steady_state = SteadyState()
        quarantine = QUARANTINE_SURPRISE if settles else UNSTEADY_QUARANTINE_SURPRISE
        self.calibrations = {
            "joint.": TailCalibration(tuple(quantile for _, quantile in self.fusion.columns), bins),
            "joint.settled.": TailCalibration((0.9,), bins, quarantine),
        }

    def initial(self, n: int) -> State:
        """Return the empty state of ``n`` series."""
        own = {"joint.covariance": np.zeros((n, self.channels, self.channels), np.float32)}
        own |= {name: np.zeros((n, 2), np.float32) for name in ("joint.clock", "joint.height")}
        for prefix, calibration in self.calibrations.items():
            own |= {prefix + name: array for name, array in calibration.initial(n).items()}
        return own

    def run(
        self, state: State, series_slot: Ints, batch: ChannelBatch, forecasts: SelectedForecasts
    ) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]]:
        """Return surprise, lasting surprise, shares and cause of N points.

        Args:
            state: Arrays of ``initial`` and of ``SteadyState``, advanced in place.
            series_slot: Row of the state of each point (N,).
            batch: The N · C rows of the points.
            forecasts: Their forecasts.

        Returns:
            The larger surprise of the two parts (N,); the surprise by the steady state, which lasts as long
            as its cause (N,); the share of each channel (N, C); whether the steady state decided (N,).
        """
        shape = (len(series_slot), self.channels)
        distances, share, rows = self._distances(state, series_slot, batch, forecasts)
        away = self.steady_state.run(state, batch).reshape(shape)
        farthest = np.fmax.reduce(away, axis=1)[:, None]
        _end_events(state["joint.height"], series_slot, farthest)
        ones = np.ones(len(series_slot), np.float32)
        errors = forecasts._replace(usual_error=ones, relative_error=ones, rows=rows)
        together, lasting = (
            fusion.run({}, series_slot, self._surprises(state, prefix, series_slot, error), errors)[0][:, 0]
            for fusion, prefix, error in (
                (self.fusion, "joint.", distances),
                (self.steady_fusion, "joint.settled.", farthest),
            )
        )
        left = lasting > together
        share = np.where(left[:, None], np.where(away > 1, away - 1, 0), share)
        return np.maximum(together, lasting), lasting, share, left

    def _distances(
        self, state: State, series_slot: Ints, batch: ChannelBatch, forecasts: SelectedForecasts
    ) -> tuple[Floats, Floats, Floats]:
        """Return distances, shares and earlier rows of N points.

        Shapes: distance and averaged distance (N, 2), shares (N, C), earlier rows of the series (N,).
        """
        n = len(series_slot)
        usual = np.maximum(forecasts.usual_error * batch.unit, 1e-30)
        residual = np.clip(
            (batch.v - forecasts.expected) / usual, -MAX_ABS_USUAL_ERRORS, MAX_ABS_USUAL_ERRORS
        )
        residual = residual.reshape(n, self.channels).astype(np.float32)
        distances, share = np.empty((n, 2), np.float32), np.zeros(residual.shape, np.float32)
        rows = np.empty(n, np.float32)
        _mahalanobis(
            state["joint.covariance"], state["joint.clock"], series_slot, residual, distances, share, rows
        )
        return distances, share, rows

    def _surprises(self, state: State, prefix: str, series_slot: Ints, errors: Floats) -> Floats:
        own = {
            name.removeprefix(prefix): array
            for name, array in state.items()
            if name.startswith(prefix + "calibration")
        }
        return self.calibrations[prefix].run(own, series_slot, errors, -1, 0.0)[0]


@kernel
def _mahalanobis(covariance, clock, slot, residual, distances, share, rows):  # type: ignore[no-untyped-def]  # noqa: ANN001
    channels = residual.shape[1]
    r = np.zeros(channels)
    for i in range(len(slot)):
        s, t = covariance[slot[i]], clock[slot[i]]
        rows[i] = t[COL_ROWS]
        known = 0
        for c in range(channels):
            known += not np.isnan(residual[i, c])
            r[c] = 0.0 if np.isnan(residual[i, c]) else residual[i, c]
        distances[i] = np.nan
        if known == 0:
            continue
        first = MIN_ROWS_PER_CHANNEL * channels
        if t[COL_ROWS] >= first:
            solved = np.linalg.solve(s.astype(np.float64) + RIDGE * np.eye(channels), r)
            distance = np.float32(max((r * solved).sum(), 0.0))
            off = distance - t[COL_MEAN_DISTANCE]
            t[COL_MEAN_DISTANCE] += off / min(t[COL_ROWS] - first + 1, np.float32(AVERAGING_ROWS))
            distances[i, 0], distances[i, 1] = distance, t[COL_MEAN_DISTANCE]
            for c in range(channels):
                share[i, c] = max(r[c] * solved[c], 0.0)
        t[COL_ROWS] += 1
        rate = max(1 / t[COL_ROWS], np.float32(1 / FORGETTING_ROWS))
        for c in range(channels):
            for e in range(channels):
                s[c, e] += rate * (np.float32(r[c] * r[e]) - s[c, e])


@kernel
def _end_events(height, slot, farthest):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Lower in place the rest of an event that has ended; usual distances are about 1."""
    for i in range(len(slot)):
        h = height[slot[i]]
        excess = max(farthest[i, 0] - np.float32(1), np.float32(0))
        if np.isnan(farthest[i, 0]):
            continue
        h[COL_EXCESS] += (excess - h[COL_EXCESS]) / np.float32(HEIGHT_RISE_ROWS)
        h[COL_HEIGHT] = max(h[COL_HEIGHT] * np.float32(1 - 1 / HEIGHT_DECAY_ROWS), h[COL_EXCESS])
        least = np.float32(END_HEIGHT_SHARE) * h[COL_HEIGHT]
        farthest[i, 0] = 1 + (excess if excess >= least else excess * (excess / least) ** 2)
