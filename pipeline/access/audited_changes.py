"""Every change that people make, as an entry of the audit log.

The API, the dashboard and the command line make the same changes; each change is described here once.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pipeline.core.iso_times import show_time
from pipeline.core.types import Anomaly
from storage.access.audit import Change
from storage.alerting.alerts import AlertRecord
from storage.alerting.deliveries import Delivery
from storage.alerting.silences import ManualSilence
from storage.model_store.jobs import Job
from storage.model_store.models import ModelVersion, Promotion
from storage.model_store.quarantine import ExcludedRange
from storage.results.labels import Review


class Action(StrEnum):
    """Group and name of a change, without those of keys and sessions."""

    ALERT_ACKNOWLEDGE = "alert.acknowledge"
    ANOMALY_LABEL = "anomaly.label"
    BACKFILL_RUN = "backfill.run"
    DATABASE_REPAIR = "database.repair"
    DATABASE_RESTORE = "database.restore"
    DATABASE_UPGRADE = "database.upgrade"
    DEAD_LETTERS_REPLAY = "dead_letters.replay"
    DELIVERY_REDELIVER = "delivery.redeliver"
    ENDPOINT_ENABLE = "endpoint.enable"
    JOB_CANCEL = "job.cancel"
    JOB_REQUEST = "job.request"
    JOB_RETRY = "job.retry"
    MODEL_IMPORT = "model.import"
    QUARANTINE_ADD = "quarantine.add"
    QUARANTINE_REMOVE = "quarantine.remove"
    SILENCE_ADD = "silence.add"
    SILENCE_END = "silence.end"


def acknowledged(alert: AlertRecord, author: str) -> Change:
    """Return the acknowledgement of an alert; ``alert`` is its state before."""
    detail = {"before": alert.acked_by, "after": author}
    return Change(Action.ALERT_ACKNOWLEDGE, str(alert.alert_id), alert.stream, detail)


def labelled(anomaly: Anomaly, before: Review | None, after: Review) -> Change:
    """Return the new label of an anomaly."""
    detail = {"before": before and before.label, "after": after.label, "comment": after.comment}
    return Change(Action.ANOMALY_LABEL, str(anomaly.id), anomaly.stream, detail)


def silenced(silence: ManualSilence) -> Change:
    """Return a new silence."""
    detail = {"match": silence.match, "ends": show_time(silence.ends_ns), "comment": silence.comment}
    return Change(Action.SILENCE_ADD, str(silence.id), silence.stream, detail)


def silence_ended(before: ManualSilence) -> Change:
    """Return the end of a silence; ``before`` has its former end."""
    detail = {"before": show_time(before.ends_ns)}
    return Change(Action.SILENCE_END, str(before.id), before.stream, detail)


def redelivered(before: Delivery, stream: str | None, force: bool) -> Change:
    """Return a repeated delivery; ``before`` is its former state."""
    detail = {"endpoint": before.endpoint, "before": before.state, "force": force}
    return Change(Action.DELIVERY_REDELIVER, str(before.id), stream, detail)


def replayed(stream: str | None, ids: list[int] | None, reason: str | None, count: int) -> Change:
    """Return a replay of dead letters.

    Args:
        stream: Stream of the dead letters; None for all.
        ids: Ids that were chosen.
        reason: Reason that was chosen.
        count: Number of replayed records.
    """
    detail = {"ids": ids, "reason": reason, "replayed": count}
    return Change(Action.DEAD_LETTERS_REPLAY, "dead letters", stream, detail)


def champion_changed(after: Promotion) -> Change:
    """Return a promotion, rollback, pin or unpin."""
    detail = {"before": after.from_version, "after": after.to_version, "reason": after.reason}
    return Change(f"model.{after.action}", after.stream, after.stream, detail)


def model_imported(model: ModelVersion, source: str) -> Change:
    """Return the import of a version from a path or URL."""
    detail = {"from": source, "sha256": model.sha256}
    return Change(Action.MODEL_IMPORT, model.version, model.stream, detail)


def job_requested(id_: int, stream: str, kind: str, **detail: Any) -> Change:
    """Return a job that a person has queued; ``detail`` has its arguments."""
    return Change(Action.JOB_REQUEST, str(id_), stream, {"kind": kind, **detail})


def job_cancelled(before: Job) -> Change:
    """Return the cancellation of a job."""
    return Change(Action.JOB_CANCEL, str(before.id), before.stream, {"before": before.state})


def job_retried(before: Job) -> Change:
    """Return the repetition of a job."""
    return Change(Action.JOB_RETRY, str(before.id), before.stream, {"before": before.state})


def range_excluded(id_: int, excluded: ExcludedRange) -> Change:
    """Return a range that training leaves out."""
    detail = {"series": excluded.series, "reason": excluded.reason}
    detail |= {"from": show_time(excluded.start_ns), "to": show_time(excluded.end_ns)}
    return Change(Action.QUARANTINE_ADD, str(id_), excluded.stream, detail)


def range_returned(id_: int) -> Change:
    """Return a range that is used for training again."""
    return Change(Action.QUARANTINE_REMOVE, str(id_))


def endpoint_enabled(name: str) -> Change:
    """Return an endpoint that gets messages again."""
    return Change(Action.ENDPOINT_ENABLE, name)


def backfilled(stream: str, detail: dict[str, Any]) -> Change:
    """Return a backfill of a stream; ``detail`` has its input and counts."""
    return Change(Action.BACKFILL_RUN, stream, stream, detail)


def database_changed(action: Action, **detail: Any) -> Change:
    """Return an upgrade, a repair or a restored backup of the database."""
    return Change(action, "database", None, detail)
