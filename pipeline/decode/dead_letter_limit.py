"""When bad records mean that the stream itself is broken."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.config.schema import DeadLetterLimit
from pipeline.core.types import DeadLetter
from pipeline.decode.columns import Columns


class DeadLetterGauge:
    """Watches the records of one partition: too large a share of bad ones in any ``window``, or too long a
    ``run`` of them.
    """

    def __init__(self, limit: DeadLetterLimit) -> None:
        self._limit = limit
        # the last records, True where bad; longer than window and run need is cut off
        self._recent = np.zeros(0, bool)
        self._bad = False

    def update(self, columns: Columns, dead: Sequence[DeadLetter]) -> bool:
        """Take a batch in, as decoded.

        True once the limit is passed; how the records are cut into batches makes no difference.
        """
        heads = columns.offsets if columns.head is None else columns.offsets[columns.head]
        return self.count(heads, np.fromiter((letter.offset for letter in dead), np.int64, len(dead)))

    def count(self, good: np.ndarray, bad: np.ndarray) -> bool:
        """The same by offsets: of records that were decoded, and of dead letters."""
        order = np.argsort(np.concatenate([good, bad]), kind="stable")
        outcome = np.concatenate([self._recent, (order >= len(good))])
        self._bad = self._bad or bool(outcome.any() and self._passed(outcome))
        self._recent = (
            outcome[-max(self._limit.window, self._limit.run) + 1 :]
            if max(self._limit.window, self._limit.run) > 1
            else outcome[:0]
        )
        return self._bad

    def _passed(self, outcome: np.ndarray) -> bool:
        sums = np.concatenate([[0], np.cumsum(outcome)])
        window, run = self._limit.window, self._limit.run
        share = len(outcome) >= window and (sums[window:] - sums[:-window]).max() > self._limit.ratio * window
        return bool(share or (len(outcome) >= run and (sums[run:] - sums[:-run]).max() == run))
