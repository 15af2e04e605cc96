"""What verdicts and anomalies of one batch have in common: the points, and which detector judged them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detectors.base import Points, Verdicts


@dataclass(slots=True)
class Scored:
    """Points of one batch with their verdicts, M rows; rows of one slot stand in event-time order.

    offset (M,) int64, −1 for a point that was filled in; seq (M,) int64 counts the points of its series.
    """

    points: Points
    verdicts: Verdicts
    offset: NDArray[np.int64]
    seq: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Provenance:
    """What the anomalies of a stream have in common."""

    stream: str
    channels: tuple[str, ...]
    alarm_rate: float
    close_after: int
    config_hash: str
    model_version: str
