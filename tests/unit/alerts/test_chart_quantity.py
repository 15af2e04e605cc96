"""Curves of the quantities that a sentence speaks of, in pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from matplotlib.axes import Axes

from pipeline.alerts.messages.chart import ChartRenderer
from pipeline.alerts.messages.chart_quantity import (
    HOUR_NS,
    quantity_of,
    running_extreme,
    running_mean,
    running_repeats,
    running_sum,
)
from pipeline.alerts.messages.text import leading
from pipeline.core.usual_range_text import MEAN_READINGS, TREND_READINGS
from tests.unit.alerts.test_message_of_the_end import alert_about
from tests.unit.alerts.test_usual_range_text import MINUTE_NS, anomaly

TIMES = (np.arange(200) + 1) * MINUTE_NS


def test_a_mean_follows_as_slowly_as_that_of_the_detector():
    steps = running_mean(np.r_[np.zeros(20), np.ones(8)])
    assert steps[19] == 0
    assert steps[20] == pytest.approx(1 / MEAN_READINGS)
    assert running_mean(np.array([np.nan, 4.0, np.nan]))[1:].tolist() == [4.0, 4.0]


def test_a_sum_forgets_as_slowly_as_the_trend_of_the_detector():
    sums = running_sum(np.r_[np.full(400, 0.01), np.nan])
    assert sums[399] == pytest.approx(0.01 * TREND_READINGS, rel=0.01)
    assert running_sum(np.array([0.01, 0.01, -0.5])).tolist()[-1] == 0
    assert sums[400] == pytest.approx(sums[399] * (1 - 1 / TREND_READINGS))


def test_the_mean_of_counts_is_drawn_as_the_detector_averages_it():
    values = np.r_[np.full(190, 4e6), np.zeros(10)]
    of_logarithms = np.expm1(running_mean(np.log1p(values)))
    view = alert_about(replace(anomaly("unusual_level", 621, 1_937, 9e6), peak_ns=int(TIMES[196]))).anomalies[
        0
    ]
    for stated, drawn in ((of_logarithms, of_logarithms), (running_mean(values), running_mean(values))):
        top = msgspec.structs.replace(leading(view), observed=float(stated[196]))
        found = quantity_of(view, top, TIMES, values)
        assert found is not None
        np.testing.assert_allclose(found.values, drawn)


def test_repeats_and_extremes():
    assert running_repeats(np.array([5.0, 5, 5, 6, 6])).tolist() == [0, 1, 2, 0, 1]
    hours = np.arange(5) * HOUR_NS
    highest = running_extreme(hours, np.array([9.0, 1, 2, 3, 1]), highest=True)
    assert highest.tolist() == [9, 9, 9, 3, 3]


@pytest.mark.parametrize(
    ("cause", "label", "of_values"),
    [
        ("unusual_level", "mean of the last 8", True),
        ("absence", "highest of the last 3 hours", True),
        ("unusual_step", "change (1/min)", False),
        ("unusual_noise", "mean change (1/min)", False),
        ("trend", "drift over 40 (1/min)", False),
        ("flatline", "repeated readings", False),
    ],
)
def test_each_quantity_is_named_and_drawn(cause: str, label: str, of_values: bool):
    one = replace(anomaly(cause, 50, -12, 38), direction="down" if cause == "absence" else "up")
    view = alert_about(one).anomalies[0]
    top = msgspec.structs.replace(leading(view), unit="1/min")
    found = quantity_of(view, top, TIMES, np.sin(np.arange(200.0)))
    assert found is not None
    assert (found.label, found.of_values) == (label, of_values)
    assert len(found.values) == 200
    assert 38 in found.ends


@pytest.mark.parametrize("cause", ["unusual_value", "relation", "forecast", "static_limit"])
def test_a_value_needs_no_further_curve(cause: str):
    view = alert_about(anomaly(cause, 50, -12, 38)).anomalies[0]
    assert quantity_of(view, leading(view), TIMES, np.ones(200)) is None


def test_only_readings_outside_are_filled_dots(monkeypatch: pytest.MonkeyPatch):
    drawn: dict[str, int] = {}
    plot = Axes.plot

    def recorded(self: Axes, *args: Any, **named: Any) -> Any:
        drawn[str(named.get("label"))] = len(args[0])
        return plot(self, *args, **named)

    monkeypatch.setattr(Axes, "plot", recorded)
    values = np.full(200, 10.0)
    values[190:193] = 50
    table = pa.table(
        {"time": TIMES, "flag": np.arange(200) >= 190}
        | {f"{kind}:rpm": values for kind in ("value", "expected", "lower", "upper")}
    )
    one = replace(anomaly("unusual_value", 50, -12, 38), start_ns=191 * MINUTE_NS, end_ns=199 * MINUTE_NS)
    ChartRenderer(lambda *_: table).draw("plant", alert_about(one).anomalies[0])
    assert (drawn["outside"], drawn["alarm kept open"]) == (3, 7)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize(
    "cause", ["unusual_value", "unusual_level", "unusual_noise", "flatline", "unusual_step", "trend"]
)
def test_each_picture_is_a_png(cause: str, relative: bool):
    rng = np.random.default_rng(1)
    one = replace(
        anomaly(cause, 50, -12, 38), relative=relative, start_ns=190 * MINUTE_NS, end_ns=195 * MINUTE_NS
    )
    values = np.abs(rng.normal(10, 2, 200))
    table = pa.table(
        {"time": TIMES, "flag": np.arange(200) > 190}
        | {f"{kind}:rpm": values for kind in ("value", "expected", "lower", "upper")}
    )
    png = ChartRenderer(lambda *_: table).draw("plant", alert_about(one).anomalies[0])
    assert png is not None
    assert png.startswith(b"\x89PNG")
