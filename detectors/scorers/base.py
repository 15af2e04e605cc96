"""The protocol of a scorer.

A new scorer is one file plus its class in ``detectors.composite.detector.scorers``. The suite in
``tests/contract/test_detectors.py`` checks it.
"""

from __future__ import annotations

from typing import Protocol

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats


class Scorer(Protocol):
    """Raw errors of one or more tracks.

    ``state`` holds only arrays whose names begin with the scorer's own prefix.
    """

    tracks: tuple[str, ...]

    def initial(self, slots: int) -> State:
        """Return the empty state of ``slots`` channel slots."""
        ...

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        """Fill ``out`` (M, len(tracks)) and advance the state in place.

        Rows are in the order of time within a channel slot.
        """
        ...
