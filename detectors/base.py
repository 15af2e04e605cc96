"""The detector contract: a pure step from (state, points) to (state, verdicts), in batches.

    points ─► preset (units) ─► forecaster ─► residual ─► scorers ─► fusion ─► threshold ─► verdicts

State is a struct of arrays: one row per series (*slot*), every array with the slot as its first axis. A
caller of ``step`` donates the state: the step may reuse its buffers. Only the rows named in ``points.slot``
change. A caller that needs the old state copies it before the step.

*Surprise* is the surprisal of a point: −log10 of its p-value, the probability of a point at least as unusual
on an undisturbed series. A surprise of 4 is expected once in 10,000 points.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

State = dict[str, NDArray[Any]]

#: Names of the forecasters by the number in ``Verdicts.forecaster``. The numbers are stored: append only.
FORECASTERS = ("none", "static", "seasonal", "gaussian", "lstm", "last_value", "next_event", "network")

#: Causes of a verdict by the number in ``Verdicts.cause``. The numbers are stored: append only.
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
    "unusual_value",
    "unusual_level",
    "unusual_step",
    "unusual_noise",
    "relation",
    "absence",
    "impossible_value",
    "unexpected_event",
    "missing_event",
    "new_event",
    "unusual_sequence",
    "trend",
)

#: Rows from which a usual range was learned, by the number in ``Verdicts.basis``. The numbers are stored:
#: append only.
BASES = ("none", "all_hours", "time_of_day", "working_days", "weekends", "similar_days")

#: Rules that decide an alarm: the surprise of a point, or the usual ranges of its quantities.
DECISIONS = ("surprise", "usual_range")


@dataclass(slots=True)
class Points:
    """N points of C channels.

    The points of one slot are in event-time order. Slots may interleave.

    slot    (N,)   int32    row of the state
    time    (N,)   int64    event time, ns since the epoch
    values  (N, C) float64  NaN is a missing value
    missed  (N,)   int32    cadence steps without a point just before this one (0: none, or cadence unknown)
    every   (N,)   int64    cadence of the series in ns (0: unknown)
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
    """Verdicts on N points of C channels, in the order of the points.

    score         (N,)   float32  1 − p-value, in [0, 1]; saturates at 1 where ``surprise`` still grows
    surprise      (N,)   float32  surprisal: −log10 of the p-value
    flag          (N,)   bool     alarm: once per event, and on each further row that is anomalous by itself
    expected      (N, C) float32  forecast in units of the input (NaN: no forecast yet)
    lower, upper  (N, C) float32  band in units of the input; the forecast error alone is an alarm outside
    contribution  (N, C) float32  share of each channel in the surprise; rows sum to 1 (0: no score)
    forecaster    (N,)   uint8    index into FORECASTERS: the forecaster of ``expected``
    cause         (N,)   uint8    index into CAUSES: what contributed most to the surprise
    ratio         (N,)   float32  distance of the leading quantity from the middle of its usual range, over the
                                  distance of the limit on that side: > 1 is outside; 0 without a quantity
    channel       (N,)   int16    channel of the leading quantity
    side          (N,)   int8     1: above the middle, −1: below, 0: without a direction
    observed      (N,)   float32  the leading quantity in its own unit (NaN where ``ratio`` is 0)
    usual_low, usual_high (N,) float32  its usual range in the same unit (NaN where ``ratio`` is 0)
    rarity        (N,)   float32  −log10 of the probability of a row at least as unusual (0: unknown), by
                                  the past of the series; never rarer than one in the rows seen
    channel_rarity (N, C) float32 the same of each channel alone
    stated_rarity (N,)   float32  the same of the leading quantity (NaN: unknown)
    basis         (N,)   uint8    index into BASES: the rows from which the stated range was learned
    recent_mean   (N,)   float32  mean of the last values of the leading channel, in units of the input (NaN:
                                  unknown)
    run_outside   (N,)   int32    consecutive rows outside a usual range that end with this row (0: none)
    alone         (N,)   bool     a row outside lies beyond the stated end by itself; a mean of rows
                                  stays beyond it for some rows longer
    partner       (N,)   int16    channel that says most about the leading one, where that differs from what
                                  the other channels imply (−1: another quantity leads)
    implied       (N,)   float32  what they imply, in units of the input (NaN: another quantity leads)
    relation      (N, C) float32  difference of each channel from what the others imply, in units of the
                                  input, or of their logarithms (NaN: none); (N, 0) without relations

    probability  (N,)   float32  of an event, given the events before it (NaN: not an event)
    likely       (N, K) float64  numbers of the codes that were most probable, the most probable first
    likely_probability (N, K) float32  their probabilities
    recent       (N, R) float64  numbers of the codes before the event, the last one at the end; −1: none

    A point inside its band can be anomalous for another cause than the forecast. The columns from ``ratio``
    to ``usual_high`` are filled by the decision "usual_range", those after them by a detector of events. A
    detector that leaves them out gets neutral values; K and R are then 0.
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
    ratio: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    channel: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
    side: NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    observed: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    usual_low: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    usual_high: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    probability: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    likely: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    likely_probability: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    recent: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    rarity: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    channel_rarity: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    stated_rarity: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    basis: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    recent_mean: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    run_outside: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    alone: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    partner: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, np.int16))
    implied: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    relation: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def __post_init__(self) -> None:
        """Give columns that were left out their neutral values."""
        n = len(self.flag)
        if len(self.probability) != n:
            self.probability = np.full(n, np.nan, np.float32)
            self.likely, self.recent = np.zeros((n, 0)), np.zeros((n, 0))
            self.likely_probability = np.zeros((n, 0), np.float32)
        if len(self.rarity) != n:
            self.rarity = np.zeros(n, np.float32)
        if self.channel_rarity.shape != self.expected.shape:
            self.channel_rarity = np.zeros(self.expected.shape, np.float32)
        if len(self.basis) != n:
            self.basis = np.zeros(n, np.uint8)
            self.stated_rarity, self.recent_mean = (np.full(n, np.nan, np.float32) for _ in range(2))
        if len(self.alone) != n:
            self.run_outside, self.alone = np.zeros(n, np.int32), np.ones(n, np.bool_)
        if len(self.partner) != n:
            self.partner, self.implied = np.full(n, -1, np.int16), np.full(n, np.nan, np.float32)
        if len(self.relation) != n:
            self.relation = np.zeros((n, 0), np.float32)
        if len(self.ratio) == n:
            return
        self.ratio = np.zeros(n, np.float32)
        self.channel = np.zeros(n, np.int16)
        self.side = np.zeros(n, np.int8)
        self.observed, self.usual_low, self.usual_high = (np.full(n, np.nan, np.float32) for _ in range(3))


@dataclass(frozen=True, slots=True)
class Limits:
    """Static limits of one channel, in units of the input.

    A value outside is flagged, from the first point of a series on.
    """

    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """Configuration of a detector. Equal spec and weights build equal detectors."""

    tier: str = "standard"  # light | standard | strong, or the name of a registered detector
    preset: str = "sensor"  # sensor | network | stock
    channels: tuple[str, ...] = ("value",)
    limits: tuple[Limits, ...] = ()  # one per channel, or none at all
    alarm_rate: float = 1e-4  # target share of flagged events on undisturbed data; sets the threshold
    direction: str = "both"  # up | down | both
    # static | quantile | spot | dspot | conformal: rule for the surprise at which a point is an alarm
    threshold: str = "static"
    min_points: int = 1  # consecutive points that must reach the threshold
    min_deviation: float = 0.0  # relative to the expected value; smaller deviations are not flagged
    decision: str = "surprise"  # surprise | usual_range: rule that decides an alarm
    interval: float = 0.99  # share of the points inside the stated band; used by usual_range
    timezone: str = ""  # IANA zone of the daily and weekly rhythms ("": UTC); used by usual_range
    holidays: str = (
        ""  # country whose public holidays are like weekends, such as DE or DE-BY; used by usual_range
    )


@runtime_checkable
class ConvertsState(Protocol):
    """A detector that can continue the state of another ``state_version``."""

    def convert_state(self, version: str, rows: State) -> State | None:
        """Return rows of ``version`` in the form of ``initial``, None if unknown."""
        ...


@runtime_checkable
class ConvertsDecision(Protocol):
    """A detector that can continue the state of a decision without usual ranges."""

    def starts_usual_ranges(self, version: str) -> bool:
        """Return True if rows of ``version`` lack usual ranges, which then start empty."""
        ...


def states_usual_ranges(detector: Detector) -> bool:
    """Return True if the verdicts of ``detector`` state a usual range.

    A registered detector that fills the columns from ``ratio`` on sets ``states_usual_ranges = True``.
    """
    return bool(getattr(detector, "states_usual_ranges", False))


def states_relations(detector: Detector) -> bool:
    """Return True if the verdicts of ``detector`` have the column ``relation``.

    A registered detector that fills it sets ``states_relations = True``.
    """
    return bool(getattr(detector, "states_relations", False))


class Detector(Protocol):
    """One configured detector of one stream.

    ``version`` identifies spec and weights. It is stored with every anomaly.
    """

    spec: DetectorSpec
    version: str
    #: Stored with every snapshot. Changes with name, dtype, shape or meaning of any array of ``initial``.
    state_version: str
    #: Hash of the weights; "" for a detector without weights.
    weights: str

    def initial(self, n: int) -> State:
        """Return the state of ``n`` new series."""
        ...

    def step(self, state: State, points: Points) -> tuple[State, Verdicts]:
        """Advance the series in ``points.slot`` and return their state and verdicts.

        The verdict on a point uses this point and earlier points of its series only.
        """
        ...

    def on_weights_changed(self, state: State) -> None:
        """Reset, in place, the parts of ``state`` that depend on the weights.

        ``state`` comes from a detector with the same ``state_version`` and other weights.
        """
        ...

    def register_series(self, state: State, slots: NDArray[np.int32], names: Iterable[str]) -> None:
        """Assign the rows ``slots`` of ``state`` to the series ``names``.

        Called when a series begins and after ``on_weights_changed``, so that a model with parts for single
        series can select them.
        """
        ...
