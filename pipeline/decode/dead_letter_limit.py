"""Limit of dead letters above which a partition counts as broken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.config.schema import DeadLetterLimit
from pipeline.core.types import DeadLetter
from pipeline.decode.columns import Columns


class DeadLetterGauge:
    """Measures the dead letters of one partition: their share in a ``window``, and their longest ``run``."""

    def __init__(self, limit: DeadLetterLimit) -> None:
        self._limit = limit
        # The last records, True where bad, as many as window and run need.
        self._recent = np.zeros(0, bool)
        self._bad = False

    def update(self, columns: Columns, dead: Sequence[DeadLetter]) -> bool:
        """Add a decoded batch, and return True once the limit is exceeded.

        The result does not depend on how the records are cut into batches.
        """
        heads = columns.offsets if columns.head is None else columns.offsets[columns.head]
        bad = [letter.offset for letter in dead if not letter.partial]
        return self.count(heads, np.array(bad, np.int64))

    def count(self, good: np.ndarray, bad: np.ndarray) -> bool:
        """Add a batch by offsets: ``good`` of decoded records, ``bad`` of dead letters."""
        order = np.argsort(np.concatenate([good, bad]), kind="stable")
        outcome = np.concatenate([self._recent, (order >= len(good))])
        self._bad = self._bad or bool(outcome.any() and self._exceeds_limit(outcome))
        self._recent = (
            outcome[-max(self._limit.window, self._limit.run) + 1 :]
            if max(self._limit.window, self._limit.run) > 1
            else outcome[:0]
        )
        return self._bad

    def _exceeds_limit(self, outcome: np.ndarray) -> bool:
        sums = np.concatenate([[0], np.cumsum(outcome)])
        window, run = self._limit.window, self._limit.run
        share = len(outcome) >= window and (sums[window:] - sums[:-window]).max() > self._limit.ratio * window
        return bool(share or (len(outcome) >= run and (sums[run:] - sums[:-run]).max() == run))
