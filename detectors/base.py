"""What every detector is: a pure step from (state, points) to (state, verdicts), batched over series and
points.

    points ─► preset (units) ─► forecaster ─► residual ─► scorers ─► combiner ─► threshold ─► verdicts

State is a struct of arrays: one row per series (*slot*), every array with the slot as its first axis.
``step`` may reuse the buffers of the state that it is given (the caller *donates* them) and touches only the
rows named in ``points.slot``. A caller that wants the old state back copies it before, or reads it from its
snapshot.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

State = dict[str, NDArray[Any]]

#: Names of the forecasters by the number in ``Verdicts.forecaster``. The numbers are a stored format: append only.
FORECASTERS = ("none", "static", "seasonal", "gaussian", "lstm", "last_value")

#: Causes of a verdict by the number in ``Verdicts.cause``. The numbers are a stored format: append only.
CAUSES = (
    "none",
    "static_limit",
    "multivariate",
    "forecast",
    "shape",
    "novelty",
    "range",
    "seasonal_profile",
    "level_shift",
    "step",
    "flatline",
    "return",
    "volatility",
    "steady_state",
)


@dataclass(slots=True)
class Points:
    """N points of C channels; the points of one slot stand in event-time order (slots may interleave).

    slot    (N,)   int32    row of the state
    time    (N,)   int64    event time, ns since the epoch
    values  (N, C) float64  NaN is a missing value
    missed  (N,)   int32    cadence steps without a point just before this one (0: none, or cadence unknown)
    every   (N,)   int64    cadence of the series in ns (0: not known yet)
    """

    slot: NDArray[np.int32]
    time: NDArray[np.int64]
    values: NDArray[np.float64]
    missed: NDArray[np.int32]
    every: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.slot)


@dataclass(slots=True)
class Verdicts:
    """One row per point, in the order of the points.

    score         (N,)   float32  1 − tail probability, in [0, 1]
    surprise      (N,)   float32  −log10 of the tail probability (a score saturates at 1, this does not)
    flag          (N,)   bool     over the threshold, and news: once for an event, and again on each row that breaks the rules by itself
    expected      (N, C) float32  what the forecaster expected, units of the input (NaN: no forecast yet)
    lower, upper  (N, C) float32  the band in which the detector would not have flagged, units of the input
    contribution  (N, C) float32  share of each channel in the surprise; rows sum to 1 (0 where there is no score)
    guard         (N,)   uint8    index into FORECASTERS: whose forecast it was
    lead          (N,)   uint8    index into CAUSES: what spoke loudest (an anomaly may lie inside the forecast's band and have another reason)
    """

    score: NDArray[np.float32]
    surprise: NDArray[np.float32]
    flag: NDArray[np.bool_]
    expected: NDArray[np.float32]
    lower: NDArray[np.float32]
    upper: NDArray[np.float32]
    contribution: NDArray[np.float32]
    forecaster: NDArray[np.uint8]
    cause: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Limits:
    """Static limits of one channel, in the units of the input; outside is flagged from the first point on."""

    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """Everything that ``detectors.build`` needs; the same spec and weights always make the same detector."""

    tier: str = "standard"  # light | standard | strong, or the name of a registered detector
    preset: str = "sensor"  # sensor | network | stock
    channels: tuple[str, ...] = ("value",)
    limits: tuple[Limits, ...] = ()  # one per channel, or none at all
    alarm_rate: float = 1e-4  # wanted share of flagged events on undisturbed data: sets the threshold
    direction: str = "both"  # up | down | both
    # static | quantile | spot | dspot | conformal: what a surprise must reach to be an alarm
    threshold: str = "static"
    min_points: int = 1  # so many rows in a row must reach it
    min_deviation: float = 0.0  # relative to the expected value: smaller deviations are never flagged


class Detector(Protocol):
    """One configured detector of one stream.

    ``version`` names spec and weights and is part of every verdict's provenance.
    """

    spec: DetectorSpec
    version: str
    #: Changes whenever the arrays of ``initial`` change in name, dtype, shape or meaning; stored beside every
    #: snapshot.
    state_version: str
    #: Names the weights alone; "" where there are none.
    weights: str

    def initial(self, n: int) -> State:
        """State of ``n`` series of which nothing is known."""
        ...

    def step(self, state: State, points: Points) -> tuple[State, Verdicts]:
        """Advance the series named in ``points.slot``; the verdict on point t uses points ≤ t only."""
        ...

    def adopt(self, state: State) -> None:
        """Go on with the state that a detector of the same ``state_version`` but other weights left: forget
        in place what only those understood.
        """
        ...

    def introduce(self, state: State, slots: NDArray[np.int32], names: Iterable[str]) -> None:
        """The rows ``slots`` are of the series ``names``: when one begins, and after ``adopt``.

        A model may have something of its own for some series.
        """
        ...
