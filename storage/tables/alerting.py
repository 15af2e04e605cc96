"""Tables of the alerts: outbox, alerts, notifications, deliveries and every attempt.

    alert_events ─► alerts, alert_members ─► notices ─► deliveries ─► delivery_attempts
      (engine)            (router)           (router)    (router)       (delivery loop)

Everything that must survive a process is a row; ``flush_ns`` and ``due_ns`` are its timers. Columns keep the
names of version 0.1: ``lane`` is ``queue`` in Python, ``notice_id`` is ``notification_id``, ``held_by`` is
``suppressed_by`` and ``told`` is ``notified``. States and kinds are in ``storage.alerting.states``.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import Boolean, Index, Integer, text
from sqlalchemy.orm import Mapped, mapped_column

from storage.sql.column_types import RowId, SafeJson, SafeText
from storage.tables.stream import Base


def _partial(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, postgresql_where=text(where), sqlite_where=text(where))


class AlertEventRow(Base):
    """The outbox: a change of an anomaly or a fault, written in the transaction that made it.

    ``body`` is the record as JSON. ``event_id`` names the change, so that the same change written twice is
    one event.
    """

    __tablename__ = "alert_events"
    __table_args__ = (
        Index("uq_alert_events_event_id", "event_id", unique=True),
        _partial("ix_alert_events_pending", "stream", "id", where="state = 'pending'"),
        _partial("ix_alert_events_waiting", "alert_id", where="state = 'waiting'"),
        Index("ix_alert_events_created_ns", "created_ns"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    event_id: Mapped[UUID]
    stream: Mapped[str]
    kind: Mapped[str]
    subject: Mapped[UUID]
    body: Mapped[str]
    created_ns: Mapped[int]
    state: Mapped[str]
    reason: Mapped[str | None]
    alert_id: Mapped[UUID | None]


class AlertRow(Base):
    """One alert, from its first anomaly to its end.

    ``flush_ns`` is when it is evaluated next. ``sent_*`` describe the last notification, so that an
    evaluation finds what is new.
    """

    __tablename__ = "alerts"
    __table_args__ = (
        _partial("uq_alerts_live", "stream", "rule", "group_key", where="state <> 'closed'", unique=True),
        _partial("ix_alerts_flush_ns", "stream", "flush_ns", where="flush_ns IS NOT NULL"),
        Index("ix_alerts_created_ns", "created_ns"),
    )

    alert_id: Mapped[UUID] = mapped_column(primary_key=True)
    stream: Mapped[str]
    kind: Mapped[str]
    rule: Mapped[str]
    group_key: Mapped[str] = mapped_column(SafeText)
    queue: Mapped[str] = mapped_column("lane", SafeText, key="queue")
    labels: Mapped[dict[str, str]]
    state: Mapped[str]
    outcome: Mapped[str | None]  # of a closed alert: a Resolution or a SuppressionReason
    urgency: Mapped[str]
    severity: Mapped[str]
    surprise: Mapped[float]
    count: Mapped[int] = mapped_column(Integer)
    open_count: Mapped[int] = mapped_column(Integer)
    opened_ns: Mapped[int]  # event time of its first flagged point
    ended_ns: Mapped[int]  # and of its last one so far
    resolved_ns: Mapped[int | None]
    created_ns: Mapped[int]
    committed_ns: Mapped[int | None]  # when the batch of its first event was committed; NULL: created_ns
    flush_ns: Mapped[int | None]
    quiet_ns: Mapped[int | None]  # since when no anomaly of it is open
    sent_ns: Mapped[int | None]
    sent_count: Mapped[int] = mapped_column(Integer)
    sent_surprise: Mapped[float]
    severities: Mapped[list[str]]
    # silence:<name> or fault:<kind> that keeps it from being sent now
    suppressed_by: Mapped[str | None] = mapped_column("held_by", key="suppressed_by")
    flapping: Mapped[bool] = mapped_column(Boolean)
    acked_ns: Mapped[int | None]
    acked_by: Mapped[str | None] = mapped_column(SafeText)
    notified: Mapped[list[str]] = mapped_column("told", key="notified")  # endpoints


class AlertMemberRow(Base):
    """An anomaly (or fault) as part of its alert; ``body`` is its last known state as JSON."""

    __tablename__ = "alert_members"
    __table_args__ = (
        Index("ix_alert_members_alert_id_surprise", "alert_id", "surprise"),
        Index("ix_alert_members_start_ns", "start_ns"),
        Index("ix_alert_members_stream_series_start_ns", "stream", "series", "start_ns"),
    )

    subject: Mapped[UUID] = mapped_column(primary_key=True)
    alert_id: Mapped[UUID]
    stream: Mapped[str]
    series: Mapped[str] = mapped_column(SafeText)
    state: Mapped[str]
    severity: Mapped[str]
    surprise: Mapped[float]
    start_ns: Mapped[int]
    end_ns: Mapped[int]
    body: Mapped[str]


class AlertQueueRow(Base):
    """State of a series or group between its alerts: message counter, last end, recent openings."""

    __tablename__ = "alert_lanes"

    queue: Mapped[str] = mapped_column("lane", SafeText, key="queue", primary_key=True)
    sequence: Mapped[int]
    resolved_ns: Mapped[int | None]
    openings: Mapped[list[int]] = mapped_column(SafeJson)


class AlertStreamRow(Base):
    """One row for each stream, locked while its events are routed.

    ``recent``: rule → openings of alerts, for the storm limit.
    """

    __tablename__ = "alert_streams"

    stream: Mapped[str] = mapped_column(primary_key=True)
    recent: Mapped[dict[str, Any]]


class AlertBudgetRow(Base):
    """State of the budget of a stream or a team (see ``pipeline.alerts.routing.page_budget``)."""

    __tablename__ = "alert_budgets"

    name: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[dict[str, Any]]
    updated_ns: Mapped[int]


class NotificationRow(Base):
    """One message about an alert; ``body`` is the payload as it is signed, byte for byte."""

    __tablename__ = "notices"
    __table_args__ = (Index("ix_notices_alert_id", "alert_id"), Index("ix_notices_created_ns", "created_ns"))

    id: Mapped[UUID] = mapped_column(primary_key=True)
    alert_id: Mapped[UUID]
    stream: Mapped[str]
    queue: Mapped[str] = mapped_column("lane", SafeText, key="queue")
    sequence: Mapped[int]
    kind: Mapped[str]
    events: Mapped[int] = mapped_column(Integer)
    body: Mapped[str]
    created_ns: Mapped[int]


class DeliveryRow(Base):
    """One notification on its way to one endpoint."""

    __tablename__ = "deliveries"
    __table_args__ = (
        _partial("ix_deliveries_pending", "endpoint", "queue", "sequence", where="state = 'pending'"),
        Index("ix_deliveries_created_ns", "created_ns"),
        Index("ix_deliveries_alert_id_endpoint", "alert_id", "endpoint"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    notification_id: Mapped[UUID] = mapped_column("notice_id", key="notification_id")
    alert_id: Mapped[UUID]
    endpoint: Mapped[str]
    queue: Mapped[str] = mapped_column("lane", SafeText, key="queue")
    sequence: Mapped[int]
    kind: Mapped[str]
    state: Mapped[str]
    reason: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(Integer)
    # Attempts after one whose answer was lost: the receiver may know the message.
    repeats: Mapped[int] = mapped_column(Integer)
    created_ns: Mapped[int]
    finished_ns: Mapped[int | None]


class DeliveryQueueRow(Base):
    """Queue of one series or group to one endpoint.

    ``due_ns`` is when its head is due, ``owner`` the worker that has claimed it.
    """

    __tablename__ = "delivery_lanes"
    __table_args__ = (
        _partial("ix_delivery_lanes_due", "endpoint", "due_ns", where="due_ns IS NOT NULL AND owner IS NULL"),
        _partial("ix_delivery_lanes_owner", "owner", where="owner IS NOT NULL"),
    )

    endpoint: Mapped[str] = mapped_column(primary_key=True)
    queue: Mapped[str] = mapped_column("lane", SafeText, key="queue", primary_key=True)
    due_ns: Mapped[int | None]
    owner: Mapped[str | None]


class DeliveryAttemptRow(Base):
    """One attempt of a delivery."""

    __tablename__ = "delivery_attempts"
    __table_args__ = (
        Index("ix_delivery_attempts_delivery_id", "delivery_id"),
        Index("ix_delivery_attempts_started_ns", "started_ns"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    delivery_id: Mapped[UUID]
    attempt: Mapped[int] = mapped_column(Integer)
    started_ns: Mapped[int]
    latency_ns: Mapped[int]
    outcome: Mapped[str]
    status: Mapped[int | None] = mapped_column(Integer)
    answer: Mapped[str] = mapped_column(SafeText)
    next_ns: Mapped[int | None]


class DeliveryWorkerRow(Base):
    """A delivery process; ``beat`` increases while it runs (see ``storage.alerting.endpoints``)."""

    __tablename__ = "delivery_workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    beat: Mapped[int]
    started_ns: Mapped[int]


class EndpointStateRow(Base):
    """State of an endpoint shared by all processes (see ``storage.alerting.endpoints``)."""

    __tablename__ = "endpoint_states"

    endpoint: Mapped[str] = mapped_column(primary_key=True)
    disabled_ns: Mapped[int | None]
    reason: Mapped[str | None] = mapped_column(SafeText)
    failing_ns: Mapped[int | None]
    quiet_until_ns: Mapped[int | None]
    delivered_ns: Mapped[int | None]


class SilenceRow(Base):
    """A silence that was added by hand; planned ones are in the configuration."""

    __tablename__ = "silences"
    __table_args__ = (Index("ix_silences_ends_ns", "ends_ns"),)

    id: Mapped[UUID] = mapped_column(primary_key=True)
    stream: Mapped[str | None]
    match: Mapped[dict[str, Any]]
    starts_ns: Mapped[int]
    ends_ns: Mapped[int]
    author: Mapped[str] = mapped_column(SafeText)
    comment: Mapped[str] = mapped_column(SafeText)
    created_ns: Mapped[int]


class LabelRow(Base):
    """Label that a person gave an anomaly."""

    __tablename__ = "labels"

    anomaly_id: Mapped[UUID] = mapped_column(primary_key=True)
    label: Mapped[str]  # true | false | maintenance
    author: Mapped[str] = mapped_column(SafeText)
    comment: Mapped[str] = mapped_column(SafeText)
    created_ns: Mapped[int]
