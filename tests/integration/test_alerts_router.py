"""From the outbox to queued messages, on both databases, with a clock turned by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from pipeline.alerts.messages.payload import ReviewView
from pipeline.config.schema import Config
from pipeline.core.types import Anomaly, Fault, FaultKind, Severity
from pipeline.services.reviews import label_anomaly
from storage.alerting import alerts, deliveries, outbox, silences
from storage.results import labels
from storage.sql.database import Database
from tests.support.alerting import NOON, SECOND, RouterBench, anomaly, closed, json_endpoint

MINUTE, HOUR = 60, 3600


def test_an_anomaly_is_opened_updated_and_resolved(database: Database):
    bench = RouterBench(database)
    first = anomaly()
    bench.happen(first)
    bench.settle()
    (opened,) = bench.sent()
    assert (opened.kind, opened.data.status, opened.data.sequence) == ("opened", "open", 1)
    assert opened.data.alert_id == str(first.id)
    assert opened.data.anomalies[0].channels[0].observed == 93.1
    grown = anomaly(severity=Severity.CRITICAL, surprise=12.0, revision=2)
    bench.happen(grown)
    bench.settle()
    bench.happen(closed(grown))
    bench.settle()
    assert bench.kinds() == ["opened", "updated", "resolved"]
    assert [p.data.sequence for p in bench.sent()] == [1, 2, 3]
    assert {p.data.alert_id for p in bench.sent()} == {str(first.id)}
    assert bench.sent()[1].data.severities == ["major", "critical"]
    assert bench.ledger() == {"sent": 3}


def test_the_same_change_twice_is_one_event(database: Database):
    bench = RouterBench(database)
    bench.happen(anomaly(), anomaly(), anomaly(points=4, end_ns=NOON + 2 * MINUTE * SECOND, revision=2))
    bench.settle()
    assert bench.kinds() == ["opened"]
    assert bench.ledger() == {"sent": 1}


def test_an_anomaly_that_was_over_at_once_is_opened_and_resolved(database: Database):
    bench = RouterBench(database)
    bench.happen(closed(anomaly()))
    bench.settle()
    assert bench.kinds() == ["opened", "resolved"]


def test_the_first_rule_that_matches_decides(database: Database):
    rules = [
        {"match": {"channel": "temperature", "direction": "down"}, "drop": True},
        {"match": {"site": "eu-*"}, "min_deviation": "50%", "to": ["plant"]},
        {"match": {"site": ["us-*", "!us-2"]}, "to": ["plant"]},
    ]
    bench = RouterBench(database, {"rules": rules}, {"chat": json_endpoint(), "plant": json_endpoint()})
    bench.happen(anomaly("eu-1/a", direction="down"), anomaly("eu-1/b"), anomaly("us-1/c"), anomaly("us-2/d"))
    bench.settle()
    assert [p.data.anomalies[0].series for p in bench.sent("plant")] == ["us-1/c", "us-2/d"]
    assert [p.data.anomalies[0].series for p in bench.sent("chat")] == ["us-2/d"]
    assert bench.ledger() == {"rule:rule-1": 1, "min_deviation": 1, "sent": 2}
    bench.happen(
        anomaly("eu-1/b", observed=[150.0, 1.0], severity=Severity.CRITICAL, surprise=20.0, revision=2)
    )
    bench.settle()
    assert "rule-2" in [p.data.rule for p in bench.sent("plant")]  # it has grown enough


def test_a_group_waits_gathers_and_notifies_at_intervals(database: Database):
    bench = RouterBench(
        database, {"group": {"by": ["site"], "wait": "30s", "interval": "5m", "repeat": "4h"}}
    )
    bench.happen(anomaly("b2/a"))
    bench.later(10)
    bench.happen(anomaly("b2/b", start_ns=NOON - 90 * SECOND, surprise=5.0), anomaly("b3/c"))
    bench.later(10)
    assert bench.kinds() == []
    bench.later(15)
    (first,) = bench.sent()
    assert (first.data.count, first.data.labels, [a.series for a in first.data.anomalies]) == (
        2,
        {"site": "b2"},
        ["b2/a", "b2/b"],
    )
    assert first.data.root_cause[0].series == "b2/b"  # it began first
    bench.later(15)
    assert len(bench.sent()) == 2  # the other site
    bench.happen(anomaly("b2/d"))
    bench.later(4 * MINUTE)
    assert bench.kinds().count("updated") == 0
    bench.later(2 * MINUTE)
    updated = bench.sent()[-1]
    assert (updated.kind, updated.data.count, updated.data.alert_id) == ("updated", 3, first.data.alert_id)
    bench.later(5 * HOUR)
    assert bench.kinds().count("repeated") == 2
    bench.happen(closed(anomaly("b2/a")), closed(anomaly("b2/b", start_ns=NOON - 90 * SECOND)))
    bench.later(10 * MINUTE)
    assert bench.kinds().count("resolved") == 0  # one of three lasts
    bench.happen(closed(anomaly("b2/d")))
    bench.later(10 * MINUTE)
    assert bench.kinds().count("resolved") == 1
    assert sum(bench.ledger().values()) == 7


def test_recovery_waits_and_takes_a_relapse_into_the_same_alert(database: Database):
    bench = RouterBench(database, {"recover_after": "10m"})
    first = anomaly()
    bench.happen(first)
    bench.later(MINUTE)
    bench.happen(closed(first))
    bench.later(9 * MINUTE)
    assert bench.kinds() == ["opened"]
    relapse = anomaly(start_ns=NOON + 10 * MINUTE * SECOND)
    bench.happen(relapse)
    bench.later(5 * MINUTE)
    assert {p.data.alert_id for p in bench.sent()} == {str(first.id)}
    bench.happen(closed(relapse))
    bench.later(11 * MINUTE)
    assert bench.kinds() == ["opened", "updated", "resolved"]


def test_a_flapping_series_is_one_alert_until_it_is_quiet(database: Database):
    bench = RouterBench(database, {"flapping": {"changes": 3, "within": "1h"}, "group": {"repeat": None}})
    for i in range(10):
        one = anomaly(start_ns=NOON + i * 300 * SECOND)
        bench.happen(one)
        bench.later(60)
        bench.happen(closed(one))
        bench.later(240)
    assert bench.kinds() == ["opened", "resolved", "opened", "resolved", "opened"]
    assert bench.sent()[-1].data.flapping
    bench.later(HOUR)
    assert bench.kinds()[5:] == ["resolved"]


def test_cooldown_swallows_a_short_relapse_and_lets_a_lasting_one_through(database: Database):
    bench = RouterBench(database, {"cooldown": "30m"})
    first, short, long = (anomaly(start_ns=NOON + i * 600 * SECOND) for i in range(3))
    bench.happen(first)
    bench.later(60)
    bench.happen(closed(first))
    bench.later(540)
    bench.happen(short)
    bench.later(60)
    bench.happen(closed(short))
    bench.later(540)
    bench.happen(long)
    bench.later(600)
    assert bench.kinds() == ["opened", "resolved"]
    bench.later(600)
    assert bench.kinds() == ["opened", "resolved", "opened"]
    assert bench.ledger() == {"sent": 3, "cooldown": 2}


def test_short_anomalies_are_dropped_where_only_lasting_ones_count(database: Database):
    bench = RouterBench(database, {"lasts": "5m"})
    short, long = anomaly("b2/short"), anomaly("b2/long")
    bench.happen(short, long)
    bench.later(2 * MINUTE)
    bench.happen(closed(short, end_ns=NOON + 90 * SECOND))
    bench.later(2 * MINUTE)
    assert bench.kinds() == []
    bench.later(2 * MINUTE)
    assert [p.data.anomalies[0].series for p in bench.sent()] == ["b2/long"]
    assert bench.ledger() == {"lasts": 2, "sent": 1}


def test_a_storm_becomes_one_alert_with_a_list_and_a_count(database: Database):
    bench = RouterBench(database, {"storm": 20})
    bench.happen(*(anomaly(f"s{i}/x") for i in range(500)))
    bench.later(10 * MINUTE)
    sent = bench.sent()
    assert len(sent) == 21
    storm = sent[-1].data
    assert (storm.count, len(storm.anomalies), storm.rule) == (480, 10, "default/storm")
    assert "480 anomalies" in storm.title
    bench.happen(*(closed(anomaly(f"s{i}/x")) for i in range(500)))
    bench.later(10 * MINUTE)
    assert bench.kinds().count("resolved") == 21
    # ends that changed nothing for the storm's alert
    assert bench.ledger() == {"sent": 620, "unchanged": 380}


def test_a_silence_keeps_and_does_not_send_and_its_end_sends_what_lasts(database: Database):
    bench = RouterBench(database)
    with database.begin() as connection:
        silences.add(
            connection,
            silences.ManualSilence(
                uuid4(), "plant", {"site": "b2"}, NOON, NOON + HOUR * SECOND, "me", "works", NOON
            ),
        )
    over, lasting, other = anomaly("b2/over"), anomaly("b2/lasting"), anomaly("b3/other")
    bench.happen(over, lasting, other)
    bench.later(MINUTE)
    assert [p.data.anomalies[0].series for p in bench.sent()] == ["b3/other"]
    with database.read() as connection:
        held = [a.suppressed_by for a in alerts.query(connection) if a.suppressed_by]
    assert len(held) == 2
    assert held[0].startswith("silence:")
    bench.happen(closed(over))
    bench.later(58 * MINUTE)
    assert len(bench.sent()) == 1
    bench.later(2 * MINUTE)
    assert [p.data.anomalies[0].series for p in bench.sent()] == ["b3/other", "b2/lasting"]
    assert bench.ledger() == {"sent": 2, "silence": 2}


def test_a_planned_silence_holds_part_of_a_group(database: Database):
    """NOON is a Monday: the silence is in force from 12:00 to 13:00 UTC."""
    silence = {"match": {"sensor": "a"}, "cron": "0 12 * * mon", "for": "1h"}
    bench = RouterBench(database, {"group": {"by": ["site"]}, "silences": {"service": silence}})
    bench.happen(anomaly("b2/a"), anomaly("b2/b"))
    bench.later(MINUTE)
    (only,) = bench.sent()
    assert (only.data.count, [a.series for a in only.data.anomalies]) == (1, ["b2/b"])


def test_a_calendar_of_holidays_holds_what_comes_and_sends_what_lasts_afterwards(
    database: Database, tmp_path: Path
):
    """A whole day of an iCalendar file, in the plant's own zone: it ends at 23:00 UTC."""
    event = [
        "BEGIN:VEVENT",
        "UID:1",
        "DTSTAMP:20260101T000000Z",
        "DTSTART;VALUE=DATE:20260302",
        "DTEND;VALUE=DATE:20260303",
        "END:VEVENT",
    ]
    (tmp_path / "holidays.ics").write_text(
        "\r\n".join(["BEGIN:VCALENDAR", "VERSION:2.0", "PRODID:-//x//x//EN", *event, "END:VCALENDAR", ""])
    )
    silence = {"calendar": str(tmp_path / "holidays.ics"), "timezone": "Europe/Berlin"}
    bench = RouterBench(database, {"silences": {"holiday": silence}})
    bench.happen(anomaly("b2/short"), anomaly("b2/lasting"))
    bench.later(3600)
    bench.happen(closed(anomaly("b2/short")))
    bench.later(9 * 3600)
    assert bench.sent() == []
    bench.later(3600 + 120)
    (sent,) = bench.sent()
    assert sent.data.anomalies[0].series == "b2/lasting"
    assert bench.ledger()["silence"] == 2


def test_an_alert_that_was_sent_is_resolved_even_if_it_is_silenced_since(database: Database):
    bench = RouterBench(database)
    bench.happen(anomaly())
    bench.settle()
    with database.begin() as connection:
        silences.add(
            connection,
            silences.ManualSilence(uuid4(), None, {}, bench.now_ns, NOON + HOUR * SECOND, "me", "", NOON),
        )
    bench.happen(anomaly(severity=Severity.CRITICAL, surprise=20.0))
    bench.later(MINUTE)
    assert bench.kinds() == ["opened"]
    bench.happen(closed(anomaly(severity=Severity.CRITICAL, surprise=20.0)))
    bench.later(MINUTE)
    assert bench.kinds() == ["opened", "resolved"]


def test_alerts_that_follow_from_a_source_fault_are_held(database: Database):
    ends = {"chat": json_endpoint(), "ops": json_endpoint()}
    bench = RouterBench(database, {"to": ["chat"], "faults": {"to": ["ops"]}}, ends)
    bench.happen(anomaly("b2/before"))
    bench.later(1)
    fault = Fault("plant", FaultKind.SOURCE_DOWN, "the brokers do not answer", bench.now_ns)
    bench.happen(fault)
    bench.later(1)
    bench.happen(anomaly("b2/after"), anomaly("b2/gone"))
    bench.later(MINUTE)
    bench.happen(closed(anomaly("b2/gone")))
    bench.later(MINUTE)
    assert bench.kinds("chat") == ["opened"]
    (notified,) = bench.sent("ops")
    assert notified.data.class_ == "fault"
    assert notified.data.fault is not None
    assert notified.data.fault.kind == "source_down"
    fault.ended_ns = bench.now_ns
    bench.happen(fault)
    bench.later(MINUTE)
    assert [(p.data.anomalies[0].series, p.kind) for p in bench.sent("chat")] == [
        ("b2/before", "opened"),
        ("b2/after", "opened"),
        ("b2/gone", "opened"),
        ("b2/gone", "resolved"),
    ]
    assert bench.kinds("ops") == ["opened", "resolved"]
    assert "fault" not in bench.ledger(), "an anomaly that ended while the fault lasted is sent, too"


def test_several_anomalies_of_a_series_during_a_fault_are_one_alert(database: Database):
    bench = RouterBench(database)
    fault = Fault("plant", FaultKind.SOURCE_DOWN, "the brokers do not answer", bench.now_ns)
    bench.happen(fault)
    first, second, third = (anomaly(start_ns=NOON + hours * HOUR * SECOND) for hours in (0, 1, 2))
    bench.happen(first, closed(first), second, closed(second))
    bench.later(MINUTE)
    bench.happen(third, closed(third))
    bench.later(MINUTE)
    fault.ended_ns = bench.now_ns
    bench.happen(fault)
    bench.later(MINUTE)
    data = [p for p in bench.sent() if p.data.class_ == "data"]
    assert [p.kind for p in data] == ["opened", "resolved"]
    assert data[0].data.count == 3
    assert set(bench.ledger()) == {"sent"}


def test_a_fault_does_not_suppress_what_was_committed_before_it(database: Database):
    bench = RouterBench(database)
    early = anomaly()
    bench.happen(early)  # committed, and not routed before the fault begins
    bench.now_ns += SECOND
    bench.happen(Fault("plant", FaultKind.SOURCE_DOWN, "the brokers do not answer", bench.now_ns))
    bench.now_ns += SECOND
    bench.settle()
    assert [p.data.class_ for p in bench.sent()].count("data") == 1


def test_storms_are_counted_in_event_time(database: Database):
    bench = RouterBench(database, {"storm": 5, "max_age": None})
    bench.now_ns = NOON + 3 * 24 * HOUR * SECOND
    quiet = [anomaly(f"b2/q{n}", NOON + n * HOUR * SECOND) for n in range(30)]
    storms = [
        [anomaly(f"b2/s{day}-{n}", NOON + day * 24 * HOUR * SECOND + n * SECOND) for n in range(20)]
        for day in (2, 3)
    ]
    for one in (*quiet, *storms[0], *storms[1]):
        bench.happen(one, closed(one))
    bench.settle()
    bench.later(MINUTE)
    opened = [p.data.count for p in bench.sent() if p.kind == "opened"]
    assert opened.count(1) == 30 + 2 * 5, "those of quiet days and the first of each storm have an alert each"
    assert sorted(n for n in opened if n > 1) == [15, 15], "each storm has its own alert"


def test_storms_of_partitions_that_are_read_by_turns(database: Database):
    """A backlog of 8 partitions, each with a storm at another time."""
    bench = RouterBench(database, {"storm": 10})
    for number in range(30):
        for partition in range(8):
            one = anomaly(f"p{partition}/s{number}", NOON + (600 * partition + number) * SECOND)
            bench.happen(one, closed(one))
    bench.settle()
    bench.later(MINUTE)
    opened = [p for p in bench.sent() if p.kind == "opened"]
    assert len(opened) == 8 * 11, "the first ten of each storm, and one for the rest"


def test_a_backlog_is_counted_and_not_sent(database: Database):
    bench = RouterBench(database)
    bench.now_ns = NOON + 3 * 24 * HOUR * SECOND
    old, recent = anomaly(), anomaly("b2/new", NOON + 60 * HOUR * SECOND)
    bench.happen(old, closed(old), recent, closed(recent))
    bench.settle()
    assert [p.data.anomalies[0].series for p in bench.sent() if p.kind == "opened"] == ["b2/new"]
    assert bench.ledger() == {"sent": 2, "too old": 2}


def test_late_data_revise_or_retract_what_was_said(database: Database):
    bench = RouterBench(database)
    wrong, smaller = anomaly("b2/wrong"), anomaly("b2/smaller")
    bench.happen(wrong, smaller)
    bench.settle()
    bench.happen(closed(wrong), closed(smaller))
    bench.settle()
    bench.happen(closed(wrong, points=0), closed(smaller, severity=Severity.INFO, surprise=4.0))
    bench.happen(
        closed(anomaly("b2/wrong", revision=2), points=0),
        closed(anomaly("b2/smaller", revision=2), severity=Severity.INFO),
    )
    bench.settle()
    by_series = {p.data.alert_id: p for p in bench.sent() if p.kind in ("revised", "retracted")}
    assert {by_series[str(wrong.id)].kind, by_series[str(smaller.id)].kind} == {"retracted", "revised"}
    assert by_series[str(smaller.id)].data.severity == "info"
    assert by_series[str(wrong.id)].data.status == "retracted"
    assert "Retracted by: late or corrected points" in by_series[str(wrong.id)].data.text


def test_late_data_revise_an_alert_whose_series_has_another_one_since(database: Database):
    bench = RouterBench(database)
    old, new = anomaly("b2/t1"), anomaly("b2/t1", NOON + HOUR * SECOND)
    bench.happen(old)
    bench.settle()
    bench.happen(closed(old))
    bench.later(10 * MINUTE)
    bench.later(50 * MINUTE)
    bench.happen(new)
    bench.settle()
    assert bench.kinds() == ["opened", "resolved", "opened"]
    bench.happen(closed(replace(old, revision=2), severity=Severity.CRITICAL))
    bench.settle()
    assert bench.kinds() == ["opened", "resolved", "opened", "revised"]
    correction = bench.sent()[-1].data
    assert (correction.alert_id, correction.severity, correction.status) == (
        str(old.id),
        "critical",
        "resolved",
    )
    bench.happen(closed(new))
    bench.later(10 * MINUTE)
    assert bench.kinds()[-1] == "resolved", "the other alert goes on"


def test_what_was_never_sent_is_not_retracted_to_anybody(database: Database):
    bench = RouterBench(database)
    bench.happen(closed(anomaly(), points=0))
    bench.settle()
    assert bench.sent() == []
    assert bench.ledger() == {"retracted": 1}


def test_pagers_get_pages_only(database: Database):
    ends = {"chat": json_endpoint(), "pager": json_endpoint(urgency="page")}
    bench = RouterBench(database, {"severity": {"page": "critical", "notice": "warning"}}, ends)
    bench.happen(
        anomaly("b2/info", severity=Severity.INFO),
        anomaly("b2/major"),
        anomaly("b2/critical", severity=Severity.CRITICAL),
    )
    bench.settle()
    assert [p.data.anomalies[0].series for p in bench.sent("pager")] == ["b2/critical"]
    assert len(bench.sent("chat")) == 2
    bench.happen(anomaly("b2/major", severity=Severity.CRITICAL, surprise=20.0))
    bench.settle()
    assert [p.data.urgency for p in bench.sent("pager")] == ["page", "page"]
    bench.happen(closed(anomaly("b2/major", severity=Severity.CRITICAL, surprise=20.0)))
    bench.settle()
    assert bench.kinds("pager") == ["opened", "updated", "resolved"]


def test_an_acknowledged_alert_is_not_repeated(database: Database):
    bench = RouterBench(database, {"group": {"repeat": "1h"}})
    one = anomaly()
    bench.happen(one)
    bench.later(90 * MINUTE)
    assert bench.kinds() == ["opened", "repeated"]
    with database.begin() as connection:
        outbox.add_events(
            connection, [outbox.OutboxEvent(uuid4(), "plant", "acknowledged", one.id, "me", bench.now_ns)]
        )
    bench.later(5 * HOUR)
    assert bench.kinds() == ["opened", "repeated", "acknowledged"]
    assert bench.sent()[-1].data.status == "acknowledged"


def test_a_router_that_dies_leaves_no_half_turn(database: Database, monkeypatch: pytest.MonkeyPatch):
    bench = RouterBench(database)
    bench.happen(*(anomaly(f"b{i}/x") for i in range(5)))
    with monkeypatch.context() as broken:
        broken.setattr(
            "storage.alerting.delivery_queue.add", lambda *_: (_ for _ in ()).throw(RuntimeError("killed"))
        )
        with pytest.raises(RuntimeError):
            bench.turn()
    assert bench.ledger() == {"pending": 5}
    bench.settle()
    assert len({p.data.alert_id for p in bench.sent()}) == 5


def test_disabled_endpoints_get_nothing_and_it_is_counted(database: Database):
    bench = RouterBench(database, endpoints={"chat": json_endpoint(), "gone": json_endpoint()})
    bench.happen(anomaly())
    bench.turn(disabled=("gone",))

    with database.read() as connection:
        assert deliveries.count_by_state(connection) == {
            ("chat", "pending", None): 1,
            ("gone", "dead", "endpoint disabled"): 1,
        }


def test_a_very_long_series_name_and_hostile_labels_pass(database: Database):
    bench = RouterBench(database)
    bench.happen(anomaly("x" * 5000 + "/" + "\x00\u202e<script>\n" + "y" * 5000))
    bench.settle()
    (sent,) = bench.sent()
    assert "\n" not in sent.data.title
    assert "\u202e" not in sent.data.text
    assert len(sent.data.title) <= 200


def test_a_backlog_makes_the_alerts_of_real_time(database: Database):
    """An hour of anomalies that the router sees all at once, after it was away."""
    bench = RouterBench(database, {"recover_after": "10m"})
    times = [0, 5, 30, 33, 59]
    bench.happen(
        *(
            closed(anomaly(start_ns=NOON + m * MINUTE * SECOND, end_ns=NOON + (m + 2) * MINUTE * SECOND))
            for m in times
        )
    )
    bench.later(HOUR)
    assert bench.kinds() == ["opened", "resolved"] * 3
    assert [p.data.count for p in bench.sent() if p.kind == "resolved"] == [2, 2, 1]


def test_what_was_over_long_ago_is_not_sent_where_that_is_asked_for(database: Database):
    bench = RouterBench(database, {"max_age": "1d"})
    bench.happen(
        closed(anomaly("b2/old", start_ns=NOON - 30 * HOUR * SECOND)),
        closed(anomaly("b2/new", start_ns=NOON - 5 * HOUR * SECOND)),
    )
    bench.settle()
    assert {p.data.anomalies[0].series for p in bench.sent()} == {"b2/new"}
    assert bench.ledger() == {"too old": 1, "sent": 1}


WITH_ENDPOINT = Config.model_validate(
    {
        "endpoints": {"chat": {"type": "json", "url": "http://127.0.0.1:9/x", "allow": ["loopback"]}},
        "streams": {
            "plant": {
                "source": {"memory": {}},
                "format": {"json": {"series": "s", "time": "t", "values": ["v"]}},
            }
        },
    }
)


def label_false(bench: RouterBench, one: Anomaly, comment: str) -> None:
    """Do what ``forewatch alerts label ID false`` does."""
    give_label(bench, one, "false", comment)


def give_label(bench: RouterBench, one: Anomaly, label: labels.Label, comment: str) -> None:
    bench.now_ns += SECOND
    with bench.database.begin() as connection:
        label_anomaly(connection, WITH_ENDPOINT, one, labels.Review(label, "kim", comment, bench.now_ns))
    bench.settle()


def test_a_label_on_a_closed_alert_is_sent_with_author_and_reason(database: Database):
    bench = RouterBench(database)
    one = anomaly()
    bench.happen(one, closed(one))
    bench.settle()
    assert bench.kinds() == ["opened", "resolved"]
    label_false(bench, closed(one), "the sensor was replaced")
    assert bench.kinds() == ["opened", "resolved", "retracted"]
    retraction = bench.sent()[-1].data
    assert retraction.review == ReviewView("false", "kim", "the sensor was replaced")
    assert "Labelled false by: kim: the sensor was replaced" in retraction.text


def test_a_label_that_is_taken_back_restores_the_alert_as_often_as_it_is_given(database: Database):
    bench = RouterBench(database)
    one = anomaly()
    bench.happen(one, closed(one))
    bench.settle()
    for label, comment in (
        ("false", "a"),
        ("true", "b"),
        ("true", "c"),
        ("false", "d"),
        ("maintenance", "e"),
    ):
        give_label(bench, closed(one), label, comment)
    assert bench.kinds()[2:] == ["retracted", "revised", "retracted", "revised"]
    said = [(p.data.status, p.data.review) for p in bench.sent()[2:]]
    assert said == [
        ("retracted", ReviewView("false", "kim", "a")),
        ("resolved", ReviewView("true", "kim", "b")),
        ("retracted", ReviewView("false", "kim", "d")),
        ("resolved", ReviewView("maintenance", "kim", "e")),
    ]
    assert "Labelled true by: kim: b" in bench.sent()[3].data.text


def test_a_label_that_is_taken_back_from_an_anomaly_without_alert_sends_nothing(database: Database):
    bench = RouterBench(database)
    give_label(bench, closed(anomaly()), "false", "of a backfill")
    give_label(bench, closed(anomaly()), "true", "of a backfill")
    assert bench.sent() == []


def test_a_label_of_an_open_anomaly_that_is_taken_back(database: Database):
    bench = RouterBench(database)
    one = anomaly()
    bench.happen(one)
    bench.settle()
    give_label(bench, one, "false", "a")
    give_label(bench, one, "true", "b")
    assert bench.kinds() == ["opened", "retracted", "revised"]
    assert bench.sent()[-1].data.status == "open"
    bench.happen(closed(one))
    bench.settle()
    bench.later(10 * MINUTE)
    assert bench.kinds()[-1] == "resolved"


def test_a_label_on_a_closed_alert_is_sent_while_a_newer_one_is_open(database: Database):
    bench = RouterBench(database)
    old, new = anomaly(), anomaly(start_ns=NOON + HOUR * SECOND)
    bench.happen(old, closed(old))
    bench.settle()
    bench.now_ns += HOUR * SECOND
    bench.happen(new)
    bench.settle()
    assert bench.kinds() == ["opened", "resolved", "opened"]
    label_false(bench, closed(old), "maintenance")
    assert bench.kinds() == ["opened", "resolved", "opened", "retracted"]
    retraction = bench.sent()[-1].data
    assert retraction.alert_id == str(old.id)
    bench.happen(closed(new))
    bench.settle()
    assert bench.kinds()[-1] == "resolved"
