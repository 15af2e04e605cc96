"""Thresholds: the surprise at which a point is an alarm, one module per algorithm.

``event_gate`` reduces the points above a threshold to one alarm per event.
"""

from __future__ import annotations

from collections.abc import Callable

from detectors.thresholds.base import Threshold
from detectors.thresholds.conformal import ConformalThreshold
from detectors.thresholds.quantile import QuantileThreshold
from detectors.thresholds.spot import DSpotThreshold, SpotThreshold
from detectors.thresholds.static import StaticThreshold

#: Name → factory; its argument is the static level, −log10 of the alarm rate.
THRESHOLDS: dict[str, Callable[[float], Threshold]] = {
    "static": StaticThreshold,
    "quantile": QuantileThreshold,
    "spot": SpotThreshold,
    "dspot": DSpotThreshold,
    "conformal": ConformalThreshold,
}
