"""The task that a job sends to a worker, and the result that comes back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.config.schema import Stream
from pipeline.decode.known_codes import SeenCodes
from pipeline.training.quarantine import ReviewLabel

#: Reports progress of any kind, to be shown in the row of the job.
ReportProgress = Callable[[dict[str, Any]], None]

#: Returns whether the task was cancelled.
IsCancelled = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class VersionFiles:
    """The path of a version's weights, and the sha256 of their manifest."""

    version: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Task:
    """One attempt at one job, complete.

    ``champion`` None stands for the packaged weights; ``challenger`` is the version to judge; ``codes`` are
    those of a stream of events.
    """

    job: int
    token: int
    kind: str
    name: str
    stream: Stream
    history: str
    models: str
    champion: VersionFiles | None
    challenger: VersionFiles | None
    review_labels: tuple[ReviewLabel, ...]
    detail: dict[str, Any]
    gpu: bool = False
    codes: SeenCodes = field(default_factory=SeenCodes)

    @property
    def topic(self) -> str:
        """Name of this attempt, unique on a cluster."""
        return f"forewatch-{self.job}-{self.token}"


@dataclass(slots=True)
class TaskResult:
    """The result of a task.

    state: of the job (succeeded, rejected, cancelled); made: a new version; evidence: for the version's row.
    """

    state: str
    reason: str
    made: VersionFiles | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)
    # A training or shadow task: the version should become champion. A check: the champion should be rolled back.
    better: bool = False
