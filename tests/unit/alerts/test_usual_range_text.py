"""The text of each cause of the decision "usual_range", and the places that print it."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from uuid import UUID

import msgspec
import pytest

from pipeline.alerts.messages import text
from pipeline.alerts.messages.html import html_of
from pipeline.alerts.outbox import encode_anomaly
from pipeline.alerts.routing.composer import NotificationContext, compose
from pipeline.alerts.routing.matchers import relative_deviation
from pipeline.alerts.routing.rules import StreamRules
from pipeline.cli.commands.anomalies import _largest_deviation, as_dict
from pipeline.config.alerts import AlertsConfig
from pipeline.config.text_settings import TextSettings
from pipeline.core.deviation_severity import severity_of, severity_text
from pipeline.core.first_steps import first_step
from pipeline.core.types import Anomaly, AnomalyState, DeviationContext, Partition, Severity
from pipeline.core.usual_range_text import deviation_text, usual_range_text
from pipeline.services.explain import describe_anomaly
from storage.alerting.alerts import AlertMember, AlertRecord
from storage.alerting.states import AlertKind, MemberState

MINUTE_NS = 60_000_000_000


def anomaly(cause: str, observed: float, low: float, high: float) -> Anomaly:
    return Anomaly(
        UUID(int=1), "plant", "b1", {"site": "west"}, AnomalyState.OPEN, Severity.MAJOR, "up", MINUTE_NS, 3 * MINUTE_NS,
        2 * MINUTE_NS, 14, 0.5, 0.3, ["load", "rpm"], [1.0, observed], [2.0, (low + high) / 2], [0.0, low], [3.0, high],
        [0.0, 1.0], "lstm", "m", "c", Partition("plant", 0), 1, 2, 2, 7, cause=cause, ratio=2.456, every_ns=MINUTE_NS,
    )  # fmt: skip


INF = float("inf")


@pytest.mark.parametrize(
    ("one", "sentence"),
    [
        (("unusual_value", 1510, 1440, 1460), "rpm is 1,510 1/min, usual 1,440 to 1,460 1/min"),
        (
            ("unusual_level", 68.8, 66.9, 67.9),
            "rpm, smoothed over about 8 readings, is 68.8 1/min, usual 66.9 to 67.9 1/min",
        ),
        (("unusual_step", 70, -12, 15), "rpm rose by 70 1/min in one step, usual at most 15 1/min"),
        (("unusual_step", -70, -12, 15), "rpm fell by 70 1/min in one step, usual at most 12 1/min"),
        (
            ("unusual_noise", 9.5, 1, 4),
            "rpm goes up and down more than usual: by 9.50 1/min from one reading to the next, smoothed "
            "over about 8 readings, usual at most 4 1/min",
        ),
        (
            ("relation", -30, -10, 12),
            "rpm is 30 1/min below what the other channels imply, usual at most 10 1/min",
        ),
        (
            ("forecast", 50, -10, 10),
            "rpm is 50 1/min above its forecast, usual at most 10 1/min",
        ),
        (
            ("absence", 200, 900, 1460),
            "rpm stays below its usual peak: the highest value of the last 3 hours is 200 1/min, "
            "usual at least 900 1/min",
        ),
        (
            ("absence", 2000, 900, 1460),
            "rpm stays above its usual trough: the lowest value of the last 3 hours is 2,000 1/min, "
            "usual at most 1,460 1/min",
        ),
        (
            ("flatline", 34, 1, 4.6),
            "rpm has repeated the same value for 34 readings (34 min), at most 4 usual",
        ),
        (("unusual_value", 1460.02, 1440, 1460), "rpm is 1,460.02 1/min, usual 1,440 to 1,460 1/min"),
        (("unusual_value", 3.2e20, 0, 1e20), "rpm is 3.2e+20 1/min, usual 0 to 1e+20 1/min"),
    ],
)  # fmt: skip
def test_each_cause_states_its_quantity_and_its_usual_range(
    one: tuple[str, float, float, float], sentence: str
) -> None:
    assert usual_range_text(anomaly(*one), "1/min") == sentence


@pytest.mark.parametrize(
    ("observed", "low", "high", "sentence"),
    [
        (95, -INF, 90, "rpm was as high as 95, above its limit of 90"),
        (-3, 0, INF, "rpm was as low as −3, below its limit of 0"),
    ],
)
def test_a_static_limit_can_have_one_end(observed: float, low: float, high: float, sentence: str) -> None:
    one = anomaly("static_limit", observed, low, high)
    one.expected[1] = high if low == -INF else low
    assert usual_range_text(one, ended=True) == sentence


def test_a_change_of_a_logarithmic_preset_is_a_share() -> None:
    one = replace(anomaly("unusual_step", -0.034, -0.012, 0.015), relative=True)
    assert usual_range_text(one, "USD") == "rpm fell by 3.40 % in one step, usual at most 1.20 %"


NOON = DeviationContext("working_days", 1510.0, 1480.0)


@pytest.mark.parametrize(
    ("one", "context", "sentence"),
    [
        (
            ("unusual_value", 1510, 1440, 1460),
            NOON,
            "rpm is 1,510, usual at this time on working days 1,440 to 1,460",
        ),
        (("unusual_value", 15, 7, 9), DeviationContext("all_hours", 15.0, 8.0), "rpm is 15, usual 7 to 9"),
        (
            ("unusual_step", 70, -12, 15),
            replace(NOON, basis="time_of_day"),
            "rpm rose by 70 to 1,510 in one step, usual at this time of day at most 15",
        ),
        (
            ("unusual_noise", 4.25, 1, 2),  # 30 away from the recent mean: it moves in one direction
            NOON,
            "rpm has risen to 1,510, 30 above its value smoothed over about 8 readings; it "
            "changes by 4.25 a reading, usual at this time on working days at most 2",
        ),
        (
            ("unusual_noise", 25, 1, 12),
            replace(NOON, basis="all_hours"),
            "rpm goes up and down more than usual: by 25 from one reading to the next, smoothed over about "
            "8 readings, usual at most 12; it is 1,510",
        ),
        (
            ("relation", -30, -10, 12),
            replace(NOON, basis="weekends"),
            "rpm is 30 below what the other channels imply, usual at this time on weekends at most 10; "
            "it is 1,510",
        ),
        (
            ("flatline", 34, 1, 0.6),
            NOON,
            "rpm has repeated 1,510 for 34 readings (34 min), usually it changes each time",
        ),
    ],
)
def test_the_context_says_where_the_value_is_and_of_which_hours_the_range_speaks(
    one: tuple[str, float, float, float], context: DeviationContext, sentence: str
) -> None:
    assert usual_range_text(replace(anomaly(*one), context=context)) == sentence


def test_a_value_far_from_its_forecast_is_stated_with_both() -> None:
    one = anomaly("forecast", 120, 12, 58)
    one.expected[1] = 24.5
    assert usual_range_text(one) == "rpm is 120, where 24.5 was forecast, usual 12 to 58"


@pytest.mark.parametrize(
    ("cause", "sentence"),
    [
        ("unusual_step", "rpm rose to 489, 4.89 times the value before, usual at most 3 times"),
        (
            "unusual_noise",
            "rpm goes up and down more than usual: by a factor of 4.89 from one reading to the next, "
            "smoothed over about 8 readings, usual at most 3; it is 489",
        ),
        ("relation", "rpm is 4.89 times what the other channels imply, usual at most 3 times; it is 489"),
        ("forecast", "rpm is 4.89 times its forecast, usual at most 3 times; it is 489"),
    ],
)
def test_a_share_of_more_than_the_value_is_stated_as_a_multiple(cause: str, sentence: str) -> None:
    one = replace(
        anomaly(cause, 3.89, -0.8, 2), relative=True, context=replace(NOON, value=489.0, basis="none")
    )
    assert usual_range_text(one) == sentence


@pytest.mark.parametrize(
    ("cause", "numbers", "sentence"),
    [
        ("unusual_step", (3, -600, -500), "rpm rose by 3 in one step, usual a fall of at least 500"),
        ("unusual_step", (-3, 500, 600), "rpm fell by 3 in one step, usual a rise of at least 500"),
        ("unusual_step", (100, 500, 600), "rpm rose by 100 in one step, usual at least 500"),
        ("unusual_step", (-0.0, 500, 600), "rpm rose by 0 in one step, usual at least 500"),
        (
            "relation",
            (3, -20, -10),
            "rpm is 3 above what the other channels imply, usual below by at least 10",
        ),
        # The upper end of a series of one day, in which the value rose once.
        ("unusual_step", (-553, -280, 2e8), "rpm fell by 553 in one step, usual at most 280"),
        ("unusual_value", (0, 33, 7.6e13), "rpm is 0, usual at least 33"),
        ("unusual_value", (439, 0, 215), "rpm is 439, usual 0 to 215"),
        ("unusual_value", (-439, -215, 8e9), "rpm is −439, usual at least −215"),
        ("unusual_value", (12, -6e8, 8), "rpm is 12, usual at most 8"),
        ("forecast", (0, 0.32, 1154.7), "rpm is 0, where 578 was forecast, usual at least 0.320"),
        (
            "impossible_value",
            (-3, math.nan, math.nan),
            "rpm is −3, which is not possible for this kind of data",
        ),
        (
            "impossible_value",
            (-3, 2, 4),
            "rpm is −3, which is not possible for this kind of data, expected 2 to 4",
        ),
    ],
)
def test_only_ends_that_say_something_are_stated(
    cause: str, numbers: tuple[float, ...], sentence: str
) -> None:
    assert usual_range_text(anomaly(cause, *numbers)) == sentence


def test_a_price_that_rises_steadily_is_stated_with_its_movement() -> None:
    one = replace(
        anomaly("unusual_noise", 0.00209, 0, 0.00195),
        relative=True,
        context=DeviationContext("all_hours", 86.6, 85.35),
    )
    assert usual_range_text(one, "EUR") == (
        "rpm has risen to 86.6 EUR, 1.46 % above its value smoothed over about 8 readings; it "
        "changes by 0.209 % a reading, usual at most 0.195 %"
    )


@pytest.mark.parametrize(
    ("observed", "ended", "sentence"),
    [
        (
            0.063,
            False,
            "rpm has drifted up to 86.6 EUR: by 6.30 % against its value smoothed over about 40 readings, "
            "usual at this time of day at most 2.10 %",
        ),
        (
            -0.05,
            True,
            "rpm had drifted down to 86.6 EUR: by 5 % against its value smoothed over about 40 readings, "
            "usual at that time of day at most 1.80 %",
        ),
        (
            1.5,
            False,
            "rpm has drifted up to 86.6 EUR: to 2.50 times its value smoothed over about 40 readings, "
            "usual at this time of day at most 1.02 times",
        ),
    ],
)
def test_a_trend_of_a_price_is_stated_with_the_price(observed: float, ended: bool, sentence: str) -> None:
    one = replace(
        anomaly("trend", observed, -0.018, 0.021),
        relative=True,
        context=DeviationContext("time_of_day", 86.6, 85.35),
    )
    assert usual_range_text(one, "EUR", ended=ended) == sentence


def test_a_rule_compares_a_share_as_it_is() -> None:
    one = anomaly("unusual_step", 0.034, -0.01, 0.01)
    assert relative_deviation(replace(one, relative=True)) == pytest.approx(0.034)
    assert relative_deviation(one) == INF


def test_the_numbers_of_a_text_keep_their_order() -> None:
    for observed, low, high in ((1e-7 + 1, 0.5, 1), (50.000000001, 50, 50), (-1e-9, -1e-12, 1e-12)):
        sentence = usual_range_text(anomaly("unusual_value", observed, low, high)) or ""
        shown = [float(n.replace("−", "-")) for n in re.findall(r"−?[\d.]+(?:e-?\d+)?", sentence)]
        assert (shown[0] > shown[2]) == (observed > high)
        assert (shown[0] < shown[1]) == (observed < low)


@pytest.mark.parametrize(
    ("numbers", "size"),
    [
        ((1510, 1440, 1460), "beyond the usual range by 2.5 times its width"),
        ((1465, 1440, 1460), "beyond the usual range by 25 % of its width"),
        ((1460.1, 1440, 1460), "just beyond the usual range"),
        ((1400, 1440, 1460), "beyond the usual range by 2 times its width"),
        ((439, 0, 215), "2 times the upper end of the usual range"),
        ((2, 160, 90_000), "1 % of the lower end of the usual range"),
        ((math.inf, 1440, 1460), "2.5 times the largest usual deviation"),
        ((0, 2_378, 4_130_000), "down to zero"),
        ((0, 12, 58), "down to zero, beyond the usual range by 26 % of its width"),
        ((0, 55, 66), "down to zero, beyond the usual range by 5 times its width"),
        ((1_600, 2_378, 4_130_000), "33 % below the lower end of the usual range"),
        ((5, 120_000, 4_130_000), "less than 1 % of the lower end of the usual range"),
        ((2_377, 2_378, 4_130_000), "just beyond the usual range"),
        ((-0.5, 0, 4_130_000), "below zero, where no usual value is"),
        ((-30, -20, 4), "beyond the usual range by 42 % of its width"),
        ((216, 0, 215), "just beyond the upper end of the usual range"),
        ((224, 0, 215), "4 % beyond the upper end of the usual range"),
    ],
)
def test_the_size_follows_from_the_numbers_of_the_statement(
    numbers: tuple[float, float, float], size: str
) -> None:
    assert deviation_text(anomaly("unusual_value", *numbers)).startswith(f"{size}; ")


@pytest.mark.parametrize(
    ("cause", "numbers", "size"),
    [
        ("unusual_step", (15.6, -12, 15), "4 % beyond the largest usual step"),
        ("unusual_step", (0, 5, 9), "beyond the usual range by 1.2 times its width"),
        ("flatline", (19, 0, 18), "6 % beyond the longest usual standstill"),
        ("absence", (0, 2_378, 4_130_000), "down to zero"),
    ],
)
def test_a_change_a_length_and_an_absence_have_sizes_too(
    cause: str, numbers: tuple[float, float, float], size: str
) -> None:
    assert deviation_text(anomaly(cause, *numbers)).split("; ")[0] == size


@pytest.mark.parametrize(
    ("numbers", "kind", "severity", "reason"),
    [
        ((750, 0, 10), "count", "major", "major, because it is 75 times the largest usual value"),
        ((750, 0, 10), "", "warning", "warning, because it is outside its usual range"),
        ((99, 0, 10), "count", "warning", "warning, because it is outside its usual range"),
        ((0, 2_378, 4_130_000), "count", "major", "major, because it is zero"),
        ((0, 0.5, 40), "count", "warning", "warning, because it is zero, outside its usual range"),
        ((20, 2_400, 9_000), "count", "major", "major, because it is below the least usual value by a factor of 120"),
    ],
)  # fmt: skip
def test_a_count_of_many_times_the_usual_is_major(
    numbers: tuple[float, float, float], kind: str, severity: str, reason: str
) -> None:
    context = DeviationContext("all_hours", numbers[0], None, kind=kind)
    one = replace(anomaly("unusual_value", *numbers), ratio=1.2, points=1, context=context)
    one.severity = severity_of(one)
    assert one.severity == severity
    assert severity_text(one).split("; ")[0] == reason
    changed = replace(one, cause="unusual_step")
    assert severity_of(changed) == "warning"


def test_a_fall_to_zero_has_words_and_a_first_step_of_its_own() -> None:
    one = replace(
        anomaly("unusual_value", 0, 2_378, 4_130_000), ratio=1.05, points=6, severity=Severity.WARNING
    )
    assert severity_text(one).startswith(
        "warning, because it is zero, outside its usual range for 5 readings"
    )
    assert "has stopped at 12:30" in first_step(one, "12:30")
    low = replace(one, observed=[1.0, 5.0])
    assert "just outside" in severity_text(low)
    assert "stopped" not in first_step(low, "12:30")
    missing = replace(one, cause="absence")
    assert first_step(missing, "12:30").startswith("Check the job, the feed or the people behind rpm")


def test_a_mean_is_told_with_the_value_where_that_is_outside_too():
    one = replace(
        anomaly("unusual_level", 621, 1_937, 4_130_000), context=DeviationContext("all_hours", 0.0, 621.0)
    )
    later = replace(one, end_ns=one.peak_ns + one.every_ns)  # the value of now is not known
    assert (usual_range_text(later) or "").startswith("rpm, smoothed over about 8 readings, is 621")
    one = replace(one, peak_ns=one.end_ns)
    assert usual_range_text(one, "B") == (
        "rpm is 0 B; smoothed over about 8 readings it is 621 B, usual at least 1,937 B"
    )
    assert "has stopped at 12:30" in first_step(one, "12:30")
    low = replace(one, context=DeviationContext("all_hours", 900.0, 621.0))
    assert (usual_range_text(low) or "").startswith("rpm is 900; smoothed over")
    assert "single values" not in first_step(low, "12:30")
    inside = replace(one, context=DeviationContext("all_hours", 2_400.0, 621.0))
    assert (usual_range_text(inside) or "").startswith("rpm, smoothed over about 8 readings, is 621")
    assert first_step(inside, "12:30").endswith("single values may still look normal.")


def test_a_relation_states_the_value_and_the_mean_that_is_judged():
    one = replace(
        anomaly("relation", 0.872, -0.7, 0.733),
        context=DeviationContext("time_of_day", 70.7, 69.9, "load", 2.89, 69.4),
    )
    assert usual_range_text(one, "°C") == (
        "rpm is 70.7 °C, where the other channels imply 69.4 °C; smoothed over about 4 readings it is "
        "0.872 °C above that, usual at this time of day at most 0.733 °C"
    )
    share = replace(one, relative=True, observed=[1.0, -0.848], lower=[0.0, -0.609])
    share = replace(share, context=DeviationContext("all_hours", 1.0, 9.0, "load", 54.0, 13.8))
    assert usual_range_text(share, ended=True) == (
        "rpm was 1, where the other channels implied 13.8; smoothed over about 4 readings it was up to "
        "84.8 % below that, usual at most 60.9 %"
    )


def test_a_size_is_that_of_the_printed_numbers():
    one = anomaly("unusual_value", 71.767, 65.93, 71.437)
    assert usual_range_text(one) == "rpm is 71.8, usual 65.9 to 71.4"
    assert deviation_text(one).startswith("beyond the usual range by 7 % of its width; ")


def test_the_decision_by_surprise_has_no_such_text() -> None:
    assert usual_range_text(replace(anomaly("unusual_value", 9, 1, 2), ratio=0.0)) is None


def members_of(one: Anomaly) -> tuple[AlertMember, AlertRecord]:
    """Return the member and the alert of one anomaly."""
    member = AlertMember(
        one.id, one.id, "plant", "b1", MemberState.OPEN, "major", 0.3, one.start_ns, one.end_ns, encode_anomaly(one)
    )  # fmt: skip
    record = AlertRecord(
        one.id, "plant", AlertKind.DATA, "default", "b1", "plant/b1", one.labels, MINUTE_NS, MINUTE_NS, MINUTE_NS, "major"
    )  # fmt: skip
    record.count = 1
    return member, record


def test_every_place_prints_the_same_sentence() -> None:
    one = anomaly("unusual_value", 1510, 1440, 1460)
    sentence = "rpm is 1,510 1/min, usual 1,440 to 1,460 1/min"
    member, record = members_of(one)
    config = AlertsConfig(units={"rpm": "1/min"})
    behaviour = StreamRules("plant", config, ()).behaviour("default")
    composed = compose(
        record, "opened", 1, NotificationContext([member], 1, 1), behaviour, config, 4 * MINUTE_NS
    )
    alert = composed.data
    assert alert.title == f"Major: plant, site=west: {sentence}"
    lines = dict(text.lines(alert))
    assert "What" not in lines  # the title says it
    assert lines["Size"] == deviation_text(one)
    assert lines["Other channels"] == "load 1, forecast 2 (0 to 3)"
    assert "Rarity" not in lines
    assert lines["Since"].startswith("1970-01-01 00:01:00 UTC")
    assert sentence in html_of(alert, None)
    assert sentence in describe_anomaly(one, config.units)
    assert "Since 1970-01-01T00:01:00Z" in describe_anomaly(one, config.units)
    local = describe_anomaly(one, config.units, "Europe/Berlin")
    assert "at 1970-01-01 01:02:00 CET (00:02:00 UTC): rpm is" in local
    assert "Since 1970-01-01 01:01:00 CET (00:01:00 UTC)" in local
    plain = sentence.replace(" 1/min", "")
    assert _largest_deviation(one, TextSettings()) == plain == as_dict(one)["statement"]
    view = alert.anomalies[0]
    assert (view.statement, view.ratio, view.cause) == (sentence, 2.456, "unusual_value")
    assert msgspec.json.decode(msgspec.json.encode(composed))["data"]["anomalies"][0]["ratio"] == 2.456
    assert replace(one, state=AnomalyState.CLOSED) != one
    assert describe_anomaly(replace(one, state=AnomalyState.CLOSED)).count("rpm was as high as 1,510") == 1


@pytest.mark.parametrize(
    ("zone", "since"),
    [
        ("", "1970-01-01 00:01:00 UTC (2 min so far)"),
        ("UTC", "1970-01-01 00:01:00 UTC (2 min so far)"),
        ("Europe/Berlin", "1970-01-01 01:01:00 CET (00:01:00 UTC) (2 min so far)"),
        ("America/New_York", "1969-12-31 19:01:00 EST (1970-01-01 00:01:00 UTC) (2 min so far)"),
        ("America/Sao_Paulo", "1969-12-31 21:01:00 UTC-03 (1970-01-01 00:01:00 UTC) (2 min so far)"),
    ],
)
def test_times_are_in_the_time_zone_of_the_stream_and_in_utc(zone: str, since: str) -> None:
    one = anomaly("unusual_value", 1510, 1440, 1460)
    member, record = members_of(one)
    context = NotificationContext([member], 1, 1, timezone=zone)
    behaviour = StreamRules("plant", AlertsConfig(), ()).behaviour("default")
    alert = compose(record, "opened", 1, context, behaviour, AlertsConfig(), 4 * MINUTE_NS).data
    assert dict(text.lines(alert))["Since"] == since
