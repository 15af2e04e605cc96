"""Complete test message, marked as a test, that a receiver can treat like a real one."""

from __future__ import annotations

import time
from uuid import uuid4

from pipeline.alerts.messages.payload import Payload
from pipeline.alerts.outbox import encode_anomaly
from pipeline.alerts.routing.composer import NotificationContext, compose
from pipeline.alerts.routing.rules import StreamRules
from pipeline.config.alerts import AlertsConfig
from pipeline.core.durations import SECOND_NS
from pipeline.core.types import Anomaly, AnomalyState, Partition, Severity
from storage.alerting.alerts import AlertMember, AlertRecord
from storage.alerting.states import AlertKind, MemberState


def sample_payload() -> Payload:
    """Return a message of the kind ``test`` about an invented anomaly."""
    now_ns = time.time_ns()
    anomaly = _sample_anomaly(now_ns)
    member = AlertMember(
        subject=anomaly.id,
        alert_id=anomaly.id,
        stream=anomaly.stream,
        series=anomaly.series,
        state=MemberState.OPEN,
        severity=anomaly.severity.value,
        surprise=anomaly.surprise,
        start_ns=anomaly.start_ns,
        end_ns=now_ns,
        body=encode_anomaly(anomaly),
    )
    alert = AlertRecord(
        alert_id=anomaly.id,
        stream=anomaly.stream,
        kind=AlertKind.DATA,
        rule="test",
        group_key="test",
        queue="forewatch/test",
        labels=anomaly.labels,
        opened_ns=anomaly.start_ns,
        ended_ns=now_ns,
        created_ns=now_ns,
        severity="info",
        count=1,
    )
    rules = StreamRules(anomaly.stream, AlertsConfig(), ())
    context = NotificationContext([member], 1, 1)
    return compose(alert, "test", 1, context, rules.behaviour("default"), rules.config, now_ns)


def _sample_anomaly(now_ns: int) -> Anomaly:
    labels = {"site": "test", "note": "sent by forewatch endpoints ping"}
    return Anomaly(
        id=uuid4(),
        stream="forewatch-test",
        series="test",
        labels=labels,
        state=AnomalyState.OPEN,
        severity=Severity.INFO,
        direction="up",
        start_ns=now_ns - 60 * SECOND_NS,
        end_ns=now_ns,
        peak_ns=now_ns - 30 * SECOND_NS,
        points=2,
        score=0.9999,
        surprise=4.0,
        channels=["test"],
        observed=[42.0],
        expected=[23.0],
        lower=[20.0],
        upper=[26.0],
        contribution=[1.0],
        forecaster="none",
        model_version="none",
        config_hash="none",
        partition=Partition("test", 0),
        first_offset=0,
        last_offset=1,
        peak_offset=0,
        last_flag_seq=1,
    )
