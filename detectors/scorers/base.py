"""What every scorer is.

Write one file, add its class to ``detectors.composite.presets``; ``tests/contract/test_detectors.py`` says
when it is done.
"""

from __future__ import annotations

from typing import Protocol

from detectors.base import State
from detectors.channel_batch import ChannelBatch, Floats


class Scorer(Protocol):
    """Raw errors of one or more tracks; ``state`` holds only arrays whose names begin with the scorer's own."""

    tracks: tuple[str, ...]

    def initial(self, slots: int) -> State: ...

    def run(self, state: State, batch: ChannelBatch, out: Floats) -> None:
        """Fill ``out`` (M, len(tracks)) for the rows in order and advance the state in place."""
        ...
