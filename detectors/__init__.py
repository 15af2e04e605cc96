"""Detectors: pure steps from (state, points) to (state, verdicts). Nothing here imports the rest of the
project.

>>> detector = build(DetectorSpec(tier="light"))
>>> state = detector.initial(1)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from detectors.base import Detector, DetectorSpec, Limits, Points, State, Verdicts

__all__ = ["REGISTRY", "Detector", "DetectorSpec", "Limits", "Points", "State", "Verdicts", "build", "names"]

Weights = Mapping[str, NDArray[Any]]

#: Detectors beside the tiers: name → how to make one. Add yours here (or call ``REGISTRY["mine"] = …`` before
#: ``build``).
REGISTRY: dict[str, Callable[[DetectorSpec, Weights | None], Detector]] = {}


def names() -> tuple[str, ...]:
    """Every name that ``build`` knows."""
    return ("light", "standard", "strong", *REGISTRY)


def build(spec: DetectorSpec, weights: Weights | None = None) -> Detector:
    """The detector that ``spec`` describes; ``weights`` replaces the packaged LSTM of a tier that has one
    (names as in SharedLSTM).

    Raises ValueError where ``spec`` names an unknown detector or preset, or its limits do not match its
    channels.
    """
    if spec.limits and len(spec.limits) != len(spec.channels):
        raise ValueError(
            f"limits: {len(spec.limits)} given for {len(spec.channels)} channels; give one per channel or none"
        )
    if spec.tier in REGISTRY:
        return REGISTRY[spec.tier](spec, weights)
    from detectors.composite.detector import make

    return make(spec, weights)
