"""Folding events into alerts: which alert an anomaly belongs to, and what that alert is after it.

Nothing is said here (see ``look``).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from uuid import uuid5

from pipeline.alerts.outbox import GROWTH, decode_anomaly, decode_fault
from pipeline.alerts.routing.composer import short
from pipeline.alerts.routing.routing_session import Desk
from pipeline.alerts.routing.rules import STORM, Behaviour, rank
from pipeline.core.durations import SECOND_NS
from pipeline.core.types import NAMESPACE, Anomaly, AnomalyState, Fault, Severity
from storage.alerting.alerts import AlertState, Event, Member

STORM_KEY = "*storm*"
_STORM_WINDOW = 60 * SECOND_NS
_STORM_WAIT = 5 * SECOND_NS


@dataclass(slots=True)
class Change:
    """One event, decoded, with what the rules say of it."""

    event: Event
    record: Anomaly | Fault
    behaviour: Behaviour
    dropped: str | None
    group_key: str
    lane: str


def understand(desk: Desk, event: Event) -> Change:
    """Decode an event and apply the rules to it."""
    if event.kind == "fault":
        fault = decode_fault(event.body)
        key = f"{fault.kind}/{fault.partition or ''}"
        return Change(event, fault, desk.rules.faults, None, key, short(f"{fault.stream}/faults/{key}"))
    anomaly = decode_anomaly(event.body)
    behaviour, dropped = desk.rules.decide(anomaly, desk.now_ns)
    if behaviour.by is None:
        key, lane = short(anomaly.series), short(f"{anomaly.stream}/{anomaly.series}")
    else:
        key = short(
            json.dumps({name: anomaly.labels.get(name, "") for name in behaviour.by}, ensure_ascii=False)
        )
        lane = short(f"{anomaly.stream}/{behaviour.rule}/{key}")
    return Change(event, anomaly, behaviour, dropped, key, lane)


def fold(desk: Desk, change: Change) -> None:
    """Take one event into account."""
    member = desk.members.get(change.event.subject)
    if member is None:
        _join(desk, change)
    else:
        _update(desk, change, member)


def behaviour_of(desk: Desk, alert: AlertState) -> Behaviour:
    """How ``alert`` behaves; one that gathers a storm speaks more slowly."""
    known = desk.rules.behaviour(alert.rule)
    if alert.group_key != STORM_KEY:
        return known
    return replace(known, wait=max(known.wait, _STORM_WAIT), interval=max(known.interval, _STORM_WINDOW))


def _join(desk: Desk, change: Change) -> None:
    """An anomaly that belongs to no alert yet."""
    record = change.record
    if isinstance(record, Anomaly) and (record.points == 0 or change.event.subject in desk.false):
        desk.suppress(change.event, "retracted")
        return
    if change.dropped is not None:
        desk.suppress(change.event, change.dropped)
        return
    alert = desk.live.get((change.behaviour.rule, change.group_key))
    if alert is not None and _is_over(alert, change):
        desk.over.add(alert.alert_id)
        desk.touched[alert.alert_id] = alert
        alert = None
    alert = alert or _begin(desk, change)
    lane, start = desk.lane(alert.lane), _start(change)
    recent = [t for t in lane.openings if t > start - change.behaviour.flapping_within]
    lane.openings = [*recent[-100:], start]
    changes = change.behaviour.flapping_changes
    alert.flapping = alert.flapping or (changes is not None and len(lane.openings) >= changes)
    member = _member(change, alert)
    desk.members[member.subject] = desk.changed_members[member.subject] = member
    alert.count += 1
    alert.opened_ns, alert.ended_ns = (
        min(alert.opened_ns, member.start_ns),
        max(alert.ended_ns, member.end_ns),
    )
    if member.state == "open":
        alert.open_count += 1
    _candidate(desk, "open", member)
    _grow(desk, alert, member)
    desk.fold(change.event, alert)


def _is_over(alert: AlertState, change: Change) -> bool:
    """By the time of the data, ``alert`` had recovered when this anomaly began: so catching up with a backlog
    makes the alerts of real time.
    """
    behaviour = change.behaviour
    pause = (
        max(behaviour.flapping_within, behaviour.recover_after) if alert.flapping else behaviour.recover_after
    )
    return alert.open_count == 0 and _start(change) > alert.ended_ns + pause


def _begin(desk: Desk, change: Change) -> AlertState:
    """A new alert; or the storm's, if there are too many of them."""
    rule, key, lane, labels = change.behaviour.rule, change.group_key, change.lane, _labels(change)
    if isinstance(change.record, Anomaly) and _is_storm(desk, rule):
        rule, key, labels = f"{rule}/{STORM}", STORM_KEY, {}
        lane = short(f"{desk.rules.stream}/{rule}")
        if (rule, key) in desk.live:
            return desk.live[rule, key]
    subject = change.event.subject
    own = change.behaviour.by is None and key != STORM_KEY
    alert = AlertState(
        alert_id=subject if own else uuid5(NAMESPACE, f"alert\x00{lane}\x00{subject}"),
        stream=desk.rules.stream,
        kind="fault" if isinstance(change.record, Fault) else "data",
        rule=rule,
        group_key=key,
        lane=lane,
        labels=labels,
        opened_ns=_start(change),
        ended_ns=_start(change),
        created_ns=desk.now_ns,
        severity=Severity.INFO.value,
    )
    desk.alerts[alert.alert_id] = desk.live[rule, key] = alert
    return alert


def _is_storm(desk: Desk, rule: str) -> bool:
    """Count a beginning; True once there are more in a minute than the stream's limit."""
    limit = desk.rules.config.storm
    if limit is None:
        return False
    begun = [t for t in desk.recent.get(rule, []) if desk.now_ns - _STORM_WINDOW < t <= desk.now_ns]
    desk.recent[rule] = [*begun, desk.now_ns][-limit - 1 :]
    return len(desk.recent[rule]) > limit


def _update(desk: Desk, change: Change, member: Member) -> None:
    """A further event of an anomaly that is part of an alert."""
    alert = desk.alerts[member.alert_id]
    before = replace(member)
    new = _member(change, alert)
    if change.event.subject in desk.false:
        new.state = "retracted"
    for name in ("state", "severity", "surprise", "start_ns", "end_ns", "body"):
        setattr(member, name, getattr(new, name))
    desk.changed_members[member.subject] = member
    alert.open_count += (member.state == "open") - (before.state == "open")
    alert.ended_ns = max(alert.ended_ns, member.end_ns)
    _candidate(desk, before.state, member)
    revision = _revision(before, member, alert)
    if alert.state == "closed" and (revision is None or not _revive(desk, alert, member)):
        desk.suppress(change.event, "unchanged" if revision is None else "overtaken")
        return
    if revision is not None:
        desk.news[alert.alert_id] = revision
    _grow(desk, alert, member)
    desk.fold(change.event, alert)


def _revision(before: Member, now: Member, alert: AlertState) -> str | None:
    """``retracted`` or ``revised`` if an event takes back what an earlier one said."""
    if now.state == "retracted":
        return "retracted" if before.state != "retracted" else None
    if rank(now.severity) < rank(before.severity) or now.surprise < before.surprise / GROWTH:
        return "revised"
    over = alert.state == "closed"
    return (
        "revised"
        if over
        and (
            now.state == "open" or now.severity != before.severity or now.surprise > before.surprise * GROWTH
        )
        else None
    )


def _revive(desk: Desk, alert: AlertState, member: Member) -> bool:
    """A closed alert speaks once more; not if another one of its group has begun since, or if it never spoke
    and is over anyway.
    """
    if desk.live.get((alert.rule, alert.group_key), alert) is not alert:
        return False
    if alert.sent_ns is None and member.state != "open":
        return False
    alert.state = "open" if alert.sent_ns is not None else "waiting"
    alert.outcome, alert.resolved_ns = None, None
    desk.live[alert.rule, alert.group_key] = alert
    return True


def _grow(desk: Desk, alert: AlertState, member: Member) -> None:
    """The alert is as severe and as surprising as the worst of its members was."""
    if alert.count == 1:
        alert.severity, alert.surprise = member.severity, member.surprise
    elif member.state != "retracted":
        alert.severity = max(alert.severity, member.severity, key=rank)
        alert.surprise = max(alert.surprise, member.surprise)
    alert.quiet_ns = None if alert.open_count > 0 else alert.quiet_ns or desk.now_ns


def _candidate(desk: Desk, before: str, member: Member) -> None:
    """An anomaly that is over joins the pool that later ones are compared with."""
    if desk.budget is not None and before == "open" and member.state == "closed":
        desk.budget.observe(member.surprise, desk.now_ns)


def _member(change: Change, alert: AlertState) -> Member:
    record, event = change.record, change.event
    if isinstance(record, Fault):
        state = "open" if record.ended_ns is None else "closed"
        end = record.ended_ns or record.started_ns
        name = short(change.group_key)
        return Member(
            event.subject,
            alert.alert_id,
            event.stream,
            name,
            state,
            Severity.MAJOR.value,
            0.0,
            record.started_ns,
            end,
            event.body,
        )
    state = "retracted" if record.points == 0 else "open" if record.state is AnomalyState.OPEN else "closed"
    surprise = record.surprise if math.isfinite(record.surprise) else 0.0
    severity, span = record.severity.value, (record.start_ns, record.end_ns)
    return Member(
        event.subject,
        alert.alert_id,
        event.stream,
        short(record.series),
        state,
        severity,
        surprise,
        *span,
        event.body,
    )


def _start(change: Change) -> int:
    return change.record.started_ns if isinstance(change.record, Fault) else change.record.start_ns


def _labels(change: Change) -> dict[str, str]:
    if isinstance(change.record, Fault):
        return {}
    labels = change.record.labels
    return (
        dict(labels)
        if change.behaviour.by is None
        else {name: labels.get(name, "") for name in change.behaviour.by}
    )
