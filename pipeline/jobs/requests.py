"""Requests for trainings, and the reviews of people that a training takes into account."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from detectors.composite.tiers import TIERS
from pipeline.config.schema import Config, Stream
from pipeline.core.durations import to_nanoseconds
from pipeline.training.quarantine import ExclusionReason, ReviewLabel
from storage.model_store import jobs, quarantine
from storage.model_store.jobs import JobState, JobTrigger, TaskKind
from storage.results import anomalies, labels
from storage.sql.database import Database

_REASON_OF_LABEL = {
    "true": ExclusionReason.ANOMALY,
    "false": ExclusionReason.NORMAL,
    "maintenance": ExclusionReason.MAINTENANCE,
}


def trainable(stream: Stream) -> bool:
    """Return whether the stream's detector has weights that a training could change."""
    if stream.of_events:
        return True
    tier = TIERS.get(stream.detector)
    return tier is not None and tier.lags > 0


def request_training(
    connection: Connection,
    name: str,
    stream: Stream,
    due_ns: int,
    *,
    trigger: str,
    author: str,
    now_ns: int,
    detail: dict[str, Any] | None = None,
) -> int | None:
    """Queue a training of stream ``name`` and return the id of the job.

    Return None if it is queued already, or, for a drift, if any training is. A training after a drift is due
    ``min_interval`` after the last training at the earliest.

    Args:
        connection: a transaction.
        name: name of the stream.
        stream: config of the stream.
        due_ns: time from which the job may run.
        trigger: a ``JobTrigger``.
        author: the person or component that asks for the training.
        now_ns: current time.
        detail: arguments of the task.
    """
    if trigger == JobTrigger.DRIFT:
        last = jobs.query(connection, stream=name, kind=TaskKind.TRAIN, limit=1)
        if last and last[0].state == JobState.QUEUED:
            return None
        if last:  # The last training did not see the drift, and the monitor does not report it again.
            interval_ns = to_nanoseconds(stream.retraining.min_interval)
            due_ns = max(due_ns, last[0].created_ns + interval_ns)
    return jobs.add(
        connection,
        TaskKind.TRAIN,
        name,
        due_ns,
        trigger=trigger,
        author=author,
        now_ns=now_ns,
        device=stream.retraining.device,
        detail=detail,
    )


def excluded_intervals(
    database: Database, config: Config, stream: str, by_hand: bool
) -> list[dict[str, Any]]:
    """Return the intervals that a training of ``stream`` would exclude now, by series and time.

    Args:
        database: the database.
        config: the whole config.
        stream: name of the stream.
        by_hand: only the ranges that people excluded.
    """
    from pipeline.training.dataset import from_history

    with database.read() as connection:
        ranges, reviewed = quarantine.query(connection, stream=stream), review_labels(connection, stream)
    if by_hand:
        fields = ("id", "series", "start_ns", "end_ns")
        return [
            {name: getattr(one, name) for name in fields}
            | {"stream": stream, "points": None, "why": one.reason, "by": one.author}
            for one in ranges
        ]
    data = from_history(config.history_path, stream, config.streams[stream].channels, reviewed)
    return [
        {"id": None, "stream": stream, "series": one.series, "start_ns": one.start_ns, "end_ns": one.end_ns}
        | {"points": one.points, "why": one.reason.value, "by": one.by}
        for one in data.excluded
    ]


def review_labels(connection: Connection, stream: str) -> list[ReviewLabel]:
    """Return the reviews of the stream's past: labelled anomalies, and ranges excluded by hand."""
    found = [
        ReviewLabel(one.series, one.start_ns, one.end_ns - 1, ExclusionReason.EXCLUDED, one.author)
        for one in quarantine.query(connection, stream=stream)
    ]
    labelled = labels.latest_labels(connection, stream)
    for anomaly in anomalies.having(connection, list(labelled)):
        label = labelled[anomaly.id]
        reason = _REASON_OF_LABEL[label.label]
        found.append(ReviewLabel(anomaly.series, anomaly.start_ns, anomaly.end_ns, reason, label.author))
    return found
