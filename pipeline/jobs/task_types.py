"""What a job sends to a worker, and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.schema import Stream
from pipeline.training.quarantine import Ruling

#: progress of any kind, to be shown in the job's row
Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Version:
    """Where the weights of a version are, and what they must be."""

    version: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt at one job, complete.

    ``champion`` None: the weights that come with forewatch; ``challenger``: the version to judge.
    """

    job: int
    token: int
    kind: str
    name: str
    stream: Stream
    history: str
    models: str
    champion: Version | None
    challenger: Version | None
    rulings: tuple[Ruling, ...]
    detail: dict[str, Any]
    gpu: bool = False

    @property
    def topic(self) -> str:
        """Names this attempt among all that a cluster does."""
        return f"forewatch-{self.job}-{self.token}"


@dataclass(slots=True)
class Outcome:
    """What came of a task.

    state: of the job (succeeded, rejected, cancelled); made: a version to be kept; evidence: for its row.
    """

    state: str
    reason: str
    made: Version | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    # the version that was made or judged should decide; for a guard: the champion should not
    better: bool = False
