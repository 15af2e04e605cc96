"""What a Dask worker does for one job. It knows no database: all it needs is in the ``Task``, and what it found comes back as an ``Outcome``.

Here, and nowhere else, are data read, weights changed and GPUs touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any

from pipeline.config import Stream
from pipeline.retraining.quarantine import Ruling

#: How often a training asks whether it is to end.
ASK_SECONDS = 1.0

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
    """One attempt at one job, complete. ``champion`` None: the weights that come with forewatch; ``challenger``: the version to judge."""

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
    """What came of a task. state: of the job (succeeded, rejected, cancelled); made: a version to be kept; evidence: for its row."""

    state: str
    reason: str
    made: Version | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    cost: dict[str, Any] = field(default_factory=dict)


def run(task: Task) -> Outcome:
    """On a Dask worker: do ``task``, with its progress told on the task's topic. Raises what the data or the registry raise."""
    from distributed import Event, get_worker

    worker, wanted = get_worker(), Event(task.topic)
    asked_at, cancelled = time.monotonic(), False

    def tell(progress: dict[str, Any]) -> None:
        worker.log_event(task.topic, progress)

    def ask() -> bool:
        nonlocal asked_at, cancelled
        if time.monotonic() - asked_at >= ASK_SECONDS:
            cancelled, asked_at = wanted.is_set(), time.monotonic()
        return cancelled

    return perform(task, tell, ask)


def perform(task: Task, tell: Tell, cancelled: Callable[[], bool]) -> Outcome:
    """The same without Dask."""
    import torch

    torch.set_num_threads(1)
    tell({"device": "gpu" if task.gpu else "cpu"})
    return KINDS[task.kind](task, tell, cancelled)


def train(task: Task, tell: Tell, cancelled: Callable[[], bool]) -> Outcome:
    """Data without the quarantine → a fine-tuned version in the registry."""
    from detectors.training import Progress, Status
    from pipeline.build import detector_spec
    from pipeline.retraining import registry
    from pipeline.retraining.data import from_history
    from pipeline.retraining.train import TrainConfig, train_stream

    settings, until_ns = task.stream.retraining, newest_ns(task.history, task.name)
    since_ns = until_ns - round(settings.history.total_seconds() * 1e9)
    data = from_history(task.history, task.name, task.stream.channels, task.rulings, since_ns, until_ns + 1)
    start = registry.weights_of(task.champion.path, task.champion.sha256) if task.champion else None
    config = TrainConfig(
        spec=detector_spec(task.stream),
        start=start,
        device="cuda" if task.gpu else "cpu",
        epochs=settings.epochs,
        seed=settings.seed,
    )

    def told(progress: Progress) -> None:
        tell(asdict(progress))

    checkpoints = f"{registry.folder(task.models, task.name)}/checkpoints/{task.job}"
    trained = train_stream(data, config, told, checkpoints, cancelled)
    cost = asdict(trained.cost)
    summary = {"points": len(data), "series": len(data.series), "left_out": trained.left_out, "status": trained.status.value}
    if trained.status is Status.CANCELLED:
        return Outcome("cancelled", trained.reason, result=summary, cost=cost)
    if not trained.usable or not trained.weights:
        return Outcome("rejected", trained.reason, result=summary, cost=cost)
    path, sha256 = registry.publish(task.models, task.name, trained.weights, _manifest(task, data, trained, since_ns, until_ns))
    registry.forget_checkpoints(checkpoints)
    made = Version(sha256[: registry.DIGITS], path, sha256)
    return Outcome("succeeded", trained.reason, made, {"training": trained.metrics | summary | {"until_ns": until_ns}}, summary, cost)


def _manifest(task: Task, data: Any, trained: Any, since_ns: int, until_ns: int) -> dict[str, Any]:
    from detectors.forecasters import features
    from pipeline.build import detector_spec

    return {
        "architecture": "shared_lstm",
        "features": {"version": features.VERSION, "names": list(features.NAMES), "horizons": list(features.HORIZONS)},
        "scaler": "per series, in its state",
        "calibration": "per series, in its state",
        "stream": task.name,
        "detector": {name: repr(value) for name, value in asdict(detector_spec(task.stream)).items()},
        "parent": task.champion.version if task.champion else None,
        "training": {
            "since_ns": since_ns,
            "until_ns": until_ns,
            "series": len(data.series),
            "points": len(data),
            "quarantine": [asdict(one) for one in data.left_out[:1000]],
        },
        "metrics": trained.metrics,
        "forewatch": version("forewatch"),
    }


def newest_ns(path: str, stream: str) -> int:
    """Event time of the newest point in the history of a stream. Raises InputError where there is none."""
    from pipeline.errors import InputError
    from storage.segments import SegmentStore, folder_of, valid

    newest = [segment.newest_ns for segment in valid(SegmentStore(path).list(folder_of(stream)))]
    if not newest:
        raise InputError(f"stream {stream} has no history at {path}: let the daemon run for a while (storage.history must be true)")
    return max(newest)


KINDS: dict[str, Callable[[Task, Tell, Callable[[], bool]], Outcome]] = {"train": train}
