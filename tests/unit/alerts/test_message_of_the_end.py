"""Messages about one anomaly: since when, why so severe, and what is said at the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from pipeline.alerts.messages import text
from pipeline.alerts.messages.payload import Alert, AnomalyView, Kind
from pipeline.alerts.outbox import decode_anomaly, encode_anomaly
from pipeline.alerts.routing.composer import NotificationContext, compose
from pipeline.alerts.routing.rules import StreamRules
from pipeline.config.alerts import AlertsConfig
from pipeline.core.deviation_severity import severity_text
from pipeline.core.types import (
    Anomaly,
    AnomalyState,
    DeviationContext,
    DeviationCourse,
    EndReason,
    EventFinding,
    FarthestReading,
    Severity,
)
from storage.alerting.states import MemberState
from tests.unit.alerts.test_usual_range_text import MINUTE_NS, anomaly, members_of


def stuck(**changes: Any) -> Anomaly:
    """Return a standstill from minute 100 to 150 whose first alarm was in minute 140."""
    spans = {"start_ns": 140 * MINUTE_NS, "peak_ns": 150 * MINUTE_NS, "end_ns": 153 * MINUTE_NS}
    spans |= {"onset_ns": 100 * MINUTE_NS, "outside_until_ns": 150 * MINUTE_NS, "span_readings": 51}
    return replace(anomaly("flatline", 50, 1, 38), **spans, **changes)


def alert_about(one: Anomaly, kind: Kind = "opened", zone: str = "Europe/Berlin") -> Alert:
    """Return the message about an anomaly."""
    member, record = members_of(one)
    is_open = one.state is AnomalyState.OPEN
    member.state = MemberState.OPEN if is_open else MemberState.CLOSED
    record.opened_ns, record.severity = one.start_ns, one.severity.value
    record.resolved_ns = one.end_ns if kind == "resolved" else None
    context = NotificationContext([member], 1, int(is_open), timezone=zone)
    behaviour = StreamRules("plant", AlertsConfig(), ()).behaviour("default")
    return compose(record, kind, 1, context, behaviour, AlertsConfig(), 200 * MINUTE_NS).data


def test_another_channel_that_is_outside_is_named():
    one = anomaly("unusual_value", 1510, 1440, 1460)
    lines = dict(text.lines(alert_about(replace(one, observed=[9.0, *one.observed[1:]]))))
    assert lines["Other channels"] == "load 9, outside its forecast 2 (0 to 3)"


def test_since_is_the_begin_of_the_standstill():
    alert = alert_about(stuck())
    lines = dict(text.lines(alert))
    assert lines["Since"] == "1970-01-01 02:40:00 CET (01:40:00 UTC) (50 min so far)"
    assert lines["First step"].endswith("a poller that hangs since 02:40 CET.")
    assert (alert.anomalies[0].start, alert.opened) == (
        "1970-01-01T01:40:00.000000Z",
        "1970-01-01T02:20:00.000000Z",
    )
    assert (alert.anomalies[0].readings, alert.anomalies[0].points) == (51, 14)


def test_a_resolved_message_says_how_long_and_how_far_and_that_it_is_over():
    one = stuck(state=AnomalyState.CLOSED, end_reason=EndReason.RECOVERED)
    high = replace(one, cause="unusual_value", observed=[1.0, 92.1], lower=[0.0, 65], upper=[3.0, 69])
    alert = alert_about(high, "resolved")
    lines = dict(text.lines(alert))
    assert alert.title == ("Resolved after 50 min: plant, site=west: rpm was as high as 92.1, usual 65 to 69")
    assert "What" not in lines  # the title says it
    assert lines["Lasted"] == "50 min, from 1970-01-01 02:40:00 to 03:30:00 CET (01:40:00 to 02:30:00 UTC)"
    assert "51 readings" in lines["Size"]
    assert "so far" not in "".join(lines.values())
    assert "First step" not in lines


def test_the_message_of_the_end_tells_the_farthest_reading():
    far = FarthestReading("unusual_value", 80.0, 65.9, 71.4, 7.0, 80.0, "all_hours")
    context = DeviationContext("time_of_day", 70.7, 69.9, "load", 2.9, 69.4, farthest=far)
    first = replace(stuck(), cause="relation", observed=[1.0, 0.872], lower=[0.0, -0.7], upper=[3.0, 0.733])
    first = replace(first, context=context)
    assert "where the other channels imply 69.4" in alert_about(first).title
    ended = replace(first, state=AnomalyState.CLOSED, end_reason=EndReason.RECOVERED)
    alert = alert_about(ended, "resolved")
    assert alert.title == "Resolved after 50 min: plant, site=west: rpm was as high as 80, usual 65.9 to 71.4"
    (view,) = alert.anomalies
    assert (view.cause, view.ratio, text.leading(view).observed, view.relation) == (
        "unusual_value",
        7.0,
        80,
        "",
    )
    assert "beyond the usual range by 1.6 times its width" in dict(text.lines(alert))["Size"]


def test_the_begin_of_a_mean_is_uncertain_by_its_window():
    alert = alert_about(replace(stuck(), cause="unusual_level"))
    assert dict(text.lines(alert))["Since"].endswith("(50 min so far); it may have begun up to 8 min earlier")
    assert alert.anomalies[0].start_uncertainty_s == 480
    assert alert_about(stuck()).anomalies[0].start_uncertainty_s is None


def test_a_step_is_not_over_as_the_value_can_stay_where_it_is():
    one = replace(stuck(state=AnomalyState.CLOSED), cause="unusual_step", end_reason=EndReason.RECOVERED)
    end = dict(text.lines(alert_about(one, "resolved")))["End"]
    assert end == "nothing unusual since; the value can be at a new level"


def over(
    cause: str, numbers: tuple[float, float, float], context: DeviationContext, **course: Any
) -> Anomaly:
    """Return an anomaly of 51 minutes that recovered, with its observed value and its range."""
    observed, low, high = numbers
    one = stuck(state=AnomalyState.CLOSED, end_reason=EndReason.RECOVERED, cause=cause, context=context)
    ends = {"lower": [0.0, low], "upper": [3.0, high], "course": DeviationCourse(**course)}
    return replace(one, observed=[1.0, observed], **ends)


def said(one: Anomaly) -> str:
    """Return the sentence of the message of the end."""
    return alert_about(one, "resolved").anomalies[0].statement


PRICE = DeviationContext("time_of_day", 40.2, None, kind="price")
OF_PRICE = {"relative": True, "span_readings": 1, "outside_until_ns": 100 * MINUTE_NS}


@pytest.mark.parametrize(
    ("cause", "last", "rest", "stays"),
    [
        (
            "unusual_step",
            40.1,
            "; it stayed there, at 40.1 (usual step at that time of day at most 0.4 %)",
            True,
        ),
        (
            "unusual_step",
            77.3,
            "; it went back to 77.3 (usual step at that time of day at most 0.4 %)",
            False,
        ),
        (
            "trend",
            77.3,
            "; it rose back by 92.3 % to 77.3 (usual drift at that time of day at most 0.4 %)",
            False,
        ),
        ("trend", 39.9, "; it stayed there, at 39.9 (usual drift at that time of day at most 0.4 %)", True),
        ("unusual_step", None, ", usual at that time of day at most 0.4 %", None),
        ("unusual_value", 80.0, ", usual at that time of day 70 to 90; now 80, usual at this hour", False),
        (
            "unusual_value",
            40.1,
            "rpm was 40.2; it stayed there, at 40.1 (usual value at that time of day 70 to 90)",
            True,
        ),
        ("unusual_noise", 40.1, "; it was 40.2 then; now 40.1, usual at this hour", None),
    ],
)
def test_the_end_of_a_step_says_where_the_value_is(cause: str, last: float | None, rest: str, stays: bool):
    numbers = (40.2, 70, 90) if cause == "unusual_value" else (-0.5, -0.004, 0.004)
    one = replace(over(cause, numbers, PRICE, last=last), **OF_PRICE)
    alert = alert_about(one, "resolved")
    assert said(one).endswith(rest)
    assert alert.anomalies[0].stayed is stays
    assert alert.title.startswith("Resolved: " if stays else "Resolved after one reading: ")
    lines = dict(text.lines(alert))
    assert ("End" in lines) == (cause == "unusual_step" and stays is None)
    assert lines["At"].endswith(" UTC)" if stays else ", a single reading")


def test_a_level_that_is_still_there_has_not_recovered():
    context = DeviationContext("all_hours", 88.0, None, kind="count")
    one = over("unusual_level", (87.8, 1.1, 67.2), context, highest=101.0, last=96.8)
    assert said(one) == (
        "rpm was as high as 101; smoothed over about 8 readings it left its usual range of 1.1 to 67.2; "
        "it stayed there, at 96.8"
    )
    back = replace(one, course=DeviationCourse(highest=101.0, last=40.0))
    assert said(back).endswith("of 1.1 to 67.2; now 40, usual at this hour")
    another_hour = replace(one, context=replace(context, basis="time_of_day"))
    assert said(another_hour).endswith(
        "range of 1.1 to 67.2 at that time of day; now 96.8, usual at this hour"
    )
    ended_file = replace(one, end_reason=EndReason.SILENT)
    assert said(ended_file).endswith("its usual range of 1.1 to 67.2")


def test_values_on_both_sides_of_their_range_are_both_told():
    context = DeviationContext("working_days", 1592.0, None)
    one = over("unusual_value", (1592, 1410, 1471), context, lowest=1224.0, highest=1592.0)
    assert said(one) == (
        "rpm went from as low as 1,224 to as high as 1,592, usual at that time on working days 1,410 to 1,471"
    )
    # Values that were low at another hour lie inside the range of the peak.
    assert said(replace(one, course=DeviationCourse(lowest=1412.0, highest=1592.0))).startswith(
        "rpm was as high"
    )
    assert (
        alert_about(replace(one, state=AnomalyState.OPEN))
        .title.partition("west: ")[2]
        .startswith("rpm is 1,592")
    )


@pytest.mark.parametrize(
    ("until", "zone", "when"),
    [(150, "Europe/Berlin", ""), (161, "Europe/Berlin", " at 03:30 CET"), (161, "", " at 02:30 UTC"),
     (1600, "Europe/Berlin", " at 1970-01-01 03:30 CET")],
)  # fmt: skip
def test_a_long_deviation_says_when_it_was_farthest(until: int, zone: str, when: str):
    one = over("unusual_value", (92.1, 65, 69), DeviationContext("time_of_day", 92.1, None))
    one.outside_until_ns = until * MINUTE_NS
    title = alert_about(one, "resolved", zone).title
    assert title.endswith(f"rpm was as high as 92.1{when}, usual at that time of day 65 to 69")
    one.course = None  # of an earlier version
    assert " at " not in alert_about(one, "resolved", zone).title.replace(" at that", "")


def test_the_farthest_reading_has_its_own_time():
    far = FarthestReading("unusual_value", 80.0, 65.9, 71.4, 7.0, 80.0, "all_hours")
    context = DeviationContext("time_of_day", 70.7, 69.9, farthest=far)
    one = over("relation", (0.872, -0.7, 0.733), context, farthest_ns=155 * MINUTE_NS)
    one.outside_until_ns = 170 * MINUTE_NS
    alert = alert_about(one, "resolved", "")
    assert alert.title.endswith("rpm was as high as 80 at 02:35 UTC, usual 65.9 to 71.4")
    assert alert.anomalies[0].peak == "1970-01-01T02:35:00.000000Z"


def test_the_farthest_value_is_told_beside_the_reading_that_is_farthest_outside():
    context = DeviationContext("working_days", 79.1, None, kind="measurement")
    course = {"highest": 80.0, "last": 57.6}
    drift = over("unusual_value", (79.1, 66.1, 69.7), context, **course)
    assert said(drift) == (
        "rpm was as high as 80; it was farthest outside with 79.1, usual at that time on working days "
        "66.1 to 69.7; now 57.6, usual at this hour"
    )
    long = replace(drift, outside_until_ns=200 * MINUTE_NS, end_ns=200 * MINUTE_NS)
    assert "with 79.1 at 02:30 UTC, usual" in alert_about(long, "resolved", "").anomalies[0].statement
    near = replace(drift, course=DeviationCourse(highest=79.13, last=57.6))
    assert said(near).startswith("rpm was as high as 79.1, usual at that time")
    low = over("unusual_value", (60.2, 66.1, 69.7), context, lowest=59.0)
    assert said(low).startswith("rpm was as low as 59; it was farthest outside with 60.2, usual")


def test_a_message_without_the_hours_of_its_range_can_be_read():
    view = alert_about(over("unusual_value", (79.1, 66.1, 69.7), PRICE), "resolved").anomalies[0]
    assert view.basis == "time_of_day"
    stored = msgspec.json.decode(msgspec.json.encode(view))
    del stored["basis"]
    assert msgspec.convert(stored, AnomalyView).basis == ""


def test_another_kind_of_change_is_told_beside_the_first_one():
    far = FarthestReading("unusual_noise", 0.00612, None, 0.00101, 6.0, 78.0, "all_hours")
    context = DeviationContext("time_of_day", 78.6, None, kind="price", farthest=far)
    one = replace(over("unusual_step", (0.00712, -0.003, 0.0032), context, last=78.0), relative=True)
    sentence = alert_about(one, "resolved").anomalies[0].statement
    assert sentence == (
        "rpm rose by 0.712 % to 78.6 in one of its first steps; then it went up and down more than usual: by "
        "0.612 % from one reading to the next, smoothed over about 8 readings, usual at most "
        "0.101 %; it was 78 then"
    )


def test_the_course_is_part_of_the_stored_body():
    course = DeviationCourse(60, 1.0, 2.0, 3, 4.0)
    body = encode_anomaly(stuck(course=course))
    assert decode_anomaly(body).course == course
    later = body.replace('"uncertain_ns"', '"key_of_a_later_version":1,"uncertain_ns"')
    assert decode_anomaly(later).course == course
    former = body.replace('"course"', '"unknown"')
    assert decode_anomaly(former).course is None
    assert '"course"' not in encode_anomaly(stuck())


def test_the_end_of_a_file_is_not_over():
    one = stuck(state=AnomalyState.CLOSED, end_reason=EndReason.SILENT)
    alert = alert_about(one, "resolved")
    assert alert.title.startswith("Resolved: ")
    assert "It is over" not in alert.text
    assert "no later file has the series" in alert.text


def test_a_span_over_two_days_has_both():
    one = stuck(state=AnomalyState.CLOSED, end_reason=EndReason.RECOVERED)
    one.outside_until_ns += 24 * 60 * MINUTE_NS
    lasted = dict(text.lines(alert_about(one, "resolved", "")))["Lasted"]
    assert lasted == "1 d, from 1970-01-01 01:40:00 UTC to 1970-01-02 02:30:00 UTC".replace(
        "1 d,", "1 d 50 min,"
    )


@pytest.mark.parametrize(
    ("ratio", "rows", "severity", "reason"),
    [
        (7, 1, "critical", "critical, because it is very far outside its usual range"),
        (3, 1, "major", "major, because it is far outside its usual range; "
         "becomes critical by 01:32 CET if it goes on"),
        (1.5, 1, "warning", "warning, because it is outside its usual range; "
         "becomes major by 01:07 CET if it goes on"),
        (1.5, 5, "major", "major, because it is outside its usual range for 5 readings or more"),
        (1.1, 5, "warning",
         "warning, because it is just outside its usual range for 5 readings or more; "
         "becomes major by 01:28 CET if it goes on"),
        (3, 40, "critical", "critical, because it is far outside its usual range for 30 readings or more"),
        (1.1, 5, "major", "major, because it has been farther outside before"),
    ],
)  # fmt: skip
def test_a_severity_has_a_reason_and_what_follows(ratio: float, rows: int, severity: str, reason: str):
    one = replace(
        anomaly("unusual_value", 1510, 1440, 1460), ratio=ratio, points=rows, severity=Severity(severity)
    )
    assert severity_text(one, zone="Europe/Berlin") == reason
    ended = severity_text(one, ended=True)
    assert "after" not in ended
    assert "is " not in ended.replace("its ", "")


def test_the_severity_of_an_event_is_its_rarity():
    event = EventFinding("drain", 1e-4, ["stir"], ["cool"], [0.8])
    one = replace(anomaly("unexpected_event", 1, 1, 1), ratio=0.0, event=event, severity=Severity.MAJOR)
    one.end_ns = one.start_ns
    assert severity_text(one) == "major, because this comes once in 10,000 cases"
    lines = dict(text.lines(alert_about(replace(one, state=AnomalyState.CLOSED))))
    assert lines["First step"].startswith("Look at what wrote this event at")
    assert lines["Severity"] == severity_text(one)
    assert lines["At"].endswith("a single event")
    over = replace(one, state=AnomalyState.CLOSED, end_reason=EndReason.RECOVERED)
    assert alert_about(over, "resolved").title.startswith("Resolved: plant, site=west: “drain” came after")


def test_a_sequence_and_a_new_event_have_reasons_of_their_own():
    event = EventFinding("drain", 1e-4, ["stir"], [], [])
    one = replace(anomaly("new_event", 1, 1, 1), ratio=0.0, event=event, surprise=4.7)
    assert severity_text(one) == "major, because it was never seen before"
    together = severity_text(replace(one, cause="unusual_sequence"))
    assert together == "major, because as many improbable events come together about once in 50,000 events"


def test_a_severity_that_follows_in_days_is_stated_as_a_duration():
    one = replace(
        anomaly("unusual_value", 1510, 1440, 1460), ratio=1.5, points=1, every_ns=24 * 60 * MINUTE_NS
    )
    one.severity = Severity.WARNING
    assert severity_text(one).endswith("; becomes major in 4 d if it goes on")
    assert severity_text(replace(one, every_ns=0)).endswith("; becomes major after 5 readings if it goes on")


def test_a_missing_step_is_not_made_up_by_the_end_of_its_session():
    event = EventFinding("drain", 1e-4, ["stir"], ["cool"], [0.8])
    one = replace(anomaly("missing_event", 1, 1, 1), ratio=0.0, event=event, state=AnomalyState.CLOSED)
    alert = alert_about(replace(one, end_reason=EndReason.RECOVERED), "resolved")
    assert alert.title == (
        "Resolved: plant, site=west: no event came after “stir”, which happens once in 10,000 cases; “cool” "
        "(80 % of cases) was due; nothing unusual since, but whether the step came later is not known"
    )
    assert "End" not in dict(text.lines(alert))
    ended_file = alert_about(replace(one, end_reason=EndReason.SILENT), "resolved")
    assert ended_file.title.endswith("was due")
    assert alert_about(one).title.endswith(
        "was due"
    )  # the message of the begin, about a session that is over
    assert dict(text.lines(ended_file))["End"] == "its file ended, and no later file has the series"


def test_the_span_is_part_of_the_stored_body():
    body = encode_anomaly(stuck())
    assert decode_anomaly(body).began_ns == 100 * MINUTE_NS
    former = body.replace('"onset_ns"', '"unknown"').replace('"outside_until_ns"', '"unknown2"')
    assert decode_anomaly(former).began_ns == 140 * MINUTE_NS


def test_one_step_does_not_go_on():
    one = replace(anomaly("unusual_step", 5, -2, 2), ratio=3, points=1, severity=Severity.MAJOR)
    assert severity_text(one) == "major, because it is far outside its usual range"
