"""The tiers: which stages stand in each, and how much each may remember.

One default configuration for every series.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from detectors.stages.score_fusion import TrackGroup


@dataclass(frozen=True, slots=True)
class Tier:
    """Sizes of one tier; 0 leaves a part out."""

    groups: tuple[TrackGroup, ...]
    bins: int = 32  # of a calibration histogram
    ring: int = 64  # rows a level that the rhythm remembers
    levels: int = 1
    repeats: int = 3  # of a period that the rhythm must remember
    recent: int = 0  # rows a level that the cycle is found in
    seen: int = 0  # values that novelty remembers
    bins_of_day: int = 0
    shapes: int = 0  # blocks that the shape distance remembers
    windows: tuple[float, ...] = ()  # of the shape distance, in periods
    cycles: int = 0  # blocks that the shape distance of events remembers
    lags: int = 0  # lagged differences beside the LSTM's hidden state; 0: no LSTM and no readout
    hidden: int = 64  # of the hidden state's 64 numbers, how many mixtures the readout sees
    memory: int = 256  # rows that the LSTM's inputs remember
    horizons: tuple[int, ...] = (1, 4)
    spans: tuple[float, ...] = (0.125, 0.5, 2.0)  # of the averaged errors, in periods


FORM = TrackGroup(
    (
        ("ahead1x0.125", 0.25), ("ahead1x0.5", 0.25), ("ahead1x2", 0.5), ("ahead4x2", 1.0), ("residual", 0.5),
        ("shape0.125", 0.5), ("shape0.5", 0.5), ("shape2", 1.0),
    ),
    0.3, 0.9, cap=1e9, predictable=0.2, certain=1.5,
)  # fmt: skip
BEND = 4.0
EVENT = TrackGroup(
    (("novelty", 1.0), ("range", 1.0), ("seasonal", 1.0), ("level", 1.0), ("shift", 1.4), ("cycle1", 1.0), ("cycle0.25", 1.0)),
    4 / 6.5, slope=0.1, bend=6.0, predictable=0.05, certain=0.6, own=0.75,
)  # fmt: skip
POINT = TrackGroup(
    (("surplus", 1.0), ("change", 1.0)), 4 / 5, slope=0.1, bend=BEND, least=9.0, after=50_000, repeats=True
)
#: What ``strong`` remembers makes its forms better: they rank, and where they do events count less.
STRONG_FORM = replace(
    FORM,
    tracks=(*FORM.tracks, ("ahead1x2", 0.5), ("ahead1x0.5", 0.5), ("ahead4x0.125", 0.5), ("shape0.25", 0.5)),
    scale=0.254,
)
STRONG_EVENT = TrackGroup(
    (("novelty", 1.0), ("range", 1.0), ("seasonal", 1.0), ("level", 1.0), ("shape1", 1.0), ("shape0.25", 1.0)),
    4 / 8, slope=0.2, bend=BEND, predictable=0.2, certain=0.7,
)  # fmt: skip
STUCK = TrackGroup((("stuck", 1.0),), 1.6, bend=BEND)
DRIFT = TrackGroup((("level", 1.0),), 0.5, slope=0.2, bend=BEND)
MARKET = (
    TrackGroup((("return", 1.0),), 0.85, 0.95, cap=1e9, slope=0.5, repeats=True),
    TrackGroup((("burst", 1.0),), 1.05, 0.95),
    TrackGroup((("frozen", 1.0),), 0.95, repeats=True),
)

TIERS = {
    "light": Tier(
        (replace(POINT, bend=1.0), TrackGroup((("range", 1.0), ("level", 1.0), ("change", 0.5)), 4 / 3.5, own=0.75), STUCK, DRIFT),
        bins=20, ring=40,
    ),
    "standard": Tier(
        (FORM, EVENT, POINT, STUCK, DRIFT),
        bins=16, ring=256, levels=3, recent=128, seen=128, bins_of_day=16, shapes=512, windows=(2.0, 0.5, 0.125), cycles=224, lags=6, hidden=8, memory=128,
    ),
    "strong": Tier(
        (STRONG_FORM, STRONG_EVENT, POINT, STUCK, DRIFT),
        bins=64, ring=2048, levels=3, repeats=4, seen=128, bins_of_day=96, shapes=4096, windows=(2.0, 1.0, 0.5, 0.25, 0.125), lags=32, hidden=48, memory=1024,
    ),
}  # fmt: skip
