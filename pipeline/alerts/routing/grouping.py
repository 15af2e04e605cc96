"""Grouping of events into alerts: the alert of an anomaly, and the state of that alert afterwards.

Notifications are decided later (see ``lifecycle``).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from uuid import uuid5

from pipeline.alerts.outbox import MIN_PEAK_GROWTH, decode_anomaly, decode_fault
from pipeline.alerts.routing.composer import short
from pipeline.alerts.routing.routing_session import PendingChange, RoutingSession
from pipeline.alerts.routing.rules import STORM, Behaviour, rank
from pipeline.alerts.routing.silencing import Suppression
from pipeline.core.durations import SECOND_NS
from pipeline.core.types import NAMESPACE, Anomaly, AnomalyState, Fault, Severity
from storage.alerting import alerts
from storage.alerting.alerts import AlertMember, AlertRecord
from storage.alerting.outbox import OutboxEvent
from storage.alerting.states import AlertKind, AlertState, EventKind, MemberState, SuppressionReason

STORM_KEY = "*storm*"
MAX_OPENINGS_KEPT = 100
_STORM_WINDOW_NS = 60 * SECOND_NS
_STORM_WAIT_NS = 5 * SECOND_NS
_STORM_MINUTES_KEPT = 64


@dataclass(slots=True)
class EvaluatedEvent:
    """One event, decoded, with the result of the rules: ``dropped`` is the reason or None."""

    event: OutboxEvent
    record: Anomaly | Fault
    behaviour: Behaviour
    dropped: str | None
    group_key: str
    queue: str


def evaluate_rules(session: RoutingSession, event: OutboxEvent) -> EvaluatedEvent:
    """Decode an event and apply the rules to it."""
    rules = session.context.rules
    if event.kind == EventKind.FAULT:
        fault = decode_fault(event.body)
        key = f"{fault.kind}/{fault.partition or ''}"
        return EvaluatedEvent(event, fault, rules.faults, None, key, short(f"{fault.stream}/faults/{key}"))
    anomaly = decode_anomaly(event.body)
    # In a simulation the commit of a backlog is later than the simulated time.
    behaviour, dropped = rules.evaluate(anomaly, max(session.now_ns, event.created_ns))
    if behaviour.by is None:
        key, queue = short(anomaly.series), short(f"{anomaly.stream}/{anomaly.series}")
    else:
        shared = {name: anomaly.labels.get(name, "") for name in behaviour.by}
        key = short(json.dumps(shared, ensure_ascii=False))
        queue = short(f"{anomaly.stream}/{behaviour.rule}/{key}")
    return EvaluatedEvent(event, anomaly, behaviour, dropped, key, queue)


def group_event(session: RoutingSession, evaluated: EvaluatedEvent) -> None:
    """Assign one event to its alert, which may be new, or suppress it."""
    member = session.alerts.members.get(evaluated.event.subject)
    if member is None:
        _add_member(session, evaluated)
    else:
        _update_member(session, evaluated, member)


def behaviour_of(session: RoutingSession, alert: AlertRecord) -> Behaviour:
    """Return the behaviour of ``alert``; an alert for a storm sends fewer notifications."""
    known = session.context.rules.behaviour(alert.rule)
    if alert.group_key != STORM_KEY:
        return known
    return replace(
        known, wait=max(known.wait, _STORM_WAIT_NS), interval=max(known.interval, _STORM_WINDOW_NS)
    )


def _add_member(session: RoutingSession, evaluated: EvaluatedEvent) -> None:
    """Add an anomaly that belongs to no alert yet to the alert of its group."""
    record, event, read = evaluated.record, evaluated.event, session.alerts
    if isinstance(record, Anomaly) and (record.points == 0 or event.subject in session.false_positives):
        session.events.suppress(event, SuppressionReason.RETRACTED)
        return
    if evaluated.dropped is not None:
        session.events.suppress(event, evaluated.dropped)
        return
    alert = read.not_closed.get((evaluated.behaviour.rule, evaluated.group_key))
    if alert is not None and _is_superseded(session, alert, evaluated):
        alert = None
    alert = alert or _open_alert(session, evaluated)
    _count_opening(session, alert, evaluated)
    member = _member_of(evaluated, alert)
    read.members[member.subject] = read.changed_members[member.subject] = member
    alert.count += 1
    alert.opened_ns = min(alert.opened_ns, member.start_ns)
    alert.ended_ns = max(alert.ended_ns, member.end_ns)
    if member.state == MemberState.OPEN:
        alert.open_count += 1
    _observe_candidate(session, MemberState.OPEN, member)
    _raise_severity(session, alert, member)
    session.assign(event, alert)


def _count_opening(session: RoutingSession, alert: AlertRecord, evaluated: EvaluatedEvent) -> None:
    """Record the beginning of an anomaly in its queue, and mark the alert if the series is flapping."""
    queue, start_ns = session.queue(alert.queue), _start_ns(evaluated)
    recent = [t for t in queue.openings if t > start_ns - evaluated.behaviour.flapping_within]
    queue.openings = [*recent[-MAX_OPENINGS_KEPT:], start_ns]
    limit = evaluated.behaviour.flapping_changes
    alert.flapping = alert.flapping or (limit is not None and len(queue.openings) >= limit)


def _had_recovered(alert: AlertRecord, evaluated: EvaluatedEvent) -> bool:
    """Return whether, by event time, ``alert`` had recovered before this anomaly began.

    A backlog therefore makes the same alerts as real time.
    """
    behaviour = evaluated.behaviour
    pause = (
        max(behaviour.flapping_within, behaviour.recover_after) if alert.flapping else behaviour.recover_after
    )
    return alert.open_count == 0 and _start_ns(evaluated) > alert.ended_ns + pause


def _is_superseded(session: RoutingSession, alert: AlertRecord, evaluated: EvaluatedEvent) -> bool:
    """Return whether this anomaly needs a new alert because ``alert`` had recovered before.

    An alert that a fault keeps from being sent takes the anomaly as a further member: it is sent when the
    fault ends.
    """
    if not _had_recovered(alert, evaluated) or is_kept_for_fault(session, alert):
        return False
    session.alerts.superseded.add(alert.alert_id)
    session.alerts.changed[alert.alert_id] = alert
    return True


def is_kept_for_fault(session: RoutingSession, alert: AlertRecord) -> bool:
    """Return whether ``alert`` was not sent yet because of a fault that lasts."""
    return alert.state == AlertState.WAITING and fault_of(session, alert) is not None


def fault_of(session: RoutingSession, alert: AlertRecord) -> Suppression | None:
    """Return the fault that began before ``alert`` and affects the partitions of all its anomalies."""
    silencing = session.context.silencing
    hold = session.context.rules.config.faults.hold
    if alert.kind != AlertKind.DATA or not hold or not silencing.any_fault:
        return None
    changed = [m for m in session.alerts.changed_members.values() if m.alert_id == alert.alert_id]
    stored = {m.subject: m for m in alerts.members_of(session.context.connection, alert.alert_id)}
    members = stored | {m.subject: m for m in changed}
    partitions = {decode_anomaly(m.body).partition for m in members.values()}
    committed_ns = alert.committed_ns if alert.committed_ns is not None else alert.created_ns
    return silencing.source_fault(partitions, committed_ns, session.now_ns)


def _open_alert(session: RoutingSession, evaluated: EvaluatedEvent) -> AlertRecord:
    """Make a new alert, or return the alert of the storm if there are too many new ones."""
    rule, key, queue, labels = (
        evaluated.behaviour.rule,
        evaluated.group_key,
        evaluated.queue,
        _labels(evaluated),
    )
    stream, read = session.context.rules.stream, session.alerts
    if isinstance(evaluated.record, Anomaly) and _is_storm(session, rule, _start_ns(evaluated)):
        rule, key, labels = f"{rule}/{STORM}", STORM_KEY, {}
        queue = short(f"{stream}/{rule}")
        storm = read.not_closed.get((rule, key))
        if storm is not None and not _is_superseded(session, storm, evaluated):
            return storm
    subject = evaluated.event.subject
    single_series = evaluated.behaviour.by is None and key != STORM_KEY
    alert = AlertRecord(
        alert_id=subject if single_series else uuid5(NAMESPACE, f"alert\x00{queue}\x00{subject}"),
        stream=stream,
        kind=AlertKind.FAULT if isinstance(evaluated.record, Fault) else AlertKind.DATA,
        rule=rule,
        group_key=key,
        queue=queue,
        labels=labels,
        opened_ns=_start_ns(evaluated),
        ended_ns=_start_ns(evaluated),
        created_ns=session.now_ns,
        committed_ns=evaluated.event.created_ns,
        severity=Severity.INFO.value,
    )
    read.by_id[alert.alert_id] = read.not_closed[rule, key] = alert
    return alert


def _is_storm(session: RoutingSession, rule: str, start_ns: int) -> bool:
    """Count an opening, and return whether there are more in a minute than the stream's limit.

    The minute is one of event time, so that a backlog makes the same alerts as real time. Partitions do not
    advance together, so openings of several minutes are kept.
    """
    limit = session.context.rules.config.storm
    if limit is None:
        return False
    openings = session.recent_openings.get(rule, [])
    near = sum(abs(start_ns - t) < _STORM_WINDOW_NS for t in openings)
    # A storm needs no more than these, and must not displace those of other partitions.
    if sum(abs(start_ns - t) < _STORM_WINDOW_NS // 4 for t in openings) <= limit:
        openings = [*openings, start_ns][-_STORM_MINUTES_KEPT * (limit + 1) :]
    session.recent_openings[rule] = openings
    return near + 1 > limit


def _update_member(session: RoutingSession, evaluated: EvaluatedEvent, member: AlertMember) -> None:
    """Apply a further event of an anomaly that is part of an alert."""
    event = evaluated.event
    alert = session.alerts.by_id[member.alert_id]
    before = replace(member)
    new = _member_of(evaluated, alert)
    if event.subject in session.false_positives:
        new.state = MemberState.RETRACTED
    for name in ("state", "severity", "surprise", "start_ns", "end_ns", "body"):
        setattr(member, name, getattr(new, name))
    session.alerts.changed_members[member.subject] = member
    alert.open_count += (member.state == MemberState.OPEN) - (before.state == MemberState.OPEN)
    alert.ended_ns = max(alert.ended_ns, member.end_ns)
    _observe_candidate(session, before.state, member)
    change = _change_of(before, member, alert)
    if before.state == MemberState.RETRACTED and change is PendingChange.REVISED:
        session.alerts.restored.add(member.subject)
    if alert.state == AlertState.CLOSED and (change is None or not _reopen(session, alert, member)):
        over = change is PendingChange.REVISED and member.state == MemberState.CLOSED
        if (over or change is PendingChange.RETRACTED) and alert.sent_ns is not None:
            _raise_severity(session, alert, member)
            session.alerts.corrected_later.add(alert.alert_id)
            session.assign(event, alert)
            return
        reason = SuppressionReason.UNCHANGED if change is None else SuppressionReason.SUPERSEDED
        session.events.suppress(event, reason)
        return
    if change is not None:
        session.pending_changes[alert.alert_id] = change
    _raise_severity(session, alert, member)
    session.assign(event, alert)


def _change_of(before: AlertMember, now: AlertMember, alert: AlertRecord) -> PendingChange | None:
    """Return the change if an event corrects what an earlier one reported."""
    if now.state == MemberState.RETRACTED:
        return PendingChange.RETRACTED if before.state != MemberState.RETRACTED else None
    if before.state == MemberState.RETRACTED:
        return PendingChange.REVISED
    if rank(now.severity) < rank(before.severity) or now.surprise < before.surprise / MIN_PEAK_GROWTH:
        return PendingChange.REVISED
    differs = (
        now.state == MemberState.OPEN
        or now.severity != before.severity
        or _extent(now) != _extent(before)
        or now.surprise > before.surprise * MIN_PEAK_GROWTH
    )
    return PendingChange.REVISED if alert.state == AlertState.CLOSED and differs else None


def _extent(member: AlertMember) -> tuple[int, object]:
    """Return the end of an anomaly and the number of its flagged points."""
    return member.end_ns, json.loads(member.body).get("points")


def _reopen(session: RoutingSession, alert: AlertRecord, member: AlertMember) -> bool:
    """Reopen a closed alert for a correction; returns whether it was reopened.

    It stays closed if another alert of its group began since, or if it was never sent and its member ended.
    """
    not_closed = session.alerts.not_closed
    if not_closed.get((alert.rule, alert.group_key), alert) is not alert:
        return False
    if alert.sent_ns is None and member.state != MemberState.OPEN:
        return False
    alert.state = AlertState.OPEN if alert.sent_ns is not None else AlertState.WAITING
    alert.outcome, alert.resolved_ns = None, None
    not_closed[alert.rule, alert.group_key] = alert
    return True


def _raise_severity(session: RoutingSession, alert: AlertRecord, member: AlertMember) -> None:
    """Give the alert the greatest severity and surprise that any of its members had."""
    if alert.count == 1:
        alert.severity, alert.surprise = member.severity, member.surprise
    elif member.state != MemberState.RETRACTED:
        alert.severity = max(alert.severity, member.severity, key=rank)
        alert.surprise = max(alert.surprise, member.surprise)
    alert.quiet_ns = None if alert.open_count > 0 else alert.quiet_ns or session.now_ns


def _observe_candidate(session: RoutingSession, before: MemberState, member: AlertMember) -> None:
    """Add an anomaly that has ended to the pool of the budget."""
    budget = session.context.budget
    if budget is not None and before == MemberState.OPEN and member.state == MemberState.CLOSED:
        budget.observe(member.surprise, session.now_ns)


def _member_of(evaluated: EvaluatedEvent, alert: AlertRecord) -> AlertMember:
    record, event = evaluated.record, evaluated.event
    if isinstance(record, Fault):
        return AlertMember(
            subject=event.subject,
            alert_id=alert.alert_id,
            stream=event.stream,
            series=short(evaluated.group_key),
            state=MemberState.OPEN if record.ended_ns is None else MemberState.CLOSED,
            severity=Severity.MAJOR.value,
            surprise=0.0,
            start_ns=record.started_ns,
            end_ns=record.ended_ns or record.started_ns,
            body=event.body,
        )
    is_open = record.state is AnomalyState.OPEN
    ongoing = MemberState.OPEN if is_open else MemberState.CLOSED
    return AlertMember(
        subject=event.subject,
        alert_id=alert.alert_id,
        stream=event.stream,
        series=short(record.series),
        state=MemberState.RETRACTED if record.points == 0 else ongoing,
        severity=record.severity.value,
        surprise=record.surprise if math.isfinite(record.surprise) else 0.0,
        start_ns=record.start_ns,
        end_ns=record.end_ns,
        body=event.body,
    )


def _start_ns(evaluated: EvaluatedEvent) -> int:
    record = evaluated.record
    return record.started_ns if isinstance(record, Fault) else record.start_ns


def _labels(evaluated: EvaluatedEvent) -> dict[str, str]:
    if isinstance(evaluated.record, Fault):
        return {}
    labels, by = evaluated.record.labels, evaluated.behaviour.by
    return dict(labels) if by is None else {name: labels.get(name, "") for name in by}
