"""States, kinds and reasons of events, alerts and deliveries, as they are stored."""

from __future__ import annotations

from enum import StrEnum


class EventKind(StrEnum):
    """Subject of an event of the outbox."""

    ANOMALY = "anomaly"
    FAULT = "fault"
    ACKNOWLEDGED = "acknowledged"


class EventState(StrEnum):
    """Progress of an event of the outbox.

    ``WAITING``: part of an alert that has sent no notification since. ``SENT``: part of a notification.
    """

    PENDING = "pending"
    WAITING = "waiting"
    SENT = "sent"
    SUPPRESSED = "suppressed"


class AlertKind(StrEnum):
    """Subject of an alert: anomalies in the data, or a fault of the pipeline."""

    DATA = "data"
    FAULT = "fault"


class AlertState(StrEnum):
    """Progress of an alert. ``WAITING``: no notification was sent yet."""

    WAITING = "waiting"
    OPEN = "open"
    CLOSED = "closed"


class MemberState(StrEnum):
    """State of an anomaly or fault as a member of its alert."""

    OPEN = "open"
    CLOSED = "closed"
    RETRACTED = "retracted"


class Urgency(StrEnum):
    """Urgency of an alert, and the least urgency that an endpoint accepts."""

    PAGE = "page"
    NOTICE = "notice"


class Resolution(StrEnum):
    """End of an alert that was sent; others end with a ``SuppressionReason``."""

    RESOLVED = "resolved"
    RETRACTED = "retracted"


class SuppressionReason(StrEnum):
    """Reason why an event was not sent.

    ``rule:<name>`` (dropped by a rule), ``silence`` and ``fault`` complete the stored values.
    """

    ALREADY_CLOSED = "over"
    BUDGET = "budget"
    COOLDOWN = "cooldown"
    MIN_DEVIATION = "min_deviation"
    MIN_SEVERITY = "min_severity"
    NO_ENDPOINT = "no endpoint"
    RETRACTED = "retracted"
    SEVERITY = "severity"
    SUPERSEDED = "overtaken"
    TOO_OLD = "too old"
    TOO_SHORT = "lasts"
    UNCHANGED = "unchanged"
    UNREADABLE = "unreadable"
    URGENCY = "urgency"


class DeliveryState(StrEnum):
    """Progress of a delivery. ``DEAD``: it failed and is not tried again."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    SUPPRESSED = "suppressed"


class DeliveryReason(StrEnum):
    """Reason why a delivery is dead or suppressed."""

    ATTEMPTS_EXHAUSTED = "attempts"
    DISABLED = "disabled"  # suppressed when it was queued, by an earlier version
    ENDPOINT_DISABLED = "endpoint disabled"
    ENDPOINT_REMOVED = "endpoint removed"


class AttemptOutcome(StrEnum):
    """Result of one attempt. ``LOST``: the message may have arrived, the answer did not."""

    DELIVERED = "delivered"
    FAILED = "failed"
    LOST = "lost"
