"""Looking at an alert: does it speak now, and if not, when to look again.

All timers of the alerts are set here, as ``flush_ns``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from pipeline.alerts.messages.payload import LISTED, BudgetView, Hint, Kind, stamp
from pipeline.alerts.outbox import GROWTH, decode_anomaly
from pipeline.alerts.routing.composer import Scene, compose, elsewhere
from pipeline.alerts.routing.grouping import behaviour_of
from pipeline.alerts.routing.matchers import facts
from pipeline.alerts.routing.page_budget import Ruling
from pipeline.alerts.routing.routing_session import Desk
from pipeline.alerts.routing.rules import Behaviour, rank
from pipeline.alerts.routing.silencing import Hold
from pipeline.core.durations import to_nanoseconds
from storage.alerting import alerts
from storage.alerting.alerts import AlertState, Member

_HINTS = 3
_HINT_PAST = to_nanoseconds(timedelta(days=90))


def look(desk: Desk, alert: AlertState) -> None:
    """Say what is due about ``alert`` and set its timer."""
    alert.flush_ns = None
    desk.touched[alert.alert_id] = alert
    behaviour = behaviour_of(desk, alert)
    if alert.state == "waiting":
        _first(desk, alert, behaviour)
    if alert.state == "open":
        _further(desk, alert, behaviour)


def _first(desk: Desk, alert: AlertState, behaviour: Behaviour) -> None:
    """Nothing was said yet: is there a reason to wait, or never to speak?"""
    over = alert.open_count == 0
    if desk.now_ns < alert.created_ns + behaviour.wait and alert.alert_id not in desk.over:
        alert.flush_ns = alert.created_ns + behaviour.wait
        return
    reason, again_ns = _reason_to_wait(desk, alert, behaviour)
    if reason is not None:
        if over:
            _close(desk, alert, reason.partition(":")[0])
        else:
            alert.held_by, alert.flush_ns = reason, again_ns
        return
    alert.held_by = None
    ruling = _urgency(desk, alert)
    endpoints = _endpoints(desk, alert, behaviour)
    if not endpoints:
        reason = "no endpoint" if not behaviour.to else "budget" if ruling is not None else "urgency"
        desk.settle(alert, "suppressed", reason)
        if over:
            _close(desk, alert, reason)
        return
    desk.news.pop(alert.alert_id, None)
    _speak(desk, alert, "opened", behaviour, endpoints, ruling)
    alert.state = "open"


def _further(desk: Desk, alert: AlertState, behaviour: Behaviour) -> None:
    """Something was said before: is it over, is there news, is it time to repeat it?"""
    news = desk.news.get(alert.alert_id)
    if alert.open_count == 0:
        assert alert.quiet_ns is not None
        over_ns = alert.quiet_ns + (
            max(behaviour.flapping_within, behaviour.recover_after)
            if alert.flapping
            else behaviour.recover_after
        )
        if desk.now_ns >= over_ns or news in ("revised", "retracted") or alert.alert_id in desk.over:
            _end(desk, alert, behaviour, news)
            return
        alert.flush_ns = over_ns
    ruling = _urgency(desk, alert)
    endpoints = list(dict.fromkeys([*_endpoints(desk, alert, behaviour), *alert.told]))
    kind = _news(desk, alert, behaviour, news, endpoints)
    if kind is None:
        desk.settle(alert, "suppressed", "unchanged")
    else:
        wait_ns = _pause(desk, alert, behaviour) if kind in ("updated", "repeated") else None
        if wait_ns is None:
            _speak(desk, alert, kind, behaviour, endpoints, ruling)
        else:
            _sooner(alert, wait_ns)
    if (
        alert.open_count > 0
        and behaviour.repeat is not None
        and alert.acked_ns is None
        and alert.sent_ns is not None
    ):
        _sooner(alert, alert.sent_ns + behaviour.repeat)


def _pause(desk: Desk, alert: AlertState, behaviour: Behaviour) -> int | None:
    """Until when an alert that spoke before must be quiet; None if it need not.

    Corrections and ends are never held back.
    """
    assert alert.sent_ns is not None
    hold = _held(desk, alert)
    alert.held_by = hold.by if hold is not None else None
    until_ns = max(alert.sent_ns + behaviour.interval, hold.until_ns if hold is not None else 0)
    return until_ns if until_ns > desk.now_ns else None


def _reason_to_wait(desk: Desk, alert: AlertState, behaviour: Behaviour) -> tuple[str | None, int | None]:
    """(why an alert does not begin to speak now or None, when to look again)."""
    if alert.kind == "data" and behaviour.lasts:
        longest, still_open = _longest(desk, alert)
        if longest < behaviour.lasts:
            return "lasts", desk.now_ns + behaviour.lasts - longest if still_open else None
    if desk.news.get(alert.alert_id) == "retracted" and alert.open_count == 0:
        return "retracted", None
    ended_ns = desk.lane(alert.lane).resolved_ns
    if behaviour.cooldown and ended_ns is not None and alert.opened_ns < ended_ns + behaviour.cooldown:
        again_ns = alert.created_ns + ended_ns + behaviour.cooldown - alert.opened_ns
        if desk.now_ns < again_ns:
            return "cooldown", again_ns
    hold = _held(desk, alert)
    return (hold.by, hold.until_ns) if hold is not None else (None, None)


def _longest(desk: Desk, alert: AlertState) -> tuple[int, bool]:
    """Span of the longest anomaly of ``alert`` (an open one grows with the clock), and whether any is open."""
    members = [m for m in desk.members_of(alert, None) if m.state != "retracted"]
    spans = [(m.end_ns if m.state == "closed" else max(m.end_ns, desk.now_ns)) - m.start_ns for m in members]
    return max(spans, default=0), alert.open_count > 0


def _news(
    desk: Desk, alert: AlertState, behaviour: Behaviour, news: str | None, endpoints: Sequence[str]
) -> Kind | None:
    """What there is to say about an alert that goes on."""
    if news is not None:
        return "revised" if news == "retracted" else news  # type: ignore[return-value]
    if (
        not alert.severities
        or rank(alert.severity) > max(map(rank, alert.severities))
        or set(endpoints) - set(alert.told)
    ):
        return "updated"
    if alert.open_count == 0:
        return None
    if not alert.flapping and (
        alert.count > alert.sent_count or alert.surprise > alert.sent_surprise * GROWTH
    ):
        return "updated"
    repeat_due = (
        behaviour.repeat is not None
        and alert.sent_ns is not None
        and desk.now_ns >= alert.sent_ns + behaviour.repeat
    )
    return "repeated" if repeat_due and alert.acked_ns is None else None


def _end(desk: Desk, alert: AlertState, behaviour: Behaviour, news: str | None) -> None:
    """Tell everybody who was told.

    A silence does not hold this back: an incident that was opened must not stay open for ever.
    """
    alert.resolved_ns = alert.ended_ns
    members = desk.members_of(alert, LISTED)
    kind: Kind = (
        "retracted"
        if all(m.state == "retracted" for m in members)
        else "revised"
        if news == "revised"
        else "resolved"
    )
    alert.state = "closed"
    _speak(desk, alert, kind, behaviour, alert.told)
    _close(desk, alert, "retracted" if kind == "retracted" else "resolved")


def _close(desk: Desk, alert: AlertState, outcome: str) -> None:
    """The alert is over. What still waits in it was not sent."""
    desk.settle(alert, "suppressed", outcome)
    alert.state, alert.outcome, alert.flush_ns, alert.held_by = "closed", outcome, None, None
    if outcome in ("resolved", "retracted") and alert.sent_ns is not None:
        desk.lane(alert.lane).resolved_ns = alert.ended_ns
    if desk.live.get((alert.rule, alert.group_key)) is alert:
        del desk.live[alert.rule, alert.group_key]


def _speak(
    desk: Desk,
    alert: AlertState,
    kind: Kind,
    behaviour: Behaviour,
    endpoints: Sequence[str],
    ruling: Ruling | None = None,
) -> None:
    scene = _scene(desk, alert, kind, ruling)
    desk.say(
        alert,
        kind,
        lambda sequence: compose(alert, kind, sequence, scene, behaviour, desk.rules.config, desk.now_ns),
        endpoints,
    )
    alert.sent_ns, alert.sent_count, alert.sent_surprise = desk.now_ns, alert.count, alert.surprise
    alert.severities = list(dict.fromkeys([*alert.severities, alert.severity]))


def _scene(desk: Desk, alert: AlertState, kind: Kind, ruling: Ruling | None) -> Scene:
    members = [
        m
        for m in desk.members_of(alert, None if desk.muting.any_silence else LISTED)
        if _silenced(desk, alert, m) is None
    ]
    known = len(members) if desk.muting.any_silence else alert.count
    lasting = sum(m.state == "open" for m in members) if desk.muting.any_silence else alert.open_count
    scene = Scene(members, known, lasting)
    if alert.kind == "fault" or kind not in ("opened", "updated", "repeated"):
        return scene
    others = elsewhere(desk.around(), alert, {m.series for m in members})
    return replace(
        scene, hints=_hints(desk, alert), elsewhere=others, budget=_budget_view(desk, alert, ruling)
    )


def _hints(desk: Desk, alert: AlertState) -> list[Hint]:
    """The series that began first, those that also led in the past before the others."""
    if alert.count < 2:
        return []
    first = alerts.earliest(desk.connection, alert.alert_id, _HINTS)
    past = alerts.history_of(
        desk.connection, alert.stream, [m.series for m in first], alert.alert_id, alert.opened_ns - _HINT_PAST
    )
    hints = [Hint(m.series, stamp(m.start_ns), *past.get(m.series, (0, 0))) for m in first]
    return sorted(hints, key=lambda h: (h.started, -h.first / max(h.together, 1)))


def _urgency(desk: Desk, alert: AlertState) -> Ruling | None:
    """Decide whether ``alert`` pages; once it does, it does.

    Returns the budget's ruling, if a budget decides.
    """
    if alert.kind == "fault":
        alert.urgency = "page"
        return None
    if desk.budget is None:
        if rank(alert.severity) >= rank(desk.rules.config.severity.page):
            alert.urgency = "page"
        return None
    desk.budget.advance(desk.now_ns)
    ruling = desk.budget.rule(alert.surprise)
    if alert.urgency != "page" and ruling.pages:
        alert.urgency = "page"
        desk.budget.page(ruling, desk.now_ns)
    return ruling


def _budget_view(desk: Desk, alert: AlertState, ruling: Ruling | None) -> BudgetView | None:
    if desk.budget is None:
        return None
    ruling = ruling or desk.budget.rule(alert.surprise)
    used = desk.budget.used(desk.now_ns)
    return BudgetView(
        desk.budget.per_day, float(f"{ruling.p_value:.3g}"), float(f"{ruling.threshold:.3g}"), used
    )


def _endpoints(desk: Desk, alert: AlertState, behaviour: Behaviour) -> list[str]:
    return [e for e in behaviour.to if alert.urgency == "page" or desk.urgency_of(e) == "notice"]


def _held(desk: Desk, alert: AlertState) -> Hold | None:
    """Why ``alert`` may not speak: all its open anomalies are silenced, or its source is at fault."""
    if alert.kind == "data" and desk.rules.config.faults.hold:
        members = desk.members_of(alert, 1)
        partition = decode_anomaly(members[0].body).partition if members and desk.muting.any_fault else None
        fault = desk.muting.at_fault(partition, alert.created_ns, desk.now_ns)
        if fault is not None:
            return fault
    if not desk.muting.any_silence:
        return None
    members = desk.members_of(alert, None)
    holds = [_silenced(desk, alert, m) for m in members if m.state == "open" or alert.open_count == 0]
    quiet = [h for h in holds if h is not None]
    return min(quiet, key=lambda h: h.until_ns) if len(quiet) == len(holds) and quiet else None


def _silenced(desk: Desk, alert: AlertState, member: Member) -> Hold | None:
    if not desk.muting.any_silence:
        return None
    known = (
        {"stream": alert.stream, "fault": member.series}
        if alert.kind == "fault"
        else facts(decode_anomaly(member.body))
    )
    return desk.muting.silenced(known)


def _sooner(alert: AlertState, at_ns: int) -> None:
    alert.flush_ns = at_ns if alert.flush_ns is None else min(alert.flush_ns, at_ns)
