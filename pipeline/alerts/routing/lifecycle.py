"""Lifecycle of an alert: whether a notification is due, and when to evaluate the alert again.

All timers of the alerts are set here, as ``flush_ns``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from pipeline.alerts.messages.payload import LISTED, BudgetView, Hint, Kind, ReviewView, stamp
from pipeline.alerts.outbox import MIN_PEAK_GROWTH, decode_anomaly, decode_fault
from pipeline.alerts.routing.composer import NotificationContext, compose, other_series
from pipeline.alerts.routing.grouping import behaviour_of, fault_of
from pipeline.alerts.routing.matchers import match_fields
from pipeline.alerts.routing.page_budget import BudgetDecision
from pipeline.alerts.routing.routing_session import PendingChange, RoutingSession
from pipeline.alerts.routing.rules import Behaviour, rank
from pipeline.alerts.routing.silencing import Suppression
from pipeline.core.durations import to_nanoseconds
from storage.alerting import alerts
from storage.alerting.alerts import AlertMember, AlertRecord
from storage.alerting.states import (
    AlertKind,
    AlertState,
    EventState,
    MemberState,
    Resolution,
    SuppressionReason,
    Urgency,
)
from storage.results import labels

MAX_HINTS = 3
_SHARED_ALERTS_SINCE_NS = to_nanoseconds(timedelta(days=90))


def advance(session: RoutingSession, alert: AlertRecord) -> None:
    """Queue the notification that is due for ``alert``, and set its timer."""
    alert.flush_ns = None
    session.alerts.changed[alert.alert_id] = alert
    behaviour = behaviour_of(session, alert)
    if alert.alert_id in session.alerts.corrected_later:
        _correct_closed(session, alert)
    if alert.state == AlertState.WAITING:
        _advance_waiting(session, alert, behaviour)
    if alert.state == AlertState.OPEN:
        _advance_open(session, alert, behaviour)


def _advance_waiting(session: RoutingSession, alert: AlertRecord, behaviour: Behaviour) -> None:
    """Send the first notification, wait, or close the alert without one."""
    ended = alert.open_count == 0
    if session.now_ns < alert.created_ns + behaviour.wait and alert.alert_id not in session.alerts.superseded:
        alert.flush_ns = alert.created_ns + behaviour.wait
        return
    reason, until_ns = _reason_to_wait(session, alert, behaviour)
    if reason is not None and _is_fault(reason) and alert.alert_id in session.alerts.superseded:
        reason = None  # It cannot wait for the end of the fault, because its group has another alert.
    if reason is not None:
        if ended and not _is_fault(reason):
            _close(session, alert, reason.partition(":")[0])
        else:
            alert.suppressed_by, alert.flush_ns = reason, until_ns
        return
    alert.suppressed_by = None
    decision = _update_urgency(session, alert)
    endpoints = _endpoints(session, alert, behaviour)
    if not endpoints:
        not_urgent = SuppressionReason.BUDGET if decision is not None else SuppressionReason.URGENCY
        unsent = not_urgent if behaviour.to else SuppressionReason.NO_ENDPOINT
        session.events.finish(alert.alert_id, EventState.SUPPRESSED, unsent)
        if ended:
            _close(session, alert, unsent)
        return
    session.pending_changes.pop(alert.alert_id, None)
    _notify(session, alert, "opened", endpoints, decision)
    alert.state = AlertState.OPEN


def _is_fault(reason: str) -> bool:
    return reason.startswith("fault:")


def _advance_open(session: RoutingSession, alert: AlertRecord, behaviour: Behaviour) -> None:
    """Resolve the alert, send its pending change, or repeat it."""
    change = session.pending_changes.get(alert.alert_id)
    if alert.open_count == 0:
        assert alert.quiet_ns is not None
        pause = behaviour.recover_after
        if alert.flapping:
            pause = max(behaviour.flapping_within, pause)
        recovered_ns = alert.quiet_ns + pause
        corrected = change in (PendingChange.REVISED, PendingChange.RETRACTED)
        if session.now_ns >= recovered_ns or corrected or alert.alert_id in session.alerts.superseded:
            _resolve(session, alert, change)
            return
        alert.flush_ns = recovered_ns
    decision = _update_urgency(session, alert)
    endpoints = list(dict.fromkeys([*_endpoints(session, alert, behaviour), *alert.notified]))
    kind = _kind_due(session, alert, behaviour, endpoints)
    if kind is None:
        session.events.finish(alert.alert_id, EventState.SUPPRESSED, SuppressionReason.UNCHANGED)
    else:
        until_ns = _suppressed_until(session, alert, behaviour) if kind in ("updated", "repeated") else None
        if until_ns is None:
            _notify(session, alert, kind, endpoints, decision)
        else:
            _set_timer(alert, until_ns)
    unacknowledged = alert.open_count > 0 and alert.acked_ns is None
    if unacknowledged and behaviour.repeat is not None and alert.sent_ns is not None:
        _set_timer(alert, alert.sent_ns + behaviour.repeat)


def _suppressed_until(session: RoutingSession, alert: AlertRecord, behaviour: Behaviour) -> int | None:
    """Return until when an update of an open alert must wait; None if it need not.

    Corrections and ends are never suppressed.
    """
    assert alert.sent_ns is not None
    suppression = _suppression(session, alert)
    alert.suppressed_by = suppression.by if suppression is not None else None
    suppressed_ns = suppression.until_ns if suppression is not None else 0
    until_ns = max(alert.sent_ns + behaviour.interval, suppressed_ns)
    return until_ns if until_ns > session.now_ns else None


def _reason_to_wait(
    session: RoutingSession, alert: AlertRecord, behaviour: Behaviour
) -> tuple[str | None, int | None]:
    """Return why the first notification is not sent now (or None), and when to evaluate again."""
    if alert.kind == AlertKind.DATA and behaviour.lasts:
        longest = _longest_member_ns(session, alert)
        if longest < behaviour.lasts:
            again_ns = session.now_ns + behaviour.lasts - longest if alert.open_count > 0 else None
            return SuppressionReason.TOO_SHORT, again_ns
    if session.pending_changes.get(alert.alert_id) == PendingChange.RETRACTED and alert.open_count == 0:
        return SuppressionReason.RETRACTED, None
    ended_ns = session.queue(alert.queue).resolved_ns
    if behaviour.cooldown and ended_ns is not None and alert.opened_ns < ended_ns + behaviour.cooldown:
        again_ns = alert.created_ns + ended_ns + behaviour.cooldown - alert.opened_ns
        if session.now_ns < again_ns:
            return SuppressionReason.COOLDOWN, again_ns
    suppression = _suppression(session, alert)
    return (suppression.by, suppression.until_ns) if suppression is not None else (None, None)


def _longest_member_ns(session: RoutingSession, alert: AlertRecord) -> int:
    """Return the duration of the longest anomaly of ``alert``; that of an open one grows with the clock."""
    spans = [
        (m.end_ns if m.state == MemberState.CLOSED else max(m.end_ns, session.now_ns)) - m.start_ns
        for m in session.members_of(alert, None)
        if m.state != MemberState.RETRACTED
    ]
    return max(spans, default=0)


def _kind_due(
    session: RoutingSession, alert: AlertRecord, behaviour: Behaviour, endpoints: Sequence[str]
) -> Kind | None:
    """Return the kind of notification that is due for an open alert, if any."""
    change = session.pending_changes.get(alert.alert_id)
    if change is PendingChange.ACKNOWLEDGED:
        return "acknowledged"
    if change is not None:
        return "revised"
    known = max(map(rank, alert.severities), default=-1)
    if rank(alert.severity) > known or set(endpoints) - set(alert.notified):
        return "updated"
    if alert.open_count == 0:
        return None
    grown = alert.count > alert.sent_count or alert.surprise > alert.sent_surprise * MIN_PEAK_GROWTH
    if grown and not alert.flapping:
        return "updated"
    repeat_due = (
        behaviour.repeat is not None
        and alert.sent_ns is not None
        and session.now_ns >= alert.sent_ns + behaviour.repeat
    )
    return "repeated" if repeat_due and alert.acked_ns is None else None


def _resolve(session: RoutingSession, alert: AlertRecord, change: PendingChange | None) -> None:
    """Send the end of an alert to every endpoint that was notified of it.

    A silence does not suppress this: the receiver would keep the incident open.
    """
    alert.resolved_ns = alert.ended_ns
    members = session.members_of(alert, LISTED)
    kind: Kind = "revised" if change is PendingChange.REVISED else "resolved"
    if all(m.state == MemberState.RETRACTED for m in members):
        kind = "retracted"
    alert.state = AlertState.CLOSED
    _notify(session, alert, kind, alert.notified)
    _close(session, alert, Resolution.RETRACTED if kind == "retracted" else Resolution.RESOLVED)


def _correct_closed(session: RoutingSession, alert: AlertRecord) -> None:
    """Send the correction of an alert that stays closed, because another alert of its group is open."""
    kind: Kind = "revised"
    if all(m.state == MemberState.RETRACTED for m in session.members_of(alert, LISTED)):
        kind, alert.outcome = "retracted", Resolution.RETRACTED
    _notify(session, alert, kind, alert.notified)


def _close(session: RoutingSession, alert: AlertRecord, outcome: str) -> None:
    """Close the alert; events that still wait in it are suppressed."""
    session.events.finish(alert.alert_id, EventState.SUPPRESSED, outcome)
    alert.state, alert.outcome, alert.flush_ns = AlertState.CLOSED, outcome, None
    alert.suppressed_by = None
    if outcome in (Resolution.RESOLVED, Resolution.RETRACTED) and alert.sent_ns is not None:
        session.queue(alert.queue).resolved_ns = alert.ended_ns
    not_closed = session.alerts.not_closed
    if not_closed.get((alert.rule, alert.group_key)) is alert:
        del not_closed[alert.rule, alert.group_key]


def _notify(
    session: RoutingSession,
    alert: AlertRecord,
    kind: Kind,
    endpoints: Sequence[str],
    decision: BudgetDecision | None = None,
) -> None:
    context = _notification_context(session, alert, kind, decision)
    behaviour, config = behaviour_of(session, alert), session.context.rules.config
    session.notify(
        alert,
        kind,
        lambda sequence: compose(alert, kind, sequence, context, behaviour, config, session.now_ns),
        endpoints,
    )
    alert.sent_ns, alert.sent_count, alert.sent_surprise = session.now_ns, alert.count, alert.surprise
    alert.severities = list(dict.fromkeys([*alert.severities, alert.severity]))


def _notification_context(
    session: RoutingSession, alert: AlertRecord, kind: Kind, decision: BudgetDecision | None
) -> NotificationContext:
    members = session.members_of(alert, None if session.context.silencing.any_silence else LISTED)
    count, open_count = alert.count, alert.open_count
    if session.context.silencing.any_silence:
        members = [m for m in members if _silence_of(session, alert, m) is None]
        count, open_count = len(members), sum(m.state == MemberState.OPEN for m in members)
    context = NotificationContext(
        members,
        count,
        open_count,
        shell=session.context.shell,
        timezone=session.context.timezone,
    )
    if kind in ("retracted", "revised"):
        return replace(context, review=_review(session, members))
    if alert.kind == AlertKind.FAULT or kind not in ("opened", "updated", "repeated"):
        return context
    others = other_series(session.simultaneous_members(), alert, {m.series for m in members})
    return replace(
        context,
        hints=_hints(session, alert),
        elsewhere=others,
        budget=_budget_view(session, alert, decision),
    )


def _review(session: RoutingSession, members: Sequence[AlertMember]) -> ReviewView | None:
    """Return the last label with which a person retracted or restored one of ``members``."""
    found = labels.reviews(session.context.connection, [m.subject for m in members])
    given = [
        review
        for member in members
        if (review := found.get(member.subject)) is not None
        and (
            review.label == "false"
            if member.state == MemberState.RETRACTED
            else review.label != "false" and member.subject in session.alerts.restored
        )
    ]
    last = max(given, key=lambda r: r.created_ns, default=None)
    return None if last is None else ReviewView(last.label, last.author, last.comment)


def _hints(session: RoutingSession, alert: AlertRecord) -> list[Hint]:
    """Return the series that began first, those that often began first in the past before the others."""
    if alert.count < 2:
        return []
    connection = session.context.connection
    first = alerts.earliest_members(connection, alert.alert_id, MAX_HINTS)
    since_ns = alert.opened_ns - _SHARED_ALERTS_SINCE_NS
    shared = alerts.count_shared_alerts(
        connection, alert.stream, [m.series for m in first], alert.alert_id, since_ns
    )
    hints = [Hint(m.series, stamp(_began_ns(m, alert)), *shared.get(m.series, (0, 0))) for m in first]
    return sorted(hints, key=lambda h: (h.started, -h.first / max(h.together, 1)))


def _began_ns(member: AlertMember, alert: AlertRecord) -> int:
    """Return the begin of the deviation of an anomaly, or of a fault."""
    return member.start_ns if alert.kind == AlertKind.FAULT else decode_anomaly(member.body).began_ns


def _update_urgency(session: RoutingSession, alert: AlertRecord) -> BudgetDecision | None:
    """Set the urgency of ``alert``; an alert that pages keeps paging.

    Returns the decision of the budget, if there is a budget.
    """
    budget = session.context.budget
    if alert.kind == AlertKind.FAULT:
        alert.urgency = Urgency.PAGE
        return None
    if budget is None:
        if rank(alert.severity) >= rank(session.context.rules.config.severity.page):
            alert.urgency = Urgency.PAGE
        return None
    budget.advance(session.now_ns)
    decision = budget.decide(alert.surprise)
    if alert.urgency != Urgency.PAGE and decision.pages:
        alert.urgency = Urgency.PAGE
        budget.record_page(decision, session.now_ns)
    return decision


def _budget_view(
    session: RoutingSession, alert: AlertRecord, decision: BudgetDecision | None
) -> BudgetView | None:
    budget = session.context.budget
    if budget is None:
        return None
    decision = decision or budget.decide(alert.surprise)
    used = budget.used(session.now_ns)
    p_value, threshold = (float(f"{value:.3g}") for value in (decision.p_value, decision.threshold))
    return BudgetView(budget.per_day, p_value, threshold, used)


def _endpoints(session: RoutingSession, alert: AlertRecord, behaviour: Behaviour) -> list[str]:
    failing = _failing_endpoint(session, alert)
    return [
        endpoint
        for endpoint in behaviour.to
        if (alert.urgency == Urgency.PAGE or session.context.urgency_of(endpoint) == Urgency.NOTICE)
        and endpoint != failing
    ]


def _failing_endpoint(session: RoutingSession, alert: AlertRecord) -> str | None:
    """Return the endpoint that an alert is about: it cannot receive the alert. None for other alerts."""
    if alert.kind != AlertKind.FAULT:
        return None
    faults = [decode_fault(m.body) for m in session.members_of(alert, None)]
    names = {f.detail.get("endpoint") for f in faults}
    name = names.pop() if len(names) == 1 else None
    return name if isinstance(name, str) else None


def _suppression(session: RoutingSession, alert: AlertRecord) -> Suppression | None:
    """Return why ``alert`` may not be sent, None if it may.

    Its source has a fault, or all its open anomalies are silenced.
    """
    fault = fault_of(session, alert)
    if fault is not None:
        return fault
    if not session.context.silencing.any_silence:
        return None
    members = session.members_of(alert, None)
    found = [
        _silence_of(session, alert, m)
        for m in members
        if m.state == MemberState.OPEN or alert.open_count == 0
    ]
    silenced = [s for s in found if s is not None]
    all_silenced = len(silenced) == len(found) and silenced
    return min(silenced, key=lambda s: s.until_ns) if all_silenced else None


def _silence_of(session: RoutingSession, alert: AlertRecord, member: AlertMember) -> Suppression | None:
    if not session.context.silencing.any_silence:
        return None
    known = (
        {"stream": alert.stream, "fault": member.series}
        if alert.kind == AlertKind.FAULT
        else match_fields(decode_anomaly(member.body))
    )
    return session.context.silencing.silence_of(known)


def _set_timer(alert: AlertRecord, at_ns: int) -> None:
    alert.flush_ns = at_ns if alert.flush_ns is None else min(alert.flush_ns, at_ns)
