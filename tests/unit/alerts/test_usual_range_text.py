"""The text of each cause of the decision "usual_range", and the places that print it."""

from __future__ import annotations

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
from pipeline.core.types import Anomaly, AnomalyState, Partition, Severity
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
        (("unusual_value", 1510, 1440, 1460), "rpm is 1,510 1/min, usual at this time 1,440 to 1,460 1/min"),
        (
            ("unusual_level", 68.8, 66.9, 67.9),
            "the mean of the last 8 values of rpm is 68.8 1/min, usual at this time 66.9 to 67.9 1/min",
        ),
        (("unusual_step", 70, -12, 15), "rpm rose by 70.0 1/min in one step, usual −12.0 to 15.0 1/min"),
        (("unusual_step", -70, -12, 15), "rpm fell by 70.0 1/min in one step, usual −12.0 to 15.0 1/min"),
        (
            ("unusual_noise", 9.5, 1, 4),
            "rpm changes by 9.50 1/min in the mean of the last 8 steps, usual 1.00 to 4.00 1/min",
        ),
        (
            ("relation", -30, -10, 12),
            "rpm is 30.0 1/min below the value that the other channels imply, usual −10.0 to 12.0 1/min",
        ),
        (
            ("forecast", 50, -10, 10),
            "rpm is 50.0 1/min above its forecast, usual −10.0 to 10.0 1/min",
        ),
        (
            ("absence", 200, 900, 1460),
            "rpm stays below its usual peak: the highest value of the last 3 hours is 200 1/min, "
            "usual 900 to 1,460 1/min",
        ),
        (
            ("absence", 2000, 900, 1460),
            "rpm stays above its usual trough: the lowest value of the last 3 hours is 2,000 1/min, "
            "usual 900 to 1,460 1/min",
        ),
        (
            ("flatline", 34, 1, 4.6),
            "rpm repeats the same value for 34 readings (34 min); the longest usual run is 4",
        ),
        (("unusual_value", 1460.02, 1440, 1460), "rpm is 1,460.02 1/min, usual at this time 1,440.00 to 1,460.00 1/min"),
        (("unusual_value", 3.2e20, 0, 1e20), "rpm is 3.2e+20 1/min, usual at this time 0 to 1e+20 1/min"),
    ],
)  # fmt: skip
def test_each_cause_states_its_quantity_and_its_usual_range(
    one: tuple[str, float, float, float], sentence: str
) -> None:
    assert usual_range_text(anomaly(*one), "1/min") == sentence


@pytest.mark.parametrize(
    ("observed", "low", "high", "sentence"),
    [
        (95, -INF, 90, "rpm was 95.0, above its limit of 90.0"),
        (-3, 0, INF, "rpm was −3.00, below its limit of 0.00"),
    ],
)
def test_a_static_limit_can_have_one_end(observed: float, low: float, high: float, sentence: str) -> None:
    one = anomaly("static_limit", observed, low, high)
    one.expected[1] = high if low == -INF else low
    assert usual_range_text(one, ended=True) == sentence


def test_a_change_of_a_logarithmic_preset_is_a_share() -> None:
    one = replace(anomaly("unusual_step", -0.034, -0.012, 0.015), relative=True)
    assert usual_range_text(one, "USD") == "rpm fell by 3.40 % in one step, usual −1.20 to 1.50 %"


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


def test_the_decision_by_surprise_has_no_such_text() -> None:
    assert usual_range_text(replace(anomaly("unusual_value", 9, 1, 2), ratio=0.0)) is None


def test_every_place_prints_the_same_sentence() -> None:
    one = anomaly("unusual_value", 1510, 1440, 1460)
    sentence = "rpm is 1,510 1/min, usual at this time 1,440 to 1,460 1/min"
    member = AlertMember(
        one.id, one.id, "plant", "b1", MemberState.OPEN, "major", 0.3, one.start_ns, one.end_ns, encode_anomaly(one)
    )  # fmt: skip
    record = AlertRecord(
        one.id, "plant", AlertKind.DATA, "default", "b1", "plant/b1", one.labels, MINUTE_NS, MINUTE_NS, MINUTE_NS, "major"
    )  # fmt: skip
    record.count = 1
    config = AlertsConfig(units={"rpm": "1/min"})
    behaviour = StreamRules("plant", config, ()).behaviour("default")
    composed = compose(
        record, "opened", 1, NotificationContext([member], 1, 1), behaviour, config, 4 * MINUTE_NS
    )
    alert = composed.data
    assert alert.title == f"Major: site=west: {sentence}"
    lines = dict(text.lines(alert))
    assert lines["What"] == sentence
    assert lines["Size"] == deviation_text(one)
    assert lines["Other channels"] == "load: observed 1, expected 2 (band 0 to 3)"
    assert "Rarity" not in lines
    assert lines["Since"].startswith("1970-01-01 00:01:00 UTC")
    assert sentence in html_of(alert, None)
    assert sentence in describe_anomaly(one, config.units)
    assert "Since 1970-01-01T00:01:00Z" in describe_anomaly(one, config.units)
    plain = sentence.replace(" 1/min", "")
    assert _largest_deviation(one) == plain == as_dict(one)["statement"]
    view = alert.anomalies[0]
    assert (view.statement, view.ratio, view.cause) == (sentence, 2.456, "unusual_value")
    assert msgspec.json.decode(msgspec.json.encode(composed))["data"]["anomalies"][0]["ratio"] == 2.456
    assert replace(one, state=AnomalyState.CLOSED) != one
    assert describe_anomaly(replace(one, state=AnomalyState.CLOSED)).count("rpm was 1,510") == 1
