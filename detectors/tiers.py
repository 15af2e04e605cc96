"""The tiers: which stages stand in each, and how much each may remember. One default configuration for every series."""

from __future__ import annotations

from dataclasses import dataclass

from detectors.combine import Group


@dataclass(frozen=True, slots=True)
class Tier:
    """Sizes of one tier; 0 or () leaves a part out."""

    lags: int = 0  # lagged differences beside the LSTM's hidden state; 0: no LSTM, no readout
    ring: int = 64  # rows remembered by the rhythm, a level
    levels: int = 1
    seen: int = 0  # values remembered by novelty
    bins_of_day: int = 0
    shapes: int = 0  # blocks remembered by the shape distance
    bins: int = 32  # of the calibration histogram
    quantile: float = 0.97  # where the exponential tail begins
    groups: tuple[Group, ...] = ()


EVENT = ("range", "novelty", "seasonal", "level", "shape1", "shape0.25")

TIERS = {
    "light": Tier(groups=(Group(("surplus", "change"), 0.8), Group(("surplus", "change", "level"), 0.5))),
    "standard": Tier(
        lags=32, ring=256, levels=3, seen=64, bins_of_day=48, shapes=1024,
        groups=(Group(("surplus", "change"), 0.8), Group(EVENT, 0.5), Group(("residual_mean", "shape1", "shape0.25"), 0.4, 100.0)),
    ),
    "strong": Tier(
        lags=32, ring=1024, levels=3, seen=128, bins_of_day=96, shapes=4096, bins=64,
        groups=(Group(("surplus", "change"), 0.8), Group(EVENT, 0.5), Group(("residual_mean", "shape1", "shape0.25"), 0.4, 100.0)),
    ),
}  # fmt: skip
