"""Receivers of an engine's results."""

from __future__ import annotations

from typing import Protocol

from pipeline.scoring.stream_scorer import BatchResult


class Sink(Protocol):
    """Receiver of every result: of new records after their commit, and of replayed ones."""

    def append(self, result: BatchResult) -> None: ...

    def close(self) -> None: ...
