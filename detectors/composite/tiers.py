"""The tiers: the stages of each and their sizes.

A tier is one configuration for all series. The values were chosen on open series (``docs/accuracy.md``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from detectors.stages.score_fusion import TrackGroup
from detectors.stages.usual_range import quantities as q
from detectors.stages.usual_range.stage import UsualRangeSizes


@dataclass(frozen=True, slots=True)
class Tier:
    """Stages and sizes of one tier; a size of 0 leaves its part out."""

    track_groups: tuple[TrackGroup, ...]
    calibration_bins: int = 32  # bins of each calibration histogram
    seasonality_rows: int = 64  # rows per level that the period is found in
    seasonality_levels: int = 1
    min_period_repeats: int = 3  # periods that must fit into a level
    cycle_rows: int = 0  # latest rows per level that the cycle is found in
    novelty_values: int = 0  # values that the novelty scorer keeps; 0: value range instead
    profile_bins: int = 0  # bins of the daily profile
    discord_blocks: int = 0  # blocks that the discord scorer of forms keeps
    discord_window_periods: tuple[float, ...] = ()  # its window lengths, in periods
    cycle_discord_blocks: int = 0  # blocks that the discord scorer of events keeps
    lags: int = 0  # lagged differences beside the LSTM's hidden state; 0: no LSTM and no readout
    readout_mixtures: int = 64  # mixtures of the LSTM's 64 hidden numbers that the readout uses
    input_memory_rows: int = 256  # rows that the LSTM's inputs are scaled by
    horizons: tuple[int, ...] = (1, 4)  # rows ahead that the readout forecasts
    error_span_periods: tuple[float, ...] = (0.125, 0.5, 2.0)  # spans of the averaged errors, in periods


FORM_GROUP = TrackGroup(
    (
        ("ahead1x0.125", 0.25),
        ("ahead1x0.5", 0.25),
        ("ahead1x2", 0.5),
        ("ahead4x2", 1.0),
        ("residual", 0.5),
        ("shape0.125", 0.5),
        ("shape0.5", 0.5),
        ("shape2", 1.0),
    ),
    0.3,
    0.9,
    cap=1e9,
    predictable=0.2,
    certain=1.5,
)
BEND_POWER = 4.0
EVENT_GROUP = TrackGroup(
    (
        ("novelty", 1.0),
        ("range", 1.0),
        ("seasonal", 1.0),
        ("level", 1.0),
        ("shift", 1.4),
        ("cycle1", 1.0),
        ("cycle0.25", 1.0),
    ),
    4 / 6.5,
    slope=0.1,
    bend=6.0,
    predictable=0.05,
    certain=0.6,
    own=0.75,
)
POINT_GROUP = TrackGroup(
    (("surplus", 1.0), ("change", 1.0)),
    4 / 5,
    slope=0.1,
    bend=BEND_POWER,
    least=9.0,
    after=50_000,
    repeats=True,
)
#: ``strong`` keeps more rows, so that its forms rank better; its events count less in predictable series.
STRONG_FORM_GROUP = replace(
    FORM_GROUP,
    tracks=(
        *FORM_GROUP.tracks,
        ("ahead1x2", 0.5),
        ("ahead1x0.5", 0.5),
        ("ahead4x0.125", 0.5),
        ("shape0.25", 0.5),
    ),
    scale=0.254,
)
STRONG_EVENT_GROUP = TrackGroup(
    (
        ("novelty", 1.0),
        ("range", 1.0),
        ("seasonal", 1.0),
        ("level", 1.0),
        ("shape1", 1.0),
        ("shape0.25", 1.0),
    ),
    4 / 8,
    slope=0.2,
    bend=BEND_POWER,
    predictable=0.2,
    certain=0.7,
)
FLATLINE_GROUP = TrackGroup((("stuck", 1.0),), 1.6, bend=BEND_POWER)
LEVEL_GROUP = TrackGroup((("level", 1.0),), 0.5, slope=0.2, bend=BEND_POWER)
STOCK_GROUPS = (
    TrackGroup((("return", 1.0),), 0.85, 0.95, cap=1e9, slope=0.5, repeats=True),
    TrackGroup((("burst", 1.0),), 1.05, 0.95),
    TrackGroup((("frozen", 1.0),), 0.95, repeats=True),
)

TIERS = {
    "light": Tier(
        (
            replace(POINT_GROUP, bend=1.0),
            TrackGroup((("range", 1.0), ("level", 1.0), ("change", 0.5)), 4 / 3.5, own=0.75),
            FLATLINE_GROUP,
            LEVEL_GROUP,
        ),
        calibration_bins=20,
        seasonality_rows=40,
    ),
    "standard": Tier(
        (FORM_GROUP, EVENT_GROUP, POINT_GROUP, FLATLINE_GROUP, LEVEL_GROUP),
        calibration_bins=16,
        seasonality_rows=256,
        seasonality_levels=3,
        cycle_rows=128,
        novelty_values=128,
        profile_bins=16,
        discord_blocks=512,
        discord_window_periods=(2.0, 0.5, 0.125),
        cycle_discord_blocks=224,
        lags=6,
        readout_mixtures=8,
        input_memory_rows=128,
    ),
    "strong": Tier(
        (STRONG_FORM_GROUP, STRONG_EVENT_GROUP, POINT_GROUP, FLATLINE_GROUP, LEVEL_GROUP),
        calibration_bins=64,
        seasonality_rows=2048,
        seasonality_levels=3,
        min_period_repeats=4,
        novelty_values=128,
        profile_bins=96,
        discord_blocks=4096,
        discord_window_periods=(2.0, 1.0, 0.5, 0.25, 0.125),
        lags=32,
        readout_mixtures=48,
        input_memory_rows=1024,
    ),
}

_LIGHT_QUANTITIES = (q.Q_VALUE, q.Q_LEVEL, q.Q_STEP, q.Q_NOISE, q.Q_STILL)
_ALL_QUANTITIES = tuple(range(q.QUANTITIES))
_ALL_RANGES = UsualRangeSizes(
    _ALL_QUANTITIES, tuple(k for k in _ALL_QUANTITIES if k not in (q.Q_STILL, q.Q_FORECAST)), 24, 5.0
)
#: Sizes of the decision by usual ranges. The phases are hours. ``light`` has a season of the value only, and
#: neither relation nor forecast residual. Its sensitivity is lower, since fewer quantities have fewer
#: chances: the tiers have .4 to .6 false alarms in 10,000 old rows of undisturbed synthetic series
#: (``benchmarks.calibration_families``).
USUAL_RANGE_SIZES = {
    "light": UsualRangeSizes(_LIGHT_QUANTITIES, (q.Q_VALUE,), 24, 4.2),
    "standard": _ALL_RANGES,
    "strong": _ALL_RANGES,
}
#: Tracks by which the groups of forms and of events are known.
RANKING_TRACKS = {"residual", "range"}
#: Tiers in the sizes that leave room for usual ranges.
SMALLER_TIERS = {
    "light": replace(TIERS["light"], calibration_bins=8),
    "standard": replace(
        TIERS["standard"],
        calibration_bins=15,
        novelty_values=32,
        profile_bins=8,
        discord_blocks=384,
        cycle_discord_blocks=128,
    ),
    "strong": TIERS["strong"],
}
#: Tier → values that its novelty scorer kept in former states.
FORMER_NOVELTY_VALUES = {"standard": 64}


def ranking_tier(name: str) -> Tier:
    """Return the tier with the groups that rank rows: forms and events.

    The other groups only add alarms by surprise, and the decision by usual ranges replaces those.
    """
    tier = SMALLER_TIERS[name]
    groups = tuple(
        group for group in tier.track_groups if RANKING_TRACKS & {track for track, _ in group.tracks}
    )
    return replace(tier, track_groups=groups)


def wider_ranking_tier(name: str) -> Tier:
    """Return ``ranking_tier`` with the values that its novelty scorer kept before."""
    tier = ranking_tier(name)
    return replace(tier, novelty_values=FORMER_NOVELTY_VALUES.get(name, tier.novelty_values))


def former_ranking_tier(name: str) -> Tier:
    """Return the tier that ranked rows before, by forms only; states are stored."""
    tier = TIERS[name]
    forms = tuple(group for group in tier.track_groups if ("residual", 0.5) in group.tracks)
    return replace(
        tier,
        track_groups=forms or (TrackGroup((("surplus", 1.0),), 0.8),),
        calibration_bins=tier.calibration_bins - (1 if forms else 6),
        cycle_rows=0,
        novelty_values=0,
        profile_bins=0,
        cycle_discord_blocks=0,
    )
