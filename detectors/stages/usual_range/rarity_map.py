"""The pooled map from ratios to evidence, learned on undisturbed series.

``detectors/weights/rarity_map.json`` holds it; ``benchmarks/rarity_map.py`` learns it, and
``detectors/weights/README.md`` is its model card.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.stages.usual_range.own_tail import KNOTS, LEVELS
from detectors.stages.usual_range.quantities import QUANTITIES

FILE = "rarity_map.json"


@dataclass(frozen=True, slots=True)
class RarityMap:
    """The map of a tier.

    evidence (QUANTITIES, KNOTS) in decades, by quantity and ratio; levels (LEVELS,): evidence that one in 10,
    100, … rows exceed; width: half width of the 99 % interval in usual steps.
    """

    evidence: NDArray[np.float32]
    levels: tuple[float, ...]
    width: float


@cache
def read_rarity_map(tier: str) -> RarityMap:
    """Return the packaged map of a tier."""
    values = json.loads(files("detectors").joinpath("weights", FILE).read_text(encoding="utf-8"))
    return rarity_map_of(values["tiers"][tier])


def rarity_map_of(values: dict[str, Any]) -> RarityMap:
    """Return the map of plain JSON.

    Raises:
        ValueError: the numbers are not those of a map.
    """
    evidence, levels = np.array(values["evidence"], np.float32), tuple(values["levels"])
    if evidence.shape != (QUANTITIES, KNOTS) or len(levels) != LEVELS:
        raise ValueError(f"{FILE} has another shape than this version of forewatch; install it again")
    return RarityMap(evidence, levels, float(values["width"]))
