"""Thresholds: surprise → alarm.

One file each, named here; ``event`` makes one alarm of what they let through.
"""

from __future__ import annotations

from collections.abc import Callable

from detectors.thresholds.base import Threshold
from detectors.thresholds.conformal import Conformal
from detectors.thresholds.quantile import Quantile
from detectors.thresholds.spot import DSpot, Spot
from detectors.thresholds.static import Static

#: Name → how to make one for a level of −log10(alarm rate).
THRESHOLDS: dict[str, Callable[[float], Threshold]] = {
    "static": Static,
    "quantile": Quantile,
    "spot": Spot,
    "dspot": DSpot,
    "conformal": Conformal,
}
