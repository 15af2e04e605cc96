"""Detectors: pure steps from (state, points) to (state, verdicts).

This package does not import the rest of the project.

>>> detector = build(DetectorSpec(tier="light"))
>>> state = detector.initial(1)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from detectors.base import DECISIONS, Detector, DetectorSpec, Limits, Points, State, Verdicts

__all__ = ["REGISTRY", "Detector", "DetectorSpec", "Limits", "Points", "State", "Verdicts", "build", "names"]

Weights = Mapping[str, NDArray[Any]]

#: Custom detectors: name → factory. Register one with ``REGISTRY["mine"] = …`` before ``build``.
REGISTRY: dict[str, Callable[[DetectorSpec, Weights | None], Detector]] = {}


def names() -> tuple[str, ...]:
    """Return the names of all detectors that ``build`` accepts."""
    return ("light", "standard", "strong", *REGISTRY)


def build(spec: DetectorSpec, weights: Weights | None = None) -> Detector:
    """Return the detector that ``spec`` describes.

    ``weights`` replaces the packaged LSTM of a tier that has one (array names as in ``SharedLSTM``).

    Raises:
        ValueError: ``spec`` names an unknown detector, preset, threshold or decision, or the number of its limits is
            not the number of its channels.
    """
    if spec.limits and len(spec.limits) != len(spec.channels):
        raise ValueError(
            f"{len(spec.limits)} limits for {len(spec.channels)} channels; give one per channel or none"
        )
    if spec.decision not in DECISIONS:
        raise ValueError(f"decision {spec.decision!r} is unknown; known are {', '.join(DECISIONS)}")
    if spec.tier in REGISTRY:
        return REGISTRY[spec.tier](spec, weights)
    from detectors.composite.detector import build_composite

    return build_composite(spec, weights)
