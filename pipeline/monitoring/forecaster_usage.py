"""The use of each forecaster on a stream, as a metric."""

from __future__ import annotations

import numpy as np

from detectors.base import FORECASTERS
from pipeline.core.verdict_words import former_forecaster
from pipeline.observability.metrics import Metrics
from pipeline.scoring.batch_result import BatchResult


class ForecasterUsageSink:
    """A sink that counts verdicts by the forecaster in use."""

    def __init__(self, metrics: Metrics, stream: str) -> None:
        self._counters = [
            metrics.detection.verdicts.labels(stream, name, former_forecaster(name)) for name in FORECASTERS
        ]

    def append(self, result: BatchResult) -> None:
        if result.scored is None:
            return
        for counter, count in zip(
            self._counters,
            np.bincount(result.scored.verdicts.forecaster, minlength=len(FORECASTERS)).tolist(),
            strict=True,
        ):
            counter.inc(count)

    def close(self) -> None:
        """Nothing to release."""
