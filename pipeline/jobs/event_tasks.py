"""The work of a Dask worker for a stream of events."""

from __future__ import annotations

import time
from importlib.metadata import version
from itertools import count
from typing import TYPE_CHECKING, Any

from pipeline.jobs.task_types import ReportProgress, Task, TaskResult, VersionFiles
from storage.model_store.jobs import JobState

if TYPE_CHECKING:
    from detectors.sequences.detector import NextEventDetector
    from pipeline.decode.known_codes import KnownCodes
    from pipeline.training.dataset import TrainingData


def train(task: Task, data: TrainingData, span: tuple[int, int], report: ReportProgress) -> TaskResult:
    """Train a model on the recorded events, judge it and store its files.

    Args:
        task: The task.
        data: Its training data.
        span: First and last time of the data in ns.
        report: Called with progress for the row of the job.
    """
    from pipeline.models import registry
    from pipeline.training.event_training import AlarmRule, sessions_of, train_events

    started, settings = time.process_time(), task.stream.event_settings
    champion = model_of(task, task.champion)
    known = _known_codes(task, data, champion)
    sessions = sessions_of(data, sessions=settings.sessions, name_of=known.name_of)
    summary = {"points": len(data), "series": len(data.series), "sessions": len(sessions)}
    summary |= {"left_out": int((~data.allowed).sum()), "unread": data.unread}
    epochs = count(1)
    report({"phase": "train"})
    try:
        model, card = train_events(
            sessions,
            champion,
            AlarmRule(settings.sessions, task.stream.target_alarm_rate),
            seed=task.stream.retraining.seed,
            on_epoch=lambda: report({"phase": "train", "epoch": next(epochs)}),
        )
    except ValueError as error:
        return TaskResult(JobState.REJECTED, str(error), result=summary, cost=_cost(started, len(data)))
    model = model.with_templates(known.code_of, known.templates)
    manifest = model.manifest() | {
        "stream": task.name,
        "parent": task.champion.version if task.champion else None,
        "training": summary | {"since_ns": span[0], "until_ns": span[1]},
        "forewatch": version("forewatch"),
    }
    path, sha256 = registry.publish(task.models, task.name, model.tensors, manifest)
    made = VersionFiles(sha256[: registry.VERSION_DIGITS], path, sha256)
    evidence = {"training": summary | {"until_ns": span[1]}, "backtest": card.as_dict()}
    return TaskResult(
        JobState.SUCCEEDED,
        card.reason,
        made,
        evidence,
        summary | {"first_model": champion is None},
        _cost(started, len(data)),
        card.decision().promote,
    )


def compare(task: Task, data: TrainingData, until_ns: int) -> TaskResult:
    """Judge a challenger and the champion on the sessions after its training.

    Args:
        task: The task.
        data: The events.
        until_ns: Last time of the data.
    """
    from pipeline.training.dataset import HELD_BACK
    from pipeline.training.event_training import AlarmRule, judge, sessions_of

    assert task.challenger is not None
    started, ended = time.process_time(), task.stream.event_settings.sessions
    champion = model_of(task, task.champion)
    known = _known_codes(task, data, champion)
    sessions = sessions_of(data, sessions=ended, name_of=known.name_of)
    new = int((data.time > int(task.detail.get("until_ns", 0))).sum())
    share = min(0.5, new / len(data)) if 0 < new < len(data) else HELD_BACK
    kept = len(sessions) - max(1, round(share * len(sessions)))
    challenger = model_of(task, task.challenger)
    result = {"version": task.challenger.version, "new_points": new, "until_ns": until_ns}
    cost = _cost(started, len(data))
    if challenger is None or kept < 1:
        reason = "rejected: there are too few sessions"
        return TaskResult(JobState.SUCCEEDED, reason, result=result, cost=cost)
    card = judge(
        challenger,
        champion,
        sessions[:kept],
        sessions[kept:],
        AlarmRule(ended, task.stream.target_alarm_rate),
    )
    decision = card.decision()
    return TaskResult(
        JobState.SUCCEEDED,
        decision.reason,
        evidence={"shadow": card.as_dict()},
        result=result,
        cost=_cost(started, len(data)),
        better=decision.promote,
    )


def model_of(task: Task, files: VersionFiles | None) -> NextEventDetector | None:
    """Read a version, or for None the model of the config. Raises ArtifactError."""
    from detectors.sequences.detector import NextEventDetector

    if files is not None:
        return NextEventDetector.load(files.path, files.sha256)
    path = task.stream.event_settings.model
    return None if path is None else NextEventDetector.load(str(path))


def _known_codes(task: Task, data: TrainingData, champion: NextEventDetector | None) -> KnownCodes:
    """Return the codes of the events; the champion's, where a template has several."""
    from detectors.sequences.vocabulary import UNKNOWN
    from pipeline.decode.known_codes import merge_codes

    seen = data.codes + task.codes
    if champion is None:
        return merge_codes(seen)
    codes = [one.code for one in seen.templates]
    tokens = champion.encode_numbers(codes).tolist()
    return merge_codes(seen, {code for code, token in zip(codes, tokens, strict=True) if token != UNKNOWN})


def _cost(started: float, points: int) -> dict[str, Any]:
    return {"cpu_seconds": time.process_time() - started, "points": points}
