"""The detector of a tier: all stages, one batch at a time.

    working units → splits → scale → seasonality → forecast → scorers → calibration → fusion → threshold

Each stage runs once over all rows of a batch, in a compiled kernel, and keeps its state under its own array
names. The cost per point is therefore the same for one series of a million rows and for a million series of
one row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detectors.base import CAUSES, DetectorSpec, Points, State, Verdicts
from detectors.channel_batch import ChannelBatch, Floats, flatten_channels
from detectors.composite.assembly import DecisionParts, SlotScores, assemble_verdicts
from detectors.composite.former_states import (
    Conversion,
    convert_wider_arrays,
    start_splits,
    start_usual_volume,
    thin_out_values,
)
from detectors.composite.hidden_sources import HiddenSource, NetworkSource, SharedLstmSource
from detectors.composite.identity import digest_of
from detectors.composite.lstm_forecast import LstmForecast
from detectors.composite.presets import PRESETS
from detectors.composite.tiers import (
    TIERS,
    USUAL_RANGE_SIZES,
    Tier,
    former_ranking_tier,
    ranking_tier,
    wider_ranking_tier,
)
from detectors.composite.usual_range_decision import UsualRangeDecision
from detectors.forecasters import shared_lstm_numba
from detectors.forecasters.frozen_network import FrozenNetwork
from detectors.forecasters.network_spec import SPEC_TENSOR
from detectors.forecasters.per_group_lstm import GroupNetworks
from detectors.forecasters.shared_lstm_numba import FrozenLSTM
from detectors.scorers.base import Scorer
from detectors.scorers.discord import Discord
from detectors.scorers.flatline import Flatline
from detectors.scorers.level_shift import LevelShift
from detectors.scorers.novelty import Novelty
from detectors.scorers.robust_level_shift import RobustLevelShift
from detectors.scorers.seasonal_profile import SeasonalProfile
from detectors.scorers.step import Step
from detectors.scorers.value_range import ValueRange
from detectors.scorers.volatility import SPLITS, USUAL_VOLUME, Volatility
from detectors.stages.forecaster_selection import (
    FORECASTER_LSTM,
    FORECASTER_NETWORK,
    ForecasterSelection,
    SelectedForecasts,
)
from detectors.stages.multivariate import Multivariate
from detectors.stages.robust_scale import RobustScale
from detectors.stages.score_fusion import ScoreFusion, TrackGroup, cause_of_track
from detectors.stages.seasonality import Seasonality
from detectors.stages.stock_channels import price_channels, volume_channel
from detectors.stages.tail_calibration import TailCalibration
from detectors.stages.usual_range.stage import REFERENCE_ALARM_RATE
from detectors.thresholds import THRESHOLDS
from detectors.thresholds.event_gate import EventGate

STATE_VERSION, FORMER_STATE_VERSION = "6", "5"
BAND_TRACK = ("surplus", 0.99)  # (track, quantile): the tail that the expected band is read from
CYCLE_WINDOW_PERIODS = (1.0, 0.25)  # window lengths of the event discords
# State arrays with one row per series. All others have one row per series and channel.
PER_SERIES_PREFIXES = ("event.", "joint.", "threshold.", "relation.", "decision.")
# State arrays that mean the same under both decisions.
PREFIXES_OF_BOTH_DECISIONS = (
    "scale.",
    "rhythm.",
    "ladder.",
    "shape.",
    "inputs.",
    "hidden.",
    "readout.",
    "market.",
)
PREFIXES_OF_USUAL_RANGES = (
    *PREFIXES_OF_BOTH_DECISIONS,
    "event.",
    "threshold.",
    "relation.",
    "decision.",
    "usual.",
)
Network = FrozenLSTM | FrozenNetwork
NETWORK_MARK = "+"  # in a state version: behind it stands the form of the state of a network of the stream
MAX_ABS_WORKING_VALUE = 1e30  # its square is still a float64


def select_scorers(tier: Tier, groups: tuple[TrackGroup, ...]) -> tuple[Scorer, ...]:
    """Return the scorers whose tracks ``groups`` use, in the order of their tracks."""
    known: list[Scorer] = [
        Step(),
        LevelShift(),
        RobustLevelShift(),
        Flatline(),
        SeasonalProfile(tier.profile_bins),
        Discord(tier.discord_blocks, tier.discord_window_periods),
        Discord(tier.cycle_discord_blocks, CYCLE_WINDOW_PERIODS, "cycle"),
        Novelty(tier.novelty_values) if tier.novelty_values else ValueRange(),
    ]
    wanted = {name for group in groups for name, _ in group.tracks}
    return tuple(scorer for scorer in known if wanted & set(scorer.tracks))


class _Stage(Protocol):
    """A stage with one row of state per series and channel."""

    def initial(self, slots: int, /) -> State: ...


class CompositeDetector:
    """A detector of one tier; see ``detectors.base.Detector``."""

    def __init__(
        self, spec: DetectorSpec, tier: Tier, net: Network | None, own: GroupNetworks | None = None
    ) -> None:
        self.spec, self._tier = spec, tier
        self.preset = PRESETS[spec.preset]()
        self.scale, self.seasonality, self.selection = (
            RobustScale(),
            Seasonality(
                tier.seasonality_rows, tier.seasonality_levels, tier.min_period_repeats, tier.cycle_rows
            ),
            ForecasterSelection(),
        )
        self.forecast = None if net is None else LstmForecast(_source(net, own, tier), tier)
        groups = self.preset.track_groups or tier.track_groups
        #: Takes splits from the values, so it runs before all other stages.
        self.market = _market(spec)
        self.scorers = select_scorers(tier, groups)
        tracks = self.market.tracks if self.market else ()
        tracks += tuple(name for part in self.scorers for name in part.tracks) + self.selection.tracks
        tracks += self.forecast.tracks if self.forecast else ()
        self.tracks = tracks
        usual = spec.decision == "usual_range"
        # Under usual ranges the surprise only ranks rows, whatever rate the alarms have.
        rate = REFERENCE_ALARM_RATE if usual else spec.alarm_rate
        self.event_gate = EventGate(rate, spec.min_points)
        self.threshold = THRESHOLDS[spec.threshold](self.event_gate.threshold)
        band = () if usual else (BAND_TRACK,)  # usual ranges have an interval of their own
        self.fusion = ScoreFusion(groups, self.event_gate.threshold, band)
        self.band_column = -1 if usual else self.fusion.columns.index(BAND_TRACK)
        self.columns = np.array([tracks.index(name) for name, _ in self.fusion.columns])
        self.causes = np.array(
            [CAUSES.index(cause_of_track(name)) for name, _ in self.fusion.columns], np.uint8
        )
        self.calibration = TailCalibration(
            tuple(quantile for _, quantile in self.fusion.columns), tier.calibration_bins
        )
        self.states_usual_ranges = usual
        self.usual_range = (
            UsualRangeDecision(spec, self.preset, USUAL_RANGE_SIZES[spec.tier]) if usual else None
        )
        self.states_relations = self.usual_range is not None and self.usual_range.stage.relation is not None
        self.multivariate = (
            Multivariate(
                len(spec.channels),
                tier.calibration_bins,
                self.event_gate.threshold,
                self.preset.has_steady_state,
            )
            if len(spec.channels) > 1 and not (usual and spec.tier == "light")
            else None
        )
        self.decision = DecisionParts(spec, self.preset, self.event_gate, self.threshold, self.multivariate)
        self.version, self.weights = _version_and_weights(spec, tier, net, own)
        self.network_form = self.forecast.source.state_form if self.forecast else ""
        self.state_version = self._state_version()

    @property
    def _market_forms(self) -> dict[tuple[str, ...], tuple[Conversion, ...]]:
        """Forms of the state of a market with their conversions, today's first."""
        if self.market is None:
            return {(): ()}
        if USUAL_VOLUME not in self.market.initial(0):
            return {(SPLITS,): (), (): (start_splits,)}
        return {
            (USUAL_VOLUME, SPLITS): (),
            (USUAL_VOLUME,): (start_splits,),
            (): (start_usual_volume, start_splits),
        }

    def _state_version(self) -> str:
        shape = (self.usual_range.shape,) if self.usual_range else ()
        form = self._decision_form(self._tier, shape + next(iter(self._market_forms)))
        return f"{form}{NETWORK_MARK}{self.network_form}" if self.network_form else form

    def _decision_form(self, tier: Tier, decision_shape: tuple[Any, ...]) -> str:
        groups = self.preset.track_groups or tier.track_groups
        shaping = (len(self.spec.channels), groups, tier, self.spec.threshold, *decision_shape)
        return f"{STATE_VERSION}-{digest_of(*shaping).hexdigest()[:12]}"

    def convert_state(self, version: str, rows: State) -> State | None:
        """Return stored rows of another form, network or decision in the form of today.

        Scale, season and forecast continue, and the usual ranges where there are some. What only ranks rows
        starts empty where its size has changed. After another network its state starts empty; the caller goes
        on with ``on_weights_changed``.
        """
        form, _, network = version.partition(NETWORK_MARK)
        number, _, digest = form.partition("-")
        former = self._former_forms().get(f"{STATE_VERSION}-{digest}")
        if former is None or number not in (STATE_VERSION, FORMER_STATE_VERSION):
            return None
        continued, conversions = former
        if number == FORMER_STATE_VERSION:
            rows = convert_wider_arrays(rows, self.seasonality.recent > 0)
        state = self.initial(len(rows["scale.moments"]))
        for convert in conversions:
            rows = convert(rows, state)
        for prefix in continued:
            if prefix == "hidden." and network != self.network_form:
                continue
            names = [name for name in state if name.startswith(prefix)]
            if all(name in rows and _alike(rows[name], state[name]) for name in names):
                # Kernels are compiled anew for arrays whose memory has another order.
                state |= {name: np.ascontiguousarray(rows[name]) for name in names}
        return state

    def starts_usual_ranges(self, version: str) -> bool:
        """Return True if ``version`` is that of the decision ``surprise``, which has none."""
        _, _, digest = version.partition(NETWORK_MARK)[0].partition("-")
        former = self._former_forms().get(f"{STATE_VERSION}-{digest}")
        return former is not None and former[0] == PREFIXES_OF_BOTH_DECISIONS

    def _former_forms(self) -> dict[str, tuple[tuple[str, ...], tuple[Conversion, ...]]]:
        """Return, by form of a state, the prefixes that continue, and conversions."""
        every = tuple(sorted({name.partition(".")[0] + "." for name in self.initial(0)}))
        forms: dict[str, tuple[tuple[str, ...], tuple[Conversion, ...]]] = {}
        for market, first in self._market_forms.items():
            if self.usual_range is None:
                forms[self._decision_form(self._tier, market)] = (every, first)
                continue
            forms[self._decision_form(TIERS[self.spec.tier], market)] = (PREFIXES_OF_BOTH_DECISIONS, first)
            by_forms, wider = former_ranking_tier(self.spec.tier), wider_ranking_tier(self.spec.tier)
            tiers: list[tuple[Tier, tuple[str, ...], tuple[Conversion, ...]]] = [
                (by_forms, PREFIXES_OF_USUAL_RANGES, ()),
                (self._tier, every, ()),
            ]
            if wider != self._tier:
                tiers.append((wider, every, (thin_out_values,)))
            for tier, prefixes, last in tiers:
                for shape, conversions in self.usual_range.former_shapes.items():
                    form = self._decision_form(tier, (shape, *market))
                    forms[form] = (prefixes, first + conversions + last)
        return forms

    def initial(self, n: int) -> State:
        channels = len(self.spec.channels)
        parts: list[_Stage] = [
            self.scale,
            self.seasonality,
            self.selection,
            self.calibration,
            self.fusion,
            *([self.market] if self.market else []),
            *self.scorers,
            *([self.forecast] if self.forecast else []),
            *([self.multivariate.steady_state] if self.multivariate else []),
            *([self.usual_range.stage] if self.usual_range else []),
        ]
        state = (
            self.event_gate.initial(n)
            | self.threshold.initial(n)
            | (self.multivariate.initial(n) if self.multivariate else {})
            | (self.usual_range.initial_series(n) if self.usual_range else {})
        )
        for part in parts:
            for name, array in part.initial(n * channels).items():
                state[name] = array.reshape(n, channels, *array.shape[1:])
        return state

    def step(self, state: State, points: Points) -> tuple[State, Verdicts]:
        flat = {
            name: array if name.startswith(PER_SERIES_PREFIXES) else array.reshape(-1, *array.shape[2:])
            for name, array in state.items()
        }
        batch = flatten_channels(
            points, np.clip(self.preset.forward(points.values), -MAX_ABS_WORKING_VALUE, MAX_ABS_WORKING_VALUE)
        )
        errors, forecasts = self._track_errors(flat, batch)
        surprises, half_width = self.calibration.run(
            flat,
            batch.slot,
            # Always in C order, unlike errors[:, columns].
            np.take(errors, self.columns, axis=1),
            self.band_column,
            self.event_gate.threshold,
        )
        raw, column = self.fusion.run(flat, batch.slot, surprises, forecasts)
        scores = SlotScores(raw, self.causes[column], forecasts, half_width)
        verdicts = assemble_verdicts(self.decision, flat, points, batch, scores)
        if self.usual_range is not None:
            self.usual_range.decide(flat, points, batch, forecasts.expected, verdicts)
        return state, verdicts

    def on_weights_changed(self, state: State) -> None:
        if self.forecast is not None:
            self.forecast.on_weights_changed(state)

    def register_series(self, state: State, slots: NDArray[np.int32], names: Iterable[str]) -> None:
        if self.forecast is not None:
            self.forecast.register_series(state, slots, names)

    def _track_errors(self, state: State, batch: ChannelBatch) -> tuple[Floats, SelectedForecasts]:
        """Return the raw error of every track (M, K) and the selected forecasts."""
        # Without the spare row, columns of a batch of one row would be contiguous, and each kernel that
        # gets some would be compiled again at the first such batch.
        errors = np.empty((len(batch) + 1, len(self.tracks)), np.float32)
        at = 0
        if self.market:
            at = len(self.market.tracks)
            self.market.run(state, batch, errors[:, :at])
        self.scale.run(state, batch)
        self.seasonality.run(state, batch)
        for scorer in self.scorers:
            scorer.run(state, batch, errors[:, at : at + len(scorer.tracks)])
            at += len(scorer.tracks)
        readout = self.forecast.run(state, batch, errors[:, at + 1 :]) if self.forecast else None
        selected = self.selection.run(state, batch, readout, errors[:, at : at + 1])
        if self.network_form:
            selected.forecaster[selected.forecaster == FORECASTER_LSTM] = FORECASTER_NETWORK
        return errors[:-1], selected


def _market(spec: DetectorSpec) -> Volatility | None:
    if spec.preset != "stock":
        return None
    return Volatility(price_channels(spec.channels), volume_channel(spec.channels))


def _source(net: Network, own: GroupNetworks | None, tier: Tier) -> HiddenSource:
    if isinstance(net, FrozenNetwork):
        return NetworkSource(net, tier.readout_mixtures)
    return SharedLstmSource(net, own, tier.readout_mixtures)


def _alike(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype


def _version_and_weights(
    spec: DetectorSpec, tier: Tier, net: Network | None, own: GroupNetworks | None
) -> tuple[str, str]:
    """Return the version of the detector and the hash of its weights; "" without weights."""
    digest, weights = digest_of(spec, tier), hashlib.sha256()
    arrays = list(net.tensors.values()) if net is not None else []
    if own is not None:
        arrays += [own.weights, own.bias, np.frombuffer(repr(own.network).encode(), np.uint8)]
    for array in arrays:
        digest.update(array.tobytes())
        weights.update(array.tobytes())
    return f"{spec.tier}-{digest.hexdigest()[:12]}", weights.hexdigest()[:12] if net is not None else ""


def build_composite(spec: DetectorSpec, weights: Mapping[str, NDArray[Any]] | None) -> CompositeDetector:
    """Return the detector of a tier; ``weights`` replaces the packaged ones.

    Raises:
        ValueError: the tier, preset or threshold of ``spec`` does not exist.
    """
    if spec.tier not in TIERS:
        raise ValueError(
            f"detector {spec.tier!r} is unknown; known are {', '.join(TIERS)} and the names registered in detectors.REGISTRY"
        )
    if spec.preset not in PRESETS:
        raise ValueError(f"preset {spec.preset!r} is unknown; known are {', '.join(PRESETS)}")
    if spec.threshold not in THRESHOLDS:
        raise ValueError(f"threshold {spec.threshold!r} is unknown; known are {', '.join(THRESHOLDS)}")
    tier = ranking_tier(spec.tier) if spec.decision == "usual_range" else TIERS[spec.tier]
    if not tier.lags:
        return CompositeDetector(spec, tier, None)
    if weights is not None and SPEC_TENSOR in weights:
        return CompositeDetector(spec, tier, FrozenNetwork(weights))
    return CompositeDetector(
        spec,
        tier,
        FrozenLSTM(shared_lstm_numba.read() if weights is None else weights),
        GroupNetworks.of(weights or {}),
    )
