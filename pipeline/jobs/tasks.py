"""The work of a Dask worker for one job.

A worker has no database: its input is the ``Task``, its output a ``TaskResult``. Only here are training data
read, weights changed and GPUs used.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pipeline.config.schema import Stream
from pipeline.core.durations import to_nanoseconds
from pipeline.core.extras import require_training
from pipeline.jobs import event_tasks
from pipeline.jobs.task_types import IsCancelled, ReportProgress, Task, TaskResult, VersionFiles
from pipeline.training.dataset import history_segments, newest_ns
from storage.model_store.jobs import JobState, TaskKind

if TYPE_CHECKING:  # These modules import torch, which only a worker may do.
    from detectors.base import Detector
    from detectors.forecasters.network_spec import NetworkSpec
    from detectors.training.batched_finetune import BatchedProgress
    from detectors.training.fit import EpochProgress
    from pipeline.models.registry import Weights
    from pipeline.training.backtest import BacktestConfig
    from pipeline.training.dataset import TrainingData
    from pipeline.training.promotion_rule import PromotionDecision
    from pipeline.training.quarantine import ExcludedInterval
    from pipeline.training.trainer import Trained

#: Interval at which a training polls for its cancellation.
CANCEL_POLL_SECONDS = 1.0


def run(task: Task) -> TaskResult:
    """Run ``task`` on a Dask worker and report its progress on the task's topic.

    Raises the errors of the data and of the registry.
    """
    from distributed import get_worker, sync

    worker = get_worker()
    polled_at, cancelled = time.monotonic(), False

    def report(progress: dict[str, Any]) -> None:
        worker.log_event(task.topic, progress)

    def is_cancelled() -> bool:
        nonlocal polled_at, cancelled
        if time.monotonic() - polled_at >= CANCEL_POLL_SECONDS:
            # Event.is_set() would make a client, which outlives its loop when the worker is stopped.
            cancelled = sync(worker.loop, worker.scheduler.event_is_set, name=task.topic)
            polled_at = time.monotonic()
        return cancelled

    report({"phase": task.kind})
    return run_task(task, report, is_cancelled)


def run_task(task: Task, report: ReportProgress, cancelled: IsCancelled) -> TaskResult:
    """Run ``task`` in this process.

    Args:
        task: the task.
        report: called with progress for the row of the job.
        cancelled: polled; the task ends soon after it returns True.

    Raises:
        NotInstalled: if this worker lacks what training needs.
    """
    require_training()
    import torch

    torch.set_num_threads(1)
    try:
        return _task_functions()[TaskKind(task.kind)](task, report, cancelled)
    finally:
        if task.gpu and torch.cuda.is_available():  # The worker process stays; free the memory for others.
            gc.collect()
            torch.cuda.empty_cache()


def train(task: Task, report: ReportProgress, cancelled: IsCancelled) -> TaskResult:
    """Train a new version without the quarantine, backtest it and store its files."""
    from detectors.training.fit import TrainingStatus
    from detectors.training.sequences import FinetuneSettings
    from pipeline.models import registry
    from pipeline.models.champion import detector_spec, network_of
    from pipeline.training.trainer import TrainConfig, train_stream

    data, span = _load_data(task)
    if task.stream.of_events:
        return event_tasks.train(task, data, span, report)
    device = _device(task, report)
    start = _weights(task.champion)
    settings = task.stream.retraining
    tuning = FinetuneSettings(epochs=settings.epochs, seed=settings.seed, device=device)
    network = network_of(task.stream)
    config = TrainConfig(
        detector_spec(task.stream),
        _initial_weights(start, network),
        _group_series(task.stream, data.series),
        tuning,
        network,
    )

    def report_training(progress: EpochProgress | BatchedProgress) -> None:
        report(asdict(progress))

    checkpoints = f"{registry.folder(task.models, task.name)}/checkpoints/{task.job}"
    trained = train_stream(data, config, report_training, checkpoints, cancelled)
    cost = asdict(trained.cost)
    summary = _summary(data, trained, network)
    if trained.status is TrainingStatus.CANCELLED:
        return TaskResult(JobState.CANCELLED, trained.reason, result=summary, cost=cost)
    if not trained.usable or not trained.weights:
        return TaskResult(JobState.REJECTED, trained.reason, result=summary, cost=cost)
    report({"phase": "backtest"})
    weights, card, decision = _choose_weights(task, data, trained.weights, start)
    path, sha256 = registry.publish(
        task.models, task.name, weights, _manifest(task, data, trained, weights, *span)
    )
    registry.remove_checkpoints(checkpoints)
    made = VersionFiles(sha256[: registry.VERSION_DIGITS], path, sha256)
    evidence = {"training": trained.metrics | summary | {"until_ns": span[1]}, "backtest": card}
    return TaskResult(JobState.SUCCEEDED, decision.reason, made, evidence, summary, cost, decision.promote)


def _summary(data: TrainingData, trained: Trained, network: NetworkSpec | None) -> dict[str, Any]:
    """Return the figures of a training for the row of the job."""
    return {
        "points": len(data),
        "unread": data.unread,
        "series": len(data.series),
        "left_out": trained.excluded_rows,
        "status": trained.status.value,
        **({} if network is None else {"forecaster": str(network.kind)}),
    }


def compare_with_champion(task: Task, report: ReportProgress, cancelled: IsCancelled) -> TaskResult:
    """Backtest a challenger and the champion on the points after its training.

    The backtest reads the recorded history, which holds exactly the input of the engine. The engine itself
    therefore does nothing for a challenger.
    """
    from pipeline.training.backtest import BacktestConfig
    from pipeline.training.dataset import HELD_BACK

    assert task.challenger is not None
    data, (_, until_ns) = _load_data(task)
    if task.stream.of_events:
        return event_tasks.compare(task, data, until_ns)
    seen_ns = int(task.detail.get("until_ns", 0))
    new = int((data.time > seen_ns).sum()) if len(data) else 0
    share = new / len(data) if 0 < new < len(data) else HELD_BACK
    started = time.process_time()
    card, decision = _compare(
        task,
        data,
        _weights(task.challenger),
        _weights(task.champion),
        BacktestConfig(held_out=min(0.5, share)),
    )
    cost = {"cpu_seconds": time.process_time() - started, "points": len(data)}
    result = {"version": task.challenger.version, "new_points": new, "until_ns": until_ns}
    return TaskResult(
        JobState.SUCCEEDED,
        decision.reason,
        evidence={"shadow": card},
        result=result,
        cost=cost,
        better=decision.promote,
    )


def _load_data(task: Task) -> tuple[TrainingData, tuple[int, int]]:
    """Return the training data of the stream, and their first and last time in ns.

    The data are the recorded history, without the quarantine. If the stream names files of past points,
    they replace what is older than the history. If there is no history, a stream that reads from Kafka is
    trained on its log. A job may name a span of that log instead.
    """
    from pipeline.training.dataset import from_history, from_log, join_history

    if {"from_ns", "to_ns"} & task.detail.keys():
        bounds = task.detail.get("from_ns"), task.detail.get("to_ns")
        return _with_span(from_log(task.name, task.stream, *bounds, _detector(task), task.review_labels))
    most = task.stream.retraining.most_points
    history = partial(
        from_history, task.history, task.name, task.stream.channels, task.review_labels, most_rows=most
    )
    back_ns = to_nanoseconds(task.stream.training_history)
    if task.stream.warm_start is None and (
        history_segments(task.history, task.name) or task.stream.source.kafka is None
    ):
        until_ns = newest_ns(task.history, task.name)
        since_ns = until_ns - back_ns
        return history(since_ns=since_ns, until_ns=until_ns + 1), (since_ns, until_ns)
    return _with_span(join_history(_load_past(task, back_ns), history()))


def _with_span(data: TrainingData) -> tuple[TrainingData, tuple[int, int]]:
    until_ns = int(data.time.max(initial=0))
    return data, (int(data.time.min(initial=until_ns)), until_ns)


def _load_past(task: Task, back_ns: int) -> TrainingData:
    from pipeline.training.dataset import from_files, from_log

    if task.stream.warm_start is not None:
        return from_files(task.name, task.stream, task.stream.warm_start, _detector(task), task.review_labels)
    return from_log(
        task.name, task.stream, time.time_ns() - back_ns, None, _detector(task), task.review_labels
    )


def _detector(task: Task) -> Detector:
    """Build the champion's detector, which flags points that were not scored yet."""
    from detectors import build
    from pipeline.models.champion import detector_spec, event_detector

    if task.stream.of_events:
        return event_detector(task.stream, event_tasks.model_of(task, task.champion))
    return build(detector_spec(task.stream), _weights(task.champion))


def _compare(
    task: Task,
    data: TrainingData,
    challenger: Weights | None,
    champion: Weights | None,
    config: BacktestConfig | None = None,
) -> tuple[dict[str, Any], PromotionDecision]:
    """Return the evidence card as JSON and text, and the promotion decision."""
    from pipeline.core.errors import InputError
    from pipeline.models.champion import detector_spec
    from pipeline.training.promotion_rule import PromotionDecision, decide_promotion, make_evidence_card

    try:
        card = make_evidence_card(
            data, detector_spec(task.stream), challenger, champion, config, review_labels=task.review_labels
        )
    except InputError as error:
        return {"reason": str(error)}, PromotionDecision(False, (str(error),), ())
    return card.as_dict() | {"text": card.text()}, decide_promotion(card)


def _choose_weights(
    task: Task, data: TrainingData, weights: Weights, champion: Weights | None
) -> tuple[Weights, dict[str, Any], PromotionDecision]:
    """Return the better choice of new weights with its card.

    These are all new weights or, if the rule rejects them, the shared LSTM alone if the rule accepts that. A
    network of the stream's own is also compared with the packaged LSTM.
    """
    from detectors.forecasters.network_spec import SPEC_TENSOR
    from detectors.forecasters.per_group_lstm import without

    card, decision = _compare(task, data, weights, champion)
    if decision.promote and champion is not None and SPEC_TENSOR in weights:
        other, verdict = _compare(task, data, weights, None)
        if verdict.against:  # the packaged LSTM is the baseline of every network
            return weights, other, verdict
    alone = without(weights)
    if not decision.promote and alone.keys() != weights.keys():
        other, verdict = _compare(task, data, alone, champion)
        if verdict.promote:
            return alone, other, verdict
    return weights, card, decision


def _initial_weights(champion: Weights | None, network: NetworkSpec | None) -> Weights | None:
    """Return the champion's weights if they are of the network to train.

    None stands for the packaged or random ones.
    """
    from detectors.forecasters.network_spec import spec_of

    return champion if champion is not None and spec_of(champion) == network else None


def _group_series(stream: Stream, series: Sequence[str]) -> dict[str, list[int]]:
    """Group the series (by place) by their values of the labels in ``models_by``."""
    from pipeline.decode.series_names import labels_of

    found: dict[str, list[int]] = {}
    for place, name in enumerate(series if stream.retraining.models_by else ()):
        labels = labels_of(stream, name)
        group = ",".join(f"{label}={labels.get(label, '')}" for label in stream.retraining.models_by)
        found.setdefault(group, []).append(place)
    return found


def _weights(version: VersionFiles | None) -> Weights | None:
    """Read the weights of a version; None for the packaged ones. Raises ArtifactError."""
    from pipeline.models import registry

    return registry.weights_of(version.path, version.sha256) if version is not None else None


def _device(task: Task, report: ReportProgress) -> str:
    """Return the device of the training: CUDA for a job that a GPU worker runs."""
    import torch

    device = "cuda" if task.gpu and torch.cuda.is_available() else "cpu"
    report({"device": "gpu" if device == "cuda" else "cpu"})
    return device


def _manifest(
    task: Task, data: TrainingData, trained: Trained, weights: Weights, since_ns: int, until_ns: int
) -> dict[str, Any]:
    from detectors.forecasters import lstm_features
    from detectors.forecasters.per_group_lstm import members
    from pipeline.models.champion import detector_spec

    return {
        **_architecture(weights),
        "features": {
            "version": lstm_features.VERSION,
            "names": list(lstm_features.NAMES),
            "horizons": list(lstm_features.HORIZONS),
        },
        "scaler": "per series, in its state",
        "calibration": "per series, in its state",
        "stream": task.name,
        "detector": {name: repr(value) for name, value in asdict(detector_spec(task.stream)).items()},
        "networks": [{"series": len(names), "names": names[:20]} for names in members(weights)],
        "parent": task.champion.version if task.champion else None,
        "training": {
            "since_ns": since_ns,
            "until_ns": until_ns,
            "series": len(data.series),
            "points": len(data),
            "unread": data.unread,
            "quarantine": [_excluded_as_json(one) for one in data.excluded[:1000]],
        },
        "metrics": trained.metrics,
        "forewatch": version("forewatch"),
    }


def _architecture(weights: Weights) -> dict[str, Any]:
    """Return the part of a manifest that describes the network."""
    from detectors.forecasters import frozen_network
    from detectors.forecasters.network_spec import spec_of

    spec = spec_of(weights)
    if spec is None:
        return {"architecture": "shared_lstm"}
    size = frozen_network.FrozenNetwork(weights).state_bytes
    count = sum(value.size for name, value in weights.items() if value.dtype.kind == "f")
    return {
        "architecture": frozen_network.ARCHITECTURE,
        "network": asdict(spec) | {"state_bytes": size, "weights": count},
    }


def _excluded_as_json(one: ExcludedInterval) -> dict[str, Any]:
    """Return an excluded interval with the keys that manifests have."""
    fields = asdict(one)
    return fields | {"why": fields.pop("reason")}


def _task_functions() -> dict[TaskKind, Callable[[Task, ReportProgress, IsCancelled], TaskResult]]:
    from pipeline.jobs.post_promotion_task import check_after_promotion

    return {
        TaskKind.TRAIN: train,
        TaskKind.SHADOW: compare_with_champion,
        TaskKind.POST_PROMOTION_CHECK: check_after_promotion,
    }
