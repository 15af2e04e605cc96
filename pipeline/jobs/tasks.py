"""What a Dask worker does for one job. It knows no database: all it needs is in the ``Task``, and what it
found comes back as an ``Outcome``.

Here, and nowhere else, are data read, weights changed and GPUs touched.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import Any

from pipeline.config.schema import Stream
from pipeline.jobs.task_types import Outcome, Task, Tell, Version
from pipeline.training.dataset import kept, newest_ns

#: How often a training asks whether it is to end.
ASK_SECONDS = 1.0


def run(task: Task) -> Outcome:
    """On a Dask worker: do ``task``, with its progress told on the task's topic.

    Raises what the data or the registry raise.
    """
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

    tell({"phase": task.kind})
    return perform(task, tell, ask)


def perform(task: Task, tell: Tell, cancelled: Callable[[], bool]) -> Outcome:
    """The same without Dask."""
    import torch

    torch.set_num_threads(1)
    try:
        return _kinds()[task.kind](task, tell, cancelled)
    finally:
        if task.gpu and torch.cuda.is_available():  # the worker lives on, and others want the memory
            gc.collect()
            torch.cuda.empty_cache()


def train(task: Task, tell: Tell, cancelled: Callable[[], bool]) -> Outcome:
    """Data without the quarantine → a fine-tuned version in the registry, with its backtest against the
    champion.
    """
    from detectors.training.batched_finetune import Portions
    from detectors.training.finetune import Tuning
    from detectors.training.fit import Progress, Status
    from pipeline.models import registry
    from pipeline.models.champion import detector_spec
    from pipeline.training.trainer import TrainConfig, train_stream

    data, span = _data(task)
    device = _device(task, tell)
    start = _weights(task.champion)
    settings = task.stream.retraining
    tuning = Tuning(epochs=settings.epochs, seed=settings.seed, device=device)
    config = TrainConfig(detector_spec(task.stream), start, _groups(task.stream, data.series), tuning)

    def told(progress: Progress | Portions) -> None:
        tell(asdict(progress))

    checkpoints = f"{registry.folder(task.models, task.name)}/checkpoints/{task.job}"
    trained = train_stream(data, config, told, checkpoints, cancelled)
    cost = asdict(trained.cost)
    summary = {
        "points": len(data),
        "unread": data.unread,
        "series": len(data.series),
        "left_out": trained.left_out,
        "status": trained.status.value,
    }
    if trained.status is Status.CANCELLED:
        return Outcome("cancelled", trained.reason, result=summary, cost=cost)
    if not trained.usable or not trained.weights:
        return Outcome("rejected", trained.reason, result=summary, cost=cost)
    tell({"phase": "backtest"})
    weights, card, decision = _judged(task, data, trained.weights, start)
    path, sha256 = registry.publish(
        task.models, task.name, weights, _manifest(task, data, trained, weights, *span)
    )
    registry.forget_checkpoints(checkpoints)
    made = Version(sha256[: registry.DIGITS], path, sha256)
    evidence = {"training": trained.metrics | summary | {"until_ns": span[1]}, "backtest": card}
    return Outcome("succeeded", decision.reason, made, evidence, summary, cost, decision.promote)


def shadow(task: Task, tell: Tell, cancelled: Callable[[], bool]) -> Outcome:
    """What a challenger would have said of the points that came since it was trained, beside the champion.

    It runs over the history, which holds exactly what the engine saw, so that the hot path pays nothing for a
    challenger.
    """
    from pipeline.training.backtest import BacktestConfig
    from pipeline.training.dataset import HELD_BACK

    assert task.challenger is not None
    data, (_, until_ns) = _data(task)
    seen_ns = int(task.detail.get("until_ns", 0))
    new = int((data.time > seen_ns).sum()) if len(data) else 0
    share = new / len(data) if 0 < new < len(data) else HELD_BACK
    started = time.process_time()
    card, decision = _compared(
        task,
        data,
        _weights(task.challenger),
        _weights(task.champion),
        BacktestConfig(held_out=min(0.5, share)),
    )
    cost = {"cpu_seconds": time.process_time() - started, "points": len(data)}
    result = {"version": task.challenger.version, "new_points": new, "until_ns": until_ns}
    return Outcome(
        "succeeded",
        decision.reason,
        evidence={"shadow": card},
        result=result,
        cost=cost,
        better=decision.promote,
    )


def _data(task: Task) -> tuple[Any, tuple[int, int]]:
    """The stream's recent history without the quarantine, and its span (first and last time in ns).

    Where the stream names files of past points, they stand for what is older than the history, all of it.
    Where there is no history at all, a stream that reads from Kafka learns from its log. A job may ask for a
    stretch of that log instead.
    """
    from pipeline.training.dataset import from_history, from_log, joined

    if {"from_ns", "to_ns"} & task.detail.keys():
        bounds = task.detail.get("from_ns"), task.detail.get("to_ns")
        return _spanned(from_log(task.name, task.stream, *bounds, _detector(task), task.rulings))
    most = task.stream.retraining.most_points
    history = partial(
        from_history, task.history, task.name, task.stream.channels, task.rulings, most_rows=most
    )
    back_ns = round(task.stream.retraining.history.total_seconds() * 1e9)
    if task.stream.warm_start is None and (kept(task.history, task.name) or task.stream.source.kafka is None):
        until_ns = newest_ns(task.history, task.name)
        since_ns = until_ns - back_ns
        return history(since_ns=since_ns, until_ns=until_ns + 1), (since_ns, until_ns)
    return _spanned(joined(_past(task, back_ns), history()))


def _spanned(data: Any) -> tuple[Any, tuple[int, int]]:
    until_ns = int(data.time.max(initial=0))
    return data, (int(data.time.min(initial=until_ns)), until_ns)


def _past(task: Task, back_ns: int) -> Any:
    from pipeline.training.dataset import from_files, from_log

    if task.stream.warm_start is not None:
        return from_files(task.name, task.stream, task.stream.warm_start, _detector(task), task.rulings)
    return from_log(task.name, task.stream, time.time_ns() - back_ns, None, _detector(task), task.rulings)


def _detector(task: Task) -> Any:
    """Who says what was unusual in what nobody has scored yet: the champion."""
    from detectors import build
    from pipeline.models.champion import detector_spec

    return build(detector_spec(task.stream), _weights(task.champion))


def _compared(
    task: Task, data: Any, challenger: Any, champion: Any, config: Any = None
) -> tuple[dict[str, Any], Any]:
    """The evidence card, as a dictionary and as people read it, and what the rule says of it."""
    from pipeline.core.errors import InputError
    from pipeline.models.champion import detector_spec
    from pipeline.training.promotion_rule import Decision, decide, make_card

    try:
        card = make_card(data, detector_spec(task.stream), challenger, champion, config, rulings=task.rulings)
    except InputError as error:
        return {"reason": str(error)}, Decision(False, (str(error),), ())
    return card.as_dict() | {"text": card.text()}, decide(card)


def _judged(task: Task, data: Any, weights: Any, champion: Any) -> tuple[Any, dict[str, Any], Any]:
    """The new weights with their card: all of them, or, where that is no better than the champion, those of
    the shared LSTM alone if they are.
    """
    from detectors.forecasters.per_group_lstm import without

    card, decision = _compared(task, data, weights, champion)
    alone = without(weights)
    if not decision.promote and alone.keys() != weights.keys():
        other, verdict = _compared(task, data, alone, champion)
        if verdict.promote:
            return alone, other, verdict
    return weights, card, decision


def _groups(stream: Stream, series: Sequence[str]) -> dict[str, list[int]]:
    """Which series (by place) share the values of the labels that ``models_by`` names."""
    from pipeline.decode.series_names import labels_of

    found: dict[str, list[int]] = {}
    for place, name in enumerate(series if stream.retraining.models_by else ()):
        labels = labels_of(stream, name)
        group = ",".join(f"{label}={labels.get(label, '')}" for label in stream.retraining.models_by)
        found.setdefault(group, []).append(place)
    return found


def _weights(version: Version | None) -> Any:
    """None: those that come with forewatch. Raises ArtifactError."""
    from pipeline.models import registry

    return registry.weights_of(version.path, version.sha256) if version is not None else None


def _device(task: Task, tell: Tell) -> str:
    """CUDA where the job was given to a GPU worker that has one. Nobody but a worker asks."""
    import torch

    device = "cuda" if task.gpu and torch.cuda.is_available() else "cpu"
    tell({"device": "gpu" if device == "cuda" else "cpu"})
    return device


def _manifest(
    task: Task, data: Any, trained: Any, weights: Any, since_ns: int, until_ns: int
) -> dict[str, Any]:
    from detectors.forecasters import lstm_features
    from detectors.forecasters.per_group_lstm import members
    from pipeline.models.champion import detector_spec

    return {
        "architecture": "shared_lstm",
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
            "quarantine": [asdict(one) for one in data.left_out[:1000]],
        },
        "metrics": trained.metrics,
        "forewatch": version("forewatch"),
    }


def _kinds() -> dict[str, Callable[[Task, Tell, Callable[[], bool]], Outcome]]:
    from pipeline.jobs.post_promotion_task import guard

    return {"train": train, "shadow": shadow, "guard": guard}
